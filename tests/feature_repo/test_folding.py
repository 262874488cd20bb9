"""Checkpoints: somebody's old events behind one change nothing, whatever arrives afterwards, early or late."""

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.feature_store.store import delete_online, feature_store
from feature_repo.features import folding
from feature_repo.log.event_log import Delivered
from feature_repo.settings import Settings
from feature_repo.stream import slow_lane
from feature_repo.stream.processor import Processor
from tests.feature_repo import histories
from tests.feature_repo.test_backfill import event as click
from tests.feature_repo.test_stream import ENTITIES, Clock, event, online, opened, settle, wanted, world

__all__ = ["world"]
FILES = itertools.count()
DAY = 24 * 3_600_000_000
PLENTY = 40


def crowded(domain: Domain, chance: random.Random, n: int, first: int, least_us: int, most_us: int) -> list:
    """Rows of a few people who do much of the same: little of it decides anything but sums."""
    names = sorted(domain.events)[:2]
    rows = []
    for i in range(first, first + n):
        kind = chance.choices(["track", "page", "identify"], [20, 6, 1])[0]
        user = "u1" if kind == "identify" or chance.random() < 0.7 else chance.choice([None, None, "u2"])
        rows.append({
            "position": i + 1, "message_id": f"m{i:03}", "type": kind,
            "name": chance.choice(names) if kind == "track" else None,
            "user_id": user,
            "anonymous_id": chance.choice(["d1", "d1", "d2"]) if user is None or kind == "identify" else None,
            "ts_us": chance.randrange(least_us, most_us, 3_600_000_000 // 4), "received_us": histories.BASE + i,
            "properties": "{}", "traits": "{}", "context": "{}", "content_hash": f"{i:016}",
        })  # fmt: skip
    return rows


def made(processor: Processor) -> list[str]:
    """Who has a checkpoint that stands."""
    return sorted(p for p, c in processor.history.checkpoints(ENTITIES).items() if not c.broken)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints as soon as anything can go behind one, and as late as windows allow."""
    monkeypatch.setattr(folding, "FOLD_FROM", 0)
    monkeypatch.setattr(folding, "reach", lambda domain: max(domain.windows))


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 2), heavy=st.sampled_from([3, 20_000]))
def test_a_folded_past_gives_the_rows_of_the_definition(world: Settings, small, tmp_path_factory, seed, cut, heavy):
    domain, chance = domains.load(world.domain), random.Random(seed)
    delete_online(feature_store(world, lineage=False), domain, ENTITIES)
    past = crowded(domain, chance, PLENTY, 0, histories.BASE, histories.BASE + 3 * DAY)
    clock = Clock(histories.BASE + 3 * DAY + max(domain.windows) + chance.choice([0, 1, DAY]))
    slow_lane.HEAVY, held = heavy, slow_lane.HEAVY
    try:
        file = tmp_path_factory.mktemp("history") / f"{next(FILES)}.db"
        processor = opened(world, file, clock)
        processor.apply([Delivered(event(row), row["position"], None) for row in past])
        settle(processor)
        assert "u1" in made(processor) and len(processor.history.events(["u1"])) < PLENTY // 2
        assert online(world) == wanted(world, past, clock.now_us)
        before = [histories.BASE, clock.now_us - max(domain.windows), clock.now_us][cut] - DAY
        later = crowded(domain, chance, 6, PLENTY, before, clock.now_us + 1)
        rows = list(past)
        for row in later:
            again = chance.choice(past)  # a copy of what is folded, later than it or, once, earlier
            copy = again | {"ts_us": again["ts_us"] + chance.choice([0, DAY, DAY, -1])}
            arrived = [row, copy] if chance.random() < 0.3 else [row]
            processor.apply([Delivered(event(r), row["position"] * 10 + n, None) for n, r in enumerate(arrived)])
            rows += arrived
            settle(processor)
            clock.now_us += chance.choice([0, 1, DAY])
            settle(processor)
            assert online(world) == wanted(world, rows, clock.now_us)
        processor.close()
        processor.history.close()
    finally:
        slow_lane.HEAVY = held


@pytest.mark.parametrize("many", [False, True])
def test_a_late_event_from_before_takes_a_slower_lane_and_nobody_else_does(
    tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    if many:
        monkeypatch.setattr(slow_lane, "HEAVY", 20)
    settings = Settings(home=tmp_path, domain="saas")
    from feature_repo.feature_store.store import apply

    apply(settings)
    clock = Clock(histories.BASE + 30 * DAY)
    processor = opened(settings, tmp_path / "history.db", clock)
    past = [click("u1", n, histories.BASE + n) for n in range(50)]
    processor.apply([Delivered(event(row), n + 1, None) for n, row in enumerate(past)])
    settle(processor)
    assert made(processor) == ["u1"]
    late = [click("u1", 99, histories.BASE - 1), click("u2", 1, histories.BASE)]
    processor.apply([Delivered(event(row), 100 + n, None) for n, row in enumerate(late)])
    while processor.refresh():
        pass
    assert processor.slow == {"u1"} and made(processor) == []
    assert online(settings)["u2"] == wanted(settings, past + late, clock.now_us)["u2"]
    assert online(settings)["u1"] == wanted(settings, past, clock.now_us)["u1"]  # not yet
    assert (processor.refresh_slow(), processor.refresh_heavy()) == ((1, 1) if many else (2, 0))  # u2 can be folded
    assert processor.slow == set() and made(processor) == ["u1"]
    assert online(settings)["u1"] == wanted(settings, past + late, clock.now_us)["u1"]
