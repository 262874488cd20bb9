"""Hostile values through the running service: what one user sends stops nobody else, no erasure and no backfill."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from feature_repo.feature_store.backfill import backfill
from tests.e2e.processes import Server, until
from tests.feature_repo.test_isolation import damage

LIMIT = 2**63 - 1


def upload(server: Server, user: str, message: str, value: int = 1) -> None:
    """An event by the pixel, which any web page can send."""
    event = {"event": "File Uploaded", "userId": user, "messageId": message, "properties": {"bytes": value}}
    data = base64.b64encode(json.dumps(event).encode()).decode()
    assert httpx.get(f"{server.url}/v1/pixel/track", params={"data": data}).status_code == 200


def decision(server: Server, user: str, after: str) -> dict[str, Any]:
    asked = {"userId": user, "after": after}
    return dict(httpx.post(f"{server.url}/v1/decide", json=asked, timeout=30).json())


def metric(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"firstmile_{name} "))


def known(server: Server, user: str, message: str) -> Callable[[], bool]:
    return lambda: decision(server, user, message).items() >= {"known": True, "stale": False}.items()


def test_two_events_of_the_largest_number_stop_nobody(server: Server) -> None:
    server.start()
    for message in ("p1", "p2"):
        upload(server, "poison", message, LIMIT)
    upload(server, "neighbour", "n1")
    until(known(server, "neighbour", "n1"))
    until(known(server, "poison", "p2"))
    assert (metric(server, "log_lag"), metric(server, "users_set_aside")) == (0, 0)
    began = time.monotonic()
    answer = httpx.delete(f"{server.url}/v1/users/neighbour", timeout=60)
    assert (answer.status_code, answer.json()["pending"]) == (200, []), time.monotonic() - began
    server.stop()
    assert backfill(server.settings, progress=False).events == 2


def test_a_user_whose_row_fails_is_told_and_the_others_go_on(server: Server) -> None:
    server.start()
    upload(server, "bad", "b1")
    until(known(server, "bad", "b1"))
    server.stop()
    damage(server.settings, "bad")
    server.start()
    upload(server, "bad", "b2")
    upload(server, "new", "n1")
    until(known(server, "new", "n1"))
    until(lambda: metric(server, "users_set_aside") == 1)
    told = decision(server, "bad", "b2")
    assert told["stale"] and any("cannot be computed" in reason for reason in told["reasons"])
    assert not decision(server, "new", "n1")["stale"]
    assert httpx.delete(f"{server.url}/v1/users/bad", timeout=60).json()["pending"] == []
    until(lambda: metric(server, "users_set_aside") == 0)
    server.stop()
