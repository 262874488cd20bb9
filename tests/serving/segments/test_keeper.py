"""Whatever order, repetition, batches, kills and times of asking: what the rules remember is that of the definition."""

import itertools
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.feature_store.store import apply
from feature_repo.history.history_store import NEVER, row_of
from feature_repo.history.sqlite_history import SqliteHistory
from feature_repo.settings import Settings
from feature_repo.stream.personal import Personal
from feature_repo.stream.processor import Processor
from feature_repo.vocabulary import HOUR
from serving import policy, rules
from serving.decide import Placed, Snapshot
from serving.segments import timeline
from serving.segments.journal import Journal
from serving.segments.keeper import Keeper
from serving.segments.person import Behind, Gone
from tests.feature_repo import histories, oracle
from tests.feature_repo.compute import Computer
from tests.feature_repo.test_stream import Clock, event

SAAS = domains.load("saas")
GAP = 1_800_000_000
RULES = """
domain: saas
segments:
  returning: {why: came back, when: sessions > 1}
  clicking:
    why: clicks now
    enter: interactions_1h >= 2
    exit: interactions_24h == 0
    stay_at_least: 2 hours
    expires_after: 3 days
  quiet: {why: gone, when: since_last_event > 1 day}
  settled: {why: has been returning, when: time in returning > 1 hour}
"""
LATER = """
domain: saas
segments:
  clicking: {why: clicks now, when: interactions_1h >= 1}
  reading: {why: reads, when: pages >= 1}
"""
FILES = itertools.count()


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    found = Settings(home=tmp_path_factory.mktemp("home"), domain="saas")
    apply(found)
    return found


@pytest.fixture(scope="module")
def ruled(tmp_path_factory) -> list[rules.Rules]:
    folder = tmp_path_factory.mktemp("rules")
    for name, text in (("now.yaml", RULES), ("later.yaml", LATER)):
        (folder / name).write_text(text)
    return [rules.load(folder / n, SAAS) for n in ("now.yaml", "later.yaml")]


@pytest.fixture(scope="module")
def compute() -> Computer:
    return Computer(SAAS)


class World:
    """A history that grows, and a keeper over it that can be killed."""

    def __init__(self, settings: Settings, folder: Path, eras: list[timeline.Era], most: int | None = None) -> None:
        self.settings, self.folder, self.eras, self.most = settings, folder, eras, most
        self.erased = set[str]()
        self.history = SqliteHistory(folder / "history.db")
        self.processor = Processor(settings, self.history.reader(), Clock())
        self.begin()

    def begin(self) -> None:
        """A process starts."""
        journal, self.caught_up = Journal(self.folder / "segments.db"), threading.Event()
        self.keeper = Keeper(self.reader, journal, self.eras, GAP, lambda values, at: {}, self.erased.__contains__)
        self.keeper.caught_up = lambda persons: self.caught_up.set()

    def reader(self, most: int | None) -> Personal:
        return Personal(self.settings, self.history, None if most is None else self.most)

    def kill(self) -> None:
        """It ends, with what it had not written."""
        self.keeper._slow.close()
        self.keeper.journal.close()
        for personal in (self.keeper._personal, self.keeper._background, self.keeper._patient):
            personal.close()
        self.begin()

    def follow(self, person: str, at_us: int, how: str = "follow"):
        """As a decision does, or who keeps up with everybody; None: there is no row."""
        found, position = self.processor.rows([person], at_us)
        if not (rows := found.to_pylist()):
            return None
        row = rows[0]
        snapshot = Snapshot(row, row["ts_us"], position, row["valid_until_us"], row_position=position)
        self.caught_up.clear()
        try:
            return getattr(self.keeper, how)(person, snapshot, at_us)
        except Behind:
            assert self.most is not None and self.caught_up.wait(20)
            return getattr(self.keeper, how)(person, snapshot, at_us)

    def close(self) -> None:
        self.keeper.close()
        self.processor.close()
        self.processor.history.close()
        self.history.close()


