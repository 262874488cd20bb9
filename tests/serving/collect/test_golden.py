"""Requests as the SDKs send them, and the events and answers that come of them: one pair after the other."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from serving.collect.door import Door
from serving.collect.request import Request, parameters
from serving.collect.routes import ROUTES

NOW = 1_767_261_600_000_000  # 2026-01-01T10:00:00Z
MADE = {
    "<uuid>": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
    "<ga4>": r"ga4-[0-9a-f]{32}",
    "<edge>": r"edge-[0-9a-f]{32}",
}
FOLDER = Path(__file__).with_name("golden")
PAIRS = [(f.stem, pair) for f in sorted(FOLDER.glob("*.json")) for pair in json.loads(f.read_text())]


def request_of(pair: dict[str, Any]) -> Request:
    body = b""
    if "form" in pair:
        body = urlencode({k: v if isinstance(v, str) else json.dumps(v) for k, v in pair["form"].items()}).encode()
    elif "body" in pair or "text" in pair:
        body = (pair["text"] if "text" in pair else json.dumps(pair["body"])).encode()
    path, query = pair["path"], parameters(pair.get("query", "").encode())
    return Request(path, query, pair.get("headers", {}), body, ROUTES[path].limit, NOW)


def plain(raw: bytes) -> Any:
    """An event without what says nothing, and with made ids by their form."""
    event = json.loads(raw)
    if not isinstance(event, dict):
        return {"bare": event}
    made = [name for name, form in MADE.items() if re.fullmatch(form, str(event.get("messageId")))]
    event |= {"messageId": made[0]} if made else {}
    return {k: v for k, v in event.items() if v is not None and v != {}}


@pytest.mark.parametrize("pair", [p for _, p in PAIRS], ids=[f"{d}: {p['name']}" for d, p in PAIRS])
def test_golden(pair: dict[str, Any], make_door: Callable[..., Door]) -> None:
    dialect = ROUTES[pair["path"]]
    request = dialect.opened(request_of(pair))
    taken = dialect.take(request)
    wanted = [{k: v for k, v in e.items() if k != "refused"} for e in pair["events"]]
    assert [plain(raw) for raw in taken.raws] == wanted
    assert [plain(raw) for raw in taken.edges] == pair.get("edges", [])
    assert taken.keys == pair.get("keys", [])
    receipts = asyncio.run(make_door().check(taken.raws, NOW))
    assert [r.reason for r in receipts] == [e.get("refused") for e in pair["events"]]

    answer, told = dialect.answer(request, receipts), pair.get("answers", {})
    assert answer.status == told.get("status", 200)
    assert answer.content_type.decode() == told.get("type", answer.content_type.decode())
    if "text" in told:
        assert answer.body.decode() == told["text"]
    elif "json" in told:
        found = json.loads(answer.body)
        if "validationMessages" in found:
            found["validationMessages"] = [[m["fieldPath"], m["validationCode"]] for m in found["validationMessages"]]
        assert {k: found[k] for k in told["json"]} == told["json"]
        assert len(found["receipts"]) == len(receipts)
    elif answer.content_type == b"application/json":
        assert json.loads(answer.body)["success"] is True


def test_ids_of_ga4_are_those_of_the_content_and_its_place() -> None:
    pair = next(p for _, p in PAIRS if p["name"].startswith("events with a time"))
    take = ROUTES["/mp/collect"].take
    first, again = ([json.loads(r)["messageId"] for r in take(request_of(pair)).raws] for _ in range(2))
    assert first == again
    assert len(set(first)) == 3  # the third is the first but for its place
