"""The HTTP client of a run: it waits patiently on a busy machine, and says what it waits for."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
from rich.console import Console

PATIENCE_S = 300.0
"""Seconds that one answer may take."""
SAY_EVERY_S = 10.0
"""Seconds of waiting after which it is said, each time."""


@contextmanager
def patient_client(url: str, console: Console, say_every_s: float = SAY_EVERY_S) -> Iterator[httpx.Client]:
    """A client for the service at `url`; an answer that takes long is announced on the console while it is awaited."""
    waiting = _Waiting(console, say_every_s)
    hooks: Mapping[str, list[Callable[..., None]]] = {"request": [waiting.began], "response": [waiting.ended]}
    with waiting, httpx.Client(base_url=url, timeout=httpx.Timeout(PATIENCE_S), event_hooks=hooks) as client:
        yield client


class _Waiting:
    """Says on the console which answer is awaited, and for how long already. One request at a time."""

    def __init__(self, console: Console, every_s: float) -> None:
        self._console, self._every_s = console, every_s
        self._request: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="waiting for an answer", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def began(self, request: httpx.Request) -> None:
        """A request is about to be sent."""
        self._request = (f"{request.method} {request.url.path}", time.monotonic())

    def ended(self, response: httpx.Response) -> None:
        """Its answer has begun to come."""
        self._request = None

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            awaited = self._request
            if awaited is not None and (seconds := time.monotonic() - awaited[1]) >= self._every_s:
                words = f"waiting for the service's answer to {awaited[0]} for {seconds:.0f} s"
                self._console.print(words, markup=False, highlight=False, soft_wrap=True)
