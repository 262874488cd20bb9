"""Whatever order, repetition, batches, kills and times of asking: what the rules remember is that of the definition."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.history_store import row_of
from feature_repo.personal import Personal
from feature_repo.settings import Settings
from feature_repo.sqlite_history import SqliteHistory
from feature_repo.store import apply
from feature_repo.stream import Processor
from serving import policy, rules
from serving.decide import Placed, Snapshot
from serving.segments import timeline
from serving.segments.journal import Journal
from serving.segments.keeper import Keeper
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

    def __init__(self, settings: Settings, folder: Path, eras: list[timeline.Era]) -> None:
        self.settings, self.folder, self.eras = settings, folder, eras
        self.history = SqliteHistory(folder / "history.db")
        self.processor = Processor(settings, self.history.reader(), Clock())
        self.begin()

    def begin(self) -> None:
        """A process starts."""
        personal = Personal(self.settings, self.history)
        self.keeper = Keeper(personal, Journal(self.folder / "segments.db"), self.eras, GAP, lambda values, at: {})

    def kill(self) -> None:
        """It ends, with what it had not written."""
        self.keeper.journal.close()
        self.keeper._personal.close()
        self.begin()

    def follow(self, person: str, at_us: int):
        """As a decision does; None: there is no row."""
        found, position = self.processor.rows([person], at_us)
        if not (rows := found.to_pylist()):
            return None
        row = rows[0]
        snapshot = Snapshot(row, row["ts_us"], position, row["valid_until_us"], row_position=position)
        return self.keeper.follow(person, snapshot, at_us)

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
    world, done = World(settings, folder, eras), 0
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
                found = world.follow(person, t)
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
