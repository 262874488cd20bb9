"""What the lake gives for a person, by what was known then: the events up to a log position, the row in force at t.

lake ─► everybody's copies, each with the positions between which it counts ─► theirs: person | event | from | until
question (person, position, t) ─► a world of its own, in which ids begin with its number ─► as_of(t) ─► row

Not clocks but log positions say what was known. Questions that the same events and the same t answer share a world.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import ibis
import pyarrow as pa

from feature_repo.contract.events import ANONYMOUS
from feature_repo.contract.origin import FIRST_RECEIVED
from feature_repo.domain import Domain
from feature_repo.features.as_of import ASKED, as_of
from feature_repo.features.elapsed import elapsed_seconds
from feature_repo.features.history import typed
from feature_repo.features.program import Program
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import SCHEMA, SENDER

EVENTS_AT_ONCE = 400_000
"""Events of the worlds that are computed together."""
FOREVER = 2**62
"""Later than any log position."""
LINK = "type in ('identify', 'alias') and user_id is not null and anonymous_id is not null"
RANK = f"struct_pack(first := {FIRST_RECEIVED}, ts_us, content_hash, received_us, position)"
_ASKED = pa.schema(
    [("n", pa.int64()), ("person", pa.string()), ("reached", pa.int64()), ("at_us", pa.int64()),
     ("without", pa.int64()), ("twice", pa.int64())]
)  # fmt: skip


class Question(NamedTuple):
    """A user's row at `at_us` (µs), by the events up to log position `reached`.

    person: a user id, or "anon:" and an anonymous id.
    without, twice: position of an event that is left out, or counted twice; null: none.
    """

    person: str
    reached: int
    at_us: int
    without: int | None = None
    twice: int | None = None


class Known(NamedTuple):
    """An event that a person's features can depend on: its log position, its message id and its time, µs."""

    position: int
    message_id: str
    ts_us: int


