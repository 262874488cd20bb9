"""Our snippet in a real browser, on a page of another origin than the collector's."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.contract.feedback import BROWSER
from feature_repo.contract.origin import origin_of, user_hash
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.lake.quarantine import Quarantine
from feature_repo.log.sqlite_log import SqliteLog
from serving.app import App
from serving.auth import Keys
from serving.collect.door import Door
from serving.collect.routes import Collector, Options
from tests.monitoring.test_page_browser import browser  # noqa: F401
from tests.serving.collect.test_node_sdks import installed  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Browser

KEY = "w" * 32
PAGE = """<!doctype html><title>Start</title><script src="{url}/firstmile.js" data-key="{key}" defer></script>
<button id="go">Go</button><form id="f" onsubmit="return false"><input name="company"><input name="role">
<button id="send">Send</button></form>"""


class Site:
    """A page with our snippet, and what its collector has got."""

    def __init__(self, folder: Path, name: str) -> None:
        self.html, self.url, self.files = b"", "", dict[str, bytes]()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                file = site.files.get(self.path)
                self.send_header("Content-Type", "text/javascript" if file else "text/html")
                self.end_headers()
                self.wfile.write(file or site.html)

            def log_message(self, *_: Any) -> None: ...

        self.pages = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.pages.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.pages.server_port}"
        self.log = SqliteLog(folder / "log.db")
        domain = domains.load(name)
        enrich = Enrichment(domain) if domain.enrich else None
        self.door = Door(domain, self.log, Quarantine(folder / "refused"), enrich=enrich)
        self.app = App(Keys(()), None, self.door, Options(keys=Keys((KEY,)), origins=frozenset({self.origin})))

    def events(self) -> list[Event]:
        return [event for _, event in self.log.read(0, 1_000)]

    def until(self, n: int, last: str = "") -> list[Event]:
        """The events, once there are n, among them one of type `last`."""
        deadline = time.monotonic() + 10
        while len(self.events()) < n or (last and last not in {e.type for e in self.events()}):
            assert time.monotonic() < deadline, self.events()
            time.sleep(0.02)
        return self.events()


@pytest.fixture
def site(tmp_path: Path, serve: Callable[[App], Any], request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site whose collector has the domain that is the parameter, or saas."""
    made = Site(tmp_path, getattr(request, "param", "saas"))
    with serve(made.app) as url:
        made.url = url
        made.html = PAGE.format(url=url, key=KEY).encode()
        yield made
    made.pages.shutdown()
    made.log.close()


def told(event: Event) -> tuple[str, str, str]:
    """Device, browser and channel, from what the browser says by itself; the part of the day is there too."""
    context = event.context
    assert context["local"]["hour"] in range(24)
    return context["device"]["type"], context["browser"], context["campaign"]["channel"]


def test_pages_clicks_and_forms_of_one_visitor(site: Site, browser: "Browser") -> None:  # noqa: F811
    page = browser.new_page()
    page.goto(site.origin)
    page.click("#go")
    page.fill("[name=company]", "a secret")
    page.click("#send")
    page.evaluate("firstmile.identify('u-1', {plan: 'pro'})")
    found = site.until(4, "identify")
    assert {e.name or e.type for e in found} >= {"Clicked", "Form Submitted", "identify"}
    assert "page" in {e.type for e in found}
    assert len({e.anonymous_id for e in found}) == 1
    assert {told(e) for e in found} == {("desktop", "Chrome", "direct")}
    assert "a secret" not in repr(found)
    (form,) = [e for e in found if e.name == "Form Submitted"]
    assert form.properties["fields_empty"] == 1
    page.reload()  # the same visitor, known by now
    later = site.until(len(found) + 1)[-1]
    assert (later.type, later.anonymous_id, later.user_id) == ("page", found[0].anonymous_id, "u-1")


def test_a_signature_of_the_user_id_is_sent_and_kept_by_the_browser(site: Site, browser: "Browser") -> None:  # noqa: F811
    secret = "secret-" * 4
    site.app._collector = Collector(
        Options(browser_keys=Keys((KEY,)), secrets=(secret,), origins=frozenset({site.origin}))
    )
    page = browser.new_page()
    page.goto(site.origin)
    page.evaluate("firstmile.identify('u-2', {}, 'forged')")
    page.evaluate("hash => firstmile.identify('u-1', {}, hash)", user_hash(secret, "u-1"))
    page.click("#go")
    found = site.until(3, "identify")
    page.reload()  # known by now, and signed
    found = site.until(len(found) + 1)
    assert {e.user_id for e in found} == {None, "u-1"} and found[-1].user_id == "u-1"
    assert all(origin_of(e.context).verified for e in found if e.user_id)
    assert {reason for status, reason in site.door.counted if status == "refused"} == {"wrong_user_hash"}


@pytest.mark.parametrize("site", domains.names(), indirect=True)
def test_every_domain_takes_what_the_snippet_sends_by_itself(site: Site, browser: "Browser") -> None:  # noqa: F811
    site.html = site.html.replace(b'<form id="f"', b'<form id="f" data-firstmile="profile"')
    page = browser.new_page()
    page.goto(site.origin)
    page.click("#go")
    page.fill("[name=company]", "a secret")
    page.click("#send")  # leaves the field, so that it has changed, and submits
    page.evaluate("history.pushState(null, '', '/next')")
    found = site.until(6)
    assert {e.name for e in found if e.type == "track"} == set(BROWSER)
    assert {status for status, _ in site.door.counted} == {"accepted"}


def test_an_opt_out_is_honoured(site: Site, browser: "Browser") -> None:  # noqa: F811
    page = browser.new_page()
    page.goto(site.origin)
    had = len(site.until(1))
    page.evaluate("firstmile.optOut()")
    page.click("#go")
    page.reload()
    page.click("#go")
    page.wait_for_timeout(600)
    assert len(site.events()) == had
    assert page.evaluate("localStorage['firstmile.id']") is None
    page.evaluate("firstmile.optIn()")
    page.click("#go")
    assert len(site.until(had + 1)) == had + 1


SEGMENT = """<!doctype html><title>Start</title><script src="/segment.js"></script><script>
const analytics = AnalyticsNext.AnalyticsBrowser.load({{writeKey: "{key}", cdnURL: "{url}"}},
  {{integrations: {{"Segment.io": {{apiHost: "{host}/v1", protocol: "http"}}}}}})
analytics.page("Start"); analytics.identify("u-1", {{plan: "pro"}})
analytics.track("Feature Used", {{feature: "board"}}); analytics.group("g-1"); analytics.alias("u-2", "u-0")
</script>"""


def test_segment_for_browsers(site: Site, browser: "Browser", installed: Path) -> None:  # noqa: F811
    site.files["/segment.js"] = (installed / "node_modules/@segment/analytics-next/dist/umd/index.js").read_bytes()
    url = site.url
    site.html = SEGMENT.format(url=url, key=KEY, host=url.removeprefix("http://")).encode()
    page = browser.new_page()
    page.goto(site.origin)
    found = {e.type: e for e in site.until(5)}
    assert sorted(found) == ["alias", "group", "identify", "page", "track"]
    assert (found["identify"].user_id, found["identify"].traits["plan"]) == ("u-1", "pro")
    assert (found["track"].name, found["track"].user_id) == ("Feature Used", "u-1")
    assert found["track"].anonymous_id == found["identify"].anonymous_id
    assert {told(e) for e in found.values()} == {("desktop", "Chrome", "direct")}
