"""monitoring.page: valid, escaped, the same every time."""

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

from monitoring.drift import Drift
from monitoring.page import Week, figures, render, write
from monitoring.parity import UNKNOWN, Parity, Tally

VOID = {"meta", "br", "img", "link"}
MakeWeek = Callable[..., Week]


class Outline(HTMLParser):
    """Checks that tags are closed in order; keeps ids, links, headings and what tables and pictures are called."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every such tag."""
        return [attrs for name, attrs in self.seen if name == tag]


def outline(html: str) -> Outline:
    """The outline of a page, all of whose tags are closed."""
    found = Outline()
    found.feed(html)
    assert found.open == []
    return found


def test_every_link_inside_the_page_has_a_target_and_ids_are_unique(make_week: MakeWeek) -> None:
    page = outline(render(make_week()))
    ids = [str(attrs["id"]) for _, attrs in page.seen if "id" in attrs]
    links = [str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")]
    assert len(links) == 5 and set(links) <= set(ids) and len(ids) == len(set(ids))


def test_headings_tables_and_pictures_have_names(make_week: MakeWeek) -> None:
    page = outline(render(make_week()))
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.seen if tag in ("h1", "h2", "h3")]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    pictures = page.all("svg")
    assert len(pictures) == 7 and all(p.get("role") == "img" and p.get("aria-label") for p in pictures)


def test_whatever_comes_from_outside_is_escaped(make_week: MakeWeek) -> None:
    evil = '<script>alert("1")</script>&'
    html = render(make_week(feature=evil))
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&amp;") >= 4


def test_nothing_is_fetched_from_elsewhere(make_week: MakeWeek) -> None:
    assert "http" not in render(make_week())


def test_a_week_without_anything_still_renders(make_week: MakeWeek) -> None:
    nothing: dict[str, Any] = {name: [] for name in ("verdicts", "scores_now", "scores_reference", "weeks", "moves")}
    nothing |= {
        "served": Parity({}),
        "drift": Drift([], None, 0, 0, 1, []),
        "in_training": [],
        "people": {},
        "rates": [],
        "ages": [],
    }
    empty = dataclasses.replace(make_week(log=False), **nothing, quality=None, train_end_us=None)
    html = render(empty)
    outline(html)
    for words in (
        "Nobody was in onboarding",
        "No label has matured yet",
        "Nobody was scored",
        "The decision log is empty",
        "No feature vector of these seven days could be compared with the lake",
    ):
        assert words in html


def test_replays_and_the_training_period_are_said(make_week: MakeWeek) -> None:
    html = " ".join(render(make_week()).split())
    assert "Segment shares and moves are replays" in html
    assert "3 of the 8 weeks lay inside the training period (up to 30 Apr 2026)" in html


def test_what_was_served_wrong_is_shown_with_its_evidence(make_week: MakeWeek) -> None:
    html = " ".join(render(make_week()).split())
    assert "54 feature vectors that decisions were made from" in html and "2 wrong, in 3 values" in html
    assert "<td>anonymous visitor-9</td>" in html and "anon:" not in html
    assert "an older row<small>equals the row as of position 12,001, 3 events ago</small>" in html
    assert "<td>2026-05-27T20:26:40.000000Z</td><td>12,345</td>" in html and UNKNOWN in html
    wrong = html[html.index("Features that were served wrong") :]
    assert "What sessions_24h counts." in wrong and "What never counts." not in wrong


def test_what_was_served_right_is_one_sentence(make_week: MakeWeek) -> None:
    right = Parity({"a": Tally(7), "b": Tally(7)}, vectors=7)
    html = " ".join(render(dataclasses.replace(make_week(), served=right)).split())
    assert (
        "recomputed from the lake by the events known at that time: all 2 features of each are what was served." in html
    )
    assert "Features that were served wrong" not in html and "could not be compared" not in html


def test_written_twice_it_is_the_same(make_week: MakeWeek, tmp_path: Path) -> None:
    week = make_week()
    first = write(week, tmp_path / "a").read_bytes()
    assert write(week, tmp_path / "b").read_bytes() == first
    assert json.loads((tmp_path / "a" / "report.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(figures(week))
    )
