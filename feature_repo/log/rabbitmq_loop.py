"""RabbitMQ's client is asynchronous: its event loop, in a thread of its own, for callers that wait."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractRobustConnection

TIMEOUT_S = 30.0
_T = TypeVar("_T")


class Loop:
    """A running event loop. From any thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._loop.is_closed()

    def submit(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        """Begin some work."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Wait for some work.

        Raises:
            TimeoutError: it takes longer than a minute. Besides what the work raises.
        """
        return self.submit(work).result(2 * TIMEOUT_S)

    def close(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def connect(url: str) -> AbstractRobustConnection:
    """A connection that comes back by itself."""
    return await aio_pika.connect_robust(url, timeout=TIMEOUT_S, reconnect_interval=1)
