"""GET /v1/playbook and the files of the pages."""

import asyncio
import doctest
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from feature_repo import domains
from feature_repo.settings import Settings
from serving import openapi, playbook
from serving.app import App
from serving.auth import Keys
from serving.console import files, phrases
from serving.console.playbook import Declared
from serving.experiments import paused
from serving.experiments.paused import Paused
from tests.serving.test_openapi import valid

SAAS = domains.load("saas")
NOW = 1_780_000_000_000_000
FIGURES = {"experiment": "help_early", "exposed": {"control": 5, "help": 7}, "overall": []}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, domain="saas")


@pytest.fixture
def declared(settings: Settings) -> Declared:
    return Declared(settings, playbook.for_domain(SAAS), lambda: NOW)


@pytest.fixture
def ask(declared: Declared) -> Callable[..., httpx.Response]:
    """One request to an app with nothing but a playbook."""
    app = App(Keys())
    app.declared = declared

    def asked(url: str, method: str = "GET", address: str = "127.0.0.1", **request: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, client=(address, 1))  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.request(method, url, **request)

        return asyncio.run(send())

    return asked


def write_figures(settings: Settings, content: str) -> None:
    file = settings.report / "experiments" / "experiments.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)


def test_all_that_is_declared_is_in_it(declared: Declared, ask: Callable[..., httpx.Response]) -> None:
    book, found = playbook.for_domain(SAAS), ask("/v1/playbook").json()
    assert valid(found, "PlaybookNow", openapi.document())
    assert found["version"] == book.version
    assert [r["segment"] for r in found["rules"]] == list(book.rules.segments)
    assert [e["element"] for e in found["elements"]] == [e.name for e in book.policy.elements]
    assert [e["experiment"] for e in found["experiments"]] == list(book.experiments.experiments)
    assert [(f["name"], f["doc"]) for f in found["features"]] == [(f.name, f.doc) for f in SAAS.features]
    assert [s["segment"] for s in found["engagement"]][-1] == SAAS.label.done_segment
    assert (found["atOnce"], found["holdout"]) == (book.policy.boundaries.at_once, 0.05)


def test_a_rule_and_an_element_in_words(declared: Declared) -> None:
    now = declared.now()
    rules, elements = {r.segment: r for r in now.rules}, {e.element: e for e in now.elements}
    stuck = rules["stuck"]
    asked = "(errors >= 3 or (errors >= 1 and help_opened >= 1)) and interactions_24h > 0 and not activations >= 1"
    assert stuck.enter == asked
    assert stuck.exit == "activations >= 1 or interactions_24h == 0"
    assert stuck.notes == ["stays at least 30 minutes", "expires after 3 days", "one of group journey_stage"]
    assert (rules["inviter"].exit, rules["newcomer"].exit) == ("never", "once that holds no more")
    assert elements["help_offer"].boundaries == ["at most 1 a session", "once dismissed, again after 1 week"]
    assert elements["welcome_tour"].boundaries == ["at most 5 ever", "never again once dismissed"]


def test_experiments_with_their_standing_and_figures(settings: Settings, declared: Declared) -> None:
    assert {(e.standing, e.figures is None) for e in declared.now().experiments} == {("running", True)}
    paused.write(settings.state, {"help_early": Paused("it does harm", NOW)})
    write_figures(settings, json.dumps([FIGURES]))
    of = {e.experiment: e for e in declared.now().experiments}
    assert (of["help_early"].standing, of["help_early"].figures) == ("paused: it does harm", FIGURES)
    assert (of["tour_or_checklist"].standing, of["tour_or_checklist"].figures) == ("running", None)
    assert (of["help_early"].share, of["help_early"].segments) == (0.5, ["at_risk", "hesitating"])


@pytest.mark.parametrize("damaged", ["", "{}", "[1]"])
def test_damaged_files_count_as_none(settings: Settings, declared: Declared, damaged: str) -> None:
    write_figures(settings, damaged)
    (settings.state / paused.FILE).write_text(damaged + "x")
    assert {(e.standing, e.figures is None) for e in declared.now().experiments} == {("running", True)}


def test_who_may_ask(ask: Callable[..., httpx.Response]) -> None:
    assert ask("/v1/playbook", address="10.0.0.1").status_code == 403
    assert ask("/v1/playbook", "POST").status_code == 405
    assert ask("/console", address="10.0.0.1").status_code == 200  # the pages hold nothing


def test_before_the_start(make_app: Callable[..., App], fakes: SimpleNamespace) -> None:
    async def status() -> int:
        async with fakes.client(make_app()) as http:
            return (await http.get("/v1/playbook")).status_code

    assert asyncio.run(status()) == 503


def test_the_examples_run() -> None:
    found = doctest.testmod(phrases)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("path", files.FILES)
def test_a_file_comes_as_it_is_and_in_gzip(path: str, ask: Callable[..., httpx.Response]) -> None:
    plain, packed = (ask(path, headers={"accept-encoding": how}) for how in ("identity", "br, gzip"))
    assert plain.content == packed.content == (files.FOLDER / files.FILES[path]).read_bytes()
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert "default-src 'none'" in plain.headers["content-security-policy"]
    assert "unsafe" not in plain.headers["content-security-policy"]
    assert "http://" not in plain.text and "https://" not in plain.text and "innerHTML" not in plain.text


def test_what_there_is_not(ask: Callable[..., httpx.Response]) -> None:
    for path in ("/console/", "/console/files.py", "/console/../app.py", "/console/nothing.js"):
        assert ask(path).status_code == 404
    assert ask("/console", "POST").status_code == 405


def test_all_of_it_is_small() -> None:
    whole = [(files.FOLDER / name).read_bytes() for name in files.FILES.values()]
    assert sum(len(gzip.compress(content, 9)) for content in whole) < 20_000
