"""Attacks on the whole service without keys, over HTTP as it is served, some by a page in a real browser."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from feature_repo.settings import Settings
from tests.monitoring.test_page_browser import FLAGS, chromium
from tests.serving.collect.conftest import serving
from tests.serving.test_users import Service, event

VICTIM = "victim"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A running service that holds two events of a victim: url, port, and export() of a user."""
    with closing(Service(Settings(home=tmp_path, domain="saas"))) as service:
        service.send(event(1, VICTIM), event(2, VICTIM, properties={"feature": "secret"}))
        service.decide(VICTIM)
        with serving(service.app) as url:

            def export(user: str = VICTIM) -> dict[str, Any]:
                answer = httpx.get(f"{url}/v1/users/{user}")
                assert answer.status_code == 200
                found: dict[str, Any] = answer.json()
                return found

            yield SimpleNamespace(url=url, port=int(url.rsplit(":", 1)[1]), export=export)


def test_the_opt_out_of_another_id_is_not_taken_back(running: SimpleNamespace) -> None:
    """httpx sends the path as it is given, so that the slash arrives encoded."""
    assert httpx.put(f"{running.url}/v1/users/{VICTIM}/opt-out").status_code == 204
    answer = httpx.delete(f"{running.url}/v1/users/{VICTIM}%2Fopt-out")
    assert answer.json()["userId"] == f"{VICTIM}/opt-out"  # somebody of that name is erased
    assert running.export()["optedOut"]
    assert httpx.put(f"{running.url}/v1/users/{VICTIM}%2Fopt-out").status_code == 405
    assert httpx.delete(f"{running.url}/v1/users/{VICTIM}/opt-out").status_code == 204
    assert not running.export()["optedOut"]


@pytest.mark.parametrize("kind", ["users", "anonymous"])
@pytest.mark.parametrize(("method", "what"), [("GET", ""), ("DELETE", ""), ("PUT", "/opt-out"), ("GET", "/why")])
def test_what_no_id_can_be_is_the_callers_fault(running: SimpleNamespace, kind: str, method: str, what: str) -> None:
    for id_ in ("%00", "a%00b", "%0A", "%1B", "%FF"):
        answer = httpx.request(method, f"{running.url}/v1/{kind}/{id_}{what}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), id_


ATTACKS = [
    ("GET", "/v1/users/victim", None),
    ("PUT", "/v1/users/victim/opt-out", None),
    ("DELETE", "/v1/users/victim", None),
    ("GET", "/v1/quarantine", None),
    ("POST", "/v1/decide", '{"userId":"victim"}'),
    ("POST", "/v1/batch", '{"batch":[{"type":"track","event":"Clicked","userId":"victim","messageId":"rebound"}]}'),
]
ASK = """attacks => Promise.all(attacks.map(([method, path, body]) =>
    fetch(path, {method, body, headers: body ? {"content-type": "application/json"} : {}}).then(a => a.status)))"""


@pytest.fixture
def visit() -> Iterator[Callable[[str], Any]]:
    """Opens a page in a browser to which evil.example is an address of this machine, as rebound DNS would tell it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: install the development requirements")
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        rebound = "--host-resolver-rules=MAP evil.example 127.0.0.1"
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, rebound])

        def open_page(url: str) -> Any:
            page = browser.new_page()
            answer = page.goto(url)
            assert answer is not None and answer.status == 200
            return page

        yield open_page
        browser.close()


def test_a_page_of_a_rebound_name_reads_and_changes_nothing(
    running: SimpleNamespace, visit: Callable[[str], Any]
) -> None:
    evil = visit(f"http://evil.example:{running.port}/healthz")  # the same origin as the service, to the browser
    assert evil.evaluate(ASK, ATTACKS) == [403] * len(ATTACKS)
    held = running.export()
    assert (len(held["events"]), held["optedOut"]) == (2, False)
    ours = visit(f"http://localhost:{running.port}/healthz")
    assert ours.evaluate(ASK, [a for a in ATTACKS if a[0] != "DELETE"]) == [200, 204, 200, 200, 200]
