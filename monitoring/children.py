"""The processes that a run starts beside itself: none of them outlives it, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from feature_repo.settings import SOURCE

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def start(words: Sequence[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start `python -m <words>` in a process group of its own, its output in `log`.

    On Linux the kernel sends it SIGTERM when this process dies, also by kill -9.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out, _signals_wait() as before:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=SOURCE,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(_in_the_child, os.getpid(), before),
        )


def stop(process: "subprocess.Popen[bytes]", within_s: float) -> None:
    """End a process and those that it started: ask first, and kill after so many seconds."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def last_words(log: Path, characters: int = 2_000) -> str:
    """The end of a log, for an error message."""
    said = log.read_text(errors="replace").strip()[-characters:] if log.exists() else ""
    return f"{log} ends:\n{said}" if said else f"{log} is empty"


@contextmanager
def _signals_wait() -> Iterator[set[int]]:
    """Hold SIGINT and SIGTERM back while the block runs; gives the signal mask of before.

    Python runs functions of its libraries at a fork and only prints what they raise: a Ctrl-C at that moment would be
    lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield {int(s) for s in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_the_child(parent: int, mask: set[int]) -> None:
    """Between fork and exec: end with the parent, and hear the signals that it held back."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
