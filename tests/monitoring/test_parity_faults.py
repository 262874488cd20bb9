"""Faults that were planted into a real pipeline: parity finds each, in the right features, and names it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from msgspec import structs

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.feature_store.store import delete_online, feature_store, read_online, write_online
from feature_repo.features import quick
from feature_repo.lake.lake import Lake
from feature_repo.log.event_log import Delivered
from feature_repo.vocabulary import DAY, HOUR, SECOND, Count
from monitoring.__main__ import main
from tests.monitoring.parity_world import BEGIN, SAAS, World, clicked, faults, identified, used, wrong
from training.promote import served_right

Patch = pytest.MonkeyPatch


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def stored(world: World, user: str) -> dict[str, Any]:
    (row,) = read_online(feature_store(world.settings, lineage=False), SAAS, [user])
    assert row is not None
    return row


def force(world: World, user: str, row: dict[str, Any], at_us: int = BEGIN) -> None:
    """Put a row online whatever is there."""
    store = feature_store(world.settings, lineage=False)
    delete_online(store, SAAS, [user])
    at = pa.array([at_us], pa.timestamp("us", "UTC"))
    types = {"user_id": "string"} | SAAS.feature_types | {"valid_until_us": "int64", "applied_position": "int64"}
    schema = pa.schema([(name, pa.type_for_alias(type_)) for name, type_ in types.items()])
    table = pa.Table.from_pylist([row | {"user_id": user}], schema)
    write_online(store, SAAS, table.append_column("event_timestamp", at).append_column("created", at))


def applied_otherwise(world: World, patch: Patch, how: Callable[[Sequence[Delivered]], list[Delivered]]) -> None:
    """The stream takes in something else than what the log delivers."""
    apply = world.live.processor.apply
    patch.setattr(world.live.processor, "apply", lambda delivered: apply(how(delivered)))


def lose(world: World, patch: Patch, *message_ids: str) -> None:
    """These events never reach the history; the lake has them."""
    applied_otherwise(world, patch, lambda delivered: [d for d in delivered if d.event.message_id not in message_ids])


def with_windows_moved(domain: Domain, by_us: int) -> Domain:
    """The domain, with the hour of interactions_1h this much longer."""

    def moved(feature: Any) -> Any:
        if feature.name != "interactions_1h":
            return feature
        assert isinstance(feature.term, Count)
        return replace(feature, term=replace(feature.term, window=HOUR + by_us))

    return replace(domain, features=tuple(moved(f) for f in domain.features))


def test_an_older_row_over_a_newer_one(world: World) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    older = stored(world, "u1")
    world.now_us += SECOND
    world.send(clicked("u1", 2, BEGIN + 1))
    world.send(used("u1", 3, BEGIN + 2))
    world.decide("u1")
    force(world, "u1", older)
    world.decide("u1")
    found = world.compare()
    assert (found.vectors, found.wrong_vectors, wrong(found)["clicks"]) == (3, 1, 1)
    assert found.faults == {"an older row": 1}
    (example,) = found.examples
    assert example["evidence"] == "equals the row as of position 1, 2 events ago"
    assert example["features"]["clicks"] == {"served": 1, "recomputed": 2}


def test_an_older_row_or_the_newest_event_lost(world: World) -> None:
    """One vector can't tell these apart."""
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    older = stored(world, "u1")
    world.send(clicked("u1", 2, BEGIN))
    world.decide("u1")
    force(world, "u1", older)
    world.decide("u1")
    found = world.compare()
    assert found.faults == {"an older row or a lost event": 1}
    assert found.examples[0]["evidence"] == "equals the row as of position 1, before event u1-2 (position 2)"


def test_an_older_row_whose_window_has_ended_too(world: World, monkeypatch: Patch) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    older = stored(world, "u1")
    world.send(clicked("u1", 2, BEGIN), clicked("u1", 3, BEGIN))
    world.decide("u1")
    world.live.stream.close()
    monkeypatch.setattr(world.reader, "ended", lambda row, now_us: False)
    world.now_us = BEGIN + 2 * HOUR
    force(world, "u1", older)
    world.decide("u1")
    found = world.compare()
    assert found.faults == {"an older row, a row served after its end": 1}
    assert "position 1, 2 events ago, as it was at 2023-11-14T22:13:20.000000Z, which ended" in str(found.examples[0])


