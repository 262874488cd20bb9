"""The stream: whatever order, repetition, batches, kills and clock, the online rows are those of the definition."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.feature_store.store import apply, delete_online, feature_store, read_online
from feature_repo.features import folding, fresh, quick
from feature_repo.history.sqlite_history import SqliteHistory
from feature_repo.log.event_log import Delivered
from feature_repo.settings import Settings
from feature_repo.stream import slow_lane
from feature_repo.stream.processor import Processor
from tests.feature_repo import histories, oracle

ENTITIES = [*histories.USERS, *(f"anon:{d}" for d in histories.DEVICES)]
FILES = itertools.count()


@pytest.fixture(scope="module", params=["saas", "oulad"])
def world(request, tmp_path_factory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("live"), domain=request.param)
    apply(settings)
    return settings


class Clock:
    """A clock that is set by hand, µs."""

    def __init__(self, now_us: int = histories.BASE) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


def event(row: histories.Row) -> Event:
    """The event that a lake's row is."""
    documents = {name: json.loads(row[name]) for name in ("properties", "traits", "context")}
    kept = ("type", "message_id", "user_id", "anonymous_id", "ts_us", "received_us", "name")
    return Event(**{name: row[name] for name in kept}, **documents)


def opened(settings: Settings, file: Path, clock: Clock) -> Processor:
    return Processor(settings, SqliteHistory(file), clock)


def online(settings: Settings) -> dict[str, dict | None]:
    """Everybody's features as they are stored."""
    domain = domains.load(settings.domain)
    found = read_online(feature_store(settings, lineage=False), domain, ENTITIES, list(domain.feature_types))
    return dict(zip(ENTITIES, found, strict=True))


def wanted(settings: Settings, rows: list[histories.Row], t: int) -> dict[str, dict | None]:
    domain = domains.load(settings.domain)
    return {e: oracle.row(oracle.canonical(rows), domain, e, t) for e in ENTITIES}


def settle(processor: Processor) -> None:
    while processor.refresh() + processor.refresh_slow() + processor.refresh_heavy():
        pass


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object, Any], None]:
    """Sets a limit of a module for the rest of the test."""
    return lambda name, module, value: monkeypatch.setattr(module, name, value)


@given(data=st.data())
def test_any_order_copies_batches_and_kills_give_the_rows_of_the_definition(
    world: Settings, data, tmp_path_factory, limits
):
    domain = domains.load(world.domain)
    delete_online(feature_store(world, lineage=False), domain, ENTITIES)
    rows = data.draw(histories.events(domain, 15))
    copies = [
        row | {"ts_us": row["ts_us"] + data.draw(st.sampled_from([0, 1, -1, 3_600_000_000]))}
        for row in data.draw(st.lists(st.sampled_from(rows), max_size=4))
    ]
    arrivals = data.draw(st.permutations(rows + copies))
    edges = sorted({r["ts_us"] + w for r in arrivals for w in [0, *domain.windows]})
    clock = Clock(data.draw(st.sampled_from(edges)) - 1)
    file = tmp_path_factory.mktemp("history") / f"{next(FILES)}.db"
    for lane in (quick, fresh):  # of events in memory
        limits("MOST_HELD", lane, data.draw(st.sampled_from([1, 500_000])))
    limits("HEAVY", slow_lane, data.draw(st.sampled_from([1, 5, 20_000])))  # of events of somebody in the quick lane
    limits("FOLD_FROM", folding, data.draw(st.sampled_from([0, 2, 500])))
    limits("reach", folding, lambda domain: max(domain.windows))  # the least that is exact, so that much is folded
    processor = opened(world, file, clock)
    done = 0
    while done < len(arrivals):
        size = data.draw(st.integers(1, len(arrivals)))
        again = data.draw(st.integers(0, min(done, 3)))  # what was delivered before comes once more
        batch = list(enumerate(arrivals, 1))[done - again : done + size]
        processor.apply([Delivered(event(row), position, None) for position, row in batch])
        done += size
        if data.draw(st.booleans()):  # killed before the rows were written
            processor.history.close()
            processor = opened(world, file, clock)
        else:
            settle(processor)
        clock.now_us += data.draw(st.sampled_from([0, 1, 60_000_000, 90_000_000_000]))
    settle(processor)
    assert online(world) == wanted(world, rows + copies, clock.now_us)
    for moment in data.draw(st.lists(st.sampled_from(edges), max_size=3)):  # no new event: only time passes
        clock.now_us = max(clock.now_us, moment)
        settle(processor)
        assert online(world) == wanted(world, rows + copies, clock.now_us)
        found, position = processor.rows(ENTITIES, clock.now_us)
        asked = found.to_pylist()
        assert position == len(arrivals)
        features = {r["user_id"]: {n: r[n] for n in domain.feature_types} for r in asked}
        assert features == {e: row for e, row in wanted(world, rows + copies, clock.now_us).items() if row}
    processor.history.close()
