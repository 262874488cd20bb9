"""GET /v1/users/{id}/why and `explain: true`, through the whole service in this process."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_repo.settings import Settings, now_us
from serving import openapi, replay, wiring
from serving.app import App
from serving.auth import Keys
from serving.times import rfc3339
from tests.serving.test_openapi import valid
from tests.serving.why.people import model

WHO = "person-asking"
OTHER = "person-nobody-asks-about"


class Service:
    """Without Bento, with a model that was trained a moment ago."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home, domain="saas")
        live = wiring.live(self.settings)
        assert live is not None
        self.live, self.engine = live, wiring.engine(self.settings, live=live)
        self.engine.champion.model = model()
        self.app = App(Keys(()), self.engine, wiring.door(self.settings, live, self.engine.consent))
        self.app.users = wiring.users(self.settings, live, self.app.door, self.engine)

    def ask(self, method: str, url: str, **request: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=("127.0.0.1", 1))  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
                return await http.request(method, url, **request)

        return asyncio.run(send())

    def events(self, user: str, *names: str) -> None:
        start = now_us() - 3_600_000_000
        batch = [
            {
                "type": "track", "event": name, "userId": user, "messageId": f"{user}-{n}",
                "timestamp": rfc3339(start + n * 60_000_000),
                "properties": {"feature": f"of {user}", "bytes": 5_000_000},
            }
            for n, name in enumerate(names)
        ]  # fmt: skip
        assert self.ask("POST", "/v1/batch", json={"batch": batch}).status_code == 200

    def decide(self, user: str, **more: Any) -> dict[str, Any]:
        decision: dict[str, Any] = self.ask("POST", "/v1/decide", json={"userId": user, **more}).json()
        assert self.engine.log is not None
        while self.engine.log.waiting:
            time.sleep(0.01)
        return decision

    def why(self, user: str = WHO, accept: str = "application/json") -> httpx.Response:
        return self.ask("GET", f"/v1/users/{user}/why", headers={"accept": accept})

    def close(self) -> None:
        assert self.app.users is not None
        self.app.users.close()
        self.live.close()
        self.engine.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = Service(tmp_path_factory.mktemp("home"))
    made.events(WHO, "Signed Up", "Clicked", "Feature Used", "File Uploaded")
    made.events(OTHER, "Signed Up", "Clicked", "Clicked")
    made.decide(OTHER)
    yield made
    made.close()


def test_explain_adds_an_explanation_that_fits_the_contract(service: Service) -> None:
    decision = service.decide(WHO, explain=True)
    assert valid(decision, "Decision", openapi.document())
    told = decision["explanation"]
    assert len(told["sentences"]) >= 2 and len(decision["contributions"]) == 5
    assert told["data"]["features"]["uploads"] == "files uploaded (1)"
    assert "explanation" not in service.decide(WHO) and "contributions" not in service.decide(WHO)


def test_the_person_is_told_about_the_last_decision(service: Service) -> None:
    decision = service.decide(WHO)
    answer = service.why()
    assert answer.status_code == 200 and valid(answer.json(), "Why", openapi.document())
    why = answer.json()
    assert why["at"] == decision["at"] and len(why["shown"]) == len(decision["elements"])
    assert why["sentences"][0].startswith("We estimate whether somebody")
    assert "files uploaded (1)" in why["data"]
    for internal in (decision["decisionId"], decision["model"]["name"], OTHER, f"of {OTHER}", str(decision["score"])):
        assert internal not in answer.text


def test_as_a_page(service: Service) -> None:
    service.decide(WHO)
    answer = service.why(accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.text.startswith("<!doctype html>") and "files uploaded (1)" in answer.text
    assert service.why(accept="*/*").headers["content-type"] == "application/json"


def test_after_a_promotion_what_counted_most_is_not_told(service: Service) -> None:
    service.decide(WHO)
    service.engine.champion.model = model(version=2, seed=2)
    try:
        why = service.why().json()
        assert why["shown"] and not [s for s in why["sentences"] if "speaks" in s]
    finally:
        service.engine.champion.model = model()


def test_somebody_about_whom_nothing_was_decided(service: Service) -> None:
    service.events("newcomer", "Signed Up")
    service.decide(OTHER)
    asyncio.run(service.engine._settled(["newcomer"]))
    why = service.why("newcomer").json()
    assert (why["at"], why["sentences"]) == (None, ["Nothing has been decided for you yet."])


def test_who_opted_out_is_told_so(service: Service) -> None:
    service.events("private", "Signed Up", "Clicked")
    service.decide("private")
    assert service.ask("PUT", "/v1/users/private/opt-out").status_code == 204
    why = service.why("private").json()
    assert why["optedOut"] and why["sentences"][0].startswith("You opted out") and not why["data"]
    decision = service.decide("private", explain=True)
    assert decision["explanation"]["sentences"] == ["This person opted out: nothing about them is looked at."]
    assert service.ask("DELETE", "/v1/users/private/opt-out").status_code == 204
    service.decide("private")
    assert not service.why("private").json()["optedOut"]


@pytest.mark.parametrize(
    ("method", "person", "status", "code"),
    [
        ("GET", "nobody-knows-them", 404, "unknown_user"),
        ("GET", "x" * 300, 422, "invalid_request"),
        ("POST", WHO, 405, "method_not_allowed"),
        ("DELETE", WHO, 405, "method_not_allowed"),
    ],
)
def test_refusals(service: Service, method: str, person: str, status: int, code: str) -> None:
    answer = service.ask(method, f"/v1/users/{person}/why")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_who_was_erased(service: Service) -> None:
    service.events("leaver", "Signed Up", "Clicked")
    service.decide("leaver")
    assert service.why("leaver").status_code == 200
    assert service.ask("DELETE", "/v1/users/leaver").status_code in (200, 202)
    assert service.why("leaver").status_code == 410


def test_whose_data_is_no_longer_held(service: Service) -> None:
    """An erasure of somebody else took what the decision was made from."""
    service.events("beside", "Signed Up", "Clicked")
    service.decide("beside")
    assert service.engine.log is not None
    service.engine.log.erase([], ["beside"])
    why = service.why("beside").json()
    assert why["sentences"] == [
        "What the last decision about you was made from is no longer held, so it cannot be explained."
    ]


def test_keys_are_asked_for(service: Service) -> None:
    keyed = App(Keys(("k" * 32,)), service.engine)
    keyed.users = service.app.users
    service_app, service.app = service.app, keyed
    try:
        assert service.why().status_code == 401
    finally:
        service.app = service_app


def test_every_decision_of_the_service_replays(service: Service) -> None:
    for user in (WHO, OTHER, "nobody"):
        service.decide(user)
    outcome = replay.Replayer(replay.Shelf(service.settings), lambda name, version: model(version=version)).all(
        r for r in replay.rows(service.settings.decisions) if r["model_version"] == 1
    )
    assert outcome.different == 0 and outcome.equal > 5 and outcome.differences == {}
