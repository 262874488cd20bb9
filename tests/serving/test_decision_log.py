import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pyarrow.parquet as pq
import pytest

from serving import decision_log
from serving.decide import Asked, Receipt, Situation, decide, decision_id
from serving.decision_log import DOCUMENTS, SCHEMA, DecisionLog


@pytest.fixture
def receipts(fakes: SimpleNamespace) -> list[Receipt]:
    """Decisions of all kinds, 2,000 of them, a microsecond apart."""
    found = [fakes.person(2, applied_position=5), fakes.person(None), None, fakes.person(8, done=1)]
    return [
        decide(
            Asked(f"u{i}", fakes.NOW + i, decision_id(fakes.NOW + i, i)),
            found[i % 4],
            Situation(paused=("one",)),
            fakes.Model() if i % 5 else None,
            fakes.PLAYBOOK,
        )[0]
        for i in range(2_000)
    ]


def rows(folder: Path) -> list[dict[str, object]]:
    """All logged decisions, in the order of their ids."""
    return sorted(decision_log.read(folder).to_pylist(), key=lambda r: str(r["decision_id"]))


def until(true: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_a_row_holds_the_whole_receipt(tmp_path: Path, receipts: list[Receipt]) -> None:
    log = DecisionLog(tmp_path).start()
    for receipt in receipts[:8]:
        log.put(receipt)
    log.close()
    logged = rows(tmp_path)
    for row, receipt in zip(logged, receipts[:8], strict=True):
        for name in DOCUMENTS:
            document = row.pop(name)
            made_of = getattr(receipt, name)
            kept = None if document is None else msgspec.json.decode(str(document))
            assert kept == msgspec.json.decode(msgspec.json.encode(made_of))
        assert row == {
            name: list(value) if isinstance(value := getattr(receipt, name), tuple) else value
            for name in SCHEMA.names
            if name not in DOCUMENTS
        }
    assert pq.read_schema(next(tmp_path.glob("*.parquet"))).equals(SCHEMA)


def test_a_decision_is_on_disk_within_a_second(tmp_path: Path, receipts: list[Receipt]) -> None:
    log = DecisionLog(tmp_path).start()
    log.put(receipts[0])
    until(lambda: rows(tmp_path), 1.0)
    log.close()


def test_readers_see_each_decision_once_at_any_moment(tmp_path: Path, receipts: list[Receipt]) -> None:
    log = DecisionLog(tmp_path, interval_s=0.01, rows=150).start()
    seen: list[list[str]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append([str(r["decision_id"]) for r in rows(tmp_path)])

    reader = threading.Thread(target=look)
    reader.start()
    for receipt in receipts:
        log.put(receipt)
        time.sleep(0.0002)
    log.close()
    done.set()
    reader.join()
    everything = [r.decision_id for r in receipts]
    assert all(look == everything[: len(look)] for look in seen)
    assert [r["decision_id"] for r in rows(tmp_path)] == everything
    assert len(list(tmp_path.glob("*.parquet"))) > 2
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path, receipts: list[Receipt]) -> None:
    log = DecisionLog(tmp_path, capacity=10, interval_s=60)
    log.start()
    for receipt in receipts:
        log.put(receipt)
    assert (log.dropped, log.waiting) == (1_990, 10)
    log.close()
    assert (log.written, len(rows(tmp_path))) == (10, 10)


def test_a_disk_that_fails_loses_nothing_that_fits(tmp_path: Path, receipts: list[Receipt]) -> None:
    folder = tmp_path / "decisions"
    log = DecisionLog(folder, capacity=1_000, interval_s=0.01).start()
    away = tmp_path / "away"
    folder.rename(away)
    for receipt in receipts[:5]:
        log.put(receipt)
    until(lambda: log.error is not None)
    for receipt in receipts[5:9]:
        log.put(receipt)
    assert log.written == 0
    away.rename(folder)
    until(lambda: log.waiting == 0)
    assert log.error is None
    log.close()
    assert [r["user_id"] for r in rows(folder)] == [f"u{i}" for i in range(9)]


def test_a_restart_goes_on_with_the_small_file(tmp_path: Path, receipts: list[Receipt]) -> None:
    for start in range(0, 30, 10):
        log = DecisionLog(tmp_path).start()
        for receipt in receipts[start : start + 10]:
            log.put(receipt)
        log.close()
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert [r["user_id"] for r in rows(tmp_path)] == [f"u{i}" for i in range(30)]


def test_two_writers_keep_apart(tmp_path: Path, receipts: list[Receipt]) -> None:
    first = DecisionLog(tmp_path).start()
    first.put(receipts[0])
    until(lambda: first.written == 1)
    second = DecisionLog(tmp_path).start()
    second.put(receipts[1])
    first.put(receipts[2])
    first.close()
    second.close()
    assert [r["user_id"] for r in rows(tmp_path)] == ["u0", "u1", "u2"]
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_a_broken_newest_file_is_left_alone(tmp_path: Path, receipts: list[Receipt]) -> None:
    (tmp_path / "ffff.parquet").write_bytes(b"not parquet")
    log = DecisionLog(tmp_path).start()
    log.put(receipts[0])
    log.close()
    assert log.written == 1
    assert (tmp_path / "ffff.parquet").read_bytes() == b"not parquet"


WRITER = """
    import sys, time
    from pathlib import Path
    from serving.decide import Receipt, Situation, decision_id
    from serving.decision_log import DecisionLog

    log = DecisionLog(Path(sys.argv[1])).start()
    while True:
        at = time.time_ns() // 1_000
        scored = (True, "slow", 0.5, None, ("slow",), "m", 1, "s", ("a",), (), (), False)
        log.put(Receipt(decision_id(at, 0), at, "u", *scored, ("b",), "p", "b", {"f": 1}, 1, 1, None, Situation()))
        print(at, flush=True)
        time.sleep(0.001)
"""


def test_kill_9_loses_at_most_the_last_second(tmp_path: Path) -> None:
    root = Path(decision_log.__file__).parents[1]
    program = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    with subprocess.Popen(program, cwd=root, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        put = [int(writer.stdout.readline()) for _ in range(1_500)]
        writer.send_signal(signal.SIGKILL)
        put += [int(line) for line in writer.stdout.read().split()]
    logged = [int(str(r["at_us"])) for r in rows(tmp_path)]
    assert logged == put[: len(logged)]
    assert put[-1] - logged[-1] < 1_000_000


def test_a_person_is_erased_from_all_files_and_from_what_waits(tmp_path: Path, receipts: list[Receipt]) -> None:
    first = DecisionLog(tmp_path, rows=10).start()
    for receipt in receipts[:20]:
        first.put(receipt)
    first.close()
    log = DecisionLog(tmp_path, interval_s=60, erased=lambda person: person == "u30").start()
    for receipt in receipts[20:40]:
        log.put(receipt)
    assert log.erase(["u1", "u21", "u30"], ["u2", "u4", "u24"]) == 2
    log.put(receipts[40])
    log.close()
    kept = [r.user_id for n, r in enumerate(receipts[:41]) if n not in (1, 21, 30)]
    assert [row["user_id"] for row in rows(tmp_path)] == kept
    blank = {row["user_id"] for row in rows(tmp_path) if row["known"] and row["features"] is None}
    assert blank == {"u4", "u24"}  # u2 was not known
    assert decision_log.erase(tmp_path, [str(user) for user in kept]) == len(kept)
    assert list(tmp_path.glob("*.parquet")) == []


def test_a_write_that_fails_once_while_it_stops_loses_nothing(
    tmp_path: Path, receipts: list[Receipt], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DecisionLog(tmp_path, interval_s=1).start()
    log.put(receipts[0])
    until(lambda: log.written)
    synced, failed = os.fsync, threading.Event()

    def once(handle: int) -> None:
        if not failed.is_set():
            failed.set()
            log.put(receipts[2])  # comes while the one before is not saved
            raise OSError("the disk does not answer")
        synced(handle)

    monkeypatch.setattr(os, "fsync", once)
    log.put(receipts[1])
    log.close()
    assert failed.is_set() and {r.decision_id for r in receipts[:3]} <= {r["decision_id"] for r in rows(tmp_path)}
