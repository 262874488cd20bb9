"""Erasing a person here: who goes with them, and their rows in log, history, lake, offline and online features.

plan(person) ─► aliases, events on shared devices, others whose features change ─► erase_live ─► erase_files ─► online

Of an anonymous id that others use too only those events go that are the person's (see history.py); an anonymous id that
nobody else uses goes as a whole.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import domains
from feature_repo.contract.events import ANONYMOUS, Event
from feature_repo.erasing.devices import Use, devices_of
from feature_repo.feature_store import backfill
from feature_repo.lake import user_events
from feature_repo.lake.lake_index import LakeIndex
from feature_repo.lake.log_to_lake import drain
from feature_repo.log.event_log import shard_key
from feature_repo.settings import Settings
from feature_repo.sqlite import purge

if TYPE_CHECKING:
    from feature_repo.stream.embedded import Embedded

SETTLE_S = 30.0
"""How long the disk may take for what was accepted before."""


class Plan(msgspec.Struct, frozen=True):
    """What is to be removed of a person.

    aliases: anonymous ids that go with them. shared: those that others use too; of their events `messages` go, as
    (sender, message_id). unverified: those that stay, as no link of the person to them can be trusted: see devices.py.
    touched: others whose features that changes. words: values of the person's string features
    that nobody else has.
    """

    person: str
    aliases: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    touched: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def senders(self) -> list[str]:
        """The keys under which the person's events and rows are kept, in all stores."""
        return [self.person, *(f"{ANONYMOUS}{a}" for a in self.aliases if f"{ANONYMOUS}{a}" != self.person)]

    @property
    def again(self) -> list[str]:
        """The senders whose events stay in part, or change hands."""
        return [f"{ANONYMOUS}{a}" for a in (*self.shared, *self.unverified)]

    @property
    def ids(self) -> frozenset[str]:
        """Every way to write one of the person's ids."""
        return frozenset([*self.senders, *self.aliases])


class KnownError(ValueError):
    """An anonymous id belongs to somebody known, who can be erased, or exported, only by their user id."""


def plan(settings: Settings, person: str) -> Plan:
    """What is a person's, by user id or "anon:" + anonymous id, but for the `words`: see `with_words`.

    Raises:
        KnownError: that anonymous id was identified.
    """
    return plan_of(user_events.around(settings, person), person)


def plan_of(events: pa.Table, person: str) -> Plan:
    """The same, of the events that `user_events.around` gives."""
    own = [person.removeprefix(ANONYMOUS)] if person.startswith(ANONYMOUS) else []
    linked = [*own, *user_events.linked_ids(events, person)]
    about = events.filter(pc.is_in(events["anonymous_id"], pa.array(linked, pa.string()))).select(Use._fields)
    uses = [Use(**row) for row in about.to_pylist()]
    if not own:
        return Plan(person, **devices_of(person, uses)._asdict())
    links = [use for use in uses if use.links]
    if any(link.trusted for link in links):
        users = " and ".join(sorted({str(link.user_id) for link in links if link.trusted}))
        raise KnownError(f"anonymousId {own[0]} was identified as {users}: ask by that userId")
    return Plan(person, tuple(own), touched=tuple(sorted({str(u.user_id) for u in links})))


def with_words(settings: Settings, planned: Plan) -> Plan:
    """The plan with the words that only these persons' offline rows have: reads everybody's."""
    return msgspec.structs.replace(planned, words=_words(settings, planned.senders, planned.touched))


def _words(settings: Settings, persons: Sequence[str], touched: Sequence[str] = ()) -> tuple[str, ...]:
    """Values of string features that these persons' offline rows have, and nobody's but theirs and the touched's."""
    files = sorted(settings.features.glob("*.parquet"))
    if not files:
        return ()
    found = set[str]()
    strings = [f for f, kind in domains.load(settings.domain).feature_types.items() if kind == "string"]
    with duckdb.connect() as con:
        con.read_parquet([str(f) for f in files]).create_view("rows")
        con.register("mine", pa.table({"user_id": pa.array(persons, pa.string())}))
        con.register("close", pa.table({"user_id": pa.array([*persons, *touched], pa.string())}))
        for name in strings:
            own = f"SELECT {name} FROM rows SEMI JOIN mine USING (user_id)"
            others = f"SELECT {name} FROM rows ANTI JOIN close USING (user_id)"
            found |= {word for (word,) in con.execute(f"{own} EXCEPT {others}").fetchall() if word}
    return tuple(sorted(found))


