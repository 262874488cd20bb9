"""Refused events, kept as they came: JSON lines, one file a UTC day of their arrival.

A line holds received_us, reason, detail, and what came: `as` says how (`bytes`, `text`, `json`, or `python` for what
can only be described), `raw` holds it (`bytes` in base64 where they are not UTF-8, then `as` is `base64`), and `cut`
the whole length where only the beginning was kept. `key` is the fingerprint of the write key that it came by, if any.
"""

import base64
import json
import logging
import mmap
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from reprlib import Repr
from types import TracebackType
from typing import Any, Self

import msgspec

from feature_repo.contract.refusals import Reason, Refusal
from feature_repo.contract.wire import MAX_INTEGER, plain_json
from feature_repo.erasing.tombstones import mentions, text_of
from feature_repo.settings import now_us

MAX_KEPT = 256 * 1024
"""Bytes or characters of what came that are kept of one refused event."""
MAX_LEVELS = 64
"""Nesting to which what came is kept as JSON; deeper, it is only described."""
FLUSH_EVERY = 1_000
MOST_BYTES, MOST_DAYS = 2**30, 30
"""What a quarantine holds; the oldest days go first. One day takes half of it, so that a flood leaves earlier days."""
MOST_SHOWN = 4 * 2**20
"""Bytes of the newest refused events that are read at once."""
BLOCK = 2**20
DROPPED = "dropped.json"
"""How many refused events are no longer, or were never, kept for want of room, by reason."""
TORN = "unreadable"
"""What a line counts as that a power cut left unfinished."""


_log = logging.getLogger(__name__)
_SENDERS = ("userId", "anonymousId", "previousId", "user_id", "anonymous_id")
_PLAIN = re.compile(r"[\w.@:+-]+", re.ASCII)
_HIDDEN = (b'"as":"base64"', b"\\\\u")
"""In lines in which an id may be written in another way: in base64, or with escapes."""


class Quarantined(msgspec.Struct, frozen=True):
    """A refused event. raw: bytes, text, a JSON value, or the text of a Python object (see `kind`).

    key: the fingerprint of the write key that it came by; None: none was needed.
    """

    received_us: int
    reason: str
    detail: str
    kind: str
    raw: Any
    cut: int | None = None
    key: str | None = None


class _Line(msgspec.Struct, rename={"kind": "as"}):
    received_us: int
    reason: str
    detail: str
    kind: str
    raw: Any
    cut: int | None = None
    key: str | None = None


class _Counted(msgspec.Struct):
    reason: str


