"""Anonymous users by `anonymousId`: decided for, told why, exported, opted out and erased; no caller sees `anon:`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from feature_repo.settings import Settings
from serving.__main__ import main
from serving.users import METHODS
from tests.serving.test_users import Service, event, until

HOUR = 3_600_000_000


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(Settings(home=tmp_path, domain="saas"))
    yield made
    made.close()


def decided(service: Service, **asked: Any) -> dict[str, Any]:
    answer = service.ask("POST", "/v1/decide", json=asked)
    assert answer.status_code == 200 and "anon:" not in answer.text, answer.text
    found: dict[str, Any] = answer.json()
    return {name: found[name] for name in ("userId", "anonymousId", "known", "stale")}


def who(user: str | None, anonymous: str | None, known: bool = True) -> dict[str, Any]:
    return {"userId": user, "anonymousId": anonymous, "known": known, "stale": False}


def test_an_anonymous_id_stands_for_whom_it_is_linked_to_at_that_moment(service: Service) -> None:
    assert decided(service, anonymousId="d") == who(None, "d", known=False)
    service.send(event(1, None, "d"))
    assert decided(service, anonymousId="d") == who(None, "d")
    service.send(event(2, "u1", "d", "identify"))
    assert decided(service, anonymousId="d") == who("u1", None)
    service.send(event(3, "u2", "d", "identify"), event(4, "u1", "d", "identify"), event(5, "u2"))
    assert decided(service, anonymousId="d") == who("u1", None)  # the last link on it, not the last new user
    assert decided(service, userId="u2", anonymousId="d") == who("u2", None)
    far = {"timestamp": "2999-01-01T00:00:00Z"}
    service.send(event(6, None, "e"), event(7, "u2", "e", "identify") | far)
    batch = service.ask("POST", "/v1/decide/batch", json={"userIds": ["u2"], "anonymousIds": ["d", "e", "x"]}).json()
    found = [(d["userId"], d["anonymousId"], d["known"]) for d in batch["decisions"]]
    assert found[:2] == [("u2", None, True), ("u1", None, True)] and found[3] == (None, "x", False)


def test_what_a_known_user_can_ask_an_anonymous_one_can(service: Service) -> None:
    service.send(event(1, None, "d/1", properties={"feature": "export"}), event(2, None, "e"))
    decided(service, anonymousId="d/1"), decided(service, anonymousId="e")
    until(lambda: not service.engine.log or not service.engine.log.waiting)
    held = service.ask("GET", "/v1/anonymous/d%2F1")
    assert held.json()["profile"] == {
        "userId": None,
        "anonymousId": "d/1",
        "traits": {},
        "aliases": [],
        "unverified": [],
    }
    assert len(held.json()["events"]) == 1 and "anon:" not in held.text
    why = service.ask("GET", "/v1/anonymous/d%2F1/why")
    assert why.status_code == 200 and "anon:" not in why.text
    assert service.ask("PUT", "/v1/anonymous/e/opt-out").status_code == 204
    assert decided(service, anonymousId="e") == who(None, "e", known=False)
    assert service.ask("DELETE", "/v1/anonymous/e/opt-out").status_code == 204
    assert decided(service, anonymousId="e") == who(None, "e")
    erased = service.ask("DELETE", "/v1/anonymous/d%2F1").json()
    assert (erased["userId"], erased["anonymousId"], erased["status"]) == (None, "d/1", "erased")
    assert service.ask("GET", "/v1/anonymous/d%2F1").status_code == 410
    assert decided(service, anonymousId="d/1") == who(None, "d/1", known=False)
    assert service.ask("GET", "/v1/anonymous/").status_code == 422


def test_of_a_linked_anonymous_id_the_user_id_is_told(service: Service) -> None:
    service.send(event(1, None, "d"), event(2, "u1", "d", "identify"))
    for method, what in (("GET", ""), ("GET", "/why"), ("DELETE", "")):
        refused = service.ask(method, f"/v1/anonymous/d{what}")
        assert (refused.status_code, refused.json()["code"]) == (409, "identified")
        assert refused.json()["message"] == "anonymousId d was identified as u1: ask by that userId"


def test_nobody_can_be_asked_for_by_the_inner_form(service: Service) -> None:
    """A user id that begins so is refused in events too, so that no user can be taken for an anonymous one."""
    (receipt,) = service.send(event(1, "anon:d"))
    assert (receipt["status"], receipt["reason"]) == ("refused", "reserved_id")
    service.send(event(2, None, "d"))
    asked = [
        ("POST", "/v1/decide", {"userId": "anon:d"}, "$.userId"),
        ("POST", "/v1/decide/batch", {"userIds": ["u", "anon:d"]}, "$.userIds[1]"),
        *[(m, f"/v1/users/anon%3Ad{w}", None, "id") for w, methods in METHODS.items() for m in methods],
    ]
    for method, path, body, where in asked:
        refused = service.ask(method, path, json=body) if body else service.ask(method, path)
        problem = refused.json()
        assert (refused.status_code, problem["code"], problem["where"]) == (422, "reserved_id", where), path
        assert "by the anonymous id" in problem["message"]
    assert decided(service, anonymousId="d") == who(None, "d")  # neither erased nor opted out
    (receipt,) = service.send(event(3, None, "anon:d"))
    assert receipt["status"] == "accepted" and service.ask("GET", "/v1/anonymous/anon%3Ad").status_code == 200


def test_the_commands_take_an_anonymous_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(Settings(home=tmp_path, domain="saas"))
    service.send(event(1, None, "d"), event(2, None, "e"), event(3, "u1", "e", "identify"))
    decided(service, anonymousId="d"), decided(service, userId="u1")  # their rows are written
    service.close()
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    run = lambda *words: CliRunner().invoke(main, [*words, "--domain", "saas"])  # noqa: E731
    for anonymous, ids in (("d", (None, "d")), ("e", ("u1", None))):
        found = json.loads(run("decide", "--anonymous-id", anonymous).stdout)
        assert ((found["userId"], found["anonymousId"]), found["known"]) == (ids, True)
    assert json.loads(run("export", "--anonymous-id", "d").stdout)["profile"]["anonymousId"] == "d"
    assert json.loads(run("erase", "--anonymous-id", "d").stdout)["anonymousId"] == "d"
    refused = run("export", "--anonymous-id", "e")
    assert refused.exit_code == 1 and "was identified as u1" in refused.output
    for command in ("decide", "export", "erase"):
        assert "expected either USER_ID or --anonymous-id" in run(command).output
        assert "no user id begins with 'anon:'" in run(command, "anon:d").output