def settle(live: "Embedded") -> None:
    """Give the lake everything that was accepted, whether the stream has applied it or not.

    Raises:
        TimeoutError: the disk takes too long.
    """
    live.log.append([]).result(SETTLE_S)  # whatever was appended before it is on disk
    drain(live.settings)


def erase_live(live: "Embedded", erasing: Plan) -> dict[str, int]:
    """Remove a person's events from lake, log and history, and have the others' rows written anew.

    Nothing of theirs may be appended any more. It does not wait for the stream: what is not applied yet never is.
    Returns how many events each store had.

    Raises:
        TimeoutError: see `settle`. BusyError: a backfill runs, or the lake is being compacted.
    """
    settle(live)
    senders, messages = frozenset(erasing.senders), frozenset(erasing.messages)

    def gone(event: Event) -> bool:
        return shard_key(event) in senders or (shard_key(event), event.message_id) in messages

    found = {"lake": erase_lake(live.settings, erasing)}
    with live.stream.paused():
        live.stream.drop(gone)
        found["log"] = live.log.erase(gone)
        found["history"] = live.processor.erase(
            erasing.senders, erasing.again, erasing.touched, lambda: drain(live.settings)
        )
    purge(live.settings.state / "history.db")
    return found


def erase_lake(settings: Settings, erasing: Plan) -> int:
    """Remove a person's events from the lake; returns how many rows. Raises BusyError, see `erase_live`."""
    with backfill.alone(settings):  # whose snapshot of the lake has to stay
        index = LakeIndex(settings)
        gone = index.lake.erase(frozenset(erasing.senders), frozenset(erasing.messages))
        index.refresh()
    return gone


def erase_offline(settings: Settings, erasing: Plan) -> int:
    """Remove a person's offline rows, and the touched others', which the next backfill makes anew; returns how many.

    Also goes what killed programs left in the folders for intermediate files, and damaged files that were set aside.

    Raises:
        BusyError: a backfill runs.
    """
    with backfill.alone(settings):
        backfill.again(settings, erasing.touched, erasing.senders)
        mine = erase_rows(sorted(settings.features.glob("*.parquet")), erasing.senders)
        erase_rows(sorted(settings.features.glob("*.parquet")), erasing.touched)
        mine += erase_rows(sorted(settings.state.glob("*.parquet")), erasing.senders)
        for folder in ("spill", "tmp"):
            shutil.rmtree(settings.state / folder, ignore_errors=True)
            (settings.state / folder).mkdir(parents=True, exist_ok=True)
        for pattern in ("*.part", "features/*.part", "*.damaged"):
            for left in settings.state.glob(pattern):
                left.unlink()
    return mine


def erase_rows(files: Sequence[Path], persons: Sequence[str]) -> int:
    """Rewrite those Parquet files that have rows of these persons, by `user_id`, without them; returns how many."""
    gone = 0
    for file in files:
        with pq.ParquetFile(file) as opened:
            if "user_id" not in opened.schema_arrow.names:
                continue
            mine = pc.sum(pc.is_in(opened.read(["user_id"])["user_id"], pa.array(persons, pa.string()))).as_py() or 0
            if not mine:
                continue
            part = file.with_suffix(".part")
            with pq.ParquetWriter(part, opened.schema_arrow) as out:
                for group in range(opened.num_row_groups):
                    rows = opened.read_row_group(group)
                    out.write_table(rows.filter(pc.invert(pc.is_in(rows["user_id"], pa.array(persons, pa.string())))))
        part.rename(file)
        gone += mine
    return gone


def erase_online(settings: Settings, erasing: Plan) -> int:
    """Remove a person's online rows; returns how many there were."""
    from feature_repo.feature_store.store import delete_online, feature_store, read_online

    store, domain = feature_store(settings, lineage=False), domains.load(settings.domain)
    there = [p for p, row in zip(erasing.senders, read_online(store, domain, erasing.senders), strict=True) if row]
    delete_online(store, domain, erasing.senders)
    if settings.online == "sqlite":
        purge(settings.state / "online.db")
    return len(there)
