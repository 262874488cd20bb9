"""Which experiments guardrails have paused: a small file in the state folder; monitoring writes, serving reads."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

FILE = "paused.json"


class Paused(msgspec.Struct, frozen=True):
    """Why an experiment is paused, and since when (µs since 1970 UTC)."""

    reason: str
    since_us: int


def read(state: Path) -> dict[str, Paused]:
    """The paused experiments of a state folder, by name; none where there is no file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=dict[str, Paused])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as e:
        raise ValueError(f"{state / FILE}: {e}; write {{}} to pause nothing") from e


class Pauses:
    """What is paused, for who asks often: the file is read again when it has changed."""

    def __init__(self, state: Path) -> None:
        self._file, self._read_at, self._names = state / FILE, 0, tuple[str, ...]()

    @property
    def names(self) -> tuple[str, ...]:
        """The paused experiments, sorted. While the file is damaged, those of before."""
        try:
            at = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return ()
        if at != self._read_at:
            with suppress(ValueError):
                self._names = tuple(sorted(read(self._file.parent)))
            self._read_at = at
        return self._names


def write(state: Path, paused: dict[str, Paused]) -> None:
    """Replace the file as a whole: whoever reads it sees the old or the new one."""
    state.mkdir(parents=True, exist_ok=True)
    staged = state / f"{FILE}.tmp"
    with staged.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(paused)))
        file.flush()
        os.fsync(file.fileno())
    staged.replace(state / FILE)
