"""What `add` and `keep` do on Redis: look, work out with arrivals.py what the rows change, commit if nobody was faster.

copies, edges, checkpoints, each with the number of its last change ─► Plan ─► redis_scripts.COMMIT
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from feature_repo.contract.events import ANONYMOUS
from feature_repo.history import arrivals
from feature_repo.history.arrivals import Changes
from feature_repo.history.history_store import NEVER, UNNUMBERED, Row

Names = dict[str, dict[str, str]]
"""By hash and field: what is there, "" for nothing."""
_BODY = msgspec.json.Decoder(
    tuple[str, str, str | None, str | None, str | None, int, int, msgspec.Raw, msgspec.Raw, msgspec.Raw, str]
)


def body_of(row: Row) -> str:
    """An event as Redis holds it after its position: a JSON list, the documents as they are."""
    _, message_id, _, *middle, properties, traits, context, content_hash = row
    documents = (msgspec.Raw(text.encode()) for text in (properties, traits, context))
    return msgspec.json.encode((message_id, *middle, *documents, content_hash)).decode()


def row_of_value(value: str) -> Row:
    """The row that a position and a body stand for.

    >>> row = Row("anon:a", "m", 7, "page", None, None, "a", 1, 2, "{}", '{"plan":"é"}', "{}", "0")
    >>> row_of_value(f"7 {body_of(row)}") == row
    True
    """
    position, _, body = value.partition(" ")
    message_id, type_, name, user, anonymous, ts_us, received_us, *documents, content_hash = _BODY.decode(body)
    sender = f"{ANONYMOUS}{anonymous}" if user is None else user
    properties, traits, context = (bytes(document).decode() for document in documents)
    return Row(
        sender, message_id, int(position), type_, name, user, anonymous, ts_us, received_us,
        properties, traits, context, content_hash,
    )  # fmt: skip


@dataclass
class Plan:
    """What COMMIT compares and writes.

    seen: what was there when it was looked at. reached: the position then, where the plan rests on it.
    absolute: the positions are final; else they count from the one that is reached at the commit. last: the largest.
    rows: sender, message id, position, body, whether it counts, whether it waits in `arrived`. rewritten: senders whose
    change is more than new events.
    """

    seen: Names
    absolute: bool
    last: int
    lease_us: int = 0
    reached: int | None = None
    rows: list[tuple[str, str, int, str, bool, bool]] = field(default_factory=list)
    first_us: dict[str, str] = field(default_factory=dict)
    edges: list[tuple[str, str, str, bool]] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)

    def write(self, rows: Sequence[Row], kept: Sequence[Row], waits: set[tuple[str, str]]) -> None:
        """Of these rows those kept count; those of the messages `waits` go to `arrived`."""
        counts = set(map(id, kept))
        for row in rows:
            if id(row) in counts or row.key in waits:
                flags = (id(row) in counts, row.key in waits)
                self.rows.append((row.sender, row.message_id, row.position, body_of(row), *flags))
        self.first_us = {sender: str(us) for sender, us in earliest(kept).items()}
        self.edges = [(*row.edge, str(row.ts_us), row.trusted) for row in kept if row.edge]


def earliest(rows: Iterable[Row]) -> dict[str, int]:
    """By sender: the time of the first of these events, µs."""
    found: dict[str, int] = {}
    for row in rows:
        found[row.sender] = min(row.ts_us, found.get(row.sender, row.ts_us))
    return found


class Look:
    """What is in Redis before a commit.

    seen: the numbers of the last changes, read before what they are about: where they are the same at the commit, so is
    everything that was read.
    """

    def __init__(self, client: Any, at: str) -> None:
        self._redis, self._at = client, at
        self.seen: Names = {"versions": {}, "hands": {}, "checkpoints": {}}

    def _saw(self, hash_: str, names: Sequence[str], values: Sequence[str | None]) -> None:
        """What was seen first counts."""
        read = {name: value or "" for name, value in zip(names, values, strict=True)}
        self.seen[hash_] = read | self.seen[hash_]

    def position(self) -> int:
        """The position reached."""
        return int(self._redis.get(f"{self._at}position") or 0)

    def copies(self, rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
        """What is kept of the messages of these rows, folded or not."""
        ids: dict[str, dict[str, None]] = {}
        for row in rows:
            ids.setdefault(row.sender, {})[row.message_id] = None
        if not ids:
            return {}
        pipe = self._redis.pipeline(transaction=False).hmget(f"{self._at}versions", list(ids))
        for sender, of in ids.items():
            for part in ("past", "ev"):
                pipe.hmget(f"{self._at}{part}:{sender}", list(of))
        versions, *found = pipe.execute()
        self._saw("versions", list(ids), versions)
        held = (row_of_value(value) for values in found for value in values if value is not None)
        return {row.key: row for row in held}  # of two copies of a message the one that is not folded is the better one

    def hands(self, hands: Sequence[str]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """The users of these hands, and the earliest events of their anonymous senders, where there are any; µs.

        Of those whose past is in the lake nobody knows: they may have events of any time.
        """
        if not hands:
            return {}, {}
        senders = [f"{ANONYMOUS}{a}" for a in hands]
        pipe = self._redis.pipeline(transaction=False)
        pipe.hmget(f"{self._at}hands", hands).hmget(f"{self._at}versions", senders)
        pipe.hmget(f"{self._at}first", senders).smismember(f"{self._at}elsewhere", senders)
        for a in hands:
            pipe.hgetall(f"{self._at}edge:{a}")
        changed, versions, first, left, *edges = pipe.execute()
        self._saw("hands", hands, changed)
        self._saw("versions", senders, versions)
        users = {a: {user: int(us) for user, us in of.items()} for a, of in zip(hands, edges, strict=True)}
        first_us = {s: int(us) for s, us in zip(senders, first, strict=True) if us is not None}
        return users, first_us | {s: NEVER for s, away in zip(senders, left, strict=True) if away}

    def through_us(self, persons: Sequence[str]) -> dict[str, int]:
        """The ends of the checkpoints of those of these persons who have one, µs."""
        if not persons:
            return {}
        self._saw("checkpoints", persons, self._redis.hmget(f"{self._at}checkpoints", persons))
        held = self.seen["checkpoints"]
        return {person: int(held[person].split(" ")[1]) for person in persons if held[person]}


def plan_add(look: Look, rows: Sequence[Row]) -> tuple[Plan, Changes, set[str]]:
    """What adding these rows changes, and who is touched."""
    absolute = any(row.position != UNNUMBERED for row in rows)
    reached = look.position() if absolute else 0
    waits = {row.key for row in rows if row.position == UNNUMBERED}
    copies = look.copies(rows)
    rows = arrivals.numbered(rows, reached, copies)
    changed = arrivals.changes(rows, copies)
    users, first_us = look.hands(sorted(arrivals.hands((*changed.kept, *changed.replaced))))
    for anonymous, user, us in ((*row.edge, row.ts_us) for row in changed.kept if row.edge):
        users[anonymous][user] = min(us, users[anonymous].get(user, us))
    for sender, us in earliest(changed.kept).items():
        first_us[sender] = min(us, first_us.get(sender, us))
    touched = arrivals.touched(changed, users)
    through_us = look.through_us(sorted(touched))
    plan = Plan(look.seen, absolute, max((row.position for row in rows), default=0))
    plan.reached = reached if absolute else None
    plan.broken = sorted(arrivals.broken(changed, through_us, users, first_us))
    plan.touched = sorted(touched)
    plan.rewritten = sorted({row.sender for row in changed.replaced})
    plan.write(rows, changed.kept, waits)
    return plan, changed, touched


def plan_keep(look: Look, rows: Sequence[Row], position: int) -> Plan:
    """What taking these rows in changes."""
    kept = arrivals.changes(rows, look.copies(rows)).kept
    plan = Plan(look.seen, True, position)
    plan.rewritten = sorted({row.sender for row in kept})
    plan.write(kept, kept, set())
    return plan
