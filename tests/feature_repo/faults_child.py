"""`python -m tests.feature_repo.faults_child HOME STEP`, with the library of faults.c: every STEP-th call fails, once.

For each call on the files of log and lake, a forked process appends, gives to the lake and compacts while that call
fails, and another one opens what is left. Prints how many calls there were; an AssertionError says what was lost.
"""

import ctypes
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import duckdb
import ibis

from feature_repo.contract.events import Event
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import drain, log_file
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.settings import Settings

BATCHES = [[f"m{3 * b + n}" for n in range(3)] for b in range(6)]
FAULTS = ctypes.CDLL(None)


def events(ids: list[str]) -> list[Event]:
    return [Event("track", i, f"u{len(i)}", None, 1, 1, "Clicked", {}, {}, {}) for i in ids]


def attempt(settings: Settings, acknowledged: int) -> None:
    """Append and move events while a call fails; writes the ids that were acknowledged to a file descriptor."""
    try:
        log = SqliteLog(log_file(settings))
    except Exception as error:
        os.write(acknowledged, f"!{type(error).__name__}\n".encode())
        return
    for number, ids in enumerate(BATCHES):
        try:
            log.append(events(ids)).result(30)
            os.write(acknowledged, "".join(f"{i}\n" for i in ids).encode())
        except Exception as error:  # as the service answers 503
            os.write(acknowledged, f"!{type(error).__name__}\n".encode())
        for step in (lambda: drain(settings), lambda: Lake(settings.lake).compact(buckets=2, progress=False)):
            if number % 2:
                try:
                    step()
                except Exception as error:  # as the service reports it and tries again
                    os.write(acknowledged, f"!{type(error).__name__}\n".encode())


def check(settings: Settings, acknowledged: set[str]) -> None:
    """Everything that was acknowledged is there once, and everything else can be sent again."""
    drain(settings)
    assert acknowledged <= set(held(settings)), f"lost {sorted(acknowledged - set(held(settings)))}"
    log = SqliteLog(log_file(settings), Lake(settings.lake).last_position() + 1)
    for ids in BATCHES:
        log.append(events(ids)).result(30)
    log.close()
    drain(settings)
    Lake(settings.lake).compact(buckets=2, progress=False)
    assert Counter(held(settings)) == Counter(i for ids in BATCHES for i in ids)
    for file in settings.state.rglob("*.parquet"):
        duckdb.sql(f"SELECT count(*) FROM read_parquet('{file}')").fetchall()


def held(settings: Settings) -> list[str]:
    return [str(i) for i in Lake(settings.lake).events(ibis.duckdb.connect()).message_id.to_pyarrow().to_pylist()]


def forked(run: "object") -> int:
    """Run in a process of its own; its exit status."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        run()  # type: ignore[operator]
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main(home: Path, step: int) -> None:
    for how in (0, 1, 2, 3):
        n, over = 1, False
        while not over:
            settings = Settings(home=home / f"{how}-{n}", domain="saas", log="sqlite", history="sqlite")
            settings.state.mkdir(parents=True)
            report = settings.home / "acknowledged"
            handle = os.open(report, os.O_WRONLY | os.O_CREAT)

            def failing(settings: Settings = settings, handle: int = handle, n: int = n, how: int = how) -> None:
                FAULTS.fault_arm(str(settings.state).encode(), n, how)
                attempt(settings, handle)
                os.write(handle, b"left\n" if FAULTS.fault_left() else b"done\n")

            status = forked(failing)
            os.close(handle)
            lines = report.read_text().split()
            assert status in (0, 9), f"call {n}, how {how}: the process ended with {status}"
            over = lines[-1:] == ["left"]
            acknowledged = {line for line in lines if line.startswith("m")}
            assert not over or len(acknowledged) == 18, "without a fault everything is acknowledged"
            found = forked(lambda settings=settings, acknowledged=acknowledged: check(settings, acknowledged))
            assert found == 0, f"call {n}, how {how}: see above; it had acknowledged {sorted(acknowledged)}"
            shutil.rmtree(settings.home)
            n += step
        print(f"how {how}: {n - step} calls")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
