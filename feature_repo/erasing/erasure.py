"""Erasing a person here: who goes with them, and their rows in log, history, lake, offline and online features.

plan(person) ─► aliases, events on shared devices, others whose features change ─► erase_live ─► erase_files ─► online

Of an anonymous id that others use too only those events go that are the person's (see history.py); an anonymous id that
nobody else uses goes as a whole.
"""

import shutil
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import domains
from feature_repo.contract.events import ANONYMOUS, Event
from feature_repo.feature_store import backfill
from feature_repo.history.history_store import EDGES
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
    (sender, message_id). touched: others whose features that changes. words: values of the person's string features
    that nobody else has.
    """

    person: str
    aliases: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    touched: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def senders(self) -> list[str]:
        """The keys under which the person's events and rows are kept, in all stores."""
        return [self.person, *(f"{ANONYMOUS}{a}" for a in self.aliases if f"{ANONYMOUS}{a}" != self.person)]

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
    links = pc.is_in(events["type"], pa.array(EDGES))
    links = pc.and_(links, pc.and_(events["user_id"].is_valid(), events["anonymous_id"].is_valid()))
    if person.startswith(ANONYMOUS):
        if pc.any(links).as_py():
            raise KnownError(f"{person} was identified: expected the user id of whom it became")
        return Plan(person, (person.removeprefix(ANONYMOUS),))
    linked = user_events.linked_ids(events, person)
    uses = events.append_column("edge", links).filter(pc.is_in(events["anonymous_id"], pa.array(linked, pa.string())))
    by_id: dict[str, list[dict[str, Any]]] = {}
    for use in uses.select(["anonymous_id", "user_id", "message_id", "ts_us", "edge"]).to_pylist():
        by_id.setdefault(use["anonymous_id"], []).append(use)
    shared = sorted(a for a, of_id in by_id.items() if any(u["user_id"] not in (None, person) for u in of_id))
    messages, touched = list[tuple[str, str]](), {f"{ANONYMOUS}{a}" for a in shared}
    for anonymous in shared:
        edges = sorted((u["ts_us"], u["message_id"], u["user_id"]) for u in by_id[anonymous] if u["edge"])
        unknown = sorted((u["ts_us"], u["message_id"]) for u in by_id[anonymous] if u["user_id"] is None)
        touched |= {user for _, _, user in edges} - {person}
        messages += [(f"{ANONYMOUS}{anonymous}", m) for ts_us, m in unknown if _owner(edges, ts_us) == person]
    return Plan(
        person, tuple(sorted(linked.difference(shared))), tuple(shared), tuple(messages), tuple(sorted(touched))
    )


def with_words(settings: Settings, planned: Plan) -> Plan:
    """The plan with the words that only these persons' offline rows have: reads everybody's."""
    return msgspec.structs.replace(planned, words=_words(settings, planned.senders, planned.touched))


def _owner(edges: Sequence[tuple[int, str, str]], ts_us: int) -> str:
    """Whose an anonymous event is in the end, by the edges on its id in order: the next one's, else the last one's.

    >>> _owner([(10, "m1", "u1"), (20, "m2", "u2")], 11), _owner([(10, "m1", "u1")], 11)
    ('u2', 'u1')
    """
    following = bisect_left(edges, ts_us, key=lambda edge: edge[0])
    return edges[min(following, len(edges) - 1)][2]


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
    again_of = [f"{ANONYMOUS}{a}" for a in erasing.shared]

    def gone(event: Event) -> bool:
        return shard_key(event) in senders or (shard_key(event), event.message_id) in messages

    found = {"lake": erase_lake(live.settings, erasing)}
    with live.stream.paused():
        live.stream.drop(gone)
        found["log"] = live.log.erase(gone)
        found["history"] = live.processor.erase(
            erasing.senders, again_of, erasing.touched, lambda: drain(live.settings)
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
        backfill.again(settings, erasing.touched)
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
