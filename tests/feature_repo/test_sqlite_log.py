"""The SQLite event log: what it promises beyond the contract of all logs (tests/contracts/test_event_log.py)."""

import random
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from feature_repo.contract.events import Event
from feature_repo.log.event_log import Backlog, Busy, BusyError
from feature_repo.log.sqlite_log import SqliteLog, extent, next_run


def event(n: int | str, **properties: Any) -> Event:
    return Event("track", f"m{n}", "u", None, 1, 2, "opened", properties, {}, {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "a log?.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path)
    yield log
    log.close()


def numbers(events: list[tuple[int, Event]]) -> list[tuple[int, str]]:
    return [(position, event.message_id) for position, event in events]


def test_positions_begin_where_they_are_told_to_and_have_no_gaps(path: Path) -> None:
    log = SqliteLog(path, first=8)
    assert log.last == 7
    assert log.append([event(1), event(2)]).result() == [8, 9]
    assert log.append([]).result() == []
    assert log.append([event(3)]).result() == [10]
    log.close()
    again = SqliteLog(path, first=8)
    assert again.last == 10
    assert again.append([event(4)]).result() == [11]
    assert numbers(again.read(9, 10)) == [(10, "m3"), (11, "m4")]
    assert numbers(again.read(0, 1)) == [(8, "m1")]
    again.close()


def test_a_position_is_never_given_twice_although_everything_was_trimmed(path: Path) -> None:
    log = SqliteLog(path)
    log.append([event(n) for n in range(5)]).result()
    log.ack(log.poll(10, 1))
    log.trim(5)
    assert log.read(0, 10) == []
    log.close()
    again = SqliteLog(path, start=5)
    assert (again.last, again.lag()) == (5, 0)
    assert again.append([event(5)]).result() == [6]
    again.close()


def test_trimming_leaves_what_is_not_acked(log: SqliteLog) -> None:
    log.append([event(n) for n in range(6)]).result()
    first, second, third = log.poll(3, 1)
    log.ack([first, third])
    log.trim(2**62)
    assert [position for position, _ in log.read(0, 10)] == [2, 3, 4, 5, 6]
    log.ack([second])
    log.trim(2)
    assert [position for position, _ in log.read(0, 10)] == [3, 4, 5, 6]
    log.trim(2**62)
    assert [position for position, _ in log.read(0, 10)] == [4, 5, 6]


def test_processing_goes_on_after_the_position_it_is_given(path: Path) -> None:
    log = SqliteLog(path)
    log.append([event(n) for n in range(1, 6)]).result()
    log.close()
    again = SqliteLog(path, start=3)
    assert again.lag() == 2
    assert [d.position for d in again.poll(10, 1)] == [4, 5]
    again.close()


def test_lag_counts_what_is_not_acked_and_an_ack_twice_counts_once(log: SqliteLog) -> None:
    log.append([event(n) for n in range(4)]).result()
    delivered = log.poll(3, 1)
    assert log.lag() == 4
    log.ack(delivered[1:])
    log.ack(delivered[1:])
    assert log.lag() == 2


def test_one_owner_at_a_time_and_readers_beside_it(log: SqliteLog, path: Path) -> None:
    log.append([event(1), event(2)]).result()
    with pytest.raises(BusyError, match=r"expected to be alone; another process holds a log\?\.db\.lock"):
        SqliteLog(path)
    assert next_run(path, 1, 10) == (2, [(2, event(2))])
    log.close()
    assert next_run(path, 0, 1) == (1, [(1, event(1))])
    assert next_run(path.with_name("none.db"), 5, 1) == (6, [])
    SqliteLog(path).close()


def test_a_file_whose_maker_was_stopped_before_it_had_tables_is_an_empty_log(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert (next_run(path, 0, 1), extent(path)) == ((1, []), 0)
    SqliteLog(path).close()


def test_poll_wakes_up_when_something_is_committed(log: SqliteLog) -> None:
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(log.poll, 10, 60)
        time.sleep(0.05)
        appended = time.monotonic()
        log.append([event(1)])
        assert [d.event for d in polled.result(10)] == [event(1)]
    assert time.monotonic() - appended < 5
    assert log.poll(10, 0.01) == []


def test_closing_writes_what_waits_and_wakes_up_poll(path: Path) -> None:
    log = SqliteLog(path)
    with ThreadPoolExecutor(1) as pool:
        log.append([event(0)]).result()
        log.poll(1, 1)
        polled = pool.submit(log.poll, 10, 60)
        appended = [log.append([event(n)]) for n in range(1, 200)]
        log.close()
        polled.result(10)
    assert [f.result(0) for f in appended] == [[n + 1] for n in range(1, 200)]
    assert len(next_run(path, 0, 1_000)[1]) == 200
    assert log.poll(10, 60) == []
    with pytest.raises(RuntimeError, match="closed"):
        log.append([event(0)])
    log.close()


class Held:
    """Holds a log's writer back, as a slow disk does: another connection is in a transaction."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self.db.execute("ROLLBACK")
        self.db.close()


def test_whoever_waits_is_committed_together(log: SqliteLog, path: Path) -> None:
    db = sqlite3.connect(path)
    with Held(path):
        appended = [log.append([event(n)]) for n in range(300)]
    for future in appended:
        future.result()
    frames = db.execute("PRAGMA wal_checkpoint").fetchone()[1]
    db.close()
    assert frames < 100  # pages written; a commit each would be 300 and more


def test_too_much_waiting_is_refused_and_later_taken(path: Path) -> None:
    log = SqliteLog(path, most_waiting=10)
    with Held(path):
        taken = [log.append([event(n), event(n)]) for n in range(5)]
        with pytest.raises(Busy, match="10 events wait to be written; try again in 1 s") as busy:
            log.append([event(9)])
        assert busy.value.retry_after_s == 1.0
    assert [f.result() for f in taken][-1] == [9, 10]
    log.append([event(9)]).result()
    log.close()


def test_large_events_are_refused_by_their_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.log.sqlite_log.Backlog", lambda most: Backlog(most, 10_000))
    log = SqliteLog(path)
    with Held(path):
        taken = log.append([event(1, long="x" * 10_000)])
        with pytest.raises(Busy):
            log.append([event(2)])
    taken.result()
    log.close()


def test_an_append_that_is_cancelled_in_time_is_not_written(log: SqliteLog, path: Path) -> None:
    with Held(path):
        log.append([event(0)])
        time.sleep(0.1)  # the writer has taken it
        given_up, kept = log.append([event(1)]), log.append([event(2)])
        assert given_up.cancel()
    assert kept.result() == [2]
    assert numbers(log.read(0, 10)) == [(1, "m0"), (2, "m2")]


def test_from_any_number_of_threads_nothing_is_lost_and_batches_stay_together(log: SqliteLog) -> None:
    positions: dict[tuple[int, int], list[int]] = {}

    def work(thread: int) -> None:
        for n in range(100):
            appended = log.append([event(f"{thread}-{n}-{i}") for i in range(3)]).result()
            positions[thread, n] = appended or []

    threads = [threading.Thread(target=work, args=[t]) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = dict(log.read(0, 10_000))
    assert sorted(found) == list(range(1, 2_401))
    for (thread, n), appended in positions.items():
        assert [found[p].message_id for p in appended] == [f"m{thread}-{n}-{i}" for i in range(3)]


FULL = """
import resource, signal, sys
from pathlib import Path
from feature_repo.contract.events import Event
from feature_repo.log.sqlite_log import SqliteLog

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = SqliteLog(Path(sys.argv[1]))
large = lambda n: Event("track", f"m{n}", "u", None, 1, 2, "x", {"long": "x" * 20_000}, {}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
done, failed = [], []
for n in range(40):
    try:
        done += log.append([large(n), large(f"{n}b")]).result()
    except Exception as error:
        failed.append(error)
assert done and len(failed) > 5, (done, failed)
assert "disk" in str(failed[0]), failed
polled = len(log.poll(1_000, 0))
assert polled == len(done) == log.last, (polled, done, log.last)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
done += log.append([large("later")]).result()
assert done == list(range(1, len(done) + 1)), done
assert [e.message_id for p, e in log.read(done[-2], 9)] == ["mlater"]
print(len(done))
"""


def test_a_full_disk_fails_the_append_leaves_nothing_half_written_and_the_log_goes_on(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    again = SqliteLog(path)
    assert [p for p, _ in again.read(0, 1_000)] == list(range(1, int(done.stdout) + 1))
    again.close()


WRITER = """
import os, sys, threading
from pathlib import Path
from feature_repo.contract.events import Event
from feature_repo.log.sqlite_log import SqliteLog

log = SqliteLog(Path(sys.argv[1]))

def work(thread):
    for n in range(1_000_000):
        ids = [f"{sys.argv[2]}-{thread}-{n}-{i}" for i in range(3)]
        events = [Event("track", m, "u", None, 1, 2, "x", {"long": "x" * 300}, {}, {}) for m in ids]
        positions = log.append(events).result()
        os.write(1, "".join(f"{p} {m}\\n" for p, m in zip(positions, ids)).encode())

for t in range(4):
    threading.Thread(target=work, args=[t]).start()
"""


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.soak)])
def test_kill_9_loses_nothing_whose_future_was_done(path: Path, tmp_path: Path, kills: int) -> None:
    told: dict[int, str] = {}
    for kill in range(kills):
        out = tmp_path / f"{kill}.txt"
        with out.open("wb") as file:
            writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(kill)], stdout=file)
        while writer.poll() is None and out.stat().st_size == 0:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        writer.kill()
        writer.wait()
        lines = out.read_bytes().split(b"\n")[:-1]  # the last one may be torn
        told |= {int(position): message_id for position, message_id in (line.decode().split() for line in lines)}
        again = SqliteLog(path, start=max(told) - 1)
        assert again.lag() >= 1
        again.close()
    found = dict(next_run(path, 0, 10_000_000)[1])
    assert len(told) > kills
    assert {p: found[p].message_id for p in told} == told
    assert sorted(found) == list(range(1, len(found) + 1))


def test_what_is_no_event_goes_to_on_poison_and_does_not_block(path: Path) -> None:
    SqliteLog(path).close()
    db = sqlite3.connect(path)
    db.executemany("INSERT INTO log (event) VALUES (?)", [[b"\xff{"], [b'{"type": 1}'], [b"[" * 100_000]])
    db.commit()
    db.close()
    poison: list[tuple[bytes, str]] = []
    log = SqliteLog(path, on_poison=lambda raw, why: poison.append((raw, why)))
    log.append([event(4)]).result()
    assert [d.position for d in log.poll(1, 1)] == [4]
    assert [raw for raw, _ in poison] == [b"\xff{", b'{"type": 1}', b"[" * 100_000]
    assert "expected an event as the log holds it" in poison[0][1]
    assert log.lag() == 1
    assert numbers(log.read(0, 1)) == [(4, "m4")]
    log.close()


def test_poison_that_nobody_could_keep_comes_again(path: Path) -> None:
    SqliteLog(path).close()
    db = sqlite3.connect(path)
    db.execute("INSERT INTO log (event) VALUES (?)", [b"?"])
    db.commit()
    db.close()
    kept: list[bytes] = []

    def keep(raw: bytes, why: str) -> None:
        if not tries:
            tries.append(1)
            raise OSError("disk full")
        kept.append(raw)

    tries: list[int] = []
    log = SqliteLog(path, on_poison=keep)
    with pytest.raises(OSError, match="disk full"):
        log.poll(1, 1)
    assert log.poll(1, 0) == []
    assert (kept, log.lag()) == ([b"?"], 0)
    log.close()


def test_futures_are_those_that_asyncio_wraps(log: SqliteLog) -> None:
    import asyncio

    async def append() -> list[int] | None:
        future: Future[list[int] | None] = log.append([event(1)])
        return await asyncio.wrap_future(future)

    assert asyncio.run(append()) == [1]
