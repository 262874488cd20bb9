"""The door: events in, each judged by the contract; the accepted into the event log, the refused into the quarantine.

[JSON] ─► parse ─► enrich ─► log ─► [Receipt]      accepted means durable: the receipts wait for the disk or the broker
             └─► quarantine ──────────┘             opted out, or erased: counted, and kept nowhere
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from feature_repo.contract.declared import flagged
from feature_repo.contract.events import ANONYMOUS, MAX_MESSAGE_ID, Event, Refusal, parse
from feature_repo.contract.origin import Origin, note, origin_of
from feature_repo.domain import Domain
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.erasing.tombstones import ERASED, TOLD, Tombstones
from feature_repo.history.history_store import EDGES, Row, row_of
from feature_repo.lake.quarantine import Quarantine, Quarantined
from feature_repo.log.event_log import Busy, shard_key
from feature_repo.stream.live import Held
from serving.asgi import Refused
from serving.collect.identity import NOBODY, Sender
from serving.collect.request import decoded, one
from serving.consent import Consent, OptedOut

OPTED_OUT = "opted_out"
"""The reason of an event that its person did not want collected."""
AT_ONCE = 25
"""Events that are judged without letting other requests in between."""
RETRY_AFTER_S = 5.0
"""When to try again after the log or the quarantine failed, as with a full disk."""
Copy = Literal["same", "replaced", "unused"]
_USER_HASH = re.compile(rb'("userHash"\s*:\s*)"[^"\\]*"')
"""The signature of a user id in the JSON of a refused event, which is kept without it."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Receipt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What became of one event. reason: for programs; detail: for people. Both only where it was refused."""

    message_id: str | None
    status: Literal["accepted", "duplicate", "refused"]
    reason: str | None = None
    detail: str | None = None
    copy: Annotated[
        Copy | None,
        Meta(
            description="Of a duplicate. same: it has the timestamp and the content of the copy that counts. replaced: "
            "this copy counts from now on. unused: another copy counts. Absent: it is not known yet which one counts, "
            "because an earlier copy has not been applied."
        ),
    ] = None


class Unwanted(msgspec.Struct, frozen=True):
    """An event of which nothing is kept: its person opted out, or was erased."""

    reason: str
    detail: str


DECLINED = Unwanted(OPTED_OUT, "context.optOut is true")
NO_CONSENT = Unwanted(OPTED_OUT, "its person has opted out")
GONE = Unwanted(ERASED, TOLD)
Judged = Event | Refusal | Unwanted


class Log(Protocol):
    """Of an event log, what the door needs."""

    def append(self, events: Sequence[Event]) -> "Future[list[int] | None]":
        """As `EventLog.append`."""
        ...


