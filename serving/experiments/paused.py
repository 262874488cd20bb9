"""Which experiments guardrails have paused: a small file in the state folder; monitoring writes, serving reads."""

import os
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


def write(state: Path, paused: dict[str, Paused]) -> None:
    """Replace the file as a whole: whoever reads it sees the old or the new one."""
    state.mkdir(parents=True, exist_ok=True)
    staged = state / f"{FILE}.tmp"
    with staged.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(paused)))
        file.flush()
        os.fsync(file.fileno())
    staged.replace(state / FILE)