def wanted(compute: Computer, rows: list[histories.Row], eras: list[timeline.Era], person: str, t: int):
    """State and moves by the definition: over the change points of all events that count."""
    compute.load([r | {"position": i} for i, r in enumerate(oracle.canonical(rows), 1)])
    points = [(r["ts_us"], r, r["valid_until_us"]) for r in compute.change_points() if r["user_id"] == person]
    done = timeline.follow(eras, [p for p in points if p[0] <= t], rules.State(), 0, t)
    return done.state, sorted((m.at_us, m.segment, m.entered, v) for m, v in done.moves)


def told(keeper: Keeper, person: str):
    """The changes that stand."""
    changes = keeper.journal.of([person])
    back = {c.corrects for c in changes}
    standing = [c for c in changes if c.corrects is None and c.seq not in back]
    return sorted((c.at_us, c.segment, c.entered, c.version) for c in standing)


@st.composite
def clicks(draw: st.DrawFn) -> list[histories.Row]:
    """Clicks and pages of u1, some of them before it was known who that is, near the times that the rules turn on."""
    apart = st.sampled_from([0, 1, 1_799_999_999, 3_600_000_000, 7_200_000_000, 86_400_000_000, 90_000_000_000])
    moment = st.builds(lambda parts: histories.BASE + sum(parts), st.lists(apart, max_size=3))
    found = []
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["track", "track", "track", "page", "identify"]))
        user = draw(st.sampled_from(["u1", "u1", None])) if kind != "identify" else "u1"
        device = "d1" if user is None or kind == "identify" else None
        found.append(
            {"position": number + 1, "message_id": f"m{number}", "type": kind, "user_id": user, "anonymous_id": device,
             "name": "Clicked" if kind == "track" else None, "ts_us": draw(moment), "received_us": 1,
             "properties": "{}", "traits": "{}", "context": "{}", "content_hash": ""}
        )  # fmt: skip
    return found


@given(data=st.data())
def test_any_order_copies_batches_kills_and_times_of_asking(settings, ruled, compute, tmp_path_factory, data):
    rows = data.draw(clicks())
    copies = [r | {"ts_us": r["ts_us"] - 1} for r in data.draw(st.lists(st.sampled_from(rows), max_size=2))]
    arrivals = data.draw(st.permutations(rows + copies))
    edges = sorted({r["ts_us"] + w for r in arrivals for w in [0, *SAAS.windows]})
    t = min(r["ts_us"] for r in arrivals)
    change = data.draw(st.sampled_from(edges))
    eras = [(0, ruled[0])] if data.draw(st.booleans()) else [(0, ruled[0]), (change, ruled[1])]
    folder = tmp_path_factory.mktemp(f"world{next(FILES)}")
    world, done = World(settings, folder, eras, data.draw(st.sampled_from([None, 0, 3]))), 0  # 0: all in the slow lane
    while done < len(arrivals):
        size = data.draw(st.integers(1, len(arrivals)))
        numbered = [row_of(i, event(r)) for i, r in enumerate(arrivals, 1)]
        world.history.add(numbered[done : done + size])
        done += size
        for step in data.draw(
            st.lists(st.sampled_from([0, 1, 1_800_000_000, 7_200_000_000, 90_000_000_000]), max_size=3)
        ):
            t += step
            for person in ("u1", "anon:d1"):
                found = world.follow(person, t, data.draw(st.sampled_from(["follow", "keep_up"])))
                if found is not None:
                    state, moves = wanted(compute, arrivals[:done], eras, person, t)
                    world.keeper.flush()
                    assert (found.document.state, told(world.keeper, person)) == (state, moves)
        if data.draw(st.booleans()):
            world.kill()
    world.close()