class Door:
    """Takes events in for one domain.

    known: for each of some events the copy that came before. It is called in one thread and may wait.
    claims: the users whom accepted events have said each of some anonymous ids to be. As `known`.
    enrich: adds to events what is known of them.
    erased: of whom nothing more is taken. consent: of whom nothing is taken as long as they wish.
    on_accepted: is called with events once they are durable; it must not wait.
    """

    def __init__(
        self,
        domain: Domain,
        log: Log,
        quarantine: Quarantine,
        known: Callable[[Sequence[Event]], Sequence[Held | None]] | None = None,
        claims: Callable[[Sequence[str]], Mapping[str, Set[str]]] | None = None,
        enrich: Enrichment | None = None,
        erased: Tombstones | None = None,
        consent: Consent | None = None,
        on_accepted: Callable[[Sequence[Event]], object] = lambda _: None,
    ) -> None:
        self._consent, self._on_accepted = consent, on_accepted
        self._domain, self._events, self._quarantine, self._erased = domain, log, quarantine, erased
        self._known, self._claims, self._enrich = known, claims, enrich
        self._claiming = Claims()
        self._kept = Quarantine(quarantine.folder)  # to read, so that no other thread flushes what waits
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="known")
        self._keeping = ThreadPoolExecutor(1, thread_name_prefix="quarantine")
        self.counted: Counter[tuple[str, str]] = Counter()
        """Events since the start by status and, of the refused, by reason."""
        self.flagged: Counter[str] = Counter()
        """Values of accepted events since the start that features do not see as they were sent, by path."""

    async def accept(self, raws: Sequence[bytes], received_us: int, sender: Sender = NOBODY) -> list[Receipt]:
        """Take events in, JSON of the contract each; returns, in their order, what became of them, once it is durable.

        An exact copy within one request is not taken twice. Any other copy is: the earliest is the one that counts.

        Raises:
            Busy: not now. Some of the events may have been taken nevertheless: sent again they are duplicates.
        """
        judged = await self._judge(raws, received_us, sender)
        events = [e for e in judged if type(e) is Event]
        firsts, fresh = _copies(events)
        before: Sequence[Held | None] = [None] * len(events)
        kept = dict[int, Event]()
        try:
            if self._known and events:
                before = await _in(self._asking, self._known, events)
            if fresh:
                taken = await self._take(await self._enrich(fresh) if self._enrich else fresh, sender)
                self._on_accepted(fresh)
                kept = {id(event): as_kept for event, as_kept in zip(fresh, taken, strict=True)}
            if refused := [(raw, e) for raw, e in zip(raws, judged, strict=True) if type(e) is Refusal]:
                await _in(self._keeping, self._keep, refused, received_us, sender.fingerprint)
        except Busy:
            raise
        except Exception as e:
            _log.exception("events cannot be stored")
            raise Busy(f"events cannot be stored ({type(e).__name__})", RETRY_AFTER_S) from e
        copies = _fates([kept[id(first)] for first in firsts], before)
        receipts = [
            _receipt(raw, e, *(next(copies) if type(e) is Event else ())) for raw, e in zip(raws, judged, strict=True)
        ]
        self.counted.update((r.status, r.reason or "") for r in receipts)
        self.flagged.update(path for event in fresh for path in flagged(self._domain, event.context))
        return receipts

    async def check(self, raws: Sequence[bytes], received_us: int, sender: Sender = NOBODY) -> list[Receipt]:
        """The receipts that `accept` would give, for events that nobody has seen; nothing is kept."""
        judged = await self._judge(raws, received_us, sender)
        return [_receipt(raw, e) for raw, e in zip(raws, judged, strict=True)]

    def decline(self, raws: Sequence[bytes], detail: str) -> list[Receipt]:
        """The receipts of events that are not wanted collected; they are not even looked at."""
        self.counted["refused", OPTED_OUT] += len(raws)
        return [Receipt(None, "refused", OPTED_OUT, detail)] * len(raws)

    async def refused(self, limit: int, reason: str | None = None) -> tuple[Mapping[str, int], list[Quarantined]]:
        """Counts of the quarantine by reason, and its newest `limit` events, the newest last."""
        return await asyncio.to_thread(self._read, limit, reason)

    def dropped(self) -> int:
        """How many refused events the quarantine had no room for."""
        return sum(self._kept.dropped().values())

    def erase(self, ids: frozenset[str]) -> int:
        """Remove from the quarantine what has one of these ids in it, see there; from any thread, and waits."""
        return self._keeping.submit(self._quarantine.erase, ids).result()

    def metrics(self) -> str:
        """The counts in Prometheus' text format."""
        lines = ["# TYPE firstmile_events_total counter"]
        for (status, reason), n in sorted(self.counted.items()):
            lines.append(f'firstmile_events_total{{status="{status}",reason="{reason}"}} {n}')
        lines.append("# TYPE firstmile_values_flagged_total counter")
        lines += [f'firstmile_values_flagged_total{{path="{path}"}} {n}' for path, n in sorted(self.flagged.items())]
        return "\n".join(lines) + "\n" + (self._enrich.metrics() if self._enrich else "")

    async def _judge(self, raws: Sequence[bytes], received_us: int, sender: Sender) -> list[Judged]:
        judged = list[Judged]()
        for start in range(0, len(raws), AT_ONCE):
            out = self._consent.out() if self._consent else None
            judged += [self._judge_one(raw, received_us, out, sender) for raw in raws[start : start + AT_ONCE]]
            if start + AT_ONCE < len(raws):
                await asyncio.sleep(0)
        return judged

    def _judge_one(self, raw: bytes, received_us: int, opted_out: OptedOut | None, sender: Sender) -> Judged:
        event = parse(raw, self._domain, received_us)
        context = event.context if isinstance(event, Event) else one(_look(raw).get("context"))
        if context.get("optOut") is True:
            return DECLINED
        if opted_out and any(s in opted_out for s in _senders(event if isinstance(event, Event) else raw)):
            return NO_CONSENT
        if self._gone(event if isinstance(event, Event) else raw):
            return GONE
        return sender.judge(event) if isinstance(event, Event) else event

    def _gone(self, event: Event | bytes) -> bool:
        """Whether an event, or the raw text of one that is refused, is of somebody erased."""
        if self._erased is None:
            return False
        return self._erased.refuses(event) if isinstance(event, Event) else self._erased.mentioned(event)

    async def _take(self, events: Sequence[Event], sender: Sender) -> list[Event]:
        """Hand events on, once it is decided which of their identity links count; returns them as they are kept."""
        claimed: Mapping[str, Set[str]] = {}
        devices = list({str(e.anonymous_id): None for e in events if _links(e)})
        if sender.browser and devices and self._claims:
            claimed = await _in(self._asking, self._claims, devices)
        with self._claiming.of(events, claimed) as decided:
            await self._append(decided)
        return decided

    def _append(self, events: Sequence[Event]) -> "asyncio.Future[list[int] | None]":
        """Hand events on, without those whose sender was erased since they were judged."""
        if self._erased is None:
            return asyncio.wrap_future(self._events.append(events))
        with self._erased.passing:
            return asyncio.wrap_future(self._events.append([e for e in events if not self._gone(e)]))

    def _keep(self, refused: Sequence[tuple[bytes, Refusal]], received_us: int, key: str | None) -> None:
        for raw, refusal in refused:
            if self._gone(raw):  # erased since it was judged
                continue
            self._quarantine.add(_USER_HASH.sub(rb'\1"..."', raw), refusal, received_us, key)
        self._quarantine.flush()

    def _read(self, limit: int, reason: str | None) -> tuple[Mapping[str, int], list[Quarantined]]:
        return self._kept.counts(), self._kept.newest(limit, reason)


