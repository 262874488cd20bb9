"""The console and the demo in a real browser over a real service: from a click to a changed onboarding."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from feature_repo.settings import now_us
from serving.auth import Keys
from serving.experiments.assign import assign
from serving.times import rfc3339
from tests.monitoring.test_page_browser import browser  # noqa: F401
from tests.serving.console.conftest import Service, running, untouched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Route

SECRET = "k" * 32
PHONE, DESK = {"width": 360, "height": 780}, {"width": 1280, "height": 900}
PAGES = ("", "#/playbook", "#/users/{user}", "/demo?user={user}")
MINUTE_US = 60_000_000


@pytest.fixture
def page(browser: "Browser", service: Service) -> "Iterator[Page]":  # noqa: F811
    """A page of somebody new to the browser; fails where it complains or asks elsewhere than the service."""
    context = browser.new_context(viewport=DESK)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    opened = context.new_page()
    said = watched(opened, service.url)
    yield opened
    context.close()
    assert said == []


def watched(page: "Page", url: str) -> list[str]:
    said: list[str] = []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") and not of_nobody(m) else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((url, "data:")) else said.append(r.url))
    return said


def of_nobody(message: "ConsoleMessage") -> bool:
    """The browser's own remark on an answer 404 or 410 about a person: that is what was asked."""
    return "/v1/users/" in message.location["url"] and message.text.startswith("Failed to load resource")


def event(number: int, user: str, name: str, **properties: object) -> dict[str, object]:
    """The number-th event of somebody, that many minutes before an hour from long ago."""
    at = rfc3339(now_us() - (60 - number) * MINUTE_US)
    sent = {"type": "track", "messageId": f"{user}-{number}", "userId": user, "event": name, "timestamp": at}
    return sent | {"properties": properties}


def used(user: str) -> list[dict[str, object]]:
    """Somebody who has tried two features."""
    return [event(n, user, "Feature Used", feature=f"feature-{n}") for n in range(2)]


def has(page: "Page", element: str) -> None:
    page.wait_for_selector(f"[data-element={element}]")


def has_not(page: "Page", element: str) -> None:
    page.wait_for_selector(f"[data-element={element}]", state="detached")


def press(page: "Page", name: str) -> None:
    page.get_by_role("button", name=re.compile(f"^{re.escape(name)}")).click()


def settled(page: "Page") -> None:
    """All events of the page have been answered."""
    for _ in range(100):
        if page.evaluate("(sessionStorage['firstmile.queue'] || '[]') == '[]'"):
            return
        page.wait_for_timeout(50)
    raise AssertionError("events of the page were not answered")