def test_a_late_event_takes_back_what_was_told(settings, ruled, tmp_path):
    row = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    at = histories.BASE
    world = World(settings, tmp_path, [(0, ruled[0])])
    clicks = [row | {"message_id": f"m{n}", "ts_us": at + n} for n in (1, 2)]
    world.history.add([row_of(n, event(c)) for n, c in enumerate(clicks, 1)])
    world.follow("u1", at + 10)
    world.keeper.flush()
    assert told(world.keeper, "u1") == [(at + 2, "clicking", True, ruled[0].version)]
    world.history.add([row_of(3, event(row | {"message_id": "late", "ts_us": at}))])
    world.follow("u1", at + 20)
    world.keeper.flush()
    assert told(world.keeper, "u1") == [(at + 1, "clicking", True, ruled[0].version)]
    every = world.keeper.journal.of(["u1"])
    assert [(c.seq, c.at_us, c.entered, c.corrects) for c in every] == [
        (1, at + 2, True, None), (2, at + 2, False, 1), (3, at + 1, True, None),
    ]  # fmt: skip
    assert world.keeper.journal.counts()[0] == {("rules", "clicking"): 1}
    world.close()


def test_other_rules_come_into_force_at_their_moment_with_no_event(settings, ruled, tmp_path):
    row = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    at = histories.BASE
    world = World(settings, tmp_path, [(0, ruled[0]), (at + 3 * HOUR, ruled[1])])
    world.history.add([row_of(n, event(row | {"message_id": f"m{n}", "ts_us": at})) for n in (1, 2)])
    world.follow("u1", at + 2 * HOUR)
    assert world.follow("u1", at + 3 * HOUR - 1).document.state.held == {"clicking": at}
    assert world.follow("u1", at + 3 * HOUR).document.state.held == {}
    world.keeper.flush()
    assert told(world.keeper, "u1")[-1] == (at + 3 * HOUR, "clicking", False, ruled[1].version)
    world.close()


@pytest.mark.parametrize("forgotten", ["erase", "forget"])
def test_what_was_decided_before_somebody_was_erased_is_noted_nowhere(settings, ruled, tmp_path, forgotten):
    row = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    world = World(settings, tmp_path, [(0, ruled[0])])
    world.history.add([row_of(1, event(row | {"message_id": "m1", "ts_us": histories.BASE}))])
    found = world.follow("u1", histories.BASE + 10)
    getattr(world.keeper, forgotten)(["u1"])
    world.keeper.note("u1", found, Placed("racing"), "why", "model 1", histories.BASE + 20)
    assert world.keeper.flush() == []
    assert world.keeper.journal.of(["u1"]) == [] and world.keeper.journal.document("u1") is None
    world.follow("u1", histories.BASE + 30)
    world.keeper.flush()
    world.close()


@pytest.mark.parametrize("how", ["follow", "keep_up"])
def test_whose_row_was_read_before_they_were_erased_is_not_kept(settings, ruled, tmp_path, how):
    row = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    world = World(settings, tmp_path, [(0, ruled[0])])
    world.history.add([row_of(1, event(row | {"message_id": "m1", "ts_us": histories.BASE}))])
    found, position = world.processor.rows(["u1"], histories.BASE + 10)
    (read,) = found.to_pylist()
    world.erased.add("u1")
    world.keeper.erase(["u1"])
    snapshot = Snapshot(read, read["ts_us"], position, read["valid_until_us"], row_position=position)
    with pytest.raises(Gone):
        getattr(world.keeper, how)("u1", snapshot, histories.BASE + 10)
    assert world.keeper.flush() == []
    assert world.keeper.journal.of(["u1"]) == [] and world.keeper.journal.document("u1") is None
    world.close()


