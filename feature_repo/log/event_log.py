"""The event log: where accepted events are durable, and from where they are processed.

append(events) ─► durable ─► poll ─► [Delivered] ─► applied ─► ack

At least once and in any order: whatever was not acked comes again, after a kill or a close to whoever reads then. The
implementations share one contract, tests/contracts/test_event_log.py: sqlite_log.py, kafka_log.py, rabbitmq_log.py,
kinesis_log.py; `open_log` chooses by the address.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from feature_repo.contract.events import Event, key_of
from feature_repo.storage import BusyError

__all__ = ["BROKERS", "Busy", "BusyError", "Delivered", "EventLog", "OnPoison", "open_log"]

OnPoison = Callable[[bytes, str], None]
"""Takes a message that is no event, and why it is none; it has to keep it durably, for the log then forgets it."""

Appended = Future[list[int] | None]

MOST_WAITING = 50_000
MOST_WAITING_BYTES = 64 * 2**20
RETRY_AFTER_S = 1.0

_log = logging.getLogger(__name__)
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Event)


class Busy(RuntimeError):
    """Too much waits to be written: nothing of this append is taken; try again after `retry_after_s` seconds."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(f"{detail}; try again in {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class Delivered(msgspec.Struct, frozen=True):
    """An event that came out of a log.

    position: the log's own where it has one total order without gaps (SQLite), else None: the history gives it one.
    token: what `ack` needs.
    """

    event: Event
    position: int | None
    token: Any


class EventLog(Protocol):
    """A log that is open. Any number of threads append; one polls, and acks what it polled before it polls again.

    Where several workers share a log, each user's events go to one of them at any time, and change over to another only
    while that one polls; a worker that does not poll for long (each log's own time-out) counts as gone.

    After an error from `poll` or `ack`, close the log and open it again: what was not acked comes again.
    """

    def append(self, events: Sequence[Event]) -> Appended:
        """Write events; the future is done once they are durable, with their positions where the log has them.

        It fails with the log's error where they may not be durable; whoever appends then may do it again.

        Raises:
            Busy: too many events wait.
        """
        ...

    def poll(self, most: int, timeout_s: float) -> list[Delivered]:
        """Up to `most` events, as soon as there is one; none after `timeout_s` seconds."""
        ...

    @property
    def joined(self) -> bool:
        """Whether the one who polls has its part by now: before, others may have it, or nobody."""
        ...

    def ack(self, delivered: Sequence[Delivered]) -> None:
        """These are applied, durably: they need not come again. What came to be another worker's is passed over."""
        ...

    def lag(self) -> int:
        """Events accepted and not yet acked, as far as is known from here."""
        ...

    def close(self) -> None:
        """Write what waits, let others have what was polled and not acked, let go of files and connections."""
        ...


def shard_key(event: Event) -> str:
    """Whose events stay in order on one shard: the user's, or else the anonymous id's.

    >>> from feature_repo.contract.events import Event
    >>> shard_key(Event("page", "m", None, "a1", 0, 0, None, {}, {}, {}))
    'anon:a1'
    """
    return key_of(event.user_id, event.anonymous_id)


def encode(event: Event) -> bytes:
    """An event as a log holds it: JSON, because an event's integers may be longer than MessagePack's."""
    return _ENCODER.encode(event)


def decode(raw: bytes, on_poison: OnPoison) -> Event | None:
    """The event that `encode` made `raw` of; None where it is none, and `on_poison` has been told."""
    try:
        return _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        on_poison(raw, f"expected an event as the log holds it; came {len(raw)} bytes: {error}")
        return None


def report_poison(raw: bytes, why: str) -> None:
    """Say in the program's log that a message is no event: for programs that have no quarantine."""
    _log.error("passed over in the event log: %s: %r", why, raw[:200])


class Backlog:
    """What waits to be written, within its bound. From any thread."""

    def __init__(self, most_events: int = MOST_WAITING, most_bytes: int = MOST_WAITING_BYTES) -> None:
        self._most = (most_events, most_bytes)
        self._events = self._bytes = 0
        self._lock = threading.Lock()

    def take(self, encoded: Sequence[bytes]) -> None:
        """Count these as waiting.

        Raises:
            Busy: as many events, or bytes, as may wait do so already.
        """
        with self._lock:
            if self._events >= self._most[0] or self._bytes >= self._most[1]:
                raise Busy(f"{self._events} events wait to be written", RETRY_AFTER_S)
            self._events += len(encoded)
            self._bytes += sum(map(len, encoded))

    def drop(self, encoded: Sequence[bytes]) -> None:
        """These wait no longer."""
        with self._lock:
            self._events -= len(encoded)
            self._bytes -= sum(map(len, encoded))


_Token = TypeVar("_Token")


class Progress(Generic[_Token]):
    """How far a shard is applied, where its deliveries are in order and the acks need not be.

    >>> shard = Progress[int]()
    >>> shard.delivered(7), shard.delivered(9), shard.acked(9), shard.reached
    (None, None, None, None)
    >>> shard.acked(7), shard.reached
    (None, 9)
    """

    def __init__(self) -> None:
        self.reached: _Token | None = None
        self._order: deque[_Token] = deque()
        self._unacked: set[_Token] = set()

    def __len__(self) -> int:
        """Deliveries not yet acked."""
        return len(self._unacked)

    def delivered(self, token: _Token) -> None:
        """The shard's next message went out."""
        self._order.append(token)
        self._unacked.add(token)

    def acked(self, token: _Token) -> None:
        """One that went out is applied; again, or never gone out, changes nothing."""
        self._unacked.discard(token)
        while self._order and self._order[0] not in self._unacked:
            self.reached = self._order.popleft()


BROKERS = {"kafka": "kafka", "amqp": "rabbitmq", "amqps": "rabbitmq", "kinesis": "kinesis"}
"""By the scheme of an address: which broker, and so which module."""


def open_log(url: str, first: int = 1, start: int = 0, on_poison: OnPoison = report_poison) -> EventLog:
    """The log at an address, open.

    A path is a SqliteLog's, with `first` and `start` as there. `kafka://host:port,…/topic`, `amqp://…` and
    `kinesis://stream` are described in kafka_log.py, rabbitmq_log.py and kinesis_log.py.

    Raises:
        ValueError: no log has such an address.
        ModuleNotFoundError: that log's client is not installed; says how to.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        from feature_repo.log.sqlite_log import SqliteLog

        return SqliteLog(Path(url), first, start, on_poison=on_poison)
    if scheme not in BROKERS:
        raise ValueError(f"event log: expected a path or {', '.join(f'{s}://…' for s in BROKERS)}; came {url!r}")
    extra = BROKERS[scheme]
    try:
        module = import_module(f"feature_repo.log.{extra}_log")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{scheme}://… needs the module {error.name}; install it with: pip install 'firstmile[{extra}]'"
        ) from error
    log: EventLog = module.from_url(urlsplit(url), on_poison)
    return log
