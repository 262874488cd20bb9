"""A run over a broker or Redis: where they are, whether they answer, and the workers beside the service."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from feature_repo.settings import Settings
from feature_repo.stream.workers import READY
from monitoring import children

REDIS = "redis://127.0.0.1:6379/0"
BROKERS = {
    "kafka": "kafka://127.0.0.1:9092/{name}?group={name}&session.timeout.ms=6000",
    "rabbitmq": "amqp://guest:guest@127.0.0.1:5672/?queue={name}",
    "kinesis": "kinesis://{name}?endpoint=http://127.0.0.1:4566&region=us-east-1",
}
"""Where a broker is unless FIRSTMILE_LOG says; the name is one of the state folder's own."""
WORKERS = 2
STARTS_WITHIN_S = 600
STOPS_WITHIN_S = 60.0


def distributed(settings: Settings, broker: str | None, online: str | None) -> Settings:
    """The settings with a broker (a name of BROKERS), or with `online` redis; both: the history is on Redis too.

    Raises:
        ValueError: one of them does not answer; says where it was looked for.
    """
    asked = settings
    if online and settings.online == "sqlite":
        asked = asked.replace(online=REDIS)
    if broker and settings.log == "sqlite":
        name = f"firstmile-{settings.domain}-{md5(settings.lake.encode(), usedforsecurity=False).hexdigest()[:8]}"
        asked = asked.replace(log=BROKERS[broker].format(name=name))
    if asked.log != "sqlite" and asked.online != "sqlite" and settings.history == "sqlite":
        asked = asked.replace(history=asked.online)
    for variable, url in (("LOG", asked.log), ("ONLINE", asked.online)):
        if url != "sqlite":
            _answers(f"FIRSTMILE_{variable}", url)
    return asked


def _answers(variable: str, url: str) -> None:
    parts = urlsplit(dict(parse_qsl(urlsplit(url).query)).get("endpoint") or url)
    if parts.hostname is None or parts.scheme == "kinesis":
        return
    port = parts.port or {"redis": 6379, "rediss": 6379, "amqp": 5672, "kafka": 9092}.get(parts.scheme, 443)
    try:
        socket.create_connection((parts.hostname, port), timeout=3).close()
    except OSError as e:
        raise ValueError(
            f"nobody answers at {parts.hostname}:{port} ({e}): start it, or say where it is by {variable}={parts.scheme}://…"
        ) from None


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which another process has the same settings."""
    return settings.environment()


def number(settings: Settings) -> int:
    """How many processes apply what a broker holds; 0 where there is none."""
    if settings.log == "sqlite":
        return 0
    return 1 if "sqlite" in (settings.history, settings.online) else WORKERS


def figures(settings: Settings) -> dict[str, Any]:
    """For run.json: where events and rows are held, without addresses, and how many workers there are."""
    log, history, online = (urlsplit(at).scheme or at for at in (settings.log, settings.history, settings.online))
    return {"log": log, "history": history, "online": online, "workers": number(settings)}


@contextmanager
def workers(settings: Settings, environment: dict[str, str]) -> Iterator[None]:
    """The processes that apply what a broker holds, at work while the block runs; none where there is no broker.

    Raises:
        TimeoutError: they did not begin in time, or ended.
    """
    if settings.log == "sqlite":
        yield
        return
    log = settings.state / "stream.log"
    words = ["feature_repo", "stream", "--workers", str(number(settings))]
    process = children.start(words, environment, log)
    try:
        _wait(process, log)
        yield
    finally:
        children.stop(process, STOPS_WITHIN_S)


def _wait(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while READY not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            why = f"did not begin within {STARTS_WITHIN_S} s" if process.returncode is None else "ended"
            raise TimeoutError(f"the workers {why}; {children.last_words(log)}")
        time.sleep(0.1)