def test_a_row_served_after_its_end(world: World, monkeypatch: Patch) -> None:
    """The TTL is ignored: a window has ended, and the row is served all the same."""
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    world.live.stream.close()
    monkeypatch.setattr(world.reader, "ended", lambda row, now_us: False)
    world.now_us = BEGIN + HOUR + SECOND
    world.decide("u1")
    found = world.compare()
    assert wrong(found) == {"interactions_1h": 1}
    assert found.faults == {"a row served after its end": 1}
    assert found.examples[0]["evidence"] == (
        "equals the row as it was at 2023-11-14T22:13:20.000000Z, which ended at 2023-11-14T23:13:20.000000Z"
    )


@pytest.mark.parametrize(("by_us", "says"), [(1, "earlier"), (-1, "later")])
def test_a_window_that_is_a_microsecond_off(tmp_path: Path, monkeypatch: Patch, by_us: int, says: str) -> None:
    """The live part computes with another window than the one that is declared."""
    with monkeypatch.context() as patch:
        load = domains.load
        patch.setattr(domains, "load", lambda name: with_windows_moved(load(name), by_us))
        patch.setattr(quick, "plain", quick.plain.__wrapped__)
        world = World(tmp_path)
    try:
        world.send(clicked("u1", 1, BEGIN))
        world.decide("u1")
        for at_us in (BEGIN + HOUR - 2, BEGIN + HOUR - 1, BEGIN + HOUR, BEGIN + HOUR + 1):
            world.now_us = at_us
            world.decide("u1")
        found = world.compare()
    finally:
        world.close()
    assert (found.vectors, wrong(found)) == (5, {"interactions_1h": 1})
    assert found.faults == {"a window off by a microsecond": 1}
    (example,) = found.examples
    assert example["evidence"] == f"equals the row of a microsecond {says}"
    assert example["at_us"] == BEGIN + HOUR - (by_us < 0)


def test_an_event_counted_twice(world: World, monkeypatch: Patch) -> None:
    def twice(delivered: Sequence[Delivered]) -> list[Delivered]:
        again = [d for d in delivered if d.event.message_id == "u1-2"]
        return [*delivered, *(structs.replace(d, event=structs.replace(d.event, message_id="other")) for d in again)]

    applied_otherwise(world, monkeypatch, twice)
    for n in (1, 2, 3):
        world.now_us += SECOND
        world.send((used if n == 2 else clicked)("u1", n, world.now_us))
        world.decide("u1")
    found = world.compare()
    assert found.faults == {"an event counted twice": 2}
    assert {e["evidence"] for e in found.examples} == {"equals the row with event u1-2 (position 2) twice"}
    assert wrong(found)["feature_uses"] == wrong(found)["engagement"] == 2
    assert "features_used" not in wrong(found)


def test_an_event_that_is_lost(world: World, monkeypatch: Patch) -> None:
    lose(world, monkeypatch, "u1-1")
    world.now_us += SECOND
    world.send(clicked("u1", 1, BEGIN), used("u1", 2, BEGIN + 1))
    world.decide("u1")
    world.now_us += DAY
    world.decide("u1")
    found = world.compare()
    assert found.faults == {"a lost event": 2}
    assert {e["evidence"] for e in found.examples} == {"equals the row without event u1-1 (position 1)"}
    assert wrong(found)["clicks"] == 2 and "feature_uses" not in wrong(found)
    (gate,) = served_right(world.settings)
    assert not gate.passed and "clicks 2" in gate.words and "looks like a lost event" in gate.words


