"""Who reached the outcome, as the lake tells it, for domains whose anchor and outcome are events.

lake ─► anchor, outcome and identity events ─► whose each of them is, and when ─► a row for each user with an anchor
"""

from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.settings import Settings
from feature_repo.vocabulary import Where

if TYPE_CHECKING:
    import ibis

NEEDED = ["message_id", "position", "ts_us", "type", "user_id", "anonymous_id", "is_anchor", "is_outcome"]


def outcomes_of_events(settings: Settings, anchor: Where, outcome: Where, horizon: int) -> pa.Table:
    """One row for each user, known or anonymous, with an anchor event, ordered by user_id (see domain.Domain).

    By the identity links that are known now, an anonymous past counts for the user that it became.

    user_id: a user id, or "anon:" and an anonymous id | anchor_us: the first anchor event | outcome_us: the first
    outcome event by anchor + horizon, which may have come before the anchor; null: none so far | end_us: anchor +
    horizon | cohort: ISO week of the anchor in UTC, as 2025-W07 | known_as, known_us: the anchor event was that of user
    `known_as` until `known_us`, and is that of `user_id` from then on | done_us: since when the user's features have
    counted an outcome, which may later have turned out to be another user's; null: never.
    Canonical copies only. horizon and times in µs.

    Raises:
        ValueError: a condition names an event that the domain does not declare.
    """
    import ibis

    from feature_repo.features.history import END, owners
    from feature_repo.features.program import Program
    from feature_repo.lake.lake import Lake

    for what, condition in (("anchor", anchor), ("outcome", outcome)):
        _check_declared(domains.load(settings.domain), what, condition)
    con, program = ibis.duckdb.connect(), Program()
    events = Lake(settings.lake).events(con)
    events = events.mutate(is_anchor=_matches(events, anchor), is_outcome=_matches(events, outcome))
    needed = events.filter(events.is_anchor | events.is_outcome | events.type.isin(["identify", "alias"]))
    owned, _ = owners(program.step("needed", needed.select(NEEDED)), program)
    for name, step in program.steps:
        con.create_table(name, step, temp=True)
    con.create_table("owned", owned, temp=True)
    rows = con.raw_sql(f"""
        with anchors as (
            select entity, ts_us, anonymous_id, message_id, owned_from from owned where is_anchor and owned_to = {END}
            qualify row_number() over (partition by entity order by ts_us, message_id) = 1),
        outcomes as (
            select entity, min(ts_us) filter (owned_to = {END}) as outcome_us, min(owned_from) as done_us
            from owned where is_outcome group by entity),
        before as (select entity as known_as, anonymous_id, message_id from owned where is_anchor and owned_to < {END})
        select entity as user_id, ts_us as anchor_us,
            case when outcome_us <= ts_us + {horizon} then outcome_us end as outcome_us,
            ts_us + {horizon} as end_us, coalesce(known_as, entity) as known_as, owned_from as known_us, done_us
        from anchors left join outcomes using (entity) left join before using (anonymous_id, message_id)
        order by user_id""").to_arrow_table()  # fmt: skip
    con.disconnect()
    cohort = pc.strftime(rows["anchor_us"].cast(pa.timestamp("us")), format="%G-W%V")
    return rows.add_column(4, "cohort", cohort.cast(pa.string()))


def event_names(domain: Domain, what: str) -> str:
    """The names in the domain's `anchor` or `outcome` condition, for a message; "" where it has none of its own."""
    outcomes = domain.outcomes
    condition: Where = outcomes.keywords.get(what, ()) if isinstance(outcomes, partial) else ()
    return ", ".join(repr(value) for column, values in condition if column == "name" for value in values)


def _matches(events: "ibis.Table", condition: Where) -> "ibis.ir.BooleanValue":
    import ibis

    return ibis.and_(ibis.literal(True), *(events[c].isin(values).fill_null(False) for c, values in condition))


def _check_declared(domain: Domain, what: str, condition: Where) -> None:
    """Only the name of a track event has to be declared: a page or a screen may have any name."""
    named = dict(condition)
    if named.get("type", ("track",)) != ("track",):
        return
    for name in named.get("name", ()):
        if name not in domain.events:
            close = get_close_matches(str(name), domain.events, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"declared are {', '.join(map(repr, domain.events))}"
            raise ValueError(
                f"domain {domain.name}: the {what} is the event {name!r}, which the domain does not declare: {hint} "
                "(a page or a screen has where(type='page', name=...))"
            )
