"""The stream over a broker, in processes of its own, on any number of machines.

broker ─► worker, worker, … ─► history and online rows          this process: starts them again, and fills the lake
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.parse import urlsplit

from feature_repo.event_log import EventLog, open_log
from feature_repo.history_store import open_history
from feature_repo.log_to_lake import drain, log_file
from feature_repo.past import Past, fill
from feature_repo.quarantine import Quarantine
from feature_repo.settings import Settings, now_us
from feature_repo.storage import BusyError, flock
from feature_repo.store import ensure_applied
from feature_repo.stream import Processor, Stream
from feature_repo.tombstones import Tombstones

DRAIN_S = 5.0
"""How often the lake gets what the workers have applied."""
AGAIN_S = 2.0
"""When a worker is started again that has ended."""
STOP_S = 30.0

_log = logging.getLogger(__name__)


def check(settings: Settings, workers: int) -> None:
    """What can be checked before anything starts.

    Raises:
        ValueError: there is no broker, or several workers over stores that one process owns.
    """
    if settings.log == "sqlite":
        raise ValueError(
            "no broker: the service applies events by itself. Set FIRSTMILE_LOG=kafka://host:port/topic, amqp://… or "
            "kinesis://…, for the service too"
        )
    local = [name for name in ("history", "online") if getattr(settings, name) == "sqlite"]
    if workers > 1 and local:
        needed = " and ".join(f"FIRSTMILE_{name.upper()}=redis://host:port/db" for name in local)
        raise ValueError(f"{workers} workers over embedded stores: they belong to one process. Set {needed}")


def run(settings: Settings, workers: int, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Apply events with so many processes, until `stop` is set; then finish what is under way.

    Raises:
        ValueError: see `check`. BusyError: this state folder's events are applied already, or a source is ingested.
    """
    check(settings, workers)
    with flock(Path(f"{log_file(settings)}.lock"), "stream", 0):
        prepare(settings)
        running = [_begin(settings) for _ in range(workers)]
        broker = urlsplit(settings.log)
        say(f"{workers} workers apply the events of {settings.domain} in {broker.scheme}://{broker.hostname}")
        try:
            _watch(settings, running, stop, say)
        finally:
            _end(running)
            drain(settings)


def prepare(settings: Settings) -> None:
    """Feast and the history know what the domain declares and the lake has."""
    ensure_applied(settings)
    drain(settings)
    history = open_history(settings)
    try:
        fill(history, settings, now_us())
    finally:
        history.close()


def _begin(settings: Settings) -> BaseProcess:
    worker = multiprocessing.get_context("spawn").Process(target=work, args=(settings,), name="worker", daemon=True)
    worker.start()
    return worker


def _watch(settings: Settings, running: list[BaseProcess], stop: threading.Event, say: Callable[[str], None]) -> None:
    drained_s = time.monotonic()
    while not stop.wait(0.2):
        for n, worker in enumerate(running):
            if not worker.is_alive() and not stop.wait(AGAIN_S):
                say(f"a worker ended with code {worker.exitcode}; another one takes its place")
                running[n] = _begin(settings)
        if time.monotonic() - drained_s > DRAIN_S:
            drained_s = time.monotonic()
            with suppress(BusyError):  # another machine's process is at it
                drain(settings)


def _end(running: list[BaseProcess]) -> None:
    for worker in running:
        worker.terminate()
    deadline = time.monotonic() + STOP_S
    for worker in running:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def work(settings: Settings) -> None:
    """One worker, until SIGTERM or the end of the process that started it."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it says when
    parent = os.getppid()
    quarantine = Quarantine(settings.quarantine)

    def opened() -> EventLog:
        return open_log(settings.log, on_poison=quarantine.poison)

    history, erased = open_history(settings), Tombstones(settings.state)
    processor = Processor(settings, history, past=Past(settings), refuses=lambda event: erased.follow().refuses(event))
    stream = Stream(opened(), processor, opened).start()
    while not stop.wait(0.5) and os.getppid() == parent:
        pass
    stream.close()
    stream.log.close()
    history.close()
