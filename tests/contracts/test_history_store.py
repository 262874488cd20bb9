"""What every history promises: the same past in any order and batches, and nobody whose row is due is lost."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.history import redis_add, redis_history, redis_scripts, sqlite_history
from feature_repo.history.history_store import NEVER, Checkpoint, HistoryStore, Row, Version, Written, open_history
from feature_repo.history.redis_history import RedisHistory
from feature_repo.history.sqlite_history import SqliteHistory
from feature_repo.settings import Settings
from tests.feature_repo import histories, oracle
from tests.feature_repo.conftest import make_tiny_domain

PERSONS = [*histories.USERS, *(f"anon:{d}" for d in histories.DEVICES)]
EVER = 2**53


@dataclass
class World:
    """Makes empty histories of one kind. now_us: the clock of their leases."""

    make: Callable[["World"], HistoryStore]
    module: Any
    now_us: int = 0
    made: list[HistoryStore] = field(default_factory=list, repr=False)

    def new(self) -> HistoryStore:
        self.made.append(self.make(self))
        return self.made[-1]

    def leases_end(self) -> None:
        self.now_us += 3_600_000_000


@pytest.fixture(params=["sqlite", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "sqlite":
        made = World(lambda _: SqliteHistory(tmp_path / f"{uuid4().hex}.db"), sqlite_history)
    else:
        made = redis_world(request.getfixturevalue("redis_address"))
    yield made
    for history in made.made:
        if isinstance(history, RedisHistory):
            for key in everything(history):
                history._redis.delete(key)
        history.close()


def redis_world(address: str) -> World:
    url = f"redis://{address}/0"
    return World(lambda w: RedisHistory(url, uuid4().hex, clock=lambda: w.now_us), redis_history)


@pytest.fixture
def history(world: World) -> HistoryStore:
    return world.new()


@pytest.fixture
def on_redis(redis_address: str) -> World:
    return redis_world(redis_address)


def row(
    message_id: str, user: str | None = None, anonymous: str | None = None, ts_us: int = 1_000, **other: Any
) -> Row:
    """A track event, or what `other` makes of it."""
    plain = Row(
        user or f"anon:{anonymous}",
        message_id,
        0,
        "track",
        "Uploaded",
        user,
        anonymous,
        ts_us,
        5,
        "{}",
        "{}",
        "{}",
        "0",
    )
    return plain._replace(**other)


def identify(message_id: str, user: str, anonymous: str, ts_us: int = 1_000) -> Row:
    return row(message_id, user, anonymous, ts_us, type="identify", name=None)


def everything(history: HistoryStore) -> dict[str, Any]:
    """All that is stored, by key or table."""
    if isinstance(history, SqliteHistory):
        tables = [name for (name,) in history._db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: history._db.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
    assert isinstance(history, RedisHistory)
    client: redis.Redis = history._redis
    read = {"hash": client.hgetall, "set": client.smembers, "string": client.get}
    read["zset"] = partial(client.zrange, start=0, end=-1, withscores=True)
    return {key: read[client.type(key)](key) for key in client.scan_iter(f"{history._at}*")}


def contents(rows: Iterable[Row]) -> set[Row]:
    return {r._replace(position=0) for r in rows}


@dataclass
class Spec:
    """The contract of `add` in plain loops."""

    kept: dict[tuple[str, str], Row] = field(default_factory=dict)
    waits: list[Row] = field(default_factory=list)
    told: set[tuple[str, str]] = field(default_factory=set)
    position: int = 0

    def add(self, rows: Sequence[Row]) -> tuple[set[tuple[str, str]], set[str], set[str]]:
        """Keys of new messages, senders of replaced ones, persons touched."""
        before, known = dict(self.kept), {(r.key, r.rank[:-1]) for r in self.kept.values()}
        for r in rows:
            if (r.key, r.rank[:-1]) in known and not r.position:
                continue
            known.add((r.key, r.rank[:-1]))
            self.position = r.position or self.position + 1
            accepted = r._replace(position=self.position)
            self.waits += [] if r.position else [accepted]
            self.kept[r.key] = min(self.kept.get(r.key, accepted), accepted, key=lambda c: c.rank)
        changed = {key for key in self.kept if self.kept[key] != before.get(key)}
        self.told |= {r.edge for key in changed if (r := self.kept[key]).edge}
        rows = [held[key] for key in changed for held in (before, self.kept) if key in held]
        touched = set().union(*map(self.persons, rows))
        return changed - before.keys(), {before[key].sender for key in changed & before.keys()}, touched

    def persons(self, r: Row) -> set[str]:
        """An event is its user's; one without, or an edge, is the anonymous id's too, and of all whom that ever was."""
        found = {r.user_id} if r.user_id else set()
        if r.anonymous_id and (r.user_id is None or r.type in ("identify", "alias")):
            found |= {f"anon:{r.anonymous_id}", *(u for a, u in self.told if a == r.anonymous_id)}
        return found

    def owned(self, times: Iterable[int]) -> dict[str, list[set[tuple[Any, ...]]]]:
        """By person: whose events they are at each of these times."""
        events = [r._replace(position=0)._asdict() for r in self.kept.values()]
        found: dict[str, list[set[tuple[Any, ...]]]] = {person: [] for person in PERSONS}
        for t in times:
            owners = [(oracle.owner(e, events, t), tuple(e.values())) for e in events if e["ts_us"] <= t]
            for person, at in found.items():
                at.append({event for owner, event in owners if owner == person})
        return found


@st.composite
def arrivals(draw: st.DrawFn, given_positions: bool | None = None) -> list[list[Row]]:
    """Batches of events and copies of them, of which some are exact, in any order."""
    events = draw(histories.events(make_tiny_domain(), 12))
    rows = [Row(sender=e["user_id"] or f"anon:{e['anonymous_id']}", **e) for e in events]
    for r in draw(st.lists(st.sampled_from(rows), max_size=6)):
        copy = r._replace(ts_us=r.ts_us + draw(st.sampled_from([0, 0, -1, 1, -(10**12)])))
        rows.append(copy._replace(received_us=r.received_us + draw(st.sampled_from([0, 1]))))
    positions = draw(st.booleans()) if given_positions is None else given_positions
    rows = [r._replace(position=i if positions else 0) for i, r in enumerate(draw(st.permutations(rows)), 1)]
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    return [rows[a:b] for a, b in pairwise([0, *cuts, len(rows)])]


@given(batches=arrivals())
def test_any_order_copies_and_batches_keep_the_canonical_copies(world: World, batches: list[list[Row]]) -> None:
    spec, history = Spec(), world.new()
    times = sorted({r.ts_us for batch in batches for r in batch})
    for batch in batches:
        owned = spec.owned(times)
        new, corrected, touched = spec.add(batch)
        added = history.add(batch)
        assert (sorted(r.key for r in added.new), added.corrected, added.touched) == (sorted(new), corrected, touched)
        assert set(added.new) == {spec.kept[key] for key in new}
        assert {person for person, now in spec.owned(times).items() if now != owned[person]} <= touched
        assert history.position() == spec.position
    assert sorted(history.events(PERSONS)) == sorted(spec.kept.values())
    assert history.arrived(1_000) == spec.waits
    for person in PERSONS:
        hands = {a for a, u in spec.told if u == person} | ({person[5:]} if person.startswith("anon:") else set())
        shared = {u for a, u in spec.told if a in hands}
        assert history.senders_of([person]) == {person, *(f"anon:{a}" for a in hands), *shared}
        assert sorted(history.aliases(person)) == sorted(a for a, u in spec.told if u == person)
    assert history.known([*spec.kept, ("nobody", "m")]) == [*spec.kept.values(), None]


def test_rows_come_back_as_they_went_in(history: HistoryStore) -> None:
    odd = row(
        "m\0 'żółć'", "u {} \n:", "a b", -1, position=7, name=None, received_us=2**53,
        properties='{"a":[1.50,"\\u0000\\"é"],"n":123456789012345678901234567890}', traits='{"é":null}',
    )  # fmt: skip
    anonymous = row("m", None, "a", 2**52, position=8, name="", context='{"x":"anon:"}')
    history.add([odd, anonymous])
    assert sorted(history.events([odd.sender, "anon:a"])) == sorted([odd, anonymous])


def test_what_was_delivered_before_changes_nothing(history: HistoryStore) -> None:
    rows = [row("m1", "u"), row("m2", None, "a"), identify("m3", "u", "a")]
    assert history.add([*rows, rows[0]]).touched == {"u", "anon:a"}
    history.note(dict.fromkeys(["u", "anon:a"]), 3)
    before = everything(history)
    assert history.add(rows)[:3] == ([], set(), set())
    assert everything(history) == before


def test_rows_up_to_the_position_are_passed_over(history: HistoryStore) -> None:
    history.add([row("m1", "u", position=5)])
    added = history.add([row("m2", "u", position=5), row("m3", "u", position=4), row("m4", "u", position=9)])
    assert [r.message_id for r in added.new] == ["m4"]
    assert history.position() == 9
    history.add([row("m4", "u", position=12)])
    assert history.position() == 12, "a copy that does not count moves the position on too"
    assert history.arrived(10) == []


def test_what_arrived_waits_until_it_is_passed_on(history: HistoryStore) -> None:
    rows = [row(f"m{i}", "u", ts_us=i) for i in range(5)]
    for r in rows:
        history.add([r])
    later = row("m0", "u", ts_us=9)
    history.add([later])
    expected = [r._replace(position=i) for i, r in enumerate([*rows, later], 1)]
    assert history.arrived(2) == expected[:2]
    history.passed_on(4)
    assert history.arrived(10) == expected[4:]
    assert len(history.events(["u"])) == 5


def test_whoever_is_touched_is_due_until_noted(world: World) -> None:
    history = world.new()
    history.add([row("m1", "u"), row("m2", "v")])
    assert history.written(["u", "w"]) == {"u": Written(NEVER, 0)}
    assert (history.waiting(0), history.unsettled("u", 0), history.unsettled("w", EVER)) == (2, True, False)
    world.leases_end()
    assert sorted(history.claim(0, 10)) == ["u", "v"]
    assert history.waiting(0) == 2, "claimed is not done"
    history.note({"u": Written(1_000, 70), "v": Written(1_000, None)}, 2)
    assert history.written(["u", "v"]) == {"u": Written(1_000, 70), "v": Written(1_000, None)}
    assert (history.claim(69, 10), history.waiting(69), history.unsettled("u", 69)) == ([], 0, False)
    assert (history.waiting(70), history.unsettled("u", 70), history.claim(70, 10)) == (1, True, ["u"])


def test_the_longest_due_come_first(history: HistoryStore) -> None:
    history.note({f"p{due}": Written(1, due) for due in (30, 10, 20, 40)}, 0)
    assert history.claim(30, 2) == ["p10", "p20"]


def test_a_row_that_is_gone_is_forgotten(history: HistoryStore) -> None:
    history.add([row("m1", "u")])
    history.note({"u": Written(1_000, 50)}, 1)
    history.note({"u": None, "nobody": None}, 1)
    assert (history.written(["u", "nobody"]), history.waiting(EVER)) == ({}, 0)


@pytest.mark.parametrize("what", [Written(1_000, 10**9), Written(1_000, None), None])
def test_whoever_is_touched_meanwhile_stays_due(world: World, what: Written | None) -> None:
    history = world.new()
    history.add([row("m1", "u")])
    by = history.position()
    history.add([row("m2", "u")])
    history.note({"u": what}, by)
    assert history.unsettled("u", 0)
    world.leases_end()
    assert history.claim(0, 10) == ["u"]


def test_a_late_note_after_a_faster_one_makes_due_again(history: HistoryStore) -> None:
    """Two compute the same person's row; the slower one may have written what is no longer so."""
    history.add([row("m1", None, "a")])
    history.add([identify("m2", "u", "a")])
    history.note({"anon:a": None}, 2)
    history.note({"anon:a": Written(1_000, None)}, 1)
    assert history.unsettled("anon:a", 0)