def test_feedback_is_known_after_a_kill_too(settings, ruled, tmp_path):
    row = {"type": "track", "name": "Element Shown", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": '{"element": "tour"}', "traits": "{}", "context": "{}"}  # fmt: skip
    world = World(settings, tmp_path, [(0, ruled[0])])
    for n in (1, 2):
        world.history.add([row_of(n, event(row | {"message_id": f"m{n}", "ts_us": histories.BASE + n}))])
        found = world.follow("u1", histories.BASE + 10)
        assert found.feedback(histories.BASE + 10).elements["tour"].ever == n
        world.keeper.flush()
        world.kill()
    assert isinstance(found.feedback(histories.BASE + 10), policy.Feedback)
    world.close()


def test_a_move_between_personas_has_its_own_cause(settings, tmp_path, ruled):
    row = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    at = histories.BASE
    world = World(settings, tmp_path, [(0, ruled[0])])
    world.history.add([row_of(1, event(row | {"message_id": "m1", "ts_us": at}))])
    for engagement, persona, now in (("racing", "builder", at + 10), ("racing", "reader", at + 20)):
        placed = Placed(engagement=engagement, persona=persona)
        world.keeper.note("u1", world.follow("u1", now), placed, f"{engagement}: score .7", "", now)
    world.keeper.flush()
    causes = {(c.segment, c.entered): c.cause for c in world.keeper.journal.of(["u1"]) if c.source != "rules"}
    assert causes == {
        ("racing", True): "racing: score .7",
        ("builder", True): "behaves most like persona builder",
        ("builder", False): "behaves most like persona reader",
        ("reader", True): "behaves most like persona reader",
    }
    world.close()


def test_what_the_model_had_to_do_with_stands(settings, tmp_path):
    (tmp_path / "scored.yaml").write_text(
        "domain: saas\nsegments:\n"
        "  keen: {why: likely, when: score >= 0.5}\n"
        "  clicking: {why: clicks, when: clicks >= 1}\n"
    )
    scored = rules.load(tmp_path / "scored.yaml", SAAS)
    assert scored.scored == {"keen"}
    row = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    at = histories.BASE
    world = World(settings, tmp_path, [(0, scored)])
    world.history.add([row_of(1, event(row | {"message_id": "m1", "ts_us": at}))])
    found = world.follow("u1", at + 10)
    step = rules.step(scored, found.document.state, rules.Facts({"clicks": 1}, at + 10, score=0.7))
    world.keeper.note("u1", found, Placed(step=step), "", "", at + 10)
    world.history.add([row_of(2, event(row | {"message_id": "late", "ts_us": at - 5}))])
    again = world.follow("u1", at + 20)
    assert again.document.state.held == {"clicking": at - 5, "keen": at + 10}
    world.keeper.flush()
    assert [(s, e, t) for t, s, e, _ in told(world.keeper, "u1")] == [
        ("clicking", True, at - 5), ("keen", True, at + 10),
    ]  # fmt: skip
    world.close()


class Waiting(Personal):
    """Reads no trail before it may."""

    def __init__(self, settings: Settings, history: SqliteHistory) -> None:
        super().__init__(settings, history)
        self.begun, self.may = threading.Event(), threading.Event()

    def trail(self, person, at_us, since_us=NEVER):
        self.begun.set()
        assert self.may.wait(20)
        return super().trail(person, at_us, since_us)


@pytest.fixture
def long_past(settings, ruled, tmp_path):
    """A world in which u1 has three events, which are many; their past is being read until `patient.may` is set."""
    row = {"type": "track", "name": "Clicked", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    clicks = [("u1", 1), ("u2", 2), ("u1", 3), ("u1", 4)]
    world = World(settings, tmp_path, [(0, ruled[0])], most=2)
    world.patient = world.keeper._patient = Waiting(settings, world.history)
    world.history.add(
        [row_of(n, event(row | {"user_id": u, "message_id": f"m{n}", "ts_us": histories.BASE + n})) for u, n in clicks]
    )
    found, position = world.processor.rows(["u1"], histories.BASE + 10)
    values = found.to_pylist()[0]
    world.row = Snapshot(values, values["ts_us"], position, values["valid_until_us"], row_position=position)
    yield world
    world.patient.may.set()
    world.close()


def test_nobody_waits_for_a_very_long_past(long_past, ruled):
    world, at = long_past, histories.BASE + 10
    with pytest.raises(Behind) as behind:
        world.keeper.follow("u1", world.row, at)
    assert behind.value.person is None and world.patient.begun.wait(20)
    assert world.follow("u2", at).document.state.held == {}
    with pytest.raises(Behind):
        world.keeper.follow("u1", world.row, at)
    world.caught_up.clear()
    world.patient.may.set()
    assert world.caught_up.wait(20)
    assert world.keeper.follow("u1", world.row, at).document.state.held == {"clicking": histories.BASE + 3}
    world.keeper.flush()
    assert told(world.keeper, "u1") == [(histories.BASE + 3, "clicking", True, ruled[0].version)]


@pytest.mark.parametrize("meanwhile", ["the other", "nothing", "erase", "forget", "forget, and the other"])
@pytest.mark.parametrize(("how", "other"), [("keep_up", "follow"), ("follow", "keep_up")])
def test_decisions_and_who_keeps_up_with_everybody_do_not_wait_for_each_other(long_past, ruled, how, other, meanwhile):
    world, at, found = long_past, histories.BASE + 10, []
    readers = {"keep_up": "_background", "follow": "_personal"}
    setattr(world.keeper, readers[how], world.patient)
    setattr(world.keeper, readers[other], Personal(world.settings, world.history))

    def look() -> None:
        try:
            found.append(getattr(world.keeper, how)("u1", world.row, at))
        except Gone:
            found.append(None)

    thread = threading.Thread(target=look)
    thread.start()
    assert world.patient.begun.wait(20)
    for act in {"erase", "forget"}.intersection(meanwhile.split(", ")):
        getattr(world.keeper, act)(["u1"])
    if meanwhile.endswith("the other"):
        same = getattr(world.keeper, other)("u1", world.row, at)
        assert same.document.state.held == {"clicking": histories.BASE + 3}
    world.patient.may.set()
    thread.join()
    world.keeper.flush()
    if meanwhile in ("the other", "nothing"):
        assert found[0].document.state.held == {"clicking": histories.BASE + 3}
    else:
        assert found == [None]
    once = [(histories.BASE + 3, "clicking", True, ruled[0].version)]
    assert told(world.keeper, "u1") == ([] if meanwhile in ("erase", "forget") else once)
    assert (world.keeper.journal.document("u1") is None) == (meanwhile in ("erase", "forget"))


@pytest.mark.parametrize("gone", ["erase", "forget"])
def test_of_who_is_erased_while_their_past_is_read_nothing_is_kept(long_past, gone):
    world = long_past
    with pytest.raises(Behind):
        world.keeper.follow("u1", world.row, histories.BASE + 10)
    assert world.patient.begun.wait(20)
    getattr(world.keeper, gone)(["u1"])
    world.patient.may.set()
    world.keeper._slow.close()
    assert world.keeper.flush() == [] and world.keeper.journal.document("u1") is None


def test_a_copy_of_what_was_known_is_had_meanwhile(long_past):
    world, at = long_past, histories.BASE + 10
    world.patient.may.set()
    found = world.follow("u1", at)
    world.patient.may.clear()
    row = {"type": "track", "name": "Clicked", "anonymous_id": None, "received_us": 1, "user_id": "u1",
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    world.history.add([row_of(9, event(row | {"message_id": "late", "ts_us": histories.BASE - 5}))])
    with pytest.raises(Behind) as behind:
        world.keeper.follow("u1", msgspec.structs.replace(world.row, row_position=9), at + 1)
    assert behind.value.person == found and behind.value.person is not found
    world.keeper.note("u1", behind.value.person, Placed("racing"), "why", "model 1", at + 1)
    assert found.document.engagement is None
