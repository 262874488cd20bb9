"""The whole service without a model, with its live part, behind uvicorn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from feature_repo.settings import Settings, now_us
from feature_repo.stream.embedded import Embedded
from serving import wiring
from serving.app import App
from serving.auth import Keys
from serving.console.playbook import Declared
from serving.engine import Engine
from serving.experiments.assign import assign
from serving.playbook import Playbook
from tests.serving.segments.test_stream import served


class Service:
    """Every part that serving/service.py puts in the app, and the address where it is served."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self.settings, self.url = settings, ""
        live = wiring.live(settings)
        assert isinstance(live, Embedded)
        self.live: Embedded = live
        self.engine: Engine = wiring.engine(settings, live=live)
        self.app = App(keys, self.engine, wiring.door(settings, live, self.engine.consent))
        announcer = wiring.announcer(settings, self.engine, live)
        assert announcer is not None
        self.announcer = announcer
        self.app.channels = wiring.channels(settings, self.engine, announcer)
        self.app.users = wiring.users(settings, live, self.app.door, self.engine)
        self.app.declared = Declared(settings, self.engine.playbook)

    def send(self, *events: dict[str, object]) -> None:
        answer = httpx.post(f"{self.url}/v1/batch", json={"batch": list(events)})
        assert {r["status"] for r in answer.json()["receipts"]} <= {"accepted", "duplicate"}, answer.text

    def close(self) -> None:
        assert self.app.users is not None and self.app.channels is not None
        self.app.users.close()
        self.announcer.close()
        self.app.channels.close()
        self.live.close()
        self.engine.close()


@contextmanager
def running(home: Path, keys: Keys) -> Iterator[Service]:
    """A service of domain saas that is served until the end of the block."""
    service = Service(Settings(home=home, domain="saas"), keys)
    with served(service.app) as (_, service.url):
        yield service
    service.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all tests of a file: each has people of its own."""
    with running(tmp_path_factory.mktemp("service"), Keys(())) as started:
        yield started


def untouched(number: int, book: Playbook) -> str:
    """The id of somebody who is in no experiment and not in the holdout, whatever their segments: another for each
    number."""
    segments, at_us = set(book.rules.segments) | set(book.policy.segments), now_us()
    ids = (f"demo-{n}" for n in range(1_000 * number, 1_000 * number + 1_000))
    found = ((person, assign(book.experiments, person, segments, {}, at_us)) for person in ids)
    return next(person for person, got in found if not got.holdout and not got.variants)


@pytest.fixture
def somebody(service: Service) -> Callable[[int], str]:
    return lambda number: untouched(number, service.engine.playbook)
