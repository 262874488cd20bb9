"""Where the time goes: the door and the stream in this process, and every thread looked at a thousand times a second.

A sample counts for the stage of the innermost frame of ours. A thread that waits for others counts for nothing; one
that waits for the interpreter counts for where it does so.
"""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from feature_repo.settings import SOURCE, now_us
from feature_repo.stream.embedded import Embedded
from serving import wiring
from tests.bench.figures import Cell, Table
from tests.bench.live import traffic
from tests.bench.live.world import CONNECTIONS, Part, Round, World
from tests.bench.options import steps

STAGES = {
    "serving/": "door: receipts",
    "feature_repo/contract/": "door: parse and check",
    "feature_repo/stream/embedded.py": "door: what is pending",
    "feature_repo/log/": "event log: append, sync, poll",
    "feature_repo/history/working_set.py": "features: in Python",
    "feature_repo/history/": "history: add, read, note",
    "feature_repo/lake/past.py": "history: add, read, note",
    "feature_repo/features/fresh.py": "features: as_of in DuckDB",
    "feature_repo/features/": "features: in Python",
    "feature_repo/stream/": "stream: rows to what Feast takes",
    "feature_repo/feature_store/store.py": "Feast's values (protos)",
    "feature_repo/feature_store/online.py": "online store: encode, write",
}
"""By the beginning of a file's path; a file that is not among them counts under its own name."""
ROOMS = ("feature_repo/", "serving/")
PASSED_OVER = {"feature_repo/sqlite.py"}
"""What works for whoever calls it."""
WAITING = ("threading.py", "selectors.py", "queue.py", "concurrent/futures/thread.py")
LEAST = 0.01
"""The share from which a stage has a line of its own."""
EVERY_S = 0.001
SWITCH_S = 0.0005


def measure(world: World) -> Part:
    """One run over events of many people, as in ingest but without HTTP."""
    many = world.options.events
    with world.options.bar() as progress:
        step = steps(progress, "profile", 1)
        step(f"{many} events")
        live = Embedded(world.empty("profile")).start()
        try:
            _through(live, list(traffic.events("warm", traffic.crowd("warm", 50), 500)))
            sent = list(traffic.events("profile", traffic.crowd("profile", max(10, many // 10)), many))
            began = time.perf_counter()
            with sampled() as found:
                _through(live, sent)
            seconds = time.perf_counter() - began
        finally:
            live.close()
    return _shown(found, many, seconds)


def _through(live: Embedded, sent: list[dict[str, object]]) -> None:
    """Through the door, 100 events at a time, four times at once, until everything is online."""
    door, raws = wiring.door(live.settings, live), [msgspec.json.encode(event) for event in sent]
    batches = iter([raws[n : n + traffic.EACH] for n in range(0, len(raws), traffic.EACH)])

    async def connection() -> None:
        for batch in batches:
            receipts = await door.accept(batch, now_us())
            if refused := [r for r in receipts if r.status != "accepted"]:
                raise RuntimeError(f"expected accepted events; came {refused[0]}")

    async def all_of_them() -> None:
        await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))

    asyncio.run(all_of_them())
    while live.lag():
        time.sleep(0.005)


@contextmanager
def sampled() -> Iterator["Counter[str]"]:
    """Samples by stage of all threads but the one that samples, while the block runs."""
    found, done = Counter[str](), threading.Event()

    def look() -> None:
        me = threading.get_ident()
        while not done.wait(EVERY_S):
            for ident, frame in sys._current_frames().items():
                if ident != me and (stage := stage_of(frame)):
                    found[stage] += 1

    switch, thread = sys.getswitchinterval(), threading.Thread(target=look, name="samples")
    sys.setswitchinterval(SWITCH_S)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(switch)


def stage_of(frame: FrameType | None) -> str | None:
    """The stage that a thread is in; None where it waits, or does nothing of ours."""
    if frame is None or frame.f_code.co_filename.endswith(WAITING):
        return None
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(SOURCE):
            name = file.relative_to(SOURCE).as_posix()
            if name.startswith(ROOMS) and name not in PASSED_OVER:
                return next((words for begin, words in STAGES.items() if name.startswith(begin)), name)
        frame = frame.f_back
    return None


def _shown(found: "Counter[str]", many: int, seconds: float) -> Part:
    total = sum(found.values())
    shown = [(stage, n) for stage, n in found.most_common() if n / total >= LEAST]
    rows: list[list[Cell]] = [[stage, f"{n / total:.0%}"] for stage, n in shown]
    rows.append(["the rest", f"{1 - sum(n for _, n in shown) / total:.0%}"])
    note = f"{many:,} events in {seconds:.1f} s without HTTP; {total:,} samples of threads that did something."
    rounds: list[Round] = [{"part": "profile", "round": 1, "which": stage, "samples": n} for stage, n in found.items()]
    return Part([], [Table("Where the time of ingest goes", ["stage", "share"], rows)], [note], rounds)
