"""The history on Redis, 6.2 or newer: any number of workers on any number of machines.

add ─► look ─► work out what changes ─► compare and commit, in one step ─► somebody was faster: again (redis_add.py)

Redis has to keep what it has, or nothing here is durable: `appendonly yes`, `maxmemory-policy noeviction`. On a Redis
Cluster everything of a domain is on one node, for all its keys have the tag {domain}; no test runs on a cluster.

| keys after `firstmile:{domain}:` | | |
|---|---|---|
| ev:SENDER, past:SENDER | hash | message id → position and event; past: those behind a checkpoint |
| first | hash | sender → its earliest event, µs |
| versions, rewritten | hash | sender → number of its last change; of the last that was more than new events |
| edge:ANONYMOUS, of:USER | hash, set | user → since, µs; the other way: anonymous ids |
| sure:USER | set | anonymous ids of `of`, by events that can be trusted in it |
| hands | hash | anonymous id → number of the last change of its edges |
| written, touched | hash | person → timestamp of the online row, µs; person → last position that touched it |
| due, slow | zset | person → due, µs, in either lane, leased or not |
| leased | zset | person → end of the lease, µs |
| aside | hash | user whose row cannot be computed → reason |
| checkpoints | hash | person → state, through µs, number of the change that made it, base |
| arrived | zset | position and event by position |
| elsewhere | set | senders whose past is in the lake |
| position, changes | string | counters |
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, TypeVar

import msgspec
import redis

from feature_repo.contract.events import ANONYMOUS
from feature_repo.history import redis_scripts
from feature_repo.history.history_store import CHANGED, NEVER, Added, Checkpoint, Row, Version, Written
from feature_repo.history.redis_add import Look, Plan, plan_add, plan_keep, row_of_value

T = TypeVar("T")
AT_ONCE = 1_000
"""Rows that are moved in one step: Redis answers nobody meanwhile."""
MOST_TRIES = 1_000
"""How often an `add` is planned anew because others were faster."""


class RedisHistory:
    """A HistoryStore (see there) on Redis. From any thread.

    lease_s: how long a worker has people to itself; slow_lease_s: in the slow lane.
    clock: µs, by which leases end; by default the server's.
    """

    def __init__(
        self,
        url: str,
        domain: str,
        lease_s: float = 5.0,
        slow_lease_s: float = 60.0,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._made_of = (url, domain, lease_s, slow_lease_s, clock)
        self._at = f"firstmile:{{{domain}}}:"
        self._lease_us = {False: round(lease_s * 1e6), True: round(slow_lease_s * 1e6)}
        self._clock: Callable[[], int | str] = clock or (lambda: "")
        self._redis: Any = redis.Redis.from_url(url, decode_responses=True)
        self._scripts = dict[str, Any]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reader(self) -> Self:
        """A further object on the same keys, with connections of its own."""
        return type(self)(*self._made_of)

    def close(self) -> None:
        """Let go of the connections."""
        self._redis.close()

    def _run(self, script: str, *args: Any) -> Any:
        """What a script returns."""
        if script not in self._scripts:
            self._scripts[script] = self._redis.register_script(script)
        return self._scripts[script](keys=[self._at], args=args)

    def _each(self, command: str, part: str, names: Iterable[str], *args: Any) -> list[Any]:
        """A command on the key of each of these names, in one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            getattr(pipe, command)(f"{self._at}{part}{name}", *args)
        return list(pipe.execute())

    def _of(self, command: str, key: str, names: Sequence[str]) -> list[Any]:
        """What a hash or set says of each of these names."""
        return list(getattr(self._redis, command)(f"{self._at}{key}", names)) if names else []

    def position(self) -> int:
        """The log position up to which every event is in here."""
        return self._look().position()

    def _look(self) -> Look:
        return Look(self._redis, self._at)

    def add(self, rows: Sequence[Row]) -> Added:
        """Keep those rows that count, in one step; see HistoryStore.

        Those touched are leased to this worker, but for who is in the slow lane.

        Raises:
            TimeoutError: others were faster each time; nothing of this is kept.
        """

        def once() -> Added | None:
            look = self._look()
            plan, changed, touched = plan_add(look, rows)
            done = self._commit(plan) if plan.last else (0, 0)
            if done is None:
                return None
            base, change = done
            new = [row._replace(position=base + row.position) for row in changed.new]
            before = {row.sender: int(look.seen["versions"][row.sender] or 0) for row in changed.kept}
            return Added(new, {row.sender for row in changed.replaced}, touched, before, change)

        return self._again(once)

    def keep(self, rows: Sequence[Row], position: int = 0) -> None:
        """Take rows in without making anybody due, a piece at a time; the position comes last."""
        for start in range(0, len(rows), AT_ONCE):
            self._keep(rows[start : start + AT_ONCE], 0)
        self._keep([], position)

    def _keep(self, rows: Sequence[Row], position: int) -> None:
        self._again(lambda: self._commit(plan_keep(self._look(), rows, position)))

    def _commit(self, plan: Plan) -> tuple[int, int] | None:
        """What the plan's positions count from, and the number of this change.

        None: not everything is as the plan saw it, and nothing was changed.
        """
        plan.lease_us = self._lease_us[False]
        return self._run(redis_scripts.COMMIT, msgspec.msgpack.encode(plan), self._clock())

    def arrived(self, most: int) -> list[Row]:
        """Those that were given a position here, in the order of positions."""
        return [row_of_value(value) for value in self._redis.zrange(f"{self._at}arrived", 0, most - 1)]

    def passed_on(self, through: int) -> None:
        """Somebody else has those up to this position now."""
        self._redis.zremrangebyscore(f"{self._at}arrived", "-inf", through)

    def senders_of(self, persons: Iterable[str]) -> set[str]:
        """The senders whose events these persons' features can need: their own, their hands', who shares them."""
        persons = set(persons)
        hands = set[str]().union(*self._each("smembers", "of:", persons))
        hands |= {p.removeprefix(ANONYMOUS) for p in persons if p.startswith(ANONYMOUS)}
        return persons.union((f"{ANONYMOUS}{a}" for a in hands), *self._each("hkeys", "edge:", hands))

    def aliases(self, person: str, trusted: bool = False) -> list[str]:
        """The anonymous ids that were ever said to be this person's; or only by events that can be trusted in it."""
        return sorted(self._redis.smembers(f"{self._at}{'sure' if trusted else 'of'}:{person}"))

    def events(self, senders: Iterable[str], after: int = 0) -> list[Row]:
        """The events of these senders with a position after that one which are not folded, in no order."""
        sizes = self._sizes(senders)
        found = self._each("hvals", "ev:", (s for s, size in sizes.items() if size <= AT_ONCE))
        for sender in (s for s, size in sizes.items() if size > AT_ONCE):
            pages = self._redis.hscan_iter(f"{self._at}ev:{sender}", count=AT_ONCE)
            found.append(dict(pages).values())  # a scan can give an event twice
        rows = (row_of_value(value) for values in found for value in values)
        return [row for row in rows if row.position > after]

    def _sizes(self, senders: Iterable[str], part: str = "ev:") -> dict[str, int]:
        """How many events of each of these senders are not folded; with past: which are."""
        senders = list(dict.fromkeys(senders))
        return dict(zip(senders, self._each("hlen", part, senders), strict=True))

    def heavy(self, senders: Iterable[str], than: int, folded: bool = False) -> set[str]:
        """Those of these senders who have more events than that which are not folded, or, if asked, which are."""
        sizes = self._sizes(senders, "past:" if folded else "ev:")
        return {sender for sender, size in sizes.items() if size > than}

    def versions(self, senders: Iterable[str]) -> dict[str, Version]:
        """Of each sender the numbers of the last changes to what `events` gives."""
        senders = list(senders)
        numbers = (self._of("hmget", key, senders) for key in ("versions", "rewritten"))
        return {s: Version(int(c or 0), int(r or 0)) for s, c, r in zip(senders, *numbers, strict=True)}

    def snapshot(self) -> AbstractContextManager[None]:
        """Nothing: others go on meanwhile."""
        return nullcontext()

    def known(self, keys: Sequence[tuple[str, str]]) -> list[Row | None]:
        """For each (sender, message id) the copy of that message that counts; None: there is none here."""
        pipe = self._redis.pipeline(transaction=False)
        for sender, message_id in keys:
            pipe.hget(f"{self._at}ev:{sender}", message_id).hget(f"{self._at}past:{sender}", message_id)
        found = pipe.execute()
        values = (new or folded for new, folded in zip(found[::2], found[1::2], strict=True))
        return [row_of_value(value) if value else None for value in values]

    def leave(self, senders: Iterable[str]) -> None:
        """These senders' past stays in the lake until somebody is touched who needs it."""
        for some in _pieces(senders):
            self._run(redis_scripts.LEAVE, *some)

    def left(self, senders: Iterable[str]) -> set[str]:
        """Those of these senders whose past is in the lake."""
        senders = list(senders)
        return {s for s, away in zip(senders, self._of("smismember", "elsewhere", senders), strict=True) if away}

    def fetched(self, senders: Iterable[str], rows: Sequence[Row]) -> None:
        """This is their past out of the lake."""
        self.keep(rows)
        for some in _pieces(senders):
            self._redis.srem(f"{self._at}elsewhere", *some)

    def claim(self, at_us: int, most: int, slow: bool = False) -> list[str]:
        """Whose rows of a lane are due by a time and leased to nobody, the longest due first; they are now."""
        lane = "slow" if slow else "due"
        found: list[str] = self._run(redis_scripts.CLAIM, lane, at_us, most, self._lease_us[slow], self._clock())
        return found

    def waiting(self, at_us: int) -> int:
        """How many people's rows are due by a time, in both lanes, leased or not."""
        return sum(self._each("zcount", "", ("due", "slow"), "-inf", at_us))

    def unsettled(self, person: str, at_us: int = CHANGED) -> bool:
        """Whether this person's row is due by a time; by itself: whether it lacks something of the history."""
        return any(due is not None and due <= at_us for due in self._each("zscore", "", ("due", "slow"), person))

    def defer(self, persons: Iterable[str], since_us: int = CHANGED) -> None:
        """These persons are due, in the slow lane, since then or as long as they were."""
        for some in _pieces(persons):
            self._run(redis_scripts.DEFER, since_us, *some)

    def deferred(self) -> set[str]:
        """Who is due in the slow lane because their past has changed, not by time."""
        return set(self._redis.zrangebyscore(f"{self._at}slow", "-inf", CHANGED))

    def written(self, persons: Iterable[str]) -> dict[str, Written]:
        """What was last written of those persons of whom anything was, or who are due."""
        persons = list(persons)
        reads = [("hmget", "written"), ("zmscore", "due"), ("zmscore", "slow")]
        events, due, slow = (self._of(command, key, persons) for command, key in reads)
        found = {}
        for person, event_us, *lanes in zip(persons, events, due, slow, strict=True):
            due_us = next((int(us) for us in lanes if us is not None), None)
            if event_us is not None or due_us is not None:
                found[person] = Written(NEVER if event_us is None else int(event_us), due_us)
        return found

    def note(self, written: Mapping[str, Written | None], by: int) -> None:
        """What has now been written; those touched after position `by` stay due."""
        for some in _pieces(written):
            whats = ((person, written[person] or ("", "")) for person in some)
            args = [part for person, (event, due) in whats for part in (person, event, "" if due is None else due)]
            self._run(redis_scripts.NOTE, by, *args)

    def set_aside(self, reasons: Mapping[str, str], by: int) -> None:
        """The rows of these users, as known at a position, cannot be computed, for a reason each."""
        for some in _pieces(reasons):
            self._run(redis_scripts.SET_ASIDE, by, *(part for person in some for part in (person, reasons[person])))

    def aside(self) -> dict[str, str]:
        """The users who are set aside, each with the reason."""
        return dict(sorted(self._redis.hgetall(f"{self._at}aside").items()))

    def checkpoints(self, persons: Iterable[str]) -> dict[str, Checkpoint]:
        """The checkpoints of those of these persons who have one."""
        persons = list(persons)
        held = zip(persons, self._of("hmget", "checkpoints", persons), strict=True)
        parts = {person: value.split(" ", 3) for person, value in held if value}
        return {
            person: Checkpoint(int(through), tuple(json.loads(base)), state != "holds")
            for person, (state, through, _, base) in parts.items()
        }

    def fold(self, person: str, checkpoint: Checkpoint, message_ids: Sequence[str], by: int) -> bool:
        """Put these events of the sender `person` behind a checkpoint."""
        base = json.dumps(checkpoint.base)
        made = self._run(redis_scripts.FOLD, person, by, checkpoint.through_us, base, *message_ids[:AT_ONCE])
        if made is None:
            return False
        for some in (*_pieces(message_ids), []):
            if not self._run(redis_scripts.FOLD_SOME, person, made, *some):
                break
        return True

    def unfold(self, persons: Iterable[str]) -> None:
        """Take the checkpoints of these persons back."""
        persons = list(persons)
        self._run(redis_scripts.BREAK, *persons)
        for person in persons:
            cursor = "0"
            while cursor is not None:
                cursor = self._run(redis_scripts.UNFOLD_SOME, person, cursor, AT_ONCE)

    def erase(self, senders: Iterable[str]) -> int:
        """Forget these senders: events, edges, due rows, checkpoints, last what waits in `arrived`; how many events."""
        names = set(senders)
        count = sum(sum(self._each("hlen", part, names)) for part in ("ev:", "past:"))
        reached = self._run(redis_scripts.ERASE, *sorted(names))
        for some in self._arrived_pages(reached):
            if gone := [value for value in some if row_of_value(value).sender in names]:
                self._redis.zrem(f"{self._at}arrived", *gone)
        return count

    def _arrived_pages(self, through: int) -> Iterator[list[str]]:
        after = 0
        while some := self._redis.zrangebyscore(f"{self._at}arrived", f"({after}", through, start=0, num=AT_ONCE):
            yield some
            after = row_of_value(some[-1]).position

    def _again(self, once: Callable[[], T | None]) -> T:
        """The first result that there is: at once, then with ever longer pauses, up to 20 ms."""
        for tries in range(MOST_TRIES):
            if (found := once()) is not None:
                return found
            time.sleep(min(tries, 20) / 1_000)
        raise TimeoutError(f"history {self._at}: expected to write these rows; others were faster {MOST_TRIES} times")


def _pieces(names: Iterable[str]) -> Iterator[list[str]]:
    """They in lists of AT_ONCE."""
    names = list(names)
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))