def test_the_timestamp_of_a_row_goes_back_only_when_it_is_gone(history: HistoryStore) -> None:
    history.note({"u": Written(1_000, None)}, 0)
    history.note({"u": Written(900, 50)}, 0)
    assert history.written(["u"]) == {"u": Written(1_000, 0)}, "due, as the online store has refused that row"
    history.note({"u": None}, 0)
    history.note({"u": Written(900, 50)}, 0)
    assert history.written(["u"]) == {"u": Written(900, 50)}


def test_whom_an_event_makes_due_comes_before_whom_a_start_does(history: HistoryStore) -> None:
    history.defer(["a", "b", "c"], since_us=1)
    history.add([row("m", "b")])
    history.defer(["b", "d"])
    history.defer(["d"], since_us=1)
    assert sorted(history.claim(EVER, 2, slow=True)) == ["b", "d"]


def test_whose_past_has_changed_is_told_apart_from_who_is_due_by_time(world: World) -> None:
    history = world.new()
    history.note({"time": Written(1_000, 50), "both": Written(1_000, 50)}, 0)
    history.add([row("m1", "both"), row("m2", "event"), row("m3", "quick")])
    history.defer(["time", "both", "event", "nothing"], since_us=60)
    assert history.deferred() == {"both", "event"}
    assert [history.unsettled(p) for p in ("time", "both", "event", "quick")] == [False, True, True, True]
    assert history.written(["time"]) == {"time": Written(1_000, 50)}, "as long as it was due"
    history.note({"both": Written(1_000, 50), "event": Written(1_000, 1)}, history.position())
    assert history.deferred() == set() and not history.unsettled("both")
    history.defer(["both"])
    assert history.deferred() == {"both"}, "an erasure"


