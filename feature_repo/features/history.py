"""Whose event is it, and when: from the lake's events to each person's history, with typed columns.

An identify or alias event with both ids says "anonymous a is user u from its timestamp on". An anonymous event belongs
to the next such edge on its id, else to the last one before it, else to nobody known (`anon:a`); at time t only edges
<= t count. So an event can change hands once, at the edge that comes after it. Each person's time is cut into *epochs*
at those moments: inside an epoch the set of that person's events only grows, and features need not know of identity.
"""

import json

import ibis
from ibis.expr import datatypes as dt
from ibis.expr import operations as ops
from ibis.expr.types import BooleanValue, IntegerColumn, StringValue, Table, Value

from feature_repo.contract.values import DECIMAL_TEXT
from feature_repo.domain import Domain
from feature_repo.features.program import Program
from feature_repo.vocabulary import DAY, HOUR, Column, Where

BEGIN, END = -(2**62), 2**62
"""Open ends of epochs, in µs: earlier and later than any timestamp."""

KEY = ["entity", "epoch_from", "epoch_to"]
"""A person in an epoch: what every feature is grouped by."""


def typed(events: Table, domain: Domain) -> Table:
    """The lake's canonical events (see lake.SCHEMA) with the columns that features read, typed."""
    return events.select(
        *("message_id", "position", "ts_us", "type", "name", "user_id", "anonymous_id"),
        **_built_in(events.ts_us),
        **_extract(events, domain.columns),
    )


def history(events: Table, domain: Domain, program: Program, *carried: str) -> Table:
    """Each person's events, once for every epoch in which they are that person's.

    Args:
        events: typed ones (see `typed`).
        program: takes the intermediate steps.
        carried: further columns of the events that the result shall have.

    Returns:
        entity string | epoch_from, epoch_to int64 µs, [from, to) | ts_us | message_id | position | domain's columns.
    """
    owned, handed = owners(events, program)
    # entity, epoch_from, epoch_to: of the persons whose set of events ever changes other than by a new event
    epochs = program.step("epochs", _epochs(handed))
    within = [owned.entity == epochs.whose, owned.owned_from < epochs.epoch_to, owned.owned_to > epochs.epoch_from]
    joined = owned.left_join(epochs, within)
    return joined.select(
        *("entity", "ts_us", "message_id", "position", *domain.column_types, *carried),
        epoch_from=joined.epoch_from.fill_null(BEGIN),
        epoch_to=joined.epoch_to.fill_null(END),
    )


def owners(events: Table, program: Program) -> tuple[Table, Table]:
    """Whose each event is, and when: every event, and the anonymous ones alone.

    Args:
        events: with at least message_id, position, ts_us, type, user_id and anonymous_id.

    Returns:
        the events' columns | entity string: a user id, or "anon:" and an anonymous id | owned_from, owned_to int64 µs:
        the event is theirs in [from, to). One row an event, two where it changes hands at an identity link.
    """
    handed = program.step("handed", _handed(events))
    known = events.filter(events.user_id.notnull())
    known = known.mutate(entity=known.user_id, owned_from=known.ts_us, owned_to=ibis.literal(END))
    return known.select(handed.columns).union(handed), handed


def matches(table: Table, condition: Where) -> BooleanValue:
    """Whether an event meets a vocabulary condition; null in a named column means no."""
    tests = [table[c].isin([int(v) if v in (True, False) else v for v in values]).fill_null(False)
             for c, values in condition]  # fmt: skip
    return ibis.and_(*tests) if tests else table.ts_us.notnull()


