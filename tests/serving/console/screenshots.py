"""`python -m tests.serving.console.screenshots`: the pictures of the README, of a service of its own, without a model.

Writes overview.png, user.png, playbook.png, demo.png and demo-phone.png into serving/console/screenshots/.
"""

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from serving.auth import Keys
from tests.monitoring.test_page_browser import FLAGS, chromium
from tests.serving.console.conftest import Service, running, untouched
from tests.serving.console.test_browser import DESK, PHONE, event, has, press

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path("serving/console/screenshots")
PEOPLE = 60
DID: tuple[tuple[str, dict[str, object]], ...] = (
    *(("Feature Used", {"feature": name}) for name in ("board", "calendar", "comments", "automation")),
    ("Clicked", {"target": "card"}),
    ("Error Shown", {"status": 500}),
    ("Invitation Sent", {"role": "designer"}),
    ("Help Opened", {"topic": "cards"}),
    ("File Uploaded", {"bytes": 20_000}),
)


def crowd(people: int, chance: random.Random) -> list[dict[str, object]]:
    """The events of people who have got more or less far."""
    found = []
    for number in range(people):
        user = f"u-{1800 + number}"
        found.append(event(0, user, "Signed Up", plan="free", fields_empty=0))
        for n in range(1, chance.randrange(1, 14)):
            name, properties = chance.choice(DID)
            found.append(event(n, user, name, **properties))
    return found


def take(page: "Page", service: Service) -> None:
    """All of them."""
    user = untouched(1, service.engine.playbook)
    page.goto(f"{service.url}/console")
    page.get_by_role("row").filter(has_text="newcomer").get_by_text(str(PEOPLE)).wait_for()
    page.goto(f"{service.url}/console/demo?user={user}")
    has(page, "welcome_tour")
    press(page, "Sign up, free")
    for name in ("Add a card", "Plan the week"):
        press(page, name)
    has(page, "template_gallery")
    picture(page, "demo")
    for _ in range(3):
        press(page, "Export (broken)")
    has(page, "help_offer")
    page.goto(f"{service.url}/console")
    page.get_by_role("log").get_by_text(user).first.wait_for()
    picture(page, "overview")
    page.goto(f"{service.url}/console#/users/{user}")
    page.get_by_role("button", name="Decide now").click()
    page.get_by_text("Receipt").first.wait_for()
    picture(page, "user")
    page.goto(f"{service.url}/console#/playbook")
    page.get_by_role("article").first.wait_for()
    picture(page, "playbook")


def picture(page: "Page", name: str, whole: bool = False) -> None:
    """What is on the screen (or the whole page), from the top, once nothing moves any more."""
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(600)
    page.screenshot(path=FOLDER / f"{name}.png", full_page=whole)


def main() -> None:
    """Start a service and a browser, and take them."""
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home, running(Path(home), Keys(())) as service, sync_playwright() as p:
        service.send(*crowd(PEOPLE, random.Random(7)))
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        desk = browser.new_page(viewport=DESK, reduced_motion="reduce")  # type: ignore[arg-type]
        take(desk, service)
        phone = browser.new_page(viewport=PHONE, reduced_motion="reduce", color_scheme="dark")  # type: ignore[arg-type]
        phone.goto(f"{service.url}/console/demo?user={untouched(2, service.engine.playbook)}")
        has(phone, "welcome_tour")
        picture(phone, "demo-phone", whole=True)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
