"""The load generator, a process of its own: keep-alive connections, each of which asks again once answered.

`python -m tests.bench.load` reads a Plan as JSON from stdin and prints a Load as JSON. uvloop and httptools only, so
that one core of Python can ask faster than any of the services answers; `busy` says how near it came to its own limit.
"""

import asyncio
import sys
import time
from base64 import b64decode
from typing import cast

import httptools
import msgspec
import uvloop

SILENCE_S = 30
"""How long after the end to wait for the last answers."""


class Plan(msgspec.Struct):
    """What to ask: `requests` are whole HTTP requests in base64, taken in turn. `warm_s` is not counted."""

    port: int
    connections: int
    seconds: float
    requests: list[str]
    warm_s: float = 0.3


class Load(msgspec.Struct):
    """What came: a latency for each answer, and the seconds that all took. `busy`: CPU time of this process / wall."""

    latencies_ms: list[float]
    seconds: float
    busy: float


class Asked:
    """The requests in turn, and what was measured, shared by the connections."""

    def __init__(self, requests: list[bytes], counted_from: float, until: float) -> None:
        self.requests, self.counted_from, self.until = requests, counted_from, until
        self.number = 0
        self.latencies_ms: list[float] = []
        self.last = counted_from

    def next(self) -> bytes:
        """The next request."""
        self.number += 1
        return self.requests[self.number % len(self.requests)]

    def answered(self, began: float, now: float) -> bool:
        """Note an answer; whether to go on."""
        if began >= self.counted_from:
            self.latencies_ms.append((now - began) * 1000)
            self.last = now
        return now < self.until


class Connection(asyncio.Protocol):
    """One connection; `done` is set when it has asked enough, or to what went wrong."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self.parser, self.body = httptools.HttpResponseParser(self), b""
        self.began = time.perf_counter()
        self.transport.write(self.asked.next())

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        """Kept for the message of an error."""
        self.body += body

    def on_message_complete(self) -> None:
        """An answer is whole: the next request, or the end."""
        if self.parser.get_status_code() != 200:
            self._fail(f"status {self.parser.get_status_code()}: {self.body[:500].decode(errors='replace')}")
        elif self.asked.answered(self.began, time.perf_counter()):
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed: by us at the end, else an error."""
        self._fail(f"the connection was closed: {exc}")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))


async def load(plan: Plan) -> Load:
    """Ask for `seconds`, over `connections` at once.

    Raises:
        RuntimeError: an answer was no 200, or a connection was closed. TimeoutError: an answer did not come.
    """
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    start = began + plan.warm_s
    asked = Asked([b64decode(r) for r in plan.requests], start, start + plan.seconds)
    cpu = time.process_time()
    opened = [
        await loop.create_connection(lambda: Connection(asked), "127.0.0.1", plan.port) for _ in range(plan.connections)
    ]
    answered = asyncio.gather(*(connection.done for _, connection in opened))
    await asyncio.wait_for(answered, plan.warm_s + plan.seconds + SILENCE_S)
    busy = (time.process_time() - cpu) / (time.perf_counter() - began)
    return Load(asked.latencies_ms, asked.last - start, busy)


def main() -> None:
    """From stdin to stdout."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(load(plan))))


if __name__ == "__main__":
    main()