def test_the_slow_lane_is_apart(world: World) -> None:
    history = world.new()
    history.add([row("m1", "u"), row("m2", "v")])
    history.defer(["u", "w"])
    world.leases_end()
    assert (history.claim(0, 10), sorted(history.claim(0, 10, slow=True))) == (["v"], ["u", "w"])
    assert (history.waiting(0), history.unsettled("u", 0)) == (3, True)
    world.leases_end()
    history.add([row("m3", "u")])
    assert (history.claim(0, 10), sorted(history.claim(0, 10, slow=True))) == (["v"], ["u", "w"]), "stays where it is"
    history.note({"u": Written(1_000, 50), "w": None}, history.position())
    world.leases_end()
    assert (history.claim(EVER, 10), history.claim(EVER, 10, slow=True)) == (["v", "u"], [])


def test_a_lease_keeps_others_away_until_it_ends(on_redis: World) -> None:
    one = on_redis.new()
    other = one.reader()
    one.note({f"p{i}": Written(1, i) for i in range(1_200)}, 0)
    first = one.claim(EVER, 600)
    assert first == [f"p{i}" for i in range(600)]
    assert other.claim(EVER, 1_000) == [f"p{i}" for i in range(600, 1_200)]
    assert other.claim(EVER, 10) == []
    one.note({"p7": Written(2, 3)}, 0)
    assert other.claim(EVER, 10) == ["p7"], "noted, and due again"
    on_redis.now_us += 5_000_000 - 1
    assert other.claim(EVER, 10) == []
    on_redis.now_us += 1
    assert other.claim(EVER, 3) == ["p0", "p1", "p2"]


def test_whoever_adds_has_those_touched_to_itself(on_redis: World) -> None:
    one = on_redis.new()
    other = one.reader()
    one.defer(["slow"])
    assert one.add([row("m1", "u"), row("m2", "slow")]).touched == {"u", "slow"}
    assert (other.claim(0, 10), other.claim(0, 10, slow=True)) == ([], ["slow"])
    on_redis.now_us += 5_000_000
    assert (other.claim(0, 10), one.claim(0, 10, slow=True)) == (["u"], []), "a lease in the slow lane is longer"
    on_redis.now_us += 60_000_000
    assert one.claim(0, 10, slow=True) == ["slow"]


def test_who_is_deferred_is_free_for_the_slow_lane(on_redis: World) -> None:
    one = on_redis.new()
    other = one.reader()
    one.add([row("m1", "u")])
    one.defer(["u"])
    assert other.claim(0, 10, slow=True) == ["u"]
    one.defer(["u"])
    assert one.claim(0, 10, slow=True) == [], "somebody is at it"


def test_a_late_note_leaves_the_lease_to_whoever_added_the_event(on_redis: World) -> None:
    one = on_redis.new()
    other = one.reader()
    one.defer(["slow"])
    assert one.claim(0, 10, slow=True) == ["slow"]
    one.add([row("m1", "u")])
    other.add([row("m2", "u"), row("m3", "slow")])
    one.note({"u": Written(1_000, None), "slow": Written(1_000, None)}, 1)
    assert one.claim(0, 10) == ["slow"], "nobody took whoever was in the slow lane; the other one computes u"
    other.note({"u": Written(1_000, None)}, 3)
    assert not one.unsettled("u", EVER)
    one.note({"u": Written(1_000, None)}, 1)
    assert one.claim(0, 10) == ["u"]


