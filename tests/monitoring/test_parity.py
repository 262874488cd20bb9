"""Parity counts what it compared and why it could not, by feature and by reason; a compaction is no alarm."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from feature_repo import domains
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from feature_repo.vocabulary import HOUR, SECOND
from monitoring import parity as parity_room
from monitoring.parity import (
    BEYOND,
    FORGOTTEN,
    NO_POSITION,
    SAID_OLDER,
    SAID_STALE,
    UNKNOWN,
    UNREAD,
    Parity,
    Tally,
    compare,
    not_comparable,
    parity,
    receipts,
)
from serving.engine import STALE
from tests.monitoring.parity_world import BEGIN, SAAS, World, clicked, identified, wrong


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def shown(found: Parity) -> str:
    """The table as it stands in a terminal."""
    console = Console(width=120)
    with console.capture() as said:
        console.print(found.table())
    return said.get()


def test_every_feature_is_counted_and_right(world: World) -> None:
    world.send(clicked(None, 1, BEGIN, "d1"), identified("u1", 2, BEGIN, "d1"))
    world.decide("u1", "u1", "u2")
    found = world.compare()
    names = [*SAAS.feature_types, *(e.name for e in SAAS.elapsed)]
    assert found.features == {name: Tally(compared=2) for name in names}
    assert (found.vectors, found.wrong, found.because) == (2, 0, {UNKNOWN: 1})
    assert f"all {len(names)} features" in shown(found) and "clicks" not in shown(found)


def test_anonymous_users_are_compared_until_they_become_known(world: World) -> None:
    world.send(clicked(None, 1, BEGIN, "d1"), clicked(None, 2, BEGIN, "d1"), identified("u1", 3, BEGIN + 2, "d1"))
    for world.now_us in (BEGIN, BEGIN + 1, BEGIN + 2, BEGIN + 3):
        world.decide("anon:d1", "u1")
    found = world.compare()
    assert (found.vectors, found.wrong, found.because) == (4, 0, {UNKNOWN: 4})


def test_what_is_written_says_when_and_how_many(world: World) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1", "u2")
    world.now_us += HOUR
    world.compare()
    written = json.loads((world.settings.state / parity_room.FILE).read_text())
    assert written["at_us"] == BEGIN + HOUR
    assert {k: written[k] for k in ("vectors", "wrong", "wrong_vectors", "not_comparable")} == {
        "vectors": 1, "wrong": 0, "wrong_vectors": 0, "not_comparable": 1,
    }  # fmt: skip
    assert written["features"]["clicks"] == {"compared": 1, "mismatched": 0, "missing": 0, "extra": 0}
    assert written["because"] == {UNKNOWN: 1}


def test_a_time_can_be_compared_alone(world: World) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    world.now_us += HOUR
    world.decide("u1", "u1", "u2")
    world.log.close()

    def between(after_us: int | None, to_us: int | None) -> tuple[int, int]:
        found = compare(world.settings, receipts(world.settings.decisions, after_us, to_us))
        return found.vectors, found.not_comparable

    assert between(BEGIN - 1, BEGIN) == (1, 0) and between(BEGIN, BEGIN + HOUR) == (2, 1)
    assert between(None, BEGIN) == (1, 0) and between(BEGIN + HOUR, None) == (0, 0)
    assert not (world.settings.state / parity_room.FILE).exists()


def test_without_a_decision_nothing_is_compared(tmp_path: Path) -> None:
    found = parity(Settings(home=tmp_path, domain="saas"), progress=False)
    assert (found.vectors, found.wrong, found.not_comparable) == (0, 0, 0)


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ({}, None),
        ({"features": None, "reasons": ["unknown user: default journey"]}, UNKNOWN),
        ({"features": None, "unavailable": "the online store did not answer (it took too long)"}, UNREAD),
        ({"reasons": [STALE, "score 0.5"]}, SAID_STALE),
        ({"reasons": ["features as of 2023-11-14T22:13:20.000000Z: a window has ended since"]}, SAID_OLDER),
        ({"applied_position": None}, NO_POSITION),
        ({"applied_position": 0}, NO_POSITION),
        ({"applied_position": 8}, BEYOND),
    ],
)
def test_why_a_receipt_is_not_comparable(differs: dict[str, Any], why: str | None) -> None:
    receipt = {"features": "{}", "reasons": ["score 0.5"], "applied_position": 7, "unavailable": None}
    assert not_comparable(receipt | differs, last_position=7) == why


def test_a_stale_answer_is_counted_under_its_reason(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    world.live.stream.close()
    monkeypatch.setattr("serving.engine.SETTLE_S", 0.01)
    world.send(clicked("u1", 2, BEGIN))
    world.decide("u1")
    found = world.compare()
    assert (found.vectors, found.wrong, found.because) == (1, 0, {SAID_STALE: 1})


def test_a_better_copy_that_comes_later_was_not_known_before(world: World) -> None:
    world.now_us += HOUR
    world.send(clicked("u1", 1, BEGIN + SECOND))
    world.decide("u1")
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    found = world.compare()
    assert (found.vectors, found.wrong) == (2, 0)


def test_what_a_compaction_has_forgotten_is_no_fault(world: World) -> None:
    world.now_us += HOUR + SECOND
    world.send(clicked("u1", 1, BEGIN + SECOND))
    world.decide("u1")
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    world.live.close()
    Lake(world.settings.lake).compact(progress=False)
    found = world.compare()
    assert (found.vectors, found.wrong, found.because) == (1, 0, {FORGOTTEN: 1})


def test_a_feature_that_is_no_longer_declared_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    less = dataclasses.replace(SAAS, features=tuple(f for f in SAAS.features if f.name != "clicks"), said={})
    monkeypatch.setattr(domains, "load", lambda name: less)
    found = world.compare()
    assert (found.vectors, found.wrong) == (1, 0)
    assert "clicks" not in found.features and found.features["pages"].compared == 1


def test_the_table_shows_the_wrong_ones_and_a_total() -> None:
    features = {"a": Tally(9, 1, 0, 0), "b": Tally(9), "c": Tally(9, 2, 3, 1)}
    found = Parity(features, vectors=9, wrong_vectors=6, because={UNKNOWN: 1_200})
    assert (found.wrong, list(found.wrong_features)) == (7, ["c", "a"])
    lines = [line.replace("│", " ").split() for line in shown(found).splitlines()]
    assert ["c", "9", "2", "3", "1"] in lines and ["a", "9", "1", "0", "0"] in lines
    assert ["all", "3", "features", "27", "3", "3", "1"] in lines
    assert not any(line[:1] == ["b"] for line in lines)
    assert "1,200 for people nobody has seen" in " ".join(" ".join(line) for line in lines)


def test_each_way_to_be_wrong_has_its_count() -> None:
    found = Parity({n: Tally() for n in "abcd"})
    found.differs({"a": 1, "b": None, "c": 2, "d": 1.0}, {"a": 1, "b": 5, "c": None, "d": 1})
    assert found.features == {"a": Tally(1), "b": Tally(1, missing=1), "c": Tally(1, extra=1), "d": Tally(1, 1)}
    found.differs({"a": 1, "b": None, "c": 2, "d": 1}, None)
    assert found.features["a"] == Tally(2, extra=1) and found.features["b"] == Tally(2, missing=1)
    assert wrong(found) == {"c": 2, "d": 2, "a": 1, "b": 1} and found.wrong_vectors == 2