def held(service: Service, user: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{service.url}/v1/users/{user}").json()
    return found


def test_from_a_click_to_a_changed_onboarding(page: "Page", service: Service, somebody: Callable[[int], str]) -> None:
    user = somebody(1)
    page.goto(f"{service.url}/console/demo?user={user}")
    has(page, "welcome_tour"), has(page, "checklist")
    page.evaluate("window.sameDocument = true")
    press(page, "Add a card"), press(page, "Comment")
    has(page, "template_gallery"), has_not(page, "welcome_tour")
    assert "getting_going: has tried at least two features" in page.inner_text("#why")
    assert "Gone: Three steps around the product" in page.inner_text("#said")
    assert "they would be in" in page.locator("dd").filter(has_text="With ").first.inner_text()
    for _ in range(3):
        press(page, "Export (broken)")
    has(page, "help_offer"), has_not(page, "checklist")
    assert page.evaluate("window.sameDocument") is True
    settled(page)
    names = [e["name"] for e in held(service, user)["events"]]
    assert names.count("Element Shown") == 4 and {"Clicked", "Feature Used", "Error Shown"} <= set(names)


def test_what_was_dismissed_stays_away(page: "Page", service: Service, somebody: Callable[[int], str]) -> None:
    user = somebody(2)
    page.goto(f"{service.url}/console/demo?user={user}")
    has(page, "welcome_tour")
    press(page, "Dismiss: Three steps")
    has_not(page, "welcome_tour")
    page.wait_for_selector("#why :text('never again')")
    page.reload()
    has(page, "checklist")
    page.wait_for_selector("#why :text('never again')")
    assert page.locator("[data-element=welcome_tour]").count() == 0
    settled(page)
    assert "Element Dismissed" in [e["name"] for e in held(service, user)["events"]]


def test_what_is_on_the_screen_stays_though_it_may_not_come_again(
    page: "Page", service: Service, somebody: Callable[[int], str]
) -> None:
    page.goto(f"{service.url}/console/demo?user={somebody(3)}")
    for _ in range(3):
        press(page, "Export (broken)")
    has(page, "help_offer")
    press(page, "Comment")
    page.wait_for_selector("#why :text('shown 1 time in this session')")
    assert page.locator("[data-element=help_offer]").is_visible()
    page.reload()
    has(page, "help_offer")
    press(page, "Talk to a person")
    has_not(page, "help_offer")


def test_a_whole_onboarding_by_the_products_own_forms(
    page: "Page", service: Service, somebody: Callable[[int], str], tmp_path: Path
) -> None:
    user = somebody(4)
    page.goto(f"{service.url}/console/demo?user={user}")
    press(page, "Sign up, free")
    for name in ("Add a card", "Comment", "Plan the week", "Automate"):
        press(page, name)
    page.get_by_role("link", name="Files").click()
    (tmp_path / "notes.txt").write_text("a secret")
    page.get_by_label("A file").set_input_files(tmp_path / "notes.txt")
    press(page, "Upload")
    page.get_by_role("link", name="Team").click()
    page.get_by_label("Their address").fill("colleague@example.org")
    press(page, "Invite")
    has(page, "publish_banner"), has(page, "invite_teammates")
    press(page, "Publish in one click")
    has_not(page, "publish_banner")
    settled(page)
    found = held(service, user)
    assert found["profile"]["traits"] == {"plan": "free", "role": "designer"}
    assert {"Signed Up", "File Uploaded", "Invitation Sent", "Element Clicked", "Element Completed"} <= {
        e["name"] for e in found["events"]
    }
    assert "colleague@example.org" not in json.dumps(found) and "a secret" not in json.dumps(found)


def test_somebody_new_begins_at_the_beginning(page: "Page", service: Service, somebody: Callable[[int], str]) -> None:
    page.goto(f"{service.url}/console/demo?user={somebody(9)}")
    press(page, "Add a card"), press(page, "Comment")
    has(page, "template_gallery"), settled(page)
    press(page, "Start as somebody new")
    page.wait_for_selector("#why :text('no rule'), #why :text('unknown user'), #why :text('no model is loaded')")
    page.wait_for_function("who => !document.querySelector('#person').innerText.includes(who)", arg=somebody(9))
    page.wait_for_selector("[data-element=checklist]")
    assert page.locator("[data-element=template_gallery]").count() == 0


def test_what_is_answered_after_somebody_has_left_is_nobodys(
    page: "Page", service: Service, somebody: Callable[[int], str]
) -> None:
    page.goto(f"{service.url}/console/demo?user={somebody(11)}")
    has(page, "checklist"), settled(page)
    documents: list[Route] = []
    late = json.dumps({"batch": [event(1, somebody(11), "Help Opened")]})
    page.route(re.compile(r"/console/demo$"), lambda route: documents.append(route))  # the next page takes its time
    leave = "document.querySelector('#new').click(), fetch('../v1/batch', { method: 'POST', body })"
    with page.expect_response(re.compile("/v1/decide$")):
        page.evaluate(f"body => {{ setTimeout(() => {{ {leave} }}) }}", late)
    documents[0].continue_()
    page.wait_for_function("who => !document.querySelector('#person').innerText.includes(who)", arg=somebody(11))
    page.wait_for_selector("[data-element=checklist]")


def test_while_a_person_is_looked_up_the_page_says_so(
    page: "Page", service: Service, somebody: Callable[[int], str]
) -> None:
    service.send(*used(somebody(10)))
    asked: list[Route] = []
    page.route(re.compile(r"/v1/users/"), lambda route: asked.append(route))
    page.goto(f"{service.url}/console#/users/{somebody(10)}")
    page.wait_for_selector("main :text('Looking up')")
    while not asked:
        page.wait_for_timeout(20)
    asked[0].continue_()
    page.wait_for_selector("h2:text('Features')")
    assert page.locator("main :text('Looking up')").count() == 0


def test_an_exposure_is_told_when_it_is_seen(page: "Page", service: Service) -> None:
    experiments, at_us = service.engine.playbook.experiments, now_us()
    user = next(u for u in (f"tried-{n}" for n in range(500)) if assign(experiments, u, [], {}, at_us).variants)
    page.goto(f"{service.url}/console/demo?user={user}")
    has(page, "checklist"), settled(page)
    viewed = [e["properties"] for e in held(service, user)["events"] if e["name"] == "Experiment Viewed"]
    (variant,) = assign(experiments, user, [], {}, at_us).variants
    assert [(v["experiment_id"], v["variation_id"]) for v in viewed] == [(variant.experiment, variant.variant)]


def test_who_opts_out_is_not_profiled(page: "Page", service: Service, somebody: Callable[[int], str]) -> None:
    user = somebody(5)
    page.goto(f"{service.url}/console/demo?user={user}")
    has(page, "checklist"), settled(page)
    had = len(held(service, user)["events"])
    page.get_by_role("switch", name="Opt out").click()
    page.wait_for_selector("#why :text('opted out of being profiled')")
    press(page, "Add a card"), press(page, "Comment")
    page.wait_for_timeout(500)
    found = held(service, user)
    assert (found["optedOut"], len(found["events"])) == (True, had)
    page.get_by_role("switch", name="Opt out").click()
    page.wait_for_selector("#why :text('no model is loaded')")
    page.goto(f"{service.url}/console#/users/{user}")
    page.wait_for_selector("h2:text('Features')")
    assert "Opted out" not in page.inner_text("main")


def test_a_move_arrives_without_a_reload(page: "Page", service: Service) -> None:
    page.goto(f"{service.url}/console")
    page.get_by_text("live", exact=True).wait_for()
    service.send(*used("mover-1"))
    page.get_by_role("log").get_by_text("features_used >= 2 (is 2)").first.wait_for()
    counted_as(service, page)
    page.get_by_role("button", name="Pause").click()
    service.send(*used("mover-2"))
    page.wait_for_timeout(500)
    assert page.get_by_role("link", name="mover-2").count() == 0
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("link", name="mover-2").first.wait_for()
    counted_as(service, page)


def counted_as(service: Service, page: "Page") -> None:
    """The overview comes to count as the service does."""
    row = page.get_by_role("row").filter(has_text="getting_going").locator("td")
    for _ in range(50):
        counts = httpx.get(f"{service.url}/v1/segments").json()["segments"]
        if row.inner_text() == str(next(c["people"] for c in counts if c["segment"] == "getting_going")):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{row.inner_text()} people, and {counts}")


def test_a_persons_page(page: "Page", service: Service) -> None:
    user = "person/1 <b>&amp;</b>"
    service.send(*used(user), event(3, user, "Clicked", target="x") | {"traits": {"plan": "<b>pro</b>"}})
    for _ in range(2):
        httpx.post(f"{service.url}/v1/decide", json={"userId": user})
    page.goto(f"{service.url}/console")
    page.get_by_label("User id").fill(user)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=user, exact=True).wait_for()
    page.get_by_text("features_used >= 2 (is 2)").wait_for()
    feature = page.get_by_role("row").filter(has_text="Different product features used").first
    assert feature.locator("td").inner_text() == "2 features"
    assert "Since 2" in page.locator("caption").inner_text() and "until" in page.locator("caption").inner_text()
    assert page.locator("main b").count() == 0  # values are text
    page.get_by_role("button", name="Decide now").click()
    page.get_by_role("status").get_by_text("checklist for getting_going").wait_for()
    page.wait_for_timeout(500)  # the decision log writes every 0.4 s
    page.reload()
    page.locator("summary").filter(has_text="checklist").first.click()
    assert page.get_by_text("template_gallery for getting_going").first.is_visible()


