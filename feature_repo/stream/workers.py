"""The stream over a broker, in processes of its own, on any number of machines.

broker ─► worker, worker, … ─► history and online rows          this process: starts them again, and fills the lake
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_bool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from feature_repo.erasing.tombstones import Tombstones
from feature_repo.feature_store.store import ensure_applied
from feature_repo.history.history_store import open_history
from feature_repo.lake.log_to_lake import drain, log_file
from feature_repo.lake.past import Past, fill
from feature_repo.lake.quarantine import Quarantine
from feature_repo.log.event_log import EventLog, open_log
from feature_repo.settings import Settings, now_us
from feature_repo.storage import BusyError, flock
from feature_repo.stream.garbage import spare_what_is_there
from feature_repo.stream.processor import Processor
from feature_repo.stream.stream import Stream

DRAIN_S = 5.0
"""How often the lake gets what the workers have applied."""
AGAIN_S = 2.0
"""When a worker is started again that has ended."""
STOP_S = 30.0
READY = "workers apply the events of"
"""In the line that says that all of them do."""

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
        try:
            _all_begun(settings, running, stop, say)
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


@dataclass
class Worker:
    """A process, and whether it works yet: shared memory without a lock, which a kill could leave locked."""

    process: BaseProcess
    begun: Any


def _begin(settings: Settings) -> Worker:
    spawn = multiprocessing.get_context("spawn")
    begun = spawn.RawValue(c_bool, False)
    process = spawn.Process(target=work, args=(settings, begun), name="worker", daemon=True)
    process.start()
    return Worker(process, begun)


def _all_begun(settings: Settings, running: list[Worker], stop: threading.Event, say: Callable[[str], None]) -> None:
    """Wait until every worker works, and say so."""
    while not all(w.begun.value for w in running):
        if stop.wait(0.1):
            return
        _replace(settings, running, stop, say)
    broker = urlsplit(settings.log)
    say(f"{len(running)} {READY} {settings.domain} in {broker.scheme}://{broker.hostname}")


def _watch(settings: Settings, running: list[Worker], stop: threading.Event, say: Callable[[str], None]) -> None:
    drained_s = time.monotonic()
    while not stop.wait(0.2):
        _replace(settings, running, stop, say)
        if time.monotonic() - drained_s > DRAIN_S:
            drained_s = time.monotonic()
            with suppress(BusyError):  # another machine's process is at it
                drain(settings)


def _replace(settings: Settings, running: list[Worker], stop: threading.Event, say: Callable[[str], None]) -> None:
    """Start workers again that have ended."""
    for n, worker in enumerate(running):
        if not worker.process.is_alive() and not stop.wait(AGAIN_S):
            say(f"a worker ended with code {worker.process.exitcode}; another one takes its place")
            running[n] = _begin(settings)


def _end(running: list[Worker]) -> None:
    for worker in running:
        worker.process.terminate()
    deadline = time.monotonic() + STOP_S
    for worker in running:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def work(settings: Settings, begun: Any) -> None:
    """One worker, until SIGTERM or the end of the process that started it. begun: a flag for that process."""
    stop, parent = threading.Event(), multiprocessing.parent_process()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it says when
    quarantine = Quarantine(settings.quarantine)

    def opened() -> EventLog:
        return open_log(settings.broker, on_poison=quarantine.poison)

    history, erased = open_history(settings), Tombstones(settings.state)
    processor = Processor(settings, history, past=Past(settings), refuses=lambda event: erased.follow().refuses(event))
    stream = Stream(opened(), processor, opened).start()
    spare_what_is_there()
    while not stop.wait(0.2) and parent is not None and parent.is_alive():
        begun.value = stream.begun.is_set()
    signal.alarm(int(STOP_S))  # ends this process where a server keeps it waiting; what is not acked comes again
    stream.close()
    stream.log.close()
    history.close()