class Quarantine:
    """The refused events of one folder. Lines wait in memory until `flush`; leaving the context flushes.

    most_bytes, most_days: what is beyond them is dropped and counted: the oldest days, and, once a day takes half
        of most_bytes, what else comes that day.
    """

    def __init__(
        self, folder: str | os.PathLike[str], most_bytes: int = MOST_BYTES, most_days: int = MOST_DAYS
    ) -> None:
        self.folder, self._most_bytes, self._most_days = Path(folder), most_bytes, most_days
        self._counted: dict[str, tuple[int, int, Counter[str]]] = {}
        """By file: its inode, the bytes that were counted, and the counts."""
        self._counting = threading.Lock()
        self._waiting: list[tuple[str, bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, raw: object, refusal: Refusal, received_us: int, key: str | None = None) -> None:
        """Keep a refused event, whatever it is; written to disk by the next flush (by itself every 1,000).

        key: as of Quarantined.
        """
        kind, kept, cut = _keep(raw)
        line = {"received_us": received_us, "reason": str(refusal.reason), "detail": refusal.detail, "as": kind}
        line |= {"raw": kept} | ({"cut": cut} if cut else {}) | ({"key": key} if key else {})
        day = datetime.fromtimestamp(received_us // 1_000_000, UTC).date().isoformat()
        self._waiting.append((day, json.dumps(line, separators=(",", ":")).encode()))
        if len(self._waiting) >= FLUSH_EVERY:
            self.flush()

    def poison(self, raw: bytes, why: str) -> None:
        """Keep a message of the event log that is no event, durably: for a log's `on_poison`."""
        self.add(raw, Refusal(Reason.NO_EVENT, why), now_us())
        self.flush()

    def flush(self) -> None:
        """Write what waits, durably: one write a day's file, so that a kill can lose only what is not yet flushed."""
        waiting, self._waiting = self._waiting, []
        days: dict[str, list[bytes]] = {}
        for day, line in waiting:
            days.setdefault(day, []).append(line)
        for day, lines in days.items():
            self.folder.mkdir(parents=True, exist_ok=True)
            content = b"\n".join(lines) + b"\n"
            if self._make_room(day, len(content)):
                _append(self.folder / f"{day}.jsonl", content)
            else:
                self._drop(Counter(map(_reason, lines)))

    def _make_room(self, day: str, wanted: int) -> bool:
        """Remove what is too old, and the oldest days until there is room; whether there is."""
        sizes = {file: file.stat().st_size for file in sorted(self.folder.glob("*.jsonl"))}
        today = self.folder / f"{day}.jsonl"
        if sizes.get(today, 0) + wanted > self._most_bytes // 2:
            return False
        oldest = (date.fromisoformat(day) - timedelta(days=self._most_days)).isoformat()
        for file, size in list(sizes.items()):
            if file < today and (file.stem <= oldest or sum(sizes.values()) + wanted > self._most_bytes):
                _log.warning("%s: removed to make room for newer refused events: %d bytes", file, size)
                self._drop(self._count(file))
                file.unlink(missing_ok=True)
                del sizes[file]
        return True

    def _drop(self, reasons: Counter[str]) -> None:
        part = self.folder / f"{DROPPED}.part"
        part.write_bytes(msgspec.json.encode(dict(sorted((reasons + Counter(self.dropped())).items()))))
        part.replace(self.folder / DROPPED)

    def dropped(self) -> Mapping[str, int]:
        """Refused events by reason that are not kept for want of room."""
        try:
            return msgspec.json.decode((self.folder / DROPPED).read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}

    def counts(self) -> Mapping[str, int]:
        """Refused events by reason that are kept, also those not yet flushed; reads what is new since the last time."""
        self.flush()
        with self._counting:
            found = sum((self._count(file) for file in sorted(self.folder.glob("*.jsonl"))), Counter[str]())
        return dict(sorted(found.items()))

    def _count(self, file: Path) -> Counter[str]:
        with file.open("rb") as opened:
            now = os.fstat(opened.fileno())
            inode, read, counts = self._counted.get(file.name, (0, 0, Counter[str]()))
            if inode != now.st_ino or now.st_size < read:  # an erasure has rewritten it
                read, counts = 0, Counter[str]()
            opened.seek(read)
            unfinished = Counter[str]()
            for line in opened:
                if not line.endswith(b"\n"):
                    unfinished[_reason(line)] += bool(line.strip())
                    break
                read += len(line)
                if line.strip():
                    counts[_reason(line)] += 1
        self._counted[file.name] = (now.st_ino, read, counts)
        return counts + unfinished

    def newest(self, limit: int, reason: str | None = None, most_bytes: int = MOST_SHOWN) -> list[Quarantined]:
        """The newest flushed refused events, the newest last: up to `limit` of them and about `most_bytes` of lines."""
        found, left = list[Quarantined](), most_bytes
        for file in sorted(self.folder.glob("*.jsonl"), reverse=True):
            for line in _backwards(file):
                if len(found) == limit or left < len(line):
                    return found[::-1]
                if reason is None or _reason(line) == reason:
                    found.append(_restore(line))
                    left -= len(line)
        return found[::-1]

    def read(self, limit: int | None = None, reason: str | None = None) -> Iterator[Quarantined]:
        """The flushed refused events, oldest day first: at most `limit`, and of one reason if it is given."""
        left = limit
        for line in self._lines():
            if left is not None and left <= 0:
                return
            refused = _restore(line)
            if reason is None or refused.reason == reason:
                left = None if left is None else left - 1
                yield refused

    def erase(self, ids: frozenset[str]) -> int:
        """Remove those in which one of these ids is a string or a word; returns how many. Nobody else may write."""
        return self._remove(lambda line: _mentions(line, ids))

    def by_key(self, key: str) -> Iterator[Quarantined]:
        """Those that came by the write key with this fingerprint, oldest day first."""
        return (_restore(line) for line in self._lines() if _came_by(line, key))

    def take_back(self, key: str) -> int:
        """Remove those that came by the write key with this fingerprint; returns how many. Nobody else may write."""
        return self._remove(lambda line: _came_by(line, key))

    def _remove(self, unwanted: Callable[[bytes], bool]) -> int:
        self.flush()
        gone = 0
        for file in sorted(self.folder.glob("*.jsonl")):
            lines = file.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if not (line.strip() and unwanted(line))]
            if len(kept) < len(lines):
                gone += len(lines) - len(kept)
                part = file.with_suffix(".part")
                part.unlink(missing_ok=True)
                _append(part, b"".join(kept))
                part.replace(file)
        return gone

    def of(self, ids: frozenset[str], after: str = "", most: int | None = None) -> list[tuple[str, Quarantined]]:
        """The flushed refused events that one of these ids sent, each with its place, in the order of places.

        Of what is no JSON object those in which an id is a word. after: the place that the page before ended with.
        """
        found = list[tuple[str, Quarantined]]()
        for file in sorted(self.folder.glob("*.jsonl")):
            for place, line in _candidates(file, ids):
                if place > after and _sent_by(refused := _restore(line), ids):
                    found.append((place, refused))
                    if len(found) == most:
                        return found
        return found

    def _lines(self) -> Iterator[bytes]:
        for file in sorted(self.folder.glob("*.jsonl")):
            with file.open("rb") as lines:
                yield from (line for line in lines if line.strip())


def as_json(raw: object) -> Any:
    """What came as JSON, or its text where it is none."""
    if not isinstance(raw, bytes):
        return raw
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return raw.decode(errors="replace")


_COUNTED = msgspec.json.Decoder(_Counted)


class _Describe(Repr):
    """`repr` within limits: an object that holds itself many times over stays printable, and so does a huge integer."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 30
        self.maxstring = self.maxother = self.maxlong = 4_096

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if -MAX_INTEGER < x < MAX_INTEGER else hex(x)[: self.maxlong]


def _keep(raw: object) -> tuple[str, Any, int | None]:
    """How and what to keep of what came, and its whole length where that is too long."""
    if type(raw) is bytes:
        kept = raw[:MAX_KEPT]
        try:
            return "bytes", kept.decode(), _cut(raw)
        except UnicodeDecodeError:
            return "base64", base64.b64encode(kept).decode(), _cut(raw)
    if type(raw) is str:
        return "text", raw[:MAX_KEPT], _cut(raw)
    if plain_json(raw, MAX_KEPT, MAX_LEVELS) is None:
        return "json", raw, None
    described = _describe(raw)
    return "python", described[:MAX_KEPT], _cut(described)


def _cut(raw: bytes | str) -> int | None:
    return len(raw) if len(raw) > MAX_KEPT else None


def _describe(raw: object) -> str:
    """`repr`, shortened where it is large; where that fails, what type of object it is and how it fails."""
    try:
        return _Describe().repr(raw)
    except Exception as error:
        return f"<{type(raw).__module__}.{type(raw).__qualname__} without repr: {type(error).__name__}>"


def _backwards(file: Path) -> Iterator[bytes]:
    """The lines of a file, the last one first, with a block of it in memory."""
    with file.open("rb") as opened:
        position, left = opened.seek(0, os.SEEK_END), b""
        while position:
            begin = max(0, position - BLOCK)
            opened.seek(begin)
            lines = (opened.read(position - begin) + left).split(b"\n")
            position, left = begin, lines[0]
            yield from (line for line in reversed(lines[1:]) if line.strip())
        if left.strip():
            yield left


def _reason(line: bytes) -> str:
    try:
        return _COUNTED.decode(line).reason
    except msgspec.DecodeError:  # torn, or with half a surrogate pair in it, which only the slower way can read
        return _restore(line).reason


def _restore(line: bytes) -> Quarantined:
    try:
        wire = msgspec.convert(json.loads(line), _Line)
    except ValueError:
        detail = "expected a whole line; its writer was stopped within it"
        return Quarantined(0, TORN, detail, "bytes", line.rstrip(b"\n"))
    raw = wire.raw
    if wire.kind == "bytes":
        raw = raw.encode()
    elif wire.kind == "base64":
        raw = base64.b64decode(raw)
    kind = "bytes" if wire.kind == "base64" else wire.kind
    return Quarantined(wire.received_us, wire.reason, wire.detail, kind, raw, wire.cut, wire.key)


def _came_by(line: bytes, key: str) -> bool:
    return f'"key":"{key}"'.encode() in line and _restore(line).key == key


def _mentions(line: bytes, ids: frozenset[str]) -> bool:
    refused = _restore(line)
    return any(mentions(text, ids) for text in (refused.detail, text_of(refused.raw)))


def _candidates(file: Path, ids: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """The lines of a file, by their places, in which one of these ids may be: the others are not even decoded."""
    with file.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            return
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for start in _starts(content, ids):
                end = content.find(b"\n", start)
                if line := content[start : end if end >= 0 else len(content)].strip():
                    yield f"{file.stem}:{start:012d}", line


def _starts(content: mmap.mmap, ids: frozenset[str]) -> list[int]:
    """Where those lines begin; every line where an id can be written in several ways."""
    if not all(_PLAIN.fullmatch(i) for i in ids):
        return [0, *(match.end() for match in re.finditer(rb"\n", content))]
    starts = set[int]()
    for mark in (*(i.encode() for i in ids), *_HIDDEN):
        at = content.find(mark)
        while at >= 0:
            starts.add(content.rfind(b"\n", 0, at) + 1)
            end = content.find(b"\n", at)
            at = content.find(mark, end) if end >= 0 else -1
    return sorted(starts)


def _sent_by(refused: Quarantined, ids: frozenset[str]) -> bool:
    text = text_of(refused.raw)
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        return mentions(text, ids)
    return any(str(event[key]) in ids for key in _SENDERS if key in event)


def _append(file: Path, content: bytes) -> None:
    """Append durably; an unfinished last line is closed first, so that it spoils no other."""
    handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            content = b"\n" + content
        while content:
            content = content[os.write(handle, content) :]
        os.fsync(handle)
    finally:
        os.close(handle)