class Claims:
    """Decides which identity links of arriving events count, and remembers them until the events are in the log.

    A link that cannot be trusted (see Origin.trusted) counts only where nobody else has claimed the anonymous id: it is
    taken out of the event, so that no reader of events has to know of it.
    """

    def __init__(self) -> None:
        self._users: dict[str, Counter[str]] = {}

    @contextmanager
    def of(self, events: Sequence[Event], claimed: Mapping[str, Set[str]]) -> Iterator[list[Event]]:
        """The events as they are to be kept; inside, their links count as claims too.

        claimed: the users who had claimed the anonymous ids of these events before.
        """
        decided, made = list[Event](), list[tuple[str, str]]()
        for event in events:
            if _links(event):
                device, user = str(event.anonymous_id), str(event.user_id)
                users = claimed.get(device, frozenset()) | self._users.get(device, {}).keys()
                if users and user not in users and not origin_of(event.context).trusted:
                    event = _unlinked(event)
                else:
                    self._users.setdefault(device, Counter())[user] += 1
                    made.append((device, user))
            decided.append(event)
        try:
            yield decided
        finally:
            for device, user in made:
                self._users[device] -= Counter({user: 1})
                if not self._users[device]:
                    del self._users[device]


def _links(event: Event) -> bool:
    """Whether an event says that its anonymous id is its user's."""
    return event.type in EDGES and event.user_id is not None and event.anonymous_id is not None


def _unlinked(event: Event) -> Event:
    """The event without its anonymous id, which is noted in its origin."""
    origin: Origin = replace(origin_of(event.context), unlinked=event.anonymous_id)
    context = dict(event.context)
    note(context, origin)
    return replace(event, anonymous_id=None, context=context)


def _senders(event: Event | bytes) -> list[str]:
    """Who sends an event, or the raw text of one that is refused."""
    if isinstance(event, Event):
        return [shard_key(event)]
    said = _look(event)
    return [f"{prefix}{said[key]}" for key, prefix in (("userId", ""), ("anonymousId", ANONYMOUS)) if said.get(key)]


async def _in(threads: ThreadPoolExecutor, act: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, act, *arguments)


def _copies(events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """The events, the first of its message in place of each exact copy, and the events without exact copies."""
    seen: dict[tuple[str, str], Event] = {}
    found, fresh = list[Event](), list[Event]()
    for event in events:
        first = seen.setdefault((shard_key(event), event.message_id), event)
        if first is event or first != event:
            fresh.append(event)
            found.append(event)
        else:
            found.append(first)
    return found, fresh


def _fates(events: Sequence[Event], before: Sequence[Held | None]) -> Iterator[tuple[bool, Copy | None]]:
    """For each event, as it is kept, whether it is a copy of an earlier one, and what became of the copy.

    before: the copies that came before these events, see `Known.known`.
    """
    keys = [(shard_key(event), event.message_id) for event in events]
    times = Counter(keys)
    counting: dict[tuple[str, str], Row | None] = {}
    for key, event, held in zip(keys, events, before, strict=True):
        if held is None and times[key] == 1:
            yield False, None
            continue
        row, first = row_of(0, event), key not in counting
        best = counting.setdefault(key, held.row if held else row)
        if best is None or (first and held is None):
            yield best is None, None
        elif (row.ts_us, row.content_hash) == (best.ts_us, best.content_hash):
            yield True, "same"
        elif row.rank[:-1] < best.rank[:-1]:
            counting[key] = row
            yield True, "replaced"
        else:
            yield True, "unused"


def _receipt(raw: bytes, judged: Judged, again: bool = False, copy: Copy | None = None) -> Receipt:
    if isinstance(judged, Event):
        return Receipt(judged.message_id, "duplicate" if again else "accepted", copy=copy)
    message_id = _look(raw).get("messageId")
    shown = message_id[:MAX_MESSAGE_ID].encode(errors="replace").decode() if type(message_id) is str else None
    return Receipt(shown, "refused", str(judged.reason), judged.detail)


def _look(raw: bytes) -> dict[str, Any]:
    """What can be seen of an event that the contract refuses."""
    try:
        return one(decoded(raw).value)
    except Refused:
        return {}
