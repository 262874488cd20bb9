"""Parity finds nothing where all is well, and names what is wrong where a fault was planted."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo import domains
from feature_repo.embedded import Embedded
from feature_repo.events import Event
from feature_repo.settings import Settings
from feature_repo.store import feature_store, read_online
from feature_repo.vocabulary import HOUR
from monitoring.parity import Parity, parity
from serving import decision_log, policy
from serving.decision_log import DecisionLog
from serving.engine import Engine
from serving.features import Reader
from serving.models import Champion

SAAS = domains.load("saas")
BEGIN = 1_700_000_000_000_000
USERS = [f"u{i}" for i in range(8)]


class World:
    """The live part in this process, with a clock that is set by hand and decisions that are logged."""

    def __init__(self, home: Path) -> None:
        self.now_us = BEGIN
        self.settings = Settings(home=home, domain="saas")
        self.live = Embedded(self.settings, lambda: self.now_us).start()
        self.reader = Reader(self.settings, SAAS, self.live)
        self.reader.connect()
        self.log = DecisionLog(self.settings.decisions).start()
        nobody = Champion(lambda: None, lambda version: None, None)  # features are served without a model too
        clock = lambda: self.now_us  # noqa: E731
        self.engine = Engine(self.reader, nobody, policy.for_domain(SAAS), SAAS.label, self.log, clock=clock)

    def send(self, events: list[Event]) -> None:
        self.live.append(events).result()

    def decide(self, *users: str) -> None:
        asyncio.run(self.engine.decide_many(users))

    def compare(self) -> Parity:
        self.log.close()
        return parity(self.settings, progress=False)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.engine.close()
    made.live.close()


def clicked(user: str | None, n: int, at_us: int, device: str | None = None, kind: str = "track") -> Event:
    name = "Clicked" if kind == "track" else None
    return Event(kind, f"{user or device}-{n}", user, device, at_us, at_us, name, {"feature": f"f{n % 3}"}, {}, {})


def replay(world: World, vectors: int, seed: int = 1) -> None:
    """Events of some people, shuffled, repeated and late, some anonymous at first; decisions in between."""
    chance = random.Random(seed)
    served = n = 0
    while served < vectors:
        world.now_us += chance.choice([1, 60_000_000, HOUR, 5 * HOUR])
        batch = []
        for _ in range(chance.randint(1, 12)):
            n += 1
            user, late = chance.choice(USERS), chance.choice([0, 0, 1, HOUR, 30 * HOUR, 200 * HOUR])
            kind = chance.choice(["track", "track", "track", "identify"])
            known = None if kind == "track" and n % 4 == 0 else user
            batch.append(clicked(known, n, world.now_us - late, f"d-{user}", kind))
        batch += chance.sample(batch, min(2, len(batch)))
        chance.shuffle(batch)
        world.send(batch)
        asked = [chance.choice(USERS) for _ in range(40)]
        world.decide(*asked)
        served += len(asked)


@pytest.mark.parametrize("vectors", [600, pytest.param(100_000, marks=pytest.mark.soak)])
def test_what_was_served_is_what_the_lake_gives(world: World, vectors: int) -> None:
    replay(world, vectors)
    found = world.compare()
    assert (found.mismatched, found.missing, found.extra, found.examples) == ({}, {}, {}, [])
    receipts = decision_log.read(world.settings.decisions).to_pylist()
    assert found.vectors + found.not_comparable == len(receipts) >= vectors
    assert found.not_comparable == sum(not r["known"] for r in receipts)  # people of whom nothing had come yet


def stored(world: World, user: str) -> dict:
    (row,) = read_online(feature_store(world.settings, lineage=False), SAAS, [user])
    assert row is not None
    return row


def force(world: World, user: str, row: dict) -> None:
    """Put a row online whatever is there."""
    from feature_repo.store import delete_online, write_online

    store = feature_store(world.settings, lineage=False)
    delete_online(store, SAAS, [user])
    at = pa.array([world.now_us], pa.timestamp("us", "UTC"))
    types = {"user_id": "string"} | SAAS.feature_types | {"valid_until_us": "int64", "applied_position": "int64"}
    schema = pa.schema([(name, pa.type_for_alias(type_)) for name, type_ in types.items()])
    table = pa.Table.from_pylist([row | {"user_id": user}], schema)
    write_online(store, SAAS, table.append_column("event_timestamp", at).append_column("created", at))


def test_an_older_row_over_a_newer_one_is_found(world: World) -> None:
    world.send([clicked("u1", 1, BEGIN)])
    world.decide("u1")
    older = stored(world, "u1")
    world.send([clicked("u1", 2, BEGIN)])
    world.decide("u1")
    force(world, "u1", older)
    world.decide("u1")
    found = world.compare()
    assert found.vectors == 3
    assert found.mismatched["clicks"] == found.mismatched["interactions_1h"] == 1
    assert found.examples[0]["user_id"] == "u1"


def test_a_row_served_beyond_its_time_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send([clicked("u1", 1, BEGIN)])
    world.decide("u1")
    world.live.stream.close()
    monkeypatch.setattr(world.reader, "ended", lambda row, now_us: False)
    world.now_us = BEGIN + HOUR
    world.decide("u1")
    found = world.compare()
    assert dict(found.mismatched)["interactions_1h"] == 1
    assert "clicks" not in found.mismatched


def test_a_window_that_is_a_microsecond_off_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send([clicked("u1", 1, BEGIN)])
    world.decide("u1")
    world.live.stream.close()
    rows = world.live.processor.rows
    monkeypatch.setattr(world.live.processor, "rows", lambda persons, at_us: rows(persons, at_us - 1))
    world.now_us = BEGIN + HOUR
    world.decide("u1")
    found = world.compare()
    assert set(found.mismatched) == {"interactions_1h"}


def test_an_event_counted_twice_is_found(world: World) -> None:
    world.send([clicked("u1", 1, BEGIN)])
    world.decide("u1")
    row = stored(world, "u1")
    force(world, "u1", row | {"clicks": row["clicks"] + 1})
    world.decide("u1")
    found = world.compare()
    assert dict(found.mismatched) == {"clicks": 1}
    assert not found.missing and not found.extra
