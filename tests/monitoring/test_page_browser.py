"""The report in a real browser: on a phone and on a desk, light and dark, every link to Evidently's pages."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from monitoring.drift import measure
from monitoring.page import Week, write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOWS = {
    "drift-features": "Dataset Drift",
    "drift-score": "Drift in column 'score'",
    "missing-values": "missing values",
}
"""What each page of Evidently says once its script has drawn it."""
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def chromium() -> str:
    """Path of the browser; skips the test where there is none."""
    found = os.environ.get("FIRSTMILE_TEST_CHROMIUM") or shutil.which("chromium")
    if not found:
        pytest.skip("no Chromium: install the Debian package chromium or set FIRSTMILE_TEST_CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A browser of our own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: install the development requirements")
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def evidently(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Evidently's real pages."""
    folder, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
    then, now = (
        pd.DataFrame(
            {
                "pages": rng.poisson(5, n),
                "device": rng.choice(np.array(["phone", "desktop", None], dtype=object), n),
                "score": rng.random(n),
            }
        )
        for n in (500, 200)
    )
    pages = measure(then, now, {"pages": "int64", "device": "string"}, folder).pages
    assert len(pages) == 3
    return folder


@pytest.fixture
def front(evidently: Path, make_week: Callable[..., Week]) -> str:
    """Address of a front page beside Evidently's pages."""
    from monitoring.evidently_pages import Page as Evidently

    pages = [Evidently(p.name, p.stem, "a page") for p in sorted(evidently.glob("*.html")) if p.stem != "index"]
    return write(make_week(pages=pages), evidently).as_uri()


def watched(page: "Page") -> list[str]:
    """What the page complains of, or fetches from elsewhere, from now on."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else said.append(request.url),
    )
    return said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_reads_well(browser: "Browser", front: str, size: dict[str, int], scheme: str) -> None:
    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    said = watched(page)
    page.goto(front)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    small = "Math.min(...[...document.querySelectorAll('svg')].map(s => 12 * s.getBoundingClientRect().width / 340))"
    assert page.evaluate(small) >= 10, "the text of a chart is too small to read"
    cut = """[...document.querySelectorAll('svg text')].filter(t => { const a = t.getBoundingClientRect(),
        b = t.ownerSVGElement.getBoundingClientRect()
        return a.width && (a.left < b.left - 1 || a.right > b.right + 1) })
        .map(t => t.textContent)"""
    assert page.evaluate(cut) == []
    assert said == []
    page.close()


def test_the_verdicts_come_first_and_lead_to_their_figures(browser: "Browser", front: str) -> None:
    page = browser.new_page(viewport=PHONE)  # type: ignore[arg-type]
    page.goto(front)
    assert page.locator("h2").first.inner_text() == "In words"
    page.get_by_role("link", name="Some features drift").click()
    assert page.url.endswith("#drift")
    assert page.locator("#drift").bounding_box() is not None
    page.close()


@pytest.mark.parametrize(("name", "shows"), SHOWS.items())
def test_one_click_to_each_page_of_evidently_and_back(browser: "Browser", front: str, name: str, shows: str) -> None:
    page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
    said = watched(page)
    page.goto(front)
    page.get_by_role("link", name=name).click()
    page.get_by_text(shows).first.wait_for(timeout=30_000)
    assert "Firstmile" in page.title()
    page.get_by_role("link", name="Weekly report").click()
    assert page.url == front
    assert said == []
    page.close()


ROLE = "</script><script>window.PWNED=1</script>"
"""A trait that anybody may send with a public write key."""


@pytest.fixture
def attacked(tmp_path: Path, make_week: Callable[..., Week]) -> Path:
    """A report of real pages over people some of whom have that role."""
    rng = np.random.default_rng(0)
    then, now = (
        pd.DataFrame({"role": ["designer", ROLE, None, "engineer"] * 50, "score": rng.random(200)}) for _ in range(2)
    )
    pages = measure(then, now, {"role": "string"}, tmp_path).pages
    assert len(pages) == 3
    write(make_week(pages=pages), tmp_path)
    return tmp_path


def test_what_users_sent_runs_no_script_in_the_report(browser: "Browser", attacked: Path) -> None:
    assert "PWNED" in (attacked / "drift-features.html").read_text()
    for name, shows in (SHOWS | {"index": "Weekly report"}).items():
        page = browser.new_page(viewport=DESK)  # type: ignore[arg-type]
        page.goto((attacked / f"{name}.html").as_uri())
        page.get_by_text(shows).first.wait_for(timeout=30_000)
        assert page.evaluate("window.PWNED") is None, name
        page.close()
