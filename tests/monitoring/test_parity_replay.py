"""A shuffled, duplicated, late replay, with decisions in between: what was served is what the lake gives.

Simulated people, in the order of arrival that was made up for them (offline devices, retries with other timestamps); on
top of that batches are shuffled and repeated, and some events come far too late. The clock stops where windows end too.

Anonymous users are asked about as well: before the microsecond at which they become known, at it and after it. Every
eighth user signs up on a device on which somebody else has signed up before.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import pytest
from msgspec.structs import replace

from feature_repo.contract.events import ANONYMOUS, Event, parse
from feature_repo.domains.saas.simulator import simulate
from feature_repo.vocabulary import DAY
from monitoring.parity import UNKNOWN
from serving import decision_log, engine
from tests.monitoring.parity_world import BEGIN, SAAS, World

BATCH = 200
PATIENCE_S = 60.0
"""How long a decision waits for the stream and for a row."""
LATER = 0.03
"""Share of the events that are held back for up to 20 batches."""


def arrivals(users: int, seed: int) -> list[Event]:
    """What a simulation's people sent and the contract accepts, in order of arrival; some of them share a device."""
    parsed = (parse(raw, SAAS, received_us) for raw, received_us in simulate(users, seed, BEGIN + 60 * DAY, days=50))
    events = [event for event in parsed if isinstance(event, Event)]
    devices = list(dict.fromkeys(e.anonymous_id for e in events if is_link(e)))
    shared = {devices[n]: devices[n - 1] for n in range(7, len(devices), 8)}
    return [replace(e, anonymous_id=shared.get(e.anonymous_id, e.anonymous_id)) for e in events]


def is_link(event: Event) -> bool:
    """Whether the event says that an anonymous id is a user from then on."""
    return event.type in ("identify", "alias") and event.user_id is not None and event.anonymous_id is not None


def keys(event: Event) -> list[str]:
    """The user keys whose features the event can change, as far as it tells by itself."""
    anonymous = event.anonymous_id and (is_link(event) or not event.user_id) and f"{ANONYMOUS}{event.anonymous_id}"
    return [key for key in (event.user_id, anonymous) if key]


@dataclass
class Asked:
    """What was asked for: how often, and how often about a key that is nobody at that moment, by what was sent.

    first_us: of the events by sender; linked_us: of the identity links by anonymous user. µs.
    """

    count: int = 0
    nobody: int = 0
    anonymous: int = 0
    first_us: dict[str, int] = field(default_factory=dict)
    linked_us: dict[str, int] = field(default_factory=dict)

    def sent(self, events: Iterable[Event]) -> None:
        for event in events:
            sender, *linked = keys(event)[:2] if is_link(event) else [event.user_id or keys(event)[0]]
            self.first_us[sender] = min(event.ts_us, self.first_us.get(sender, event.ts_us))
            for key in linked:
                self.linked_us[key] = min(event.ts_us, self.linked_us.get(key, event.ts_us))

    def asked(self, users: list[str], at_us: int) -> None:
        there = [key for key in users if self.there(key, at_us)]
        self.count += len(users)
        self.nobody += len(users) - len(there)
        self.anonymous += sum(key.startswith(ANONYMOUS) for key in there)

    def there(self, key: str, at_us: int) -> bool:
        """Whether the key has events of its own by then, and is no anonymous id that has been linked."""
        return self.first_us.get(key, at_us + 1) <= at_us and self.linked_us.get(key, at_us + 1) > at_us


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


def replay(world: World, users: int, vectors: int, seed: int = 1) -> Asked:
    """Decisions after each batch for those whom it touches and for others, and around the links that it has early."""
    chance, events, asked = random.Random(seed), arrivals(users, seed), Asked()
    share = ceil(1.05 * vectors * BATCH / len(events))
    early = [e for e in events if is_link(e) and chance.random() < 0.5]
    for batch in batches([e for e in events if id(e) not in set(map(id, early))], chance):
        world.now_us = next_moment(world, batch, chance)
        horizon = world.now_us + DAY
        links, early = [e for e in early if e.ts_us < horizon], [e for e in early if e.ts_us >= horizon]
        batch += links
        world.send(*batch)
        asked.sent(batch)
        touched = dict.fromkeys(key for e in batch for key in keys(e))
        there = [key for key in asked.first_us if asked.there(key, world.now_us)]
        decide(world, [*touched, *chance.choices(there or ["nobody"], k=max(0, share - len(touched)))], asked)
        for link in sorted((e for e in links if e.ts_us > world.now_us), key=lambda e: e.ts_us):
            for beside in (-1, 0, 1):
                world.now_us = max(world.now_us, link.ts_us + beside)
                decide(world, keys(link), asked)
    return asked


def decide(world: World, users: list[str], asked: Asked) -> None:
    world.decide(*users)
    asked.asked(users, world.now_us)


@pytest.mark.parametrize(("users", "vectors"), [(60, 3_000), pytest.param(1_500, 100_000, marks=pytest.mark.soak)])
def test_what_was_served_is_what_the_lake_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: int, vectors: int
) -> None:
    monkeypatch.setattr(engine, "SETTLE_S", PATIENCE_S)  # so that a busy machine leaves nothing out
    world = World(tmp_path, PATIENCE_S)
    try:
        asked = replay(world, users, vectors)
        found = world.compare()
    finally:
        world.close()
    assert found.wrong == 0, found.examples
    assert found.vectors >= vectors
    receipts = decision_log.read(world.settings.decisions).num_rows
    assert found.vectors + found.not_comparable == receipts == asked.count
    others = found.not_comparable - found.because.get(UNKNOWN, 0)
    assert others < 0.01 * asked.count, found.because
    assert abs(found.because[UNKNOWN] - asked.nobody) <= others and asked.anonymous > 0.005 * asked.count
    assert all(tally.compared == found.vectors for tally in found.features.values())
