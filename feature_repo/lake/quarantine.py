"""Refused events, kept as they came: JSON lines, one file a UTC day of their arrival.

A line holds received_us, reason, detail, and what came: `as` says how (`bytes`, `text`, `json`, or `python` for what
can only be described), `raw` holds it (`bytes` in base64 where they are not UTF-8, then `as` is `base64`), and `cut`
the whole length where only the beginning was kept.
"""

import base64
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
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
TORN = "unreadable"
"""What a line counts as that a power cut left unfinished."""


class Quarantined(msgspec.Struct, frozen=True):
    """A refused event. raw: bytes, text, a JSON value, or the text of a Python object (see `kind`)."""

    received_us: int
    reason: str
    detail: str
    kind: str
    raw: Any
    cut: int | None = None


class _Line(msgspec.Struct, rename={"kind": "as"}):
    received_us: int
    reason: str
    detail: str
    kind: str
    raw: Any
    cut: int | None = None


class _Counted(msgspec.Struct):
    reason: str


class Quarantine:
    """The refused events of one folder. Lines wait in memory until `flush`; leaving the context flushes."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._waiting: list[tuple[str, bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, raw: object, refusal: Refusal, received_us: int) -> None:
        """Keep a refused event, whatever it is; written to disk by the next flush (by itself every 1,000)."""
        kind, kept, cut = _keep(raw)
        line = {"received_us": received_us, "reason": str(refusal.reason), "detail": refusal.detail, "as": kind}
        line |= {"raw": kept} | ({"cut": cut} if cut else {})
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
            _append(self.folder / f"{day}.jsonl", b"\n".join(lines) + b"\n")

    def counts(self) -> Mapping[str, int]:
        """Refused events by reason, those not yet flushed included."""
        self.flush()
        found: Counter[str] = Counter()
        for line in self._lines():
            found[_reason(line)] += 1
        return dict(sorted(found.items()))

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
        self.flush()
        gone = 0
        for file in sorted(self.folder.glob("*.jsonl")):
            lines = file.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if not (line.strip() and _mentions(line, ids))]
            if len(kept) < len(lines):
                gone += len(lines) - len(kept)
                part = file.with_suffix(".part")
                part.unlink(missing_ok=True)
                _append(part, b"".join(kept))
                part.replace(file)
        return gone

    def _lines(self) -> Iterator[bytes]:
        for file in sorted(self.folder.glob("*.jsonl")):
            with file.open("rb") as lines:
                yield from (line for line in lines if line.strip())


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
    return Quarantined(wire.received_us, wire.reason, wire.detail, kind, raw, wire.cut)


def _mentions(line: bytes, ids: frozenset[str]) -> bool:
    refused = _restore(line)
    return any(mentions(text, ids) for text in (refused.detail, text_of(refused.raw)))


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