class Recomputed:
    """Answers questions about some people from one state of the lake. Holds their events until it is closed."""

    def __init__(self, lake: Lake, domain: Domain, persons: Sequence[str]) -> None:
        self._con, self._domain = ibis.duckdb.connect(), domain
        self.last_position = lake.last_position()
        self.compacted_through = lake.snapshot(self._con).through
        self._con.create_view("lake", lake.new_since(self._con, 0))
        self._con.con.register("persons", pa.table({"person": pa.array(persons, pa.string())}))
        self._gather()
        program = Program()
        asked = ibis.table(self._con.table("theirs").schema(), name="ev").drop("person", "until")
        asked = ibis.table({**asked.schema(), ASKED: "int64"}, name="ev")
        self._query = program.compiled(as_of(asked, domain, program)).statement()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.disconnect()

    def _gather(self) -> None:
        """theirs: person | typed event | until, the position from which a better copy counts instead.

        A user's features can depend on the events of every anonymous id that is ever linked to them; those of an
        anonymous user on the events of that anonymous id, until it is linked to a user. See features/history.py.
        """
        run = self._con.raw_sql
        run(f"""create temp table devices as
            select person, anonymous_id from lake join persons on user_id = person where {LINK}
            union select person, substr(person, {len(ANONYMOUS) + 1}) from persons
                where starts_with(person, '{ANONYMOUS}')""")
        run(f"""create temp table copies as
            with needed as (select lake.*, {SENDER} as sender from lake
                where user_id in (select person from persons)
                    or (anonymous_id in (select anonymous_id from devices) and (user_id is null or {LINK}))),
            counted as (select * from needed qualify coalesce({RANK} < min({RANK}) over (
                partition by sender, message_id order by position
                rows between unbounded preceding and 1 preceding), true))
            select *, coalesce(lead(position) over same, {FOREVER}) as until from counted
            window same as (partition by sender, message_id order by position)""")
        seen = ibis.to_sql(typed(ibis.table(ibis.Schema.from_pyarrow(SCHEMA), name="copies"), self._domain), "duckdb")
        run(f"""create temp table theirs as
            with seen as (select seen.*, until from ({seen}) seen join copies using (position))
            select person, seen.* from seen join persons on user_id = person
            union all select person, seen.* from seen join devices using (anonymous_id)
                where user_id is null or ({LINK} and user_id <> person)""")

    def rows(self, asked: Sequence[Question]) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """For each question, in no order: its number and the row as `as_of` gives it; None: there was nobody."""
        run = self._con.raw_sql
        columns = zip(*asked, strict=True) if asked else [()] * (len(_ASKED) - 1)
        self._con.con.register("asked", pa.table([range(len(asked)), *map(list, columns)], _ASKED))
        run("""create or replace temp table numbered as
            with told as (select person, position, row_number() over (partition by person order by position) as events
                from theirs where person in (select person from asked)),
            reaching as (select asked.*, position as known, events from asked asof left join told
                on asked.person = told.person and asked.reached >= told.position)
            select *, dense_rank() over (order by person, known, at_us, without, twice) as world from reaching""")
        run(f"""create or replace temp table worlds as
            select *, sum(events) over (order by world) // {EVENTS_AT_ONCE} as part
            from (select distinct world, person, known, at_us, without, twice, events from numbered
                where known is not null)""")
        found: set[int] = set()
        for (part,) in run("select distinct part from worlds order by part").fetchall():
            for row in self._part(part):
                found.add(row["n"])
                yield row.pop("n"), row
        yield from ((n, None) for n in range(len(asked)) if n not in found)

    def _part(self, part: int) -> list[dict[str, Any]]:
        run, typed_columns = self._con.raw_sql, "theirs.* exclude (person, until)"
        ids = "world || '|' || user_id as user_id, world || '|' || anonymous_id as anonymous_id"
        run(f"""create or replace temp table ev as
            select {typed_columns} replace ({ids}), at_us as {ASKED} from worlds join theirs using (person)
                where part = {part} and position <= known and known < until and position is distinct from without
            union all
            select {typed_columns} replace ({ids}, message_id || ' again' as message_id), at_us
                from worlds join theirs using (person) where part = {part} and position = twice""")
        found = run(f"""select n, result.* exclude (user_id) from ({self._query}) result
            join numbered on result.user_id = if(starts_with(person, '{ANONYMOUS}'),
                '{ANONYMOUS}' || world || '|' || substr(person, {len(ANONYMOUS) + 1}), world || '|' || person)
            where ts_us is not null""")
        return found.to_arrow_table().to_pylist()

    def with_elapsed(self, row: dict[str, Any] | None, at_us: int) -> dict[str, Any] | None:
        """The row with the domain's elapsed features as of `at_us`."""
        return row and row | {e.name: elapsed_seconds(at_us, row[e.of]) for e in self._domain.elapsed}

    def events(self, person: str, reached: int, most: int) -> list[Known]:
        """The events that a person's features could depend on at a position, those that came last first."""
        found = self._con.con.execute(
            """select position, message_id, ts_us from theirs
                where person = ? and position <= ? and ? < until order by position desc limit ?""",
            [person, reached, reached, most],
        )
        return [Known(*row) for row in found.fetchall()]

    def forgotten(self, asked: Sequence[Question]) -> set[int]:
        """The numbers of those questions whose answer a compaction may have changed.

        Where an event came after `reached` and happened by `at_us`, it may have replaced a copy that was known: a
        compaction keeps only the copy that counts.
        """
        columns = [list(column) for column in zip(*(q[:3] for q in asked), strict=True)] or [[], [], []]
        self._con.con.register("asked", pa.table([range(len(asked)), *columns], pa.schema(list(_ASKED)[:4])))
        found = self._con.raw_sql(f"""select distinct n from asked join theirs using (person)
            where position > reached and position <= {self.compacted_through} and ts_us <= at_us""")
        return {n for (n,) in found.fetchall()}
