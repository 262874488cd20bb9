"""The live part of a run: the real service in a process of its own, asked over HTTP like any other client would."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track

from feature_repo.settings import SOURCE, Settings
from monitoring import distributed
from monitoring.relive import Relived, relive

STARTS_WITHIN_S = 90


@dataclass(frozen=True)
class Live:
    """Decisions as a client saw them: the answers, and the milliseconds that each took; and who lived live."""

    answers: list[dict[str, Any]]
    milliseconds: list[float]
    relived: Relived

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
        }


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def decide_live(settings: Settings, people: list[str], at_us: int, port: int | None, console: Console) -> Live:
    """Start the service, ask for each of the people and for somebody unknown, let some act live, stop it.

    Raises:
        TimeoutError: the service did not get ready; the message holds the end of its log.
    """
    port = port or free_port()
    with service(settings, port, at_us), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for user in people[:20]:
            client.post("/v1/decide", json={"userId": user})
        answers, milliseconds = [], []
        for user in track([*people, "nobody-has-seen-me"], "deciding", console=console, transient=True):
            began = time.perf_counter()
            answer = client.post("/v1/decide", json={"userId": user})
            milliseconds.append((time.perf_counter() - began) * 1000)
            answers.append(answer.raise_for_status().json())
        if people:
            shown = client.post("/v1/decide", json={"userId": people[0], "explain": True}).json()
            console.print_json(json.dumps(shown))
        relived = relive(settings, str(client.base_url), f"live-{time.time_ns() // 1_000_000}", console)
        for table in relived.tables():
            console.print(table)
    return Live(answers, milliseconds, relived)


@contextmanager
def service(settings: Settings, port: int, at_us: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The service on loopback while the block runs. at_us: where its clock starts; default the present.

    Raises:
        TimeoutError: it did not get ready in time, or ended.
    """
    log = settings.state / "service.log"
    environment = distributed.environment(settings)
    if at_us is not None and abs(at_us / 1e6 - time.time()) > 60:
        environment["FIRSTMILE_NOW"] = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat()
    with distributed.workers(settings, environment), log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "serve", "--port", str(port)],
            cwd=SOURCE,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(process, port, log)
            yield process
        finally:
            _stop(process)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    end = log.read_text(errors="replace")[-2000:]
    raise TimeoutError(f"the service was not ready on port {port} within {STARTS_WITHIN_S} s; {log} ends:\n{end}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the service and its workers: ask first, then insist."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