def test_a_lease_ends_by_the_clock_of_the_server(redis_address: str) -> None:
    with RedisHistory(f"redis://{redis_address}/0", uuid4().hex, lease_s=0.05) as history:
        history.note({"u": Written(1, 1)}, 0)
        assert (history.claim(1, 10), history.claim(1, 10)) == (["u"], [])
        ended = threading.Event()
        while not history.claim(1, 10):
            ended.wait(0.01)
        history.erase(["u"])


def test_who_is_set_aside_is_due_no_more_until_an_event_comes_or_they_are_deferred(history: HistoryStore) -> None:
    history.add([row("m1", "bad"), row("m2", "good")])
    history.set_aside({"bad": "because"}, history.position())
    assert (history.aside(), history.unsettled("bad"), history.waiting(EVER)) == ({"bad": "because"}, False, 1)
    history.note({"good": Written(1_000, None)}, history.position())
    assert (history.aside(), history.claim(EVER, 10)) == ({"bad": "because"}, [])
    history.add([row("m3", "bad")])
    assert history.aside() and history.unsettled("bad")
    history.note({"bad": Written(1_000, None)}, history.position())
    assert (history.aside(), history.waiting(EVER)) == ({}, 0)
    history.add([row("m4", "bad")])
    history.set_aside({"bad": "late"}, history.position() - 1)
    assert history.unsettled("bad"), "an event came after what the reason is about"
    history.set_aside({"bad": "again"}, history.position())
    history.defer(history.aside())
    assert (history.aside(), history.unsettled("bad"), history.deferred()) == ({"bad": "again"}, True, {"bad"})
    history.set_aside({"bad": "slow"}, history.position())
    assert (history.deferred(), history.waiting(EVER)) == (set(), 0)
    history.erase(["bad"])
    assert history.aside() == {}


@pytest.mark.parametrize("base", [(2**64, -(2**100)), (0, 2**53 + 1)])
def test_a_checkpoint_keeps_sums_of_any_size(history: HistoryStore, base: tuple[int, int]) -> None:
    history.add([row("m1", "u", ts_us=500)])
    assert history.fold("u", Checkpoint(THROUGH, base), ["m1"], history.position())
    assert history.checkpoints(["u"])["u"].base == base


THROUGH = 1_000


def folded(history: HistoryStore) -> None:
    """u has m1 (ts 500) behind a checkpoint through 1,000, and m2 (ts 1,500); a and b are hands of nobody and of u."""
    history.add([row("m1", "u", ts_us=500), row("m2", "u", ts_us=1_500), row("a1", None, "a", 400)])
    history.add([identify("e1", "u", "b", 900), row("b1", None, "b", 300), row("c1", None, "c", 1_200)])
    history.add([row("a2", None, "a", 1_800)])
    assert history.fold("u", Checkpoint(THROUGH, (1, -2)), ["m1"], history.position())


@pytest.mark.parametrize(
    ("arriving", "breaks"),
    [
        ([row("n", "u", ts_us=THROUGH)], True),
        ([row("n", "u", ts_us=THROUGH + 1)], False),
        ([row("n", None, "b", THROUGH)], True),
        ([row("n", None, "b", THROUGH + 1)], False),
        ([row("n", None, "a", 1)], False),
        ([identify("n", "u", "a", 2_000)], True),
        ([identify("n", "u", "c", 2_000)], False),
        ([identify("n", "u", "unheard", 2_000)], False),
        ([identify("n", "u", "b", 2_000)], False),
        ([identify("n", "v", "b", 2_000)], True),
        ([identify("n", "u", "new", 2_000), row("o", None, "new", 900)], True),
        ([row("m1", "u", ts_us=499)], True),
        ([row("m1", "u", ts_us=501)], False),
        ([row("m2", "u", ts_us=1_499)], True),
        ([row("n", "v", ts_us=1)], False),
    ],
)
def test_an_event_that_changes_the_folded_past_breaks_the_checkpoint(
    history: HistoryStore, arriving: list[Row], breaks: bool
) -> None:
    folded(history)
    assert history.checkpoints(["u", "v"]) == {"u": Checkpoint(THROUGH, (1, -2))}
    history.add(arriving)
    assert history.checkpoints(["u"]) == {"u": Checkpoint(THROUGH, (1, -2), broken=breaks)}


def test_an_edge_to_a_past_that_is_in_the_lake_breaks_the_checkpoint(history: HistoryStore) -> None:
    folded(history)
    history.leave(["anon:away"])
    history.add([identify("n", "u", "away", 2_000)])
    assert history.checkpoints(["u"])["u"].broken


def test_a_better_copy_of_a_folded_event_counts_after_unfolding(history: HistoryStore) -> None:
    folded(history)
    assert history.add([row("m1", "u", ts_us=499), row("m1", "u", ts_us=600)]).corrected == {"u"}
    assert history.add([row("m1", "u", ts_us=499)])[:3] == ([], set(), set())
    history.unfold(["u"])
    assert history.checkpoints(["u"]) == {}
    assert {r.message_id: r.ts_us for r in history.events(["u"])} == {"m1": 499, "m2": 1_500, "e1": 900}


