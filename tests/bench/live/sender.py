"""The sender, a process of its own, as an SDK in a product's server would be: requests over a few connections.

`python -m tests.bench.live.sender` reads a Plan as JSON from stdin and prints a Sent as JSON. The bodies are a file of
lines, each sent once: as fast as answers come, or so many a second. What is answered 429 or 503 is sent again.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import msgspec
import uvloop

from feature_repo.settings import SOURCE

RECEIPTS = b"firstmile-receipts: accepted="
AGAIN = (429, 503)
SILENCE_S = 60
"""How long an answer may take."""


class Plan(msgspec.Struct):
    """What to send: `bodies` is a file, a JSON body a line. per_second: requests; 0: as fast as answers come."""

    port: int
    path: str
    bodies: str
    connections: int
    per_second: float = 0.0


class Sent(msgspec.Struct):
    """What came. A latency is from when a request was due; began, ended: clock times, s. `busy`: CPU time / wall.

    accepted: events, as the receipts say. again: requests that had to be sent again.
    """

    latencies_ms: list[float]
    began: float
    ended: float
    busy: float
    accepted: int = 0
    again: int = 0


class Sender:
    """What the connections share."""

    def __init__(self, plan: Plan, bodies: Iterator[bytes]) -> None:
        self.plan, self.bodies = plan, zip(count(), bodies)
        self.began = time.time()
        self.sent = Sent([], self.began, 0.0, 0.0)

    async def connection(self) -> None:
        """Send whatever is left, one after the other.

        Raises:
            RuntimeError: an answer was neither 200 nor a request to come again.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.port)
        for number, body in self.bodies:
            due = self.began + number / self.plan.per_second if self.plan.per_second else time.time()
            await asyncio.sleep(max(0.0, due - time.time()))
            while (status := await self._ask(reader, writer, body)) in AGAIN:
                self.sent.again += 1
                await asyncio.sleep(0.1)
            if status != 200:
                raise RuntimeError(f"{self.plan.path} answered {status} to {body[:200]!r}")
            self.sent.latencies_ms.append((time.time() - due) * 1000)
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> int:
        writer.write(
            f"POST {self.plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.plan.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(SILENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(_number(head, b"content-length: "))
        if RECEIPTS in head:
            self.sent.accepted += _number(head, RECEIPTS)
        return int(head[9:12])


def _number(head: bytes, before: bytes) -> int:
    """The whole number after some text of an answer's head."""
    digits = head.partition(before)[2]
    return int(digits[: next(i for i, c in enumerate(digits) if not chr(c).isdigit())])


async def send_all(plan: Plan) -> Sent:
    """Send the whole file."""
    cpu = time.process_time()
    with open(plan.bodies, "rb") as file:
        sender = Sender(plan, (line.rstrip(b"\n") for line in file))
        await asyncio.gather(*(sender.connection() for _ in range(plan.connections)))
    sent = sender.sent
    sent.ended = time.time()
    sent.busy = (time.process_time() - cpu) / (sent.ended - sent.began)
    return sent


class Sending:
    """A sender under way; `wait` gives what it sent."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        command = [sys.executable, "-m", "tests.bench.live.sender"]
        self._process = subprocess.Popen(
            command, cwd=SOURCE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(plan))
        self._process.stdin.close()
        self._process.stdin = None

    def wait(self) -> Sent:
        """To its end.

        Raises:
            RuntimeError: it failed; the message ends with what it said.
        """
        out, said = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"sending to {self._plan.path} failed:\n{said.decode()[-2000:]}")
        return msgspec.json.decode(out, type=Sent)

    def ended(self) -> bool:
        """Whether it has."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End it, whatever is left."""
        self._process.kill()
        self._process.communicate()


def send(plan: Plan) -> Sent:
    """Send all of it.

    Raises:
        RuntimeError: see `Sending.wait`.
    """
    return Sending(plan).wait()


@contextmanager
def meanwhile(plan: Plan) -> Iterator[None]:
    """Send while the block runs; whatever is left then is not sent.

    Raises:
        RuntimeError: it failed, see `Sending.wait`, or had nothing left to send before the block ended.
    """
    sending = Sending(plan)
    time.sleep(0.5)  # until it has begun
    try:
        yield
        if sending.ended():
            sending.wait()
            raise RuntimeError(f"the sender to {plan.path} came to its end before what it was to run beside")
    finally:
        sending.stop()


def main() -> None:
    """From stdin to stdout."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.json.encode(runner.run(send_all(plan))))


if __name__ == "__main__":
    main()
