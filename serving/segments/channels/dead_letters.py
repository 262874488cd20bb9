"""Changes that an endpoint would not take: one a line in `webhooks/dead.jsonl`, until they are sent again or erased.

Several processes may use the file: each look and each change of it holds a lock. A line that a kill has torn stands for
a change that its channel has not passed yet, so it is left out.
"""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from feature_repo.settings import Settings
from feature_repo.storage import flock
from serving.segments.channels.event import SegmentChanged

WAIT_S = 30.0
_encoder = msgspec.json.Encoder()


class Letter(msgspec.Struct, frozen=True, rename="camel"):
    """A change that was given up. dead_at: RFC 3339. reason: of the last failure."""

    channel: str
    dead_at: str
    tries: int
    reason: str
    event: SegmentChanged

    @property
    def key(self) -> tuple[str, str]:
        """What it is found again by."""
        return self.channel, self.event.id


_decoder = msgspec.json.Decoder(Letter)


def folder(settings: Settings) -> Path:
    """Where what belongs to webhooks is kept."""
    return settings.state / "webhooks"


class DeadLetters:
    """The file in a folder, which is made with the first letter. Safe from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.file, self._part = folder / "dead.jsonl", folder / "dead.part"

    def add(self, letter: Letter, still: Callable[[], bool] = lambda: True) -> None:
        """Keep a letter durably, once. still: asked while nobody can erase: whether the change is to be kept yet."""
        with self._locked():
            kept = list(self._read())
            if still() and letter.key not in {k.key for k in kept}:
                self._write([*kept, letter])

    def all(self) -> list[Letter]:
        """Every letter, the first first."""
        if not self.file.exists():
            return []
        with self._locked():
            return list(self._read())

    def holds(self, letter: Letter) -> bool:
        """Whether it is there yet."""
        return letter.key in {k.key for k in self.all()}

    def remove(self, letter: Letter) -> None:
        """It has been taken."""
        self._keep(lambda k: k.key != letter.key)

    def erase(self, persons: Collection[str]) -> int:
        """Forget what is of these persons; how many letters went."""
        return self._keep(lambda k: k.event.person not in persons)

    def _keep(self, wanted: Callable[[Letter], bool]) -> int:
        if not self.file.parent.exists():
            return 0
        with self._locked():
            self._part.unlink(missing_ok=True)  # a killed process may have left one
            before = list(self._read())
            after = [letter for letter in before if wanted(letter)]
            if self.file.exists():
                self._write(after)
        return len(before) - len(after)

    def _locked(self) -> AbstractContextManager[None]:
        return flock(self.file.with_suffix(".lock"), "redelivery", WAIT_S)

    def _read(self) -> Iterator[Letter]:
        for line in self.file.read_bytes().splitlines() if self.file.exists() else ():
            try:
                yield _decoder.decode(line)
            except msgspec.DecodeError:
                continue

    def _write(self, letters: list[Letter]) -> None:
        with self._part.open("wb") as out:
            out.writelines(_encoder.encode(letter) + b"\n" for letter in letters)
            out.flush()
            os.fsync(out.fileno())
        self._part.replace(self.file)