def _built_in(ts: IntegerColumn) -> dict[str, Value]:
    hour = (ts // HOUR) % 24
    part = ibis.cases((hour < 6, "night"), (hour < 12, "morning"), (hour < 18, "afternoon"), else_="evening")
    return {"day": ts // DAY, "part_of_day": part}


def _extract(events: Table, columns: tuple[Column, ...]) -> dict[str, Value]:
    """The declared columns out of the events' JSON, each document parsed once; null where absent.

    A value of another type than the column's is null: contract/values.py says the same in Python.
    """
    found: dict[str, Value] = {}
    for root in dict.fromkeys(c.path.split(".")[0] for c in columns):
        shape: dict = {}
        mine = [(c, c.path.split(".")[1:]) for c in columns if c.path.startswith(f"{root}.")]
        for _, (*parents, leaf) in mine:
            inner = shape
            for key in parents:
                inner = inner.setdefault(key, {})
            inner[leaf] = "JSON"
        # Spark's name for the same function is from_json
        transform = ibis.udf.scalar.builtin(
            lambda document, shape: ..., name="json_transform", signature=((dt.string, dt.string), _struct(shape))
        )
        parsed = transform(events[root], json.dumps(shape))
        for column, keys in mine:
            value = parsed
            for key in keys:
                value = value[key]
            text = ops.Cast(value, dt.string).to_expr()  # DuckDB's JSON, which Ibis takes for a string
            found[column.name] = _within(column, _of_type(column, text))
    return found


def _struct(shape: dict) -> dt.Struct:
    return dt.Struct({key: _struct(v) if isinstance(v, dict) else dt.string for key, v in shape.items()})


# a JSON string without quotes and escapes; Spark's name for the same function is get_json_object
_unescaped = ibis.udf.scalar.builtin(
    lambda document, path: ..., name="json_extract_string", signature=((dt.string, dt.string), dt.string)
)


def _of_type(column: Column, text: StringValue) -> Value:
    """The value of a column's type that a JSON text is, null where it is none."""
    quoted = text.startswith('"')
    match column.type:
        case "string":
            inside = text.substr(1, text.length() - 2)
            return quoted.ifelse(text.contains("\\").ifelse(_unescaped(text, "$"), inside), ibis.null("string"))
        case "boolean":
            return ibis.cases((text == "true", 1), (text == "false", 0), else_=ibis.null("int64")).cast("int64")
        case "decimal":
            number = quoted.ifelse(text.substr(1, text.length() - 2), text)
            is_one = ibis.ifelse(quoted, number.re_search(f"^{DECIMAL_TEXT}$"), text.re_search("^-?[0-9]"))
            units = number.try_cast(dt.Decimal(38, column.scale or 0)).cast("string").replace(".", "")
            return is_one.ifelse(units.try_cast("int64"), ibis.null("int64"))
        case _:
            return text.re_search("^-?[0-9]+$").ifelse(text.try_cast("int64"), ibis.null("int64"))


def _within(column: Column, value: Value) -> Value:
    """A typed value, or what the column declares in place of one that is outside its bounds."""
    if column.limits is None:
        return value
    low, high = (ibis.literal(limit, "int64") for limit in column.limits)
    if column.outside == "null":
        return value.between(low, high).ifelse(value, ibis.null("int64"))
    return ibis.cases((value < low, low), (value > high, high), else_=value)


def _handed(events: Table) -> Table:
    """Anonymous events + entity, owned_from, owned_to."""
    anonymous = _with_edges(events)
    nobody = ibis.literal("anon:").concat(anonymous.anonymous_id)
    stays = (anonymous.previous_user == anonymous.next_user).fill_null(False) | anonymous.next_us.isnull()
    first = anonymous.mutate(
        entity=ibis.coalesce(anonymous.previous_user, nobody),
        owned_from=anonymous.ts_us,
        owned_to=stays.ifelse(END, anonymous.next_us),
    )
    then = anonymous.filter(~stays).mutate(
        entity=anonymous.next_user, owned_from=anonymous.next_us, owned_to=ibis.literal(END)
    )
    columns = [*events.columns, "entity", "owned_from", "owned_to"]
    return first.filter(first.owned_from < first.owned_to).select(columns).union(then.select(columns))


def _with_edges(events: Table) -> Table:
    """Anonymous events + previous_user, next_user, next_us: the identity edges around each.

    `position` becomes that of the edge where the edge is later: what the change of hands was learnt from.
    """
    anonymous = events.filter(events.user_id.isnull(), events.anonymous_id.notnull())
    edges = events.filter(
        events.type.isin(["identify", "alias"]), events.user_id.notnull(), events.anonymous_id.notnull()
    ).select(
        edge_anonymous="anonymous_id", edge_us="ts_us", edge_user="user_id", edge_id="message_id", edge_at="position"
    )
    pairs = anonymous.left_join(edges, anonymous.anonymous_id == edges.edge_anonymous)
    order = ibis.struct({"us": pairs.edge_us, "id": pairs.edge_id})
    after, before = pairs.edge_us >= pairs.ts_us, pairs.edge_us < pairs.ts_us
    around = pairs.group_by(["anonymous_id", "message_id"]).aggregate(
        next_us=pairs.edge_us.min(where=after),
        next_user=pairs.edge_user.argmin(order, where=after),
        previous_user=pairs.edge_user.argmax(order, where=before),
        edge_position=pairs.edge_at.max(),
    )
    found = anonymous.join(around, ["anonymous_id", "message_id"])
    return found.mutate(position=ibis.greatest(found.position, found.edge_position.fill_null(0)))


def _epochs(handed: Table) -> Table:
    """whose, epoch_from, epoch_to: cut where an event is gained later than it happened, or lost."""
    gains = handed.filter(handed.owned_from > handed.ts_us).select("entity", at="owned_from")
    losses = handed.filter(handed.owned_to < END).select("entity", at="owned_to")
    cuts = gains.union(losses).distinct()
    starts = cuts.union(cuts.select("entity").distinct().mutate(at=ibis.literal(BEGIN)))
    following = starts.at.lead().over(ibis.window(group_by="entity", order_by="at"))
    return starts.select(whose="entity", epoch_from="at", epoch_to=following.fill_null(END))
