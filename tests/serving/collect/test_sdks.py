"""Unmodified SDKs against a served collector: every event that they send is in the log, as it was meant."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from feature_repo.contract.events import Event

AT = datetime(2026, 5, 1, 9, 30, 0, 123456, UTC)
AT_US = 1_777_627_800_123_456
NEAR_US = 5_000_000
"""Clocks are corrected by when the SDK says that it sent: within what a request takes."""


def by_id(service: SimpleNamespace) -> dict[str, Event]:
    return {event.message_id: event for event in service.events()}


def failed(error: Exception, items: Any) -> None:
    raise AssertionError(f"not delivered: {items}") from error


def check(service: SimpleNamespace) -> None:
    """The same calls of both SDKs of the Segment dialect arrived as the same events."""
    found = by_id(service)
    assert sorted(found) == ["m1", "m2", "m3", "m4", "m5"]
    assert {e.message_id: e.type for e in found.values()} == {
        "m1": "identify", "m2": "track", "m3": "page", "m4": "group", "m5": "alias",
    }  # fmt: skip
    assert found["m1"].traits["plan"] == "pro" and found["m1"].user_id == "u-1"
    assert (found["m2"].name, found["m2"].properties["feature"]) == ("Feature Used", "board")
    assert found["m2"].anonymous_id == "a-1"
    assert (found["m5"].user_id, found["m5"].anonymous_id) == ("u-1", "a-0")
    assert all(abs(e.ts_us - AT_US) < NEAR_US for e in found.values())
    assert service.refused() == []


def calls(client: Any) -> None:
    client.identify("u-1", {"plan": "pro"}, timestamp=AT, message_id="m1")
    client.track("u-1", "Feature Used", {"feature": "board"}, anonymous_id="a-1", timestamp=AT, message_id="m2")
    client.page("u-1", "docs", "Start", {"url": "https://example.org/start"}, timestamp=AT, message_id="m3")
    client.group("u-1", "g-1", {"size": 3}, timestamp=AT, message_id="m4")
    client.alias("a-0", "u-1", timestamp=AT, message_id="m5")
    client.flush()
    client.join()


@pytest.mark.parametrize("gzip", [False, True])
def test_segment_for_python(service: SimpleNamespace, gzip: bool) -> None:
    from segment.analytics.client import Client

    calls(Client(service.key, host=service.url, gzip=gzip, on_error=failed, upload_interval=0.05))
    check(service)


def test_rudderstack_for_python(service: SimpleNamespace) -> None:
    from rudderstack.analytics.client import Client

    calls(Client(service.key, host=service.url, on_error=failed, upload_interval=0.05))
    check(service)


def test_mixpanel_for_python(service: SimpleNamespace) -> None:
    import mixpanel

    urls = {"events_url": f"{service.url}/track", "people_url": f"{service.url}/engage"}
    client = mixpanel.Mixpanel(
        service.key, consumer=mixpanel.Consumer(**urls, import_url=f"{service.url}/import", verify_cert=False)
    )
    client.track("u-1", "Clicked", {"$insert_id": "m1", "$user_id": "u-1", "time": AT.timestamp(), "feature": "board"})
    client.people_set("u-1", {"plan": "pro"})
    found = service.events()
    clicked = next(e for e in found if e.message_id == "m1")
    assert (clicked.type, clicked.name, clicked.user_id) == ("track", "Clicked", "u-1")
    assert abs(clicked.ts_us - AT_US) < 1_000_000
    (profile,) = [e for e in found if e.message_id != "m1"]
    assert (profile.type, profile.user_id, profile.traits["plan"]) == ("identify", "u-1", "pro")
    assert service.refused() == []


def test_what_an_sdk_sends_and_the_domain_does_not_know_is_in_the_quarantine(service: SimpleNamespace) -> None:
    from segment.analytics.client import Client

    client = Client(service.key, host=service.url, sync_mode=True, on_error=failed)
    client.track("u-1", "Never Declared", message_id="m1")
    assert service.events() == []
    assert [r.reason for r in service.refused()] == ["unknown_event"]