def test_an_anonymous_persons_page(page: "Page", service: Service) -> None:
    device = "visitor/9"
    sent = [{k: v for k, v in e.items() if k != "userId"} | {"anonymousId": device} for e in used(device)]
    service.send(*sent)
    httpx.post(f"{service.url}/v1/decide", json={"anonymousId": device})
    page.goto(f"{service.url}/console")
    page.get_by_role("link", name=f"anonymous {device}").first.click()
    page.get_by_role("heading", name=f"anonymous {device}", exact=True).wait_for()
    page.get_by_text("features_used >= 2 (is 2)").wait_for()
    page.get_by_role("button", name="Decide now").click()
    page.get_by_role("status").get_by_text("checklist for getting_going").wait_for()
    page.goto(f"{service.url}/console")
    page.get_by_label("User id").fill(device)
    page.get_by_label("of a device").check()
    page.get_by_role("button", name="Find").click()
    page.get_by_role("heading", name=f"anonymous {device}", exact=True).wait_for()
    assert "anon:" not in page.content()


def test_of_whom_nothing_can_be_shown(page: "Page", service: Service) -> None:
    service.send(*used("person-erased"))
    httpx.delete(f"{service.url}/v1/users/person-erased", timeout=30)
    for user, told in (("nobody-at-all", "nobody is known by that id"), ("person-erased", "this person was erased")):
        page.goto(f"{service.url}/console#/users/{user}")
        page.get_by_role("alert").get_by_text(told).wait_for()
        page.goto("about:blank")


