"""A shuffled, duplicated, late replay, with decisions in between: what was served is what the lake gives.

Simulated people, in the order of arrival that was made up for them (offline devices, retries with other timestamps); on
top of that batches are shuffled and repeated, and some events come far too late. The clock stops where windows end too.
"""

import random
from collections import deque
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import pytest

from feature_repo.contract.events import Event, parse
from feature_repo.domains.saas.simulator import simulate
from feature_repo.vocabulary import DAY
from serving import decision_log
from tests.monitoring.parity_world import BEGIN, SAAS, World

BATCH = 200
LATER = 0.03
"""Share of the events that are held back for up to 20 batches."""


def arrivals(users: int, seed: int) -> list[Event]:
    """What a simulation's people sent and the contract accepts, in order of arrival."""
    parsed = (parse(raw, SAAS, received_us) for raw, received_us in simulate(users, seed, BEGIN + 60 * DAY, days=50))
    return [event for event in parsed if isinstance(event, Event)]


def batches(events: list[Event], chance: random.Random) -> Iterator[list[Event]]:
    """The events in shuffled batches, some of them twice, some much later."""
    held: deque[tuple[int, Event]] = deque()
    for n in range(ceil(len(events) / BATCH)):
        batch = events[n * BATCH : (n + 1) * BATCH]
        for event in [e for e in batch if chance.random() < LATER]:
            batch.remove(event)
            held.append((n + chance.randint(1, 20), event))
        batch += [held.popleft()[1] for _ in range(len(held)) if held[0][0] <= n]
        batch += chance.sample(batch, len(batch) // 20)
        chance.shuffle(batch)
        yield batch
    yield [event for _, event in held]


def next_moment(world: World, batch: list[Event], chance: random.Random) -> int:
    """When the batch has arrived, or where a window of one of its events ends, or a microsecond beside."""
    arrived = max([world.now_us, *(e.received_us for e in batch)])
    ends = [e.ts_us + w + beside for e in batch for w in [0, *SAAS.windows] for beside in (-1, 0, 1)]
    soon = [end for end in ends if arrived < end < arrived + DAY // 2]
    return chance.choice(soon) if soon and chance.random() < 0.5 else arrived


def replay(world: World, users: int, vectors: int, seed: int = 1) -> int:
    """Returns how many decisions were asked for: after each batch for those whom it touches, and for others."""
    chance, events, known, asked = random.Random(seed), arrivals(users, seed), dict[str, None](), 0
    share = ceil(1.01 * vectors * BATCH / len(events))
    for batch in batches(events, chance):
        world.now_us = next_moment(world, batch, chance)
        world.send(*batch)
        touched = dict.fromkeys(e.user_id for e in batch if e.user_id)
        known |= touched
        some = [*touched, *chance.choices(list(known) or ["nobody"], k=share)][:share]
        world.decide(*some)
        asked += len(some)
    return asked


@pytest.mark.parametrize(("users", "vectors"), [(60, 3_000), pytest.param(1_500, 100_000, marks=pytest.mark.soak)])
def test_what_was_served_is_what_the_lake_gives(tmp_path: Path, users: int, vectors: int) -> None:
    world = World(tmp_path)
    try:
        asked = replay(world, users, vectors)
        found = world.compare()
    finally:
        world.close()
    assert found.wrong == 0, found.examples
    assert found.vectors >= vectors
    receipts = decision_log.read(world.settings.decisions).num_rows
    assert found.vectors + found.not_comparable == receipts == asked
    assert found.not_comparable < 0.01 * asked, found.because
    assert all(tally.compared == found.vectors for tally in found.features.values())
