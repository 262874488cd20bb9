"""The live part of a run: the real service in a process of its own, asked over HTTP like any other client would."""

import errno
import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from feature_repo.contract.events import ids_of
from feature_repo.progress import track
from feature_repo.settings import Settings
from monitoring import children, distributed
from monitoring.client import patient_client
from monitoring.relive import DeliveryError, Relived, relive

STARTS_WITHIN_S = 600.0
"""Most seconds until the service is ready: it takes 5 to 10 on a machine that does nothing else."""
STOPS_WITHIN_S = 20.0
SAY_EVERY_S = 15.0
"""Seconds of waiting for the service to start after which it is said, each time."""


class ServiceError(RuntimeError):
    """The service did not start, or did not answer as it should; the message holds the end of its log."""


@dataclass(frozen=True)
class Live:
    """Decisions as a client saw them: the answers, and the milliseconds that each took; and who lived live.

    seconds: how long the service took to start, the decisions, the live users, and the service to stop.
    """

    answers: list[dict[str, Any]]
    milliseconds: list[float]
    relived: Relived
    seconds: dict[str, float]

    def figures(self) -> dict[str, Any]:
        """For run.json: how many, the segments, p50 and p99 of one client that asks one after the other."""
        ordered = sorted(self.milliseconds)
        segments = Counter(a["segment"] or "(default journey)" for a in self.answers)
        return {
            "n": len(self.answers),
            "known": sum(a["known"] for a in self.answers),
            "segments": dict(segments.most_common()),
            "p50_ms": round(_quantile(ordered, 0.50), 2),
            "p99_ms": round(_quantile(ordered, 0.99), 2),
            "seconds": {part: round(seconds, 1) for part, seconds in self.seconds.items()},
        }


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def decide_live(
    settings: Settings, service: "Starting", people: list[str], console: Console, meanwhile: Callable[[], object]
) -> Live:
    """Ask for each of the people and for somebody unknown, let some act live, and stop the service.

    meanwhile: is done before the service is waited for.

    Raises:
        ServiceError: the service did not start, or a request failed.
    """
    times = [time.monotonic()]
    meanwhile()
    with service.answering(console), patient_client(service.url, console) as client:
        times.append(time.monotonic())
        for user in people[:20]:
            client.post("/v1/decide", json=_asked(user))
        answers, milliseconds = [], []
        for user in track([*people, "nobody-has-seen-me"], "deciding", console):
            began = time.perf_counter()
            answer = client.post("/v1/decide", json=_asked(user))
            milliseconds.append((time.perf_counter() - began) * 1000)
            answers.append(answer.raise_for_status().json())
        if people:
            shown = client.post("/v1/decide", json=_asked(people[0]) | {"explain": True}).json()
            console.print_json(json.dumps(shown))
        times.append(time.monotonic())
        relived = relive(settings, client, f"live-{time.time_ns() // 1_000_000}", console)
        for table in relived.tables():
            console.print(table)
        times.append(time.monotonic())
    service.stop()
    times.append(time.monotonic())
    seconds = [after - before for before, after in pairwise(times)]
    parts = dict(zip(("start", "decisions", "live users", "stop"), seconds, strict=True))
    return Live(answers, milliseconds, relived, parts)


def _asked(user_key: str) -> dict[str, Any]:
    """How one asks for a user."""
    user_id, anonymous_id = ids_of(user_key)
    return {"userId": user_id} if user_id is not None else {"anonymousId": anonymous_id}


@dataclass(frozen=True)
class Starting:
    """A service on loopback that may not be ready yet."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def answering(self, console: Console | None = None) -> Iterator[None]:
        """Wait until it is ready; the block asks it. console: where waiting is said.

        Raises:
            ServiceError: it did not get ready, or a request of the block failed.
        """
        _wait_until_ready(self.process, self.port, console or Console(quiet=True), self.log)
        try:
            yield
        except (httpx.HTTPError, DeliveryError) as error:
            ended = "" if self.process.poll() is None else f"; it has ended with exit code {self.process.returncode}"
            raise ServiceError(
                f"the service on port {self.port}: {_said(error)}{ended}; {children.last_words(self.log)}"
            ) from error

    def stop(self) -> None:
        """End it, if it has not ended."""
        children.stop(self.process, STOPS_WITHIN_S)


@contextmanager
def starting(settings: Settings, port: int | None = None, at_us: int | None = None) -> Iterator[Starting]:
    """The service on loopback, which starts while the block runs, and ends with it.

    port: default a free one. at_us: where its clock starts; default the present.
    """
    port = port or free_port()
    log = settings.state / "service.log"
    environment = distributed.environment(settings)
    if at_us is not None and abs(at_us / 1e6 - time.time()) > 60:
        environment["FIRSTMILE_NOW"] = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat()
    with distributed.workers(settings, environment):
        process = children.start(["serving", "serve", "--port", str(port)], environment, log)
        service = Starting(process, port, log)
        try:
            yield service
        finally:
            service.stop()


@contextmanager
def service(settings: Settings, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of a service that is ready on loopback while the block runs. Raises ServiceError as `answering`."""
    with starting(settings, port) as found, found.answering():
        yield found.process


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def in_use(port: int) -> bool:
    """Whether a process listens on a port of loopback.

    Raises:
        OSError: nobody could listen there, such as on a port below 1024 without the right to it.
    """
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def _said(error: Exception) -> str:
    """What went wrong with a request, in words."""
    match error:
        case httpx.HTTPStatusError(request=request, response=response):
            return (
                f"{request.method} {request.url.path} was answered with {response.status_code}: {response.text[:500]}"
            )
        case httpx.TimeoutException(request=request):
            return f"{request.method} {request.url.path} was not answered in time ({type(error).__name__})"
        case httpx.RequestError(request=request):
            return f"{request.method} {request.url.path} failed ({type(error).__name__}: {error})"
        case _:
            return str(error)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, console: Console, log: Path) -> None:
    began = said = time.monotonic()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        while process.poll() is None:
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            now = time.monotonic()
            if now - began > STARTS_WITHIN_S:
                words = f"the service was not ready on port {port} within {STARTS_WITHIN_S:.0f} s"
                raise ServiceError(f"{words}; {children.last_words(log)}")
            if now - said >= SAY_EVERY_S:
                said = now
                console.print(f"waiting for the service to start for {now - began:.0f} s", highlight=False)
            time.sleep(0.1)
    raise ServiceError(
        f"the service did not start: it ended with exit code {process.returncode}; {children.last_words(log)}"
    )