def test_rules_and_experiments(page: "Page", service: Service) -> None:
    folder = service.settings.report / "experiments"
    folder.mkdir(parents=True)
    curve = {"treatment": "help", "metric": "activation", "segment": None, "people": 1234}
    curve |= {"control": 0.2, "effect": 0.031, "low": -0.004, "high": 0.066}
    figures = {"experiment": "help_early", "at_us": now_us(), "exposed": {"control": 600, "help": 634}}
    (folder / "experiments.json").write_text(json.dumps([figures | {"overall": [curve], "segments": []}]))
    page.goto(f"{service.url}/console#/playbook")
    rules = page.get_by_role("region", name="Rules")
    assert "sessions > 5" in rules.get_by_role("article").filter(has_text="active_learner").inner_text()
    tried = page.get_by_role("article").filter(has_text="help_early").inner_text()
    assert "running" in tried and "+3.1 points (-0.4 to +6.6) on 20 %" in tried and "control 600, help 634" in tried


def test_with_server_keys_a_key_is_asked_for_and_kept_in_the_tab(
    browser: "Browser",  # noqa: F811
    tmp_path: Path,
) -> None:
    with running(tmp_path, Keys((SECRET,))) as service:
        page = browser.new_page()
        page.goto(f"{service.url}/console")
        page.get_by_role("alert").get_by_text("a server key is needed").wait_for()
        page.get_by_text("Server key", exact=True).click()
        page.get_by_label("Needed where").fill(SECRET)
        page.keyboard.press("Enter")
        page.get_by_text("live", exact=True).wait_for()
        service.send(*used("mover-3"))
        page.get_by_role("link", name="mover-3").first.wait_for()
        page.goto(f"{service.url}/console/demo?user={untouched(6, service.engine.playbook)}")
        has(page, "checklist")
        assert SECRET not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
        page.close()


def test_by_keyboard_alone(page: "Page", service: Service, somebody: Callable[[int], str]) -> None:
    page.goto(f"{service.url}/console/demo?user={somebody(7)}")
    has(page, "welcome_tour")
    tab_to(page, "Add a card")
    page.keyboard.press("Enter")
    tab_to(page, "Comment")
    page.keyboard.press("Space")
    has(page, "template_gallery")
    tab_to(page, "Dismiss: Projects of people")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    has_not(page, "template_gallery")
    assert page.evaluate("document.activeElement.id") == "product"  # not lost with what was dismissed
    page.goto(f"{service.url}/console")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def tab_to(page: "Page", name: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if name in page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent"):
            return
    raise AssertionError(f"{name} cannot be reached with the tab key")


CONTRAST = """() => {
  const numbers = c => c.match(/[\\d.]+/g).map(Number)
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4
  const light = c => numbers(c).slice(0, 3).map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
  const behind = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (numbers(c)[3] !== 0) return c } return "rgb(255,255,255)" }
  const low = []
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || !e.checkVisibility()) continue
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x)
    if ((a + .05) / (b + .05) < 4.5) low.push(e.textContent.slice(0, 40))
  }
  return low }"""


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_reads_well_on_a_phone(
    page: "Page", service: Service, somebody: Callable[[int], str], path: str, scheme: str
) -> None:
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    shown(page, service, path, somebody(8))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize("path", PAGES)
def test_everything_has_a_role_and_a_name(
    page: "Page", service: Service, somebody: Callable[[int], str], path: str
) -> None:
    shown(page, service, path, somebody(8))
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]
    roles = {role for role, _ in found}
    assert {"banner", "navigation", "main", "heading"} <= roles
    wanted = ("button", "link", "textbox", "combobox", "checkbox", "switch", "navigation", "article", "region")
    assert [role for role, name in found if role in wanted and not name] == []
    assert page.locator("h1").count() == 1


def shown(page: "Page", service: Service, path: str, user: str) -> None:
    """Go to a page and wait until it has all it asks for."""
    service.send(*used(user))
    page.goto(f"{service.url}/console{path.format(user=user)}")
    page.wait_for_selector("[data-element], article, section.card, h2:text('Features')")
    page.wait_for_load_state("load")
