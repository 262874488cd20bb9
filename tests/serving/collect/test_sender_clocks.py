"""The correction of senders' clocks follows the service's own clock, which FIRSTMILE_NOW may start in the past."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from feature_repo import settings

START = datetime(2014, 10, 29, tzinfo=UTC)


@pytest.fixture
def in_2014(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's clock starts in 2014, as a service's does."""
    monkeypatch.setenv("FIRSTMILE_NOW", START.isoformat())
    settings._shift_us.cache_clear()
    yield
    monkeypatch.undo()
    settings._shift_us.cache_clear()


@pytest.mark.parametrize("sender_now", [datetime.now(UTC), START - timedelta(days=3), START + timedelta(days=900)])
def test_an_event_is_as_long_before_its_arrival_as_before_its_sending(
    in_2014: None,
    make_collector: Callable[..., Any],
    ask: Callable[..., Any],
    keys: Any,
    log: Any,
    sender_now: datetime,
) -> None:
    event = {
        "type": "track", "event": "Clicked", "userId": "u1", "messageId": "m1",
        "originalTimestamp": (sender_now - timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    sent = {"batch": [event], "writeKey": keys.write, "sentAt": sender_now.isoformat()}
    assert ask(make_collector(), "POST", "/v1/batch", json=sent).status_code == 200
    (kept,) = log.events
    assert kept.received_us - kept.ts_us == 3_600_000_000
    start_us = round(START.timestamp() * 1_000_000)
    assert start_us <= kept.received_us <= settings.now_us()
    assert kept.received_us < start_us + 365 * 86_400_000_000
