"""Data of the past are named as such, in decisions and in the log, until an event of the present comes."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.lake.lake import Lake
from feature_repo.lake.quarantine import Quarantine
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.vocabulary import DAY
from serving.collect.door import Door
from serving.engine import Engine
from serving.past_data import PastData
from serving.times import rfc3339

HORIZON = 14 * DAY
Make = Callable[..., Engine]


def event(at_us: int, message: str = "m", received_us: int | None = None) -> Event:
    """An event of one user."""
    return Event("track", message, "u", None, at_us, received_us or at_us, "Clicked", {}, {}, {})


def reasons(engine: Engine) -> list[str]:
    """Of a decision for a user with features."""
    return list(asyncio.run(engine.decide("slow")).reasons)


@pytest.mark.parametrize("age, old", [(HORIZON, False), (HORIZON + 1, True), (2141 * DAY, True)])
def test_a_decision_and_the_log_say_it_beyond_the_horizon(
    make_engine: Make, fakes: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture, age: int, old: bool
) -> None:
    caplog.set_level(logging.WARNING)
    Lake(str(tmp_path / "lake")).append([event(fakes.NOW - age, "1"), event(fakes.NOW - 3000 * DAY, "2")])
    past = PastData(str(tmp_path / "lake"), HORIZON).start(fakes.NOW)
    found = reasons(make_engine(past_data=past))
    assert any(r.startswith("data of the past: the newest event of all users is of") for r in found) == old
    assert (f"FIRSTMILE_NOW={rfc3339(fakes.NOW - age)}" in caplog.text) == old
    assert any(f"{age // DAY} days ago, and an onboarding lasts 14" in r for r in found) == old


def test_an_event_ahead_of_time_counts_from_when_it_was_received(fakes: SimpleNamespace, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.append([event(fakes.NOW + DAY, "1", fakes.NOW - 20 * DAY)])
    assert "20 days ago" in str(PastData(str(tmp_path / "lake"), HORIZON).start(fakes.NOW).reason(fakes.NOW))


def test_an_empty_lake_is_not_of_the_past(fakes: SimpleNamespace, tmp_path: Path) -> None:
    assert PastData(str(tmp_path / "lake"), HORIZON).start(fakes.NOW).reason(fakes.NOW) is None


def test_an_accepted_event_of_the_present_ends_it(
    make_engine: Make, fakes: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Lake(str(tmp_path / "lake")).append([event(fakes.NOW - 100 * DAY)])
    past = PastData(str(tmp_path / "lake"), HORIZON).start(fakes.NOW)
    engine = make_engine(past_data=past)
    log = SqliteLog(tmp_path / "log.db", 2, 1)
    door = Door(domains.load("saas"), log, Quarantine(tmp_path / "quarantine"), on_accepted=past.see)

    def send(message: str, at_us: int) -> None:
        raw = f'{{"type":"identify","userId":"u","messageId":"{message}","timestamp":"{rfc3339(at_us)}"}}'
        (receipt,) = asyncio.run(door.accept([raw.encode()], fakes.NOW))
        assert receipt.status == "accepted", receipt

    send("old", fakes.NOW - 90 * DAY)
    assert "90 days ago" in reasons(engine)[0]
    send("new", fakes.NOW - DAY)
    assert "data of the past" not in " ".join(reasons(engine)) and "no longer of the past" in caplog.text
    log.close()


def test_events_that_others_put_into_the_lake_are_found(fakes: SimpleNamespace, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.append([event(fakes.NOW - 100 * DAY, "1")])
    past = PastData(str(tmp_path / "lake"), HORIZON).start(fakes.NOW)
    lake.append([event(fakes.NOW, "2")])
    assert past.reason(fakes.NOW) is not None
    past.check()
    assert past.reason(fakes.NOW) is None
