"""A collector whose log is a list, and one that is served over HTTP with a real log."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.lake.quarantine import Quarantine
from feature_repo.log.event_log import Delivered
from feature_repo.log.sqlite_log import SqliteLog
from serving.app import App
from serving.auth import Keys
from serving.collect.door import Door
from serving.collect.routes import Options
from serving.http_limits import LimitedProtocol

KEY, SERVER_KEY = "w" * 32, "s" * 32


class ListLog:
    """An event log in memory. `fault` is raised by append, or by its future where `late`; `slow_s` is waited for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fault: Exception | None = None
        self.late = False
        self.slow_s = 0.0

    def append(self, events: Sequence[Event]) -> "Future[list[int] | None]":
        future: Future[list[int] | None] = Future()
        if self.fault and not self.late:
            raise self.fault
        if self.fault:
            future.set_exception(self.fault)
            return future

        def write() -> None:
            self.events.extend(events)
            future.set_result(None)

        if self.slow_s:
            threading.Timer(self.slow_s, write).start()
        else:
            write()
        return future

    def poll(self, most: int, timeout_s: float) -> list[Delivered]:
        return []

    def ack(self, delivered: Sequence[Delivered]) -> None: ...

    def lag(self) -> int:
        return 0

    def close(self) -> None: ...


@pytest.fixture
def log() -> ListLog:
    return ListLog()


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    return Quarantine(tmp_path / "quarantine")


@pytest.fixture
def make_door(log: ListLog, quarantine: Quarantine) -> Callable[..., Door]:
    """Doors of domain saas over that log and quarantine."""
    return lambda **options: Door(domains.load("saas"), log, quarantine, **options)


@pytest.fixture
def make_collector(make_door: Callable[..., Door]) -> Callable[..., App]:
    """Apps that collect; `door` takes the door's options, the rest are the collector's. One write key, unless told."""

    def make(door: dict[str, Any] | None = None, keys: Sequence[str] = (KEY,), **options: Any) -> App:
        return App(Keys((SERVER_KEY,)), None, make_door(**door or {}), Options(keys=Keys(tuple(keys)), **options))

    return make


@pytest.fixture
def ask() -> Callable[..., httpx.Response]:
    """One request to an app in this process, from an address."""

    def asked(app: App, method: str, url: str, address: str = "127.0.0.1", **request: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=True, client=(address, 1))  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.request(method, url, **request)

        return asyncio.run(send())

    return asked


@pytest.fixture
def keys() -> SimpleNamespace:
    return SimpleNamespace(write=KEY, server=SERVER_KEY)


@contextmanager
def serving(app: App) -> Iterator[str]:
    """The app behind uvicorn on a free port; its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", http=LimitedProtocol)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture
def serve() -> Callable[[App], Any]:
    return serving


@pytest.fixture
def service(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A served collector over a SqliteLog: url, port, key, app, events() and refused() that have arrived."""
    log, folder = SqliteLog(tmp_path / "log.db"), Quarantine(tmp_path / "refused")
    app = App(Keys((SERVER_KEY,)), None, Door(domains.load("saas"), log, folder), Options(keys=Keys((KEY,))))
    with serving(app) as url:
        port = int(url.rsplit(":", 1)[1])
        yield SimpleNamespace(
            url=url, port=port, key=KEY, app=app, log=log,
            events=lambda: [event for _, event in log.read(0, 10_000)],
            refused=lambda: list(Quarantine(folder.folder).read()),
        )  # fmt: skip
    log.close()
