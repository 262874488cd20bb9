"""Files of events, one a line, taken in as far as they are new: in pieces, so that memory stays bounded.

    <name>.jsonl ─► [from where it was read up to, 16 MiB at a time] ─► whole lines ─► Intake ─► bookmark

The bookmark, `intake.json` in the state folder, says for each file up to which byte it was read, and holds the hashes
of the first and last bytes before that: so a file that was written anew under the same name is noticed.
"""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from rich.console import Console

from feature_repo.domain import Domain, Ingested
from feature_repo.lake.intake import Intake, together
from feature_repo.progress import Bars
from feature_repo.settings import Settings, now_us
from feature_repo.storage import DamagedFile

BOOKMARK = "intake.json"
PIECE = 16 * 2**20
"""Bytes that are read and taken in at once."""
LONGEST_LINE = 64 * 2**20
SAMPLE = 4_096
"""Bytes at either end that are hashed."""
Changed = Literal["refuse", "reread"]
_log = logging.getLogger(__name__)


class Read(msgspec.Struct, frozen=True):
    """Up to which byte a file was read; the hashes of the SAMPLE first, and last, bytes of what was read."""

    bytes: int = 0
    first: str = ""
    last: str = ""


class Bookmark(msgspec.Struct):
    """What was read, by the name of the file, and what came of it, of all times."""

    files: dict[str, Read] = {}
    accepted: int = 0
    refused: dict[str, int] = {}
    flagged: dict[str, int] = {}


def take_in_files(
    settings: Settings, domain: Domain, folder: Path | None, changed: Changed = "refuse", progress: bool = True
) -> Ingested:
    """Take in what is new in the `*.jsonl` files of a folder; they may have grown since the last time.

    A last line without an end counts if it is a whole JSON value; if not, its writer is at work, and it is left until
    it has grown. changed: what to do about a file that is not the one read before, with more at its end: `reread` takes
    it in from its beginning (copies of messages count once), `refuse` takes in nothing of any file.

    Returns the counts of all times. A kill makes up to a piece of lines come twice, which changes nothing but counts.

    Raises:
        ValueError: no folder was given, or it holds no such file, or one has changed, or has a line without end.
    """
    files = sorted(folder.glob("*.jsonl")) if folder else []
    if not files:
        raise ValueError(f"{domain.name}: expected DATA=<a folder with *.jsonl files, one event a line>; came {folder}")
    path = settings.state / BOOKMARK
    held = _bookmark(path)
    others = [file for file in files if not _is_grown(file, held.files.get(file.name, Read()))]
    if others and changed == "refuse":
        raise ValueError(
            f"{', '.join(map(str, others))}: expected what was read before, with more at its end; it has changed. "
            "Nothing was taken in. Give it another name, or take it in from its beginning with `--changed reread`: "
            "copies of a messageId count once."
        )
    for file in others:
        held.files[file.name] = Read()
    if others:
        _keep(held, path)
    intake = Intake(settings, domain)
    with Bars(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        for file in files:
            begin = held.files.get(file.name, Read()).bytes
            task = bar.add_task(file.name, total=file.stat().st_size, completed=begin)
            for lines, end in _pieces(file, begin):
                received_us = now_us()
                taken = intake.take([(line, received_us) for line in lines])
                counts = together(Ingested(held.accepted, held.refused, held.flagged), taken)
                held.accepted, held.refused, held.flagged = counts.accepted, dict(counts.refused), dict(counts.flagged)
                held.files[file.name] = _read(file, end)
                _keep(held, path)
                bar.update(task, completed=end)
    return Ingested(held.accepted, held.refused, held.flagged)


def _pieces(file: Path, begin: int) -> Iterator[tuple[list[bytes], int]]:
    """The lines of a file from a byte on, about a PIECE of them at a time, and the byte after them."""
    with file.open("rb") as opened:
        opened.seek(begin)
        left, end = b"", begin
        while read := opened.read(PIECE):
            left += read
            whole = left.rfind(b"\n") + 1
            if whole:
                lines, left, end = left[:whole], left[whole:], end + whole
                yield [line for line in lines.split(b"\n") if line.strip()], end
            elif len(left) > LONGEST_LINE:
                raise ValueError(
                    f"{file}: expected an event a line; from byte {end} on no line ends in {len(left):,} bytes"
                )
    if not left.strip():
        return
    try:
        msgspec.json.decode(left)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _log.warning("%s: its last line has no end, and is no JSON; it is read once it has grown", file)
    else:
        yield [left], end + len(left)


def _is_grown(file: Path, read: Read) -> bool:
    """Whether a file begins with what was read of it."""
    return file.stat().st_size >= read.bytes and (not read.bytes or _read(file, read.bytes) == read)


def _read(file: Path, end: int) -> Read:
    with file.open("rb") as opened:
        return Read(end, _hash(opened, 0, min(SAMPLE, end)), _hash(opened, max(0, end - SAMPLE), end))


def _hash(opened: BinaryIO, begin: int, end: int) -> str:
    opened.seek(begin)
    return hashlib.sha256(opened.read(end - begin)).hexdigest()


def _bookmark(path: Path) -> Bookmark:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Bookmark)
    except FileNotFoundError:
        return Bookmark()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedFile(
            f"{path}: expected how far each file was read; {error}. Remove it: all files are then read anew; copies "
            "of a messageId count once."
        ) from error


def _keep(held: Bookmark, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as out:
        out.write(msgspec.json.encode(held))
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
