"""What is held of a person, and its removal: afterwards a search over every file and key finds nothing."""

import asyncio
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import domains
from feature_repo.contract.events import ids_of
from feature_repo.feature_store.backfill import alone, backfill
from feature_repo.feature_store.store import feature_store, read_online
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings, now_us
from feature_repo.stream.embedded import Embedded
from monitoring.parity import parity
from serving import openapi, wiring
from serving.app import App
from serving.auth import Keys
from serving.engine import Engine
from serving.erasing import Erasing
from serving.segments.channels.dead_letters import DeadLetters, Letter
from serving.segments.channels.event import SegmentChanged
from serving.times import rfc3339
from tests import brokers, searching
from tests.e2e.processes import row
from tests.feature_repo import oracle
from tests.serving.test_openapi import valid

ROOT = Path(__file__).resolve().parents[2]
SAAS = domains.load("saas")
WHO, DEVICE, SHARED, OTHER = "person-erased-1", "device-erased-1", "device-shared-1", "person-kept-1"
CANARY, KEPT = "canary-in-a-property", "what-the-other-did"
GONE = (WHO, DEVICE, CANARY)


class Service:
    """The whole service in this process, without Bento and without a model."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        live = wiring.live(settings)
        assert live is not None
        self.live: Embedded = live
        self.engine: Engine = wiring.engine(settings, live=self.live)
        self.app = App(Keys(()), self.engine, wiring.door(settings, self.live, self.engine.consent))
        self.app.users = wiring.users(settings, self.live, self.app.door, self.engine)

    def ask(self, method: str, url: str, **request: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("127.0.0.1", 1))  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
                return await http.request(method, url, **request)

        return asyncio.run(send())

    def send(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.ask("POST", "/v1/batch", json={"batch": list(events)})
        assert answer.status_code == 200, answer.text
        receipts: list[dict[str, Any]] = answer.json()["receipts"]
        return receipts

    def decide(self, user: str) -> dict[str, Any]:
        decision: dict[str, Any] = self.ask("POST", "/v1/decide", json=asked(user)).json()
        return decision

    def close(self) -> None:
        assert self.app.users is not None
        self.app.users.close()
        self.live.close()
        self.engine.close()


def asked(user_key: str) -> dict[str, str | None]:
    user_id, anonymous_id = ids_of(user_key)
    return {"userId": user_id} if user_id is not None else {"anonymousId": anonymous_id}


@pytest.fixture
def document() -> dict[str, Any]:
    return openapi.document()


@pytest.fixture
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with brokers.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.address


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(**options: Any) -> Service:
        made.append(Service(Settings(home=tmp_path, domain="saas", **options)))
        return made[-1]

    yield make
    for service in made:
        service.close()


def event(
    n: int, user: str | None = None, device: str | None = None, kind: str = "track", **more: Any
) -> dict[str, Any]:
    """The n-th event, n minutes after the first."""
    sent = {"type": kind, "messageId": f"message-{n}", "timestamp": rfc3339(BEGIN + n * 60_000_000)}
    ids = {"userId": user, "anonymousId": device}
    named = {"event": "Clicked"} if kind == "track" else {}
    return sent | {k: v for k, v in ids.items() if v} | named | more


BEGIN = 1_750_000_000_000_000
WORLD = [
    event(1, None, DEVICE, properties={"feature": CANARY}),
    event(2, WHO, DEVICE, "identify", traits={"plan": CANARY, "email": f"{CANARY}@example.org"}),
    event(3, WHO, properties={"feature": CANARY, "note": {"deep": CANARY}}),
    event(4, OTHER, SHARED, "identify", traits={"plan": KEPT}),
    event(
        5, None, SHARED, properties={"feature": CANARY}, context={"device": {"type": CANARY}}
    ),  # the other's until the next identify, then WHO's
    event(6, WHO, SHARED, "identify"),
    event(7, OTHER, SHARED, "identify"),
    event(8, None, SHARED, properties={"feature": KEPT}),  # the other's
    event(9, OTHER, properties={"feature": KEPT}),
    event(10, WHO, event=f"Unknown {CANARY}"),  # refused
    event(11, OTHER, event=f"Unknown {KEPT}"),  # refused
    event(12, f"anon:{DEVICE}", properties={"feature": CANARY}),  # refused: a reserved id
]


def fill(service: Service) -> None:
    """Everything that a person leaves anywhere, and another person beside them."""
    service.send(WORLD[0])
    service.decide(f"anon:{DEVICE}")
    for n in range(1, len(WORLD), 4):
        service.send(*WORLD[n : n + 4])
    for user in (WHO, OTHER):
        service.decide(user)
    backfill(service.settings, progress=False)
    service.send(event(20, WHO, properties={"feature": CANARY}), event(21, OTHER, properties={"feature": KEPT}))
    service.decide(WHO)
    until(lambda: not service.engine.log or not service.engine.log.waiting)
    truth = pa.table({"user_id": [WHO, OTHER], "kind": [CANARY, KEPT]})
    pq.write_table(truth, service.settings.state / "truth.parquet")
    report = service.settings.report
    report.mkdir()
    (report / "index.html").write_text(f"<p>{CANARY}</p>")
    example = {"decision_id": "d", "at_us": 1, "applied_position": 1, "feature": "plan", "served": 1, "recomputed": 2}
    ids = (WHO, None), (None, DEVICE), ("somebody-else", None)
    kept = [example | {"user_id": user, "anonymous_id": device} for user, device in ids]
    (service.settings.state / "parity.json").write_text(json.dumps({"vectors": 2, "wrong": 2, "examples": kept}))
    (service.settings.state / "service.log").write_text(f"a fault of {WHO}\na fault of nobody\n")
    for folder in ("spill", "tmp"):
        (service.settings.state / folder).mkdir(exist_ok=True)
        (service.settings.state / folder / "left.tmp").write_text(CANARY)


def until(done: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def test_the_search_finds_a_person_in_every_store(new_service: Callable[..., Service]) -> None:
    service = new_service()
    fill(service)
    places = {line.split(":")[0].split("/")[1] for line in searching.found(service.settings.home, GONE)}
    assert {p.removesuffix("-wal") for p in places} == {
        "log.db", "history.db", "online.db", "lake", "quarantine", "features", "decisions", "parity.json", "report",
        "segments.db", "service.log", "spill", "tmp", "truth.parquet",
    }  # fmt: skip


def test_a_person_is_erased_from_every_store(new_service: Callable[..., Service]) -> None:
    service = new_service()
    fill(service)
    answer = service.ask("DELETE", f"/v1/users/{WHO}")
    assert (answer.status_code, answer.json()["status"], answer.json()["pending"]) == (200, "erased", [])
    assert answer.json()["aliases"] == 1
    removed = {s["store"]: s["removed"] for s in answer.json()["stores"]}
    assert removed == {
        "quarantine": 2, "lake": 6, "log": removed["log"], "history": 5, "models": 0,
        "features": removed["features"], "online": 1, "segments": removed["segments"],
        "webhooks": 0, "decisions": 3, "files": 4,
    }  # fmt: skip
    assert removed["segments"] > 0 and removed["log"] <= 6  # fewer where the lake had them long enough
    assert searching.found(service.settings.home, GONE) == []
    assert searching.found(service.settings.home, [OTHER]) and searching.found(service.settings.home, [KEPT])


def features(service: Service, user: str) -> dict[str, Any] | None:
    (row,) = read_online(feature_store(service.settings, lineage=False), SAAS, [user], list(SAAS.feature_types))
    return row


def defined(user: str, sent: list[dict[str, Any]], at_us: int) -> dict[str, Any] | None:
    """The features by the definition in plain loops."""
    return oracle.row([row(e) for e in sent], SAAS, user, at_us)


THEIRS = [e for e in WORLD[:9] if e.get("userId") == WHO or e["messageId"] in ("message-1", "message-5")]
OTHERS = [e for e in WORLD[:9] if e not in THEIRS]


def test_the_others_features_are_those_without_the_erased_persons_events(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.send(*WORLD)
    assert service.decide(OTHER)["known"]
    assert features(service, OTHER) == defined(OTHER, WORLD[:9], now_us())
    backfill(service.settings, progress=False)
    once = [r for r in offline_rows(service) if r["user_id"] == OTHER]
    assert service.ask("DELETE", f"/v1/users/{WHO}").status_code == 200
    until(lambda: not service.live.pending.history.waiting(now_us()))
    for person in (OTHER, f"anon:{SHARED}", WHO, f"anon:{DEVICE}"):
        assert features(service, person) == defined(person, OTHERS, now_us()), person
    assert not [r for r in offline_rows(service) if r["user_id"] in (WHO, OTHER)]
    backfill(service.settings, progress=False)
    assert [r for r in offline_rows(service) if r["user_id"] == OTHER]
    service.send(event(20, OTHER, properties={"feature": KEPT}))
    assert service.decide(OTHER)["known"]
    OTHERS_NOW = [*OTHERS, event(20, OTHER, properties={"feature": KEPT})]
    assert features(service, OTHER) == defined(OTHER, OTHERS_NOW, now_us())
    backfill(service.settings, progress=False)
    offline = offline_rows(service)
    fifth = datetime.fromtimestamp(BEGIN / 1e6, UTC) + timedelta(minutes=5)  # was theirs for a minute
    assert [fifth in {r["event_timestamp"] for r in rows} for rows in (once, offline)] == [True, False]
    service.settings.features.rename(service.settings.home / "before")
    backfill(service.settings, progress=False)
    assert by_key(offline) == by_key(offline_rows(service))
    positions = Lake(service.settings.lake).events(ibis.duckdb.connect()).position.to_pyarrow().to_pylist()
    assert sorted(positions) == [4, 7, 8, 9, 10]
    service.engine.close()
    found = parity(service.settings, progress=False)
    assert (found.wrong, found.vectors) == (0, 1)  # the vector served before was made with the erased person's events


def offline_rows(service: Service) -> list[dict[str, Any]]:
    return [r for file in service.settings.features.glob("*.parquet") for r in pq.read_table(file).to_pylist()]


def by_key(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda r: (r["user_id"], r["event_timestamp"]))


def test_what_comes_late_is_refused_and_leaves_nothing(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.send(*WORLD)
    service.ask("DELETE", f"/v1/users/{WHO}")
    late = [
        event(30, WHO, properties={"feature": CANARY}),
        event(31, None, DEVICE, properties={"feature": CANARY}),
        event(32, OTHER, DEVICE, "identify", traits={"plan": CANARY}),
        event(33, "somebody-new", DEVICE, "alias"),
        event(34, WHO, event=f"Unknown {CANARY}"),  # refused by the contract too
        event(35, OTHER, event="Unknown", properties={"of": WHO, "and": CANARY}),
        event(36, f"anon:{DEVICE}", properties={"feature": CANARY}),
    ]
    assert [(r["status"], r["reason"]) for r in service.send(*late)] == [("refused", "erased")] * len(late)
    fine = [event(40, None, SHARED), event(41, OTHER), event(42, OTHER, SHARED, "identify")]
    assert [r["status"] for r in service.send(*fine)] == ["accepted"] * 3
    assert service.send(event(43, OTHER, event="Unknown"))[0]["reason"] == "unknown_event"
    assert service.decide(WHO)["known"] is False  # and is not logged
    refused = service.ask("GET", "/v1/quarantine").json()
    assert (refused["erased"], refused["counts"]) == (len(late), {"unknown_event": 2})
    assert 'firstmile_events_total{status="refused",reason="erased"} 7' in service.ask("GET", "/metrics").text
    until(lambda: not service.engine.log or not service.engine.log.waiting)
    assert searching.found(service.settings.home, GONE) == []
    service.close()
    again = new_service()
    assert again.send(late[0])[0]["reason"] == "erased"
    assert again.ask("GET", f"/v1/users/{WHO}").status_code == 410
    assert searching.found(again.settings.home, GONE) == []


def test_once_more_is_as_once_and_who_is_not_known_can_be_erased(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.send(*WORLD)
    first = service.ask("DELETE", f"/v1/users/{WHO}").json()
    again = service.ask("DELETE", f"/v1/users/{WHO}")
    assert (again.status_code, again.json()["requestedAt"]) == (200, first["requestedAt"])
    assert {s["removed"] for s in again.json()["stores"]} == {0}
    nobody = service.ask("DELETE", "/v1/users/a%20person%2Fwhom%20nobody-saw")
    assert (nobody.status_code, nobody.json()["userId"]) == (200, "a person/whom nobody-saw")
    assert service.send(event(50, "a person/whom nobody-saw"))[0]["reason"] == "erased"


def test_somebody_anonymous_can_be_erased_until_they_are_known(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.send(event(1, None, DEVICE, properties={"feature": CANARY}), event(2, OTHER))
    assert service.ask("GET", f"/v1/anonymous/{DEVICE}").json()["events"][0]["messageId"] == "message-1"
    assert service.ask("DELETE", f"/v1/anonymous/{DEVICE}").status_code == 200
    assert searching.found(service.settings.home, [DEVICE, CANARY]) == []
    service.send(*WORLD[3:9])
    for method in ("GET", "DELETE"):
        answer = service.ask(method, f"/v1/anonymous/{SHARED}")
        assert (answer.status_code, answer.json()["code"]) == (409, "identified")
    assert service.send(event(51, None, SHARED))[0]["status"] == "accepted"


def test_a_person_can_have_what_is_held(new_service: Callable[..., Service], document: dict[str, Any]) -> None:
    service = new_service()
    service.send(*WORLD)
    service.decide(WHO), service.decide(WHO)
    until(lambda: not service.engine.log or not service.engine.log.waiting)
    held = service.ask("GET", f"/v1/users/{WHO}").json()
    assert valid(held, "Held", document)
    traits = {"plan": CANARY, "email": f"{CANARY}@example.org"}
    wanted = {"userId": WHO, "anonymousId": None, "traits": traits, "aliases": [DEVICE, SHARED], "unverified": []}
    assert held["profile"] == wanted
    assert [e["messageId"] for e in held["events"]] == [e["messageId"] for e in THEIRS]
    assert held["events"][2] == {
        "messageId": "message-3", "type": "track", "name": "Clicked", "userId": WHO, "anonymousId": None,
        "timestamp": WORLD[2]["timestamp"], "receivedAt": held["events"][2]["receivedAt"], "position": 3,
        "properties": WORLD[2]["properties"], "traits": {}, "context": {},
    }  # fmt: skip
    assert held["features"]["values"]["clicks"] == 3 and held["features"]["at"] >= WORLD[5]["timestamp"]
    assert [d["features"]["clicks"] for d in held["decisions"]] == [3, 3]
    assert [(s["segment"], s["source"], s["entered"]) for s in held["segments"]] == [("dormant", "rules", True)]
    assert held["segments"][0]["cause"].startswith("since_last_event > ")
    assert held["optedOut"] is False
    assert held["next"] is None


EXPORTED = {
    "lake": "events", "log.db": "events", "history.db": "events", "quarantine": "refused", "online.db": "features",
    "decisions": "decisions", "segments.db": "segments", "webhooks": "undelivered",
}  # fmt: skip
NOT_EXPORTED = {
    "features": "computed from the events, for every moment: the rows of training",
    "parity.json": "compares features of theirs with the same computed again",
    "report": "counts of everybody; a value can be among its examples",
    "service.log": "the program's log",
    "truth.parquet": "what a simulation knows of the users that it made",
    "spill": "intermediate files, which the next run removes", "tmp": "the same",
}  # fmt: skip


def test_every_file_that_names_a_person_is_in_the_export_or_has_a_reason(
    new_service: Callable[..., Service], document: dict[str, Any]
) -> None:
    service = new_service()
    fill(service)
    service.send(event(50, OTHER, event="Unknown", properties={"of": WHO, "and": KEPT}))  # another's
    changed = SegmentChanged(
        id="c1", user_id=WHO, anonymous_id=None, segment="dormant", source="rules", entered=True, at=rfc3339(BEGIN),
        noted_at=rfc3339(BEGIN), cause="c", version="v", seq=1,
    )  # fmt: skip
    letter = Letter("webhook", rfc3339(BEGIN), 3, "gone", changed)
    (webhooks := service.settings.state / "webhooks").mkdir(exist_ok=True)
    DeadLetters(webhooks).add(letter)
    places = {line.split(":")[0].split("/")[1] for line in searching.found(service.settings.home, GONE)}
    stores = {p.removesuffix("-wal") for p in places}
    assert stores == {*EXPORTED, *NOT_EXPORTED}
    held = service.ask("GET", f"/v1/users/{WHO}").json()
    assert valid(held, "Held", document)
    assert all(held[part] for part in EXPORTED.values())
    assert [(r["reason"], r["event"]["messageId"]) for r in held["refused"]] == [
        ("unknown_event", "message-10"), ("reserved_id", "message-12"),
    ]  # fmt: skip
    assert [d["event"]["userId"] for d in held["undelivered"]] == [WHO]
    for decision in held["decisions"]:
        row = {"at": decision["at"]} | decision
        assert {"known", "segments", "persona", "variants", "holdout", "situation", "playbook"} <= row.keys()
        assert row["situation"] is not None and (row["featuresAt"] is None) == (row["features"] is None)
    assert {(d["userId"], d["anonymousId"]) for d in held["decisions"]} == {(WHO, None), (None, DEVICE)}
    text = json.dumps(held)
    assert KEPT not in text and OTHER not in text
    pages, url = [], f"/v1/users/{WHO}?limit=1"
    while url:
        pages.append(service.ask("GET", url).json())
        more = pages[-1]["next"]
        url = more and f"/v1/users/{WHO}?limit=1&after={more['after']}&decisionsAfter={more['decisionsAfter']}" + (
            f"&refusedAfter={more['refusedAfter']}"
        )
    for part in ("events", "decisions", "refused"):
        assert [one for page in pages for one in page[part]] == held[part]
    service.ask("PUT", f"/v1/users/{WHO}/opt-out")
    assert service.ask("GET", f"/v1/users/{WHO}").json()["optedOutSince"] is not None


def test_a_long_history_comes_in_pages(new_service: Callable[..., Service]) -> None:
    service = new_service()
    service.send(*(event(n, WHO) for n in range(25)))
    for _ in range(3):
        service.decide(WHO)
    until(lambda: not service.engine.log or not service.engine.log.waiting)
    pages, url = [], f"/v1/users/{WHO}?limit=10"
    while url:
        pages.append(service.ask("GET", url).json())
        more = pages[-1]["next"]
        url = more and f"/v1/users/{WHO}?limit=10&after={more['after']}&decisionsAfter={more['decisionsAfter']}"
    assert [len(p["events"]) for p in pages] == [10, 10, 5]
    assert [e["messageId"] for p in pages for e in p["events"]] == [f"message-{n}" for n in range(25)]
    assert [len(p["decisions"]) for p in pages] == [3, 0, 0]


def test_requests_that_cannot_be_are_refused(new_service: Callable[..., Service]) -> None:
    service = new_service()
    cases = [
        ("GET", "/v1/users/nobody", 404, "unknown_user"),
        ("GET", "/v1/users/", 422, "invalid_request"),
        ("DELETE", f"/v1/users/{'x' * 257}", 422, "invalid_request"),
        ("GET", "/v1/users/nobody?limit=10001", 422, "invalid_request"),
        ("GET", "/v1/users/nobody?after=-1", 422, "invalid_request"),
        ("POST", "/v1/users/nobody", 405, "method_not_allowed"),
    ]
    for method, url, status, code in cases:
        answer = service.ask(method, url)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    service.app.keys = Keys(("k" * 32,))
    for method in ("GET", "DELETE"):
        assert service.ask(method, f"/v1/users/{WHO}").status_code == 401
        known = service.ask(method, f"/v1/users/{WHO}", headers={"Authorization": f"Bearer {'k' * 32}"})
        assert known.status_code in (200, 404)
    other = App(Keys(()))
    assert (
        asyncio.run(
            httpx.AsyncClient(transport=httpx.ASGITransport(other), base_url="http://localhost").get("/v1/users/x")
        ).status_code
        == 503
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("route", ["/v1/users", "/v1/anonymous"])
def test_an_encoded_slash_is_part_of_the_id(new_service: Callable[..., Service], route: str) -> None:
    """`bob%2Fopt-out` names the user "bob/opt-out": erasing that user leaves bob opted out."""
    service = new_service()
    ids = ("bob", None) if route == "/v1/users" else (None, "bob")
    assert service.ask("PUT", f"{route}/bob/opt-out").status_code == 204
    erased = service.ask("DELETE", f"{route}/bob%2Fopt-out")
    assert (erased.status_code, "bob/opt-out" in erased.json().values()) == (200, True), erased.text
    assert service.send(event(1, *ids, event="Signed Up"))[0].get("reason") == "opted_out"
    assert service.ask("DELETE", f"{route}/bob/opt-out").status_code == 204
    assert service.send(event(2, *ids, event="Signed Up"))[0]["status"] == "accepted"


def test_what_was_opted_out_of_is_nowhere(new_service: Callable[..., Service]) -> None:
    service = new_service()
    out = {"context": {"optOut": True, "page": {"title": CANARY}}}
    service.send(
        *(e | out for e in (event(1, WHO, DEVICE, "identify"), event(2, WHO, event=CANARY), event(3, OTHER, SHARED)))
    )
    asked = [event(n, WHO, DEVICE, properties={"feature": CANARY}) for n in range(3)]
    service.ask("POST", "/v1/batch", json={"batch": asked}, headers={"dnt": "1"})
    service.ask("POST", "/v1/batch", json={"batch": asked}, headers={"sec-gpc": "1"})
    service.send(event(9, "somebody-else"))
    service.close()
    assert searching.found(service.settings.home, [*GONE, OTHER, SHARED]) == []
    assert searching.found(service.settings.home, ["somebody-else"])


def test_a_store_that_cannot_be_had_now_is_tried_again(
    new_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.erasing.RETRY_US", 200_000)
    monkeypatch.setattr("feature_repo.feature_store.backfill.WAIT_S", 0.1)
    service = new_service()
    fill(service)
    with alone(service.settings):  # as while a backfill runs
        answer = service.ask("DELETE", f"/v1/users/{WHO}")
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        assert [p["store"] for p in answer.json()["pending"]] == ["events", "features"]
        assert searching.found(service.settings.home, GONE) and service.live.erased.unfinished()
        assert service.send(event(30, WHO))[0]["reason"] == "erased"
    until(lambda: not service.live.erased.unfinished())
    assert searching.found(service.settings.home, GONE) == []


def test_what_was_not_complete_goes_on_with_the_plan_that_was_made(new_service: Callable[..., Service]) -> None:
    service, asked = new_service(), list[frozenset[str]]()
    service.send(*WORLD)

    def quarantine(ids: frozenset[str]) -> int:
        asked.append(ids)
        if len(asked) == 1:
            raise OSError("the disk is full")
        return 0

    erasing = Erasing(service.live, quarantine, keeper=service.engine.keeper)
    first, again = erasing.erase(WHO), erasing.erase(WHO)
    assert (first.status, [(p.store, p.why) for p in first.pending]) == (
        "pending",
        [("quarantine", "OSError: the disk is full")],
    )
    assert (again.status, again.aliases) == ("erased", 1)
    assert asked == [frozenset([WHO, DEVICE, f"anon:{DEVICE}"])] * 2


def test_redis_holds_nothing_afterwards(new_service: Callable[..., Service], redis_address: str) -> None:
    url = f"redis://{redis_address}/7"
    service = new_service(online=url)
    fill(service)
    assert searching.in_redis(url, [WHO]) and searching.in_redis(url, [CANARY])
    answer = service.ask("DELETE", f"/v1/users/{WHO}")
    assert answer.json()["pending"] == []
    assert searching.in_redis(url, GONE) == [] and searching.found(service.settings.home, GONE) == []
    assert searching.in_redis(url, [OTHER])


KILLS = {
    "before the plan": "feature_repo.erasing.tombstones.Tombstones.planned",
    "before the lake": "feature_repo.lake.lake.Lake.erase",
    "in the lake": "feature_repo.lake.lake.Lake._publish_manifest",
    "before the log": "feature_repo.log.sqlite_log.SqliteLog.erase",
    "before the history": "feature_repo.stream.processor.Processor.erase",
    "before the files are cleaned": "feature_repo.erasing.erasure.purge",
    "before the features": "feature_repo.erasing.erasure.erase_offline",
    "before the online store": "feature_repo.erasing.erasure.erase_online",
    "before the decisions": "serving.decision_log.DecisionLog.erase",
    "before the end": "feature_repo.erasing.tombstones.Tombstones.finish",
}
ALWAYS = ("before the plan", "in the lake", "before the history", "before the end")


@pytest.mark.parametrize("moment", [pytest.param(m, marks=[] if m in ALWAYS else pytest.mark.soak) for m in KILLS])
def test_an_erasure_that_was_killed_is_finished_at_the_next_start(
    new_service: Callable[..., Service], tmp_path: Path, moment: str
) -> None:
    child = [sys.executable, "-m", "tests.serving.erase_child", str(tmp_path), KILLS[moment]]
    ended = subprocess.run(child, cwd=ROOT, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    assert searching.found(tmp_path, GONE)
    service = new_service()
    until(lambda: not service.live.erased.unfinished())
    assert searching.found(tmp_path, GONE) == []
    assert service.send(event(30, WHO))[0]["reason"] == "erased"
    assert service.decide(OTHER)["known"]
    kept = [*OTHERS, event(21, OTHER, properties={"feature": KEPT})]
    until(lambda: not service.live.pending.history.waiting(now_us()))
    assert features(service, OTHER) == defined(OTHER, kept, now_us())


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_what_cannot_be_written_is_503(new_service: Callable[[], Service], method: str) -> None:
    service = new_service()
    url = f"/v1/users/{OTHER}/opt-out" if method == "PUT" else f"/v1/users/{OTHER}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        answer = service.ask(method, url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "busy", "1")
    assert service.ask(method, url).status_code in (200, 204)