def many(history: HistoryStore, monkeypatch: pytest.MonkeyPatch, at_once: int) -> list[Row]:
    """25 events of u, and a store that moves a few at a time."""
    monkeypatch.setattr(redis_history, "AT_ONCE", at_once)
    monkeypatch.setattr(sqlite_history, "AT_ONCE", at_once)
    return history.add([row(f"m{i}", "u", ts_us=i) for i in range(25)]).new


def test_folding_and_unfolding_give_the_same_events(history: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = many(history, monkeypatch, 4)
    seen = [history.versions(["u"])["u"]]
    assert history.fold("u", Checkpoint(19, (2**70, 3)), [f"m{i}" for i in range(15)], 25)
    seen.append(history.versions(["u"])["u"])
    assert sorted(history.events(["u"])) == sorted(rows[15:])
    assert history.heavy(["u"], 10) == set()
    assert (history.heavy(["u"], 14, folded=True), history.heavy(["u"], 15, folded=True)) == ({"u"}, set())
    assert history.fold("u", Checkpoint(24, (2**80, 4)), [f"m{i}" for i in range(15, 20)], 25)
    assert history.checkpoints(["u"]) == {"u": Checkpoint(24, (2**80, 4))}
    seen.append(history.versions(["u"])["u"])
    assert history.known([("u", "m3"), ("u", "m22")]) == [rows[3], rows[22]]
    assert history.add([r._replace(position=0) for r in rows])[:3] == ([], set(), set()), "folded events are known"
    history.unfold(["u", "nobody"])
    seen.append(history.versions(["u"])["u"])
    assert (sorted(history.events(["u"])), history.checkpoints(["u"])) == (sorted(rows), {})
    assert len(set(seen)) == 4
    assert (history.heavy(["u"], 24), history.heavy(["u"], 25)) == ({"u"}, set())


def test_on_one_machine_others_write_between_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteHistory(tmp_path / "h.db") as history, history.reader() as other:
        rests: list[float] = []

        def rest(seconds: float) -> None:
            rests.append(seconds)
            assert other.add([row(f"r{len(rests)}", "v")]).touched == {"v"}

        rows = many(history, monkeypatch, 4)
        monkeypatch.setattr(sqlite_history, "time", SimpleNamespace(monotonic=time.monotonic, sleep=rest))
        history.fold("u", Checkpoint(24, (1,)), [f"m{i}" for i in range(20)], 25)
        assert len(rests) == 4
        history.unfold(["u"])
        assert len(rests) == 9 and sorted(history.events(["u"])) == sorted(rows)
        history.leave(["w"])
        history.fetched(["w"], [row(f"w{i}", "w", position=i + 1) for i in range(9)])
        assert len(rests) == 11 and all(s > 0 for s in rests)
        assert len(other.events(["v"])) == 11


def test_what_is_no_longer_so_is_not_folded(history: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    many(history, monkeypatch, 4)
    before = everything(history)
    assert not history.fold("u", Checkpoint(19, (1,)), ["m1"], 24), "touched at 25"
    assert everything(history) == before
    assert history.fold("u", Checkpoint(19, (1,)), ["m1", "m2"], 25)
    before = everything(history)
    assert not history.fold("u", Checkpoint(9, (1,)), ["m2", "m3"], 25), "somebody else was faster"
    assert everything(history) == before
    history.add([row("n", "u", ts_us=3)])
    before = everything(history)
    assert not history.fold("u", Checkpoint(19, (1,)), ["m3"], 26), "broken"
    assert everything(history) == before


class Killed(RuntimeError):
    pass


def at_piece(history: HistoryStore, number: int, then: Callable[[], None]) -> None:
    """Do something before the numbered piece of a fold or an unfold."""
    pieces = 0

    def counted(run: Callable[..., Any], *args: Any) -> Any:
        nonlocal pieces
        if isinstance(history, SqliteHistory) or args[0] in (redis_scripts.FOLD_SOME, redis_scripts.UNFOLD_SOME):
            pieces += 1
            if pieces == number:
                then()
        return run(*args)

    for name in ("_fold_some", "_unfold_some") if isinstance(history, SqliteHistory) else ("_run",):
        setattr(history, name, partial(counted, getattr(history, name)))


def kill() -> None:
    raise Killed


@pytest.mark.parametrize("piece", [2, 5])
def test_a_kill_between_pieces_leaves_what_unfolding_repairs(
    history: HistoryStore, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    rows = many(history, monkeypatch, 4)
    with history.reader() as killed:
        at_piece(killed, piece, kill)
        with pytest.raises(Killed):
            killed.fold("u", Checkpoint(24, (1,)), [f"m{i}" for i in range(20)], 25)
    assert history.checkpoints(["u"]) == {"u": Checkpoint(24, (1,), broken=True)}
    with history.reader() as killed:
        at_piece(killed, 1, kill)
        with pytest.raises(Killed):
            killed.unfold(["u"])
    assert history.checkpoints(["u"])["u"].broken
    history.unfold(["u"])
    assert (sorted(history.events(["u"])), history.checkpoints(["u"])) == (sorted(rows), {})


def test_an_event_that_arrives_while_its_past_is_folded_breaks_it(
    history: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = many(history, monkeypatch, 4)
    early = row("n", "u", ts_us=3)
    with history.reader() as other:
        at_piece(history, 3, lambda: other.add([early]) and None)
        history.fold("u", Checkpoint(24, (1,)), [f"m{i}" for i in range(20)], 25)
        assert other.checkpoints(["u"])["u"].broken
        other.unfold(["u"])
        assert contents(other.events(["u"])) == contents([*rows, early])


def test_who_folds_stops_where_the_past_is_taken_back_meanwhile(
    history: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = many(history, monkeypatch, 4)
    with history.reader() as other:
        at_piece(history, 3, lambda: other.unfold(["u"]))
        history.fold("u", Checkpoint(24, (1,)), [f"m{i}" for i in range(20)], 25)
        assert (sorted(other.events(["u"])), other.checkpoints(["u"])) == (sorted(rows), {})


def test_whoever_unfolds_late_does_not_take_a_new_checkpoint_apart(
    history: HistoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two repair the same person, because a lease ended: the slower one stops."""
    slower = history
    rows = many(slower, monkeypatch, 4)
    slower.fold("u", Checkpoint(9, (1,)), [f"m{i}" for i in range(8)], 25)
    with slower.reader() as faster:

        def repair() -> None:
            faster.unfold(["u"])
            assert faster.fold("u", Checkpoint(24, (2,)), [f"m{i}" for i in range(20)], 25)

        at_piece(slower, 1, repair)
        slower.unfold(["u"])
        assert slower.checkpoints(["u"]) == {"u": Checkpoint(24, (2,))}
        assert sorted(slower.events(["u"])) == sorted(rows[20:])


def interrupted(history: RedisHistory, by: Callable[[], Any]) -> list[int]:
    """Between looking and committing, once, something comes; how often a commit is tried."""
    tries: list[int] = []
    commit = history._commit

    def late(plan: Any) -> int | None:
        tries.append(len(tries))
        if len(tries) == 1:
            by()
        return commit(plan)

    history._commit = late  # type: ignore[method-assign]
    return tries


def known_before(history: HistoryStore) -> None:
    folded(history)
    history.note({"u": Written(1_000, None)}, history.position())
    history.add([identify("w1", "w", "d", 100)])


@pytest.mark.parametrize(
    ("meanwhile", "rows", "tries"),
    [
        (lambda h: h.add([row("n", "u", ts_us=1_700)]), [row("n", "u", ts_us=1_600)], 2),
        (lambda h: h.add([row("n", "u", ts_us=1_700)]), [row("n", "u", ts_us=1_700)], 1),
        (lambda h: h.add([identify("n", "v", "a", 2_000)]), [row("o", None, "a", 1_600)], 2),
        (lambda h: h.add([row("n", None, "c", 10)]), [identify("o", "u", "c", 2_000)], 2),
        (lambda h: h.fold("u", Checkpoint(1_600, (2,)), ["m2"], h.position()), [row("o", "u", ts_us=1_550)], 2),
        (lambda h: h.fold("u", Checkpoint(1_600, (2,)), ["m2"], h.position()), [row("m2", "u", ts_us=1_490)], 2),
        (lambda h: h.unfold(["u"]), [row("o", "u", ts_us=10)], 2),
        (lambda h: h.erase(["u"]), [row("m2", "u", ts_us=1_400)], 2),
        (lambda h: h.erase(["u"]), [row("o", None, "b", 1_400)], 2),
        (lambda h: h.erase(["w"]), [row("o", None, "d", 1_400)], 2),
        (lambda h: h.fetched(["u"], [row("o", "u", ts_us=10, position=1)]), [row("o", "u", ts_us=20)], 2),
        (lambda h: h.keep([identify("n", "v", "a", 1)], 3), [row("o", None, "a", 1_600)], 2),
        (lambda h: h.add([row("n", "w")]), [row("o", "u", position=9), row("p", "u", position=10)], 2),
        (lambda h: h.add([row("n", "w")]), [row("o", "u")], 1),
        (lambda h: h.note({"u": Written(2_000, 10**9)}, 6), [row("o", "u")], 1),
    ],
)
def test_what_comes_between_looking_and_committing_is_as_if_it_came_before(
    on_redis: World, tmp_path: Path, meanwhile: Callable[[HistoryStore], Any], rows: list[Row], tries: int
) -> None:
    history = on_redis.new()
    known_before(history)
    with SqliteHistory(tmp_path / "one-by-one.db") as expected, history.reader() as other:
        known_before(expected)
        meanwhile(expected)
        added = expected.add(rows)
        counted = interrupted(history, lambda: meanwhile(other))  # type: ignore[arg-type]
        assert history.add(rows)[:3] == added[:3]
        assert len(counted) == tries
        persons = ["u", "v", "w", "anon:a", "anon:b", "anon:c"]
        assert sorted(history.events(persons)) == sorted(expected.events(persons))
        for of in (history.written, history.checkpoints, history.senders_of):
            assert of(persons) == getattr(expected, of.__name__)(persons)
        assert (history.position(), history.arrived(99)) == (expected.position(), expected.arrived(99))
        expected.unfold(["u"])
        history.unfold(["u"])
        assert sorted(history.events(persons)) == sorted(expected.events(persons))


def test_what_comes_while_looking_is_not_overlooked(on_redis: World, monkeypatch: pytest.MonkeyPatch) -> None:
    history = on_redis.new()
    hands, came = redis_add.Look.hands, list[Row]()

    def late(look: redis_add.Look, of: Sequence[str]) -> Any:
        if not came:
            came.append(row("n", None, "a", 10))
            with history.reader() as other:
                other.add(came)
        return hands(look, of)

    monkeypatch.setattr(redis_add.Look, "hands", late)
    history.add([row("n", None, "a", 20)])
    assert contents(history.events(["anon:a"])) == set(came)


def test_after_too_many_faster_ones_an_add_gives_up(on_redis: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_history, "MOST_TRIES", 3)
    history = on_redis.new()
    assert isinstance(history, RedisHistory)
    monkeypatch.setattr(history, "_commit", lambda plan: None)
    with pytest.raises(TimeoutError, match="others were faster 3 times"):
        history.add([row("m", "u")])


def batches_of(writer: int, number: int = 80) -> list[list[Row]]:
    """Events of a few people on a few devices, in each batch also a copy of what the other writers have."""
    choose = random.Random(writer)
    return [[*some_events(choose, f"m{writer}-{n}"), row(f"shared-{n}", "u1", ts_us=writer)] for n in range(number)]


def some_events(choose: random.Random, prefix: str) -> Iterator[Row]:
    for i in range(choose.randint(1, 6)):
        user, device, ts_us = (
            choose.choice(["u1", "u2", "u3"]),
            choose.choice(["d1", "d2", "d3"]),
            choose.randrange(9_999),
        )
        kinds = [row(f"{prefix}-{i}", user, ts_us=ts_us), row(f"{prefix}-{i}", None, device, ts_us)]
        yield choose.choice([*kinds, identify(f"{prefix}-{i}", user, device, ts_us)])


class Worker:
    """Notes whoever is due, by what it reads then; a person's last view is what their online row would show."""

    def __init__(self, world: World, history: HistoryStore, views: dict[str, set[tuple[str, str]]]) -> None:
        self.world, self.history, self.views, self.rounds = world, history, views, 0

    def settle(self) -> int:
        """How many were due."""
        self.world.leases_end()
        self.rounds += 1
        persons = [*self.history.claim(EVER, 3), *self.history.claim(EVER, 2, slow=True)]
        deferred = persons[:1] if self.rounds % 5 == 0 else []
        by = self.history.position()
        for person in persons:
            self.views[person] = {r.key for r in self.history.events(self.history.senders_of([person]))}
        self.history.defer(deferred)
        what = None if self.rounds % 3 == 0 else Written(by, None)
        self.history.note({p: what for p in persons if p not in deferred}, by)
        return len(persons)


def test_several_workers_at_once_lose_nobody(world: World, tmp_path: Path) -> None:
    """As if their events had come one after the other; and whoever is not due was seen with all that is theirs."""
    history = world.new()
    views: dict[str, set[tuple[str, str]]] = {}
    ready, written = threading.Barrier(4), threading.Event()

    def write(writer: int) -> None:
        with history.reader() as own:
            ready.wait()
            for batch in batches_of(writer):
                own.add(batch)

    def note() -> None:
        with history.reader() as own:
            worker = Worker(world, own, views)
            ready.wait()
            while not written.is_set():
                worker.settle()

    with ThreadPoolExecutor(4) as pool:
        noting = pool.submit(note)
        for writing in [pool.submit(write, writer) for writer in range(3)]:
            writing.result()
        written.set()
        noting.result()
    arrived = history.arrived(10_000)
    assert [r.position for r in arrived] == list(range(1, history.position() + 1))
    with SqliteHistory(tmp_path / "one-by-one.db") as expected:
        sent = {r.key for writer in range(3) for batch in batches_of(writer) for r in batch}
        assert {r.key for r in expected.add(arrived).new} == sent
        persons = ["u1", "u2", "u3", "anon:d1", "anon:d2", "anon:d3"]
        assert sorted(history.events(persons)) == sorted(expected.events(persons))
        settled = {person for person in persons if not history.unsettled(person, EVER)}
        for person in settled:
            assert views[person] >= theirs(expected, person)
        while Worker(world, history, views).settle():
            settled |= set(views)
        assert settled == set(persons)
        assert all(views[person] >= theirs(expected, person) for person in persons)


def theirs(history: HistoryStore, person: str) -> set[tuple[str, str]]:
    """The events that can count for a person: those they sent, and those of the hands that were ever theirs."""
    senders = {person, *(f"anon:{a}" for a in history.aliases(person))}
    return {r.key for r in history.events(history.senders_of([person])) if r.sender in senders}


def test_keeping_makes_nobody_due(history: HistoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_history, "AT_ONCE", 2)
    rows = [row(f"m{i}", "u", ts_us=i, position=i + 1) for i in range(5)]
    history.keep([*rows, identify("e", "v", "b")._replace(position=6)], 9)
    assert (history.position(), history.waiting(EVER), history.written(["u"])) == (9, 0, {})
    assert sorted(history.events(["u"])) == rows
    assert history.senders_of(["v"]) == {"v", "anon:b"}
    history.keep([rows[0]._replace(ts_us=-1), rows[1]._replace(ts_us=50)])
    assert {r.message_id: r.ts_us for r in history.events(["u"])} == {"m0": -1, "m1": 1, "m2": 2, "m3": 3, "m4": 4}
    assert (history.position(), history.arrived(9)) == (9, [])


def test_a_past_in_the_lake_is_left_until_it_is_fetched(history: HistoryStore) -> None:
    history.leave(["u", "v"])
    history.leave([])
    assert history.left(["u", "v", "w"]) == {"u", "v"}
    history.add([row("m1", "u", ts_us=7)])
    history.fetched(["u"], [row("m0", "u", ts_us=1, position=1), row("m1", "u", ts_us=6, position=2)])
    assert history.left(["u", "v", "w"]) == {"v"}
    assert {r.message_id: r.ts_us for r in history.events(["u"])} == {"m0": 1, "m1": 6}


def test_versions_change_with_the_events_and_never_come_back(history: HistoryStore) -> None:
    seen = [0]

    def version() -> int:
        found = history.versions(["u", "nobody"])
        assert found["nobody"] == (0, 0)
        return found["u"].change

    assert version() == 0
    for r in (row("m1", "u"), row("m2", "u"), row("m1", "u", ts_us=1)):
        history.add([r])
        seen.append(version())
    history.add([row("m1", "u", ts_us=2), row("m3", "v")])
    assert version() == seen[-1], "what does not count changes nothing"
    history.erase(["u"])
    assert version() == 0
    history.add([row("m1", "u"), row("m2", "u")])
    seen.append(version())
    assert len(set(seen)) == 5


@given(steps=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12))
def test_who_follows_by_versions_has_what_events_gives(world: World, steps: list[tuple[int, bool]]) -> None:
    history, mine = world.new(), dict[str, Row]()
    seen, since = Version(0, 0), 0
    for n, (step, look) in enumerate(steps):
        ids = [r.message_id for r in history.events(["u"])]
        if step == 0:
            history.fold("u", Checkpoint(n, (n,)), ids[:1], 10**6)
        elif step == 1:
            history.unfold(["u"])
        elif step == 2:
            history.erase(["u"])
        elif step == 3:
            history.fetched(["u"], [row(f"old{n}", "u")])
        elif step == 4 and ids:
            history.add([row(ids[0], "u", ts_us=-n)])
        else:
            history.add([row(f"m{n}", "u", ts_us=n), row(f"v{n}", "v")])
        if look:
            now = history.versions(["u"])["u"]
            if now != seen and not 0 < now.rewritten <= seen.change:
                mine, since = {}, 0
            if now != seen:
                mine |= {r.message_id: r for r in history.events(["u"], since)}
            seen, since = now, history.position()
            assert sorted(mine.values()) == sorted(history.events(["u"]))


def test_nothing_is_asked_of_nobody(history: HistoryStore) -> None:
    assert history.add([])[:3] == ([], set(), set())
    history.keep([])
    for asked in (history.senders_of, history.left):
        assert asked([]) == set()
    for asked in (history.versions, history.written, history.checkpoints):
        assert asked([]) == {}
    assert (history.events([]), history.known([]), history.heavy([], 0)) == ([], [], set())
    history.note({}, 0)
    for done in (history.defer, history.unfold, history.erase):
        done([])
    assert (history.position(), history.waiting(EVER)) == (0, 0)


def test_nothing_of_the_erased_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_history, "AT_ONCE", 2)
    history = world.new()
    gone, stays = ["gone-user", "anon:gone-device"], ["user", "anon:device"]
    for user, anonymous in (gone, stays):
        device = anonymous.removeprefix("anon:")
        rows = [row(f"m{i}", user, ts_us=i, properties=f'{{"id":"{user}"}}') for i in range(5)]
        history.add([*rows, row("n", None, device), identify("e", user, device, 2_000)])
        history.note({user: Written(1, 5)}, 0)
        history.fold(user, Checkpoint(3, (1,)), ["m0", "m1", "m2"], history.position())
        history.leave([anonymous])
        history.defer([anonymous])
    history.add([identify("e2", "gone-user", "device", 2_000)])
    history.claim(EVER, 10)
    history.claim(EVER, 10, slow=True)
    assert "gone" in repr(everything(history))
    before = history.versions(stays)
    history.erase(["gone-user", "anon:gone-device"])
    assert "gone" not in repr(everything(history))
    assert (history.versions(stays), history.senders_of(["user"])) == (before, {"user", "anon:device"})
    assert [r.position for r in history.arrived(100)] == list(range(8, 15))
    assert history.checkpoints(["user"]) == {"user": Checkpoint(3, (1,), broken=True)}, (
        "by e2: its past was in the lake"
    )
    assert len(history.events(stays)) == 3, "n is in the lake"
    assert history.position() == 15
    history.add([row("late", None, "device")])
    assert history.unsettled("user", 0) and not history.unsettled("gone-user", EVER)


def test_an_erased_device_is_nobodys(history: HistoryStore) -> None:
    history.add([identify("e", "u", "a"), identify("f", "u", "b")])
    history.erase(["anon:a"])
    assert (history.aliases("u"), history.senders_of(["u"])) == (["b"], {"u", "anon:b"})


def test_a_link_is_trusted_once_an_event_that_can_be_trusted_says_so(history: HistoryStore) -> None:
    public = '{"firstmile":{"browser":true,"key":"0","verified":false}}'
    signed = public.replace("false", "true")
    history.add([identify("e", "u", "a")._replace(context=public), identify("f", "u", "b")._replace(context=signed)])
    assert (sorted(history.aliases("u")), history.aliases("u", trusted=True)) == (["a", "b"], ["b"])
    history.add([identify("g", "u", "a", 2_000), identify("h", "u", "b", 2_000)._replace(context=public)])
    assert sorted(history.aliases("u", trusted=True)) == ["a", "b"]
    history.erase(["anon:a"])
    assert history.aliases("u", trusted=True) == ["b"]
    history.erase(["u"])
    assert history.aliases("u", trusted=True) == history.aliases("u") == []


def test_a_reader_sees_the_same_and_outlives_the_first(world: World) -> None:
    history = world.new()
    reader = history.reader()
    history.add([row("m1", "u")])
    assert [r.message_id for r in reader.events(["u"])] == ["m1"]
    history.close()
    assert reader.position() == 1
    reader.add([row("m2", "u")])
    reader.close()


def test_settings_name_the_history(redis_address: str, tmp_path: Path) -> None:
    with open_history(Settings(home=tmp_path, domain="saas", history="sqlite")) as history:
        assert isinstance(history, SqliteHistory)
    domain = uuid4().hex
    with open_history(Settings(home=tmp_path, domain=domain, history=f"redis://{redis_address}/0")) as history:
        assert isinstance(history, RedisHistory)
        history.add([row("m", "u")])
        keys = list(everything(history))
        assert keys
        assert all(key.startswith(f"firstmile:{{{domain}-") for key in keys)
        history._redis.delete(*keys)