def test_an_identity_edge_that_is_lost(world: World, monkeypatch: Patch) -> None:
    lose(world, monkeypatch, "u1-1")
    world.now_us += SECOND
    world.send(clicked(None, 1, BEGIN, "d1"), identified("u1", 1, BEGIN + 1, "d1"), clicked("u1", 2, BEGIN + 2))
    world.decide("u1")
    found = world.compare()
    assert faults(found) == ["a lost event"]
    evidence = (
        "equals the row without event u1-1 (position 2); 1 other event would do as well"  # the click that it brings
    )
    assert found.examples[0]["evidence"] == evidence
    assert found.examples[0]["features"]["clicks"] == {"served": 1, "recomputed": 2}


def test_a_compaction_hides_no_fault(world: World, monkeypatch: Patch) -> None:
    lose(world, monkeypatch, "u1-1")
    world.now_us += SECOND
    world.send(clicked("u1", 1, BEGIN), used("u1", 2, BEGIN + 1))
    world.decide("u1")
    world.live.close()
    Lake(world.settings.lake).compact(progress=False)
    assert world.compare().faults == {"a lost event": 1}


def test_what_no_fault_explains_is_told_in_figures(world: World) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    row = stored(world, "u1")
    force(world, "u1", row | {"clicks": row["clicks"] + 1, "country": "DE"})
    world.decide("u1")
    found = world.compare()
    assert wrong(found) == {"clicks": 1, "country": 1}
    assert (found.features["country"].extra, found.features["clicks"].mismatched) == (1, 1)
    assert found.faults == {"unexplained": 1}
    assert found.examples[0]["evidence"] == "clicks is 1 more than the lake gives; country is 'DE', the lake gives None"


def test_a_row_of_nobody(world: World) -> None:
    world.send(clicked("u1", 1, BEGIN))
    world.decide("u1")
    force(world, "ghost", stored(world, "u1"))
    world.decide("ghost")
    found = world.compare()
    assert found.faults == {"a row of nobody": 1} and found.features["clicks"].extra == 1


def test_many_that_are_wrong_alike_give_a_few_examples(world: World, monkeypatch: Patch) -> None:
    lose(world, monkeypatch, *(f"u{n}-1" for n in range(5)))
    world.now_us += SECOND
    for n in range(5):
        world.send(clicked(f"u{n}", 1, BEGIN), clicked(f"u{n}", 2, BEGIN + 1))
    world.decide(*(f"u{n}" for n in range(5)))
    found = world.compare()
    assert (found.wrong_vectors, wrong(found)["clicks"], faults(found)) == (5, 5, ["a lost event"] * 3)


def test_the_command_names_the_fault_and_fails(world: World, monkeypatch: Patch) -> None:
    lose(world, monkeypatch, "u1-1")
    world.now_us += SECOND
    world.send(clicked("u1", 1, BEGIN), clicked("u1", 2, BEGIN + 1))
    world.decide("u1")
    world.log.close()
    monkeypatch.setenv("FIRSTMILE_HOME", str(world.settings.home))
    result = CliRunner().invoke(main, ["parity"])
    assert result.exit_code == 1 and "Traceback" not in result.output
    said = " ".join(result.output.split())
    assert "u1 at 2023-11-14T22:13:21.000000Z, position 2: a lost event: equals the row without event u1-1" in said
    assert "values in 1 vectors are not what the lake gives" in said


def test_a_wrong_vector_of_an_anonymous_user_names_the_anonymous_id(world: World, monkeypatch: Patch) -> None:
    world.send(clicked(None, 1, BEGIN, "visitor-9"), clicked("u1", 1, BEGIN))
    world.decide("anon:visitor-9", "u1")
    for user in ("anon:visitor-9", "u1"):
        force(world, user, stored(world, user) | {"clicks": 7})
        world.decide(user)
    found = world.compare()
    assert sorted(str((e["user_id"], e["anonymous_id"])) for e in found.examples) == [
        "('u1', None)", "(None, 'visitor-9')",
    ]  # fmt: skip
    assert "anon:" not in (world.settings.state / "parity.json").read_text()
    monkeypatch.setenv("FIRSTMILE_HOME", str(world.settings.home))
    printed = CliRunner().invoke(main, ["parity"]).output
    assert "\nanonymous visitor-9 at " in printed and "\nu1 at " in printed and "anon:" not in printed
