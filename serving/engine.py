"""From user ids to answers: read, decide, log. The one place where clock, chance, stores and model meet.

ids -> [no event pending] -> [features online] -> window ended? -> [row in force] -> [what the rules remember, feedback]
    -> decide() -> log -> answer
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import msgspec

from feature_repo.contract.events import ANONYMOUS, ids_of
from feature_repo.settings import now_us
from feature_repo.stream.slow_lane import TakesLong
from serving.consent import Consent
from serving.decide import Asked, Model, Placed, Receipt, Situation, Snapshot, Unavailable, decide, decision_id
from serving.decision_log import DecisionLog
from serving.metrics import Metrics
from serving.models import Champion
from serving.past_data import PastData
from serving.playbook import Playbook
from serving.schema import Decision, DroppedElement, ModelRef, Variant
from serving.segments.keeper import Keeper
from serving.segments.person import Behind, Person
from serving.times import rfc3339
from serving.why.contributions import of_decision, strongest
from serving.why.explanation import Explainer

SETTLE_S = 1.0
"""How long a decision waits for events that were accepted before it was asked for."""
READ_TIMEOUT_S = 0.5
"""A store that has not answered by then is down: the default journey is taken."""
UNFOLLOWED = "what the rules remember and what was shown before are not known"
STALE = "an event that was accepted is not in the features yet"
SET_ASIDE = "the features of this user cannot be computed: the service's log says why"
CHUNK = 50
"""Users of a batch that are decided without letting other requests in between."""
SLOW = 2
"""Threads for rows that take long: one may have somebody with very many events, of whom no other thread begins one."""

T = TypeVar("T")
Found = Snapshot | Unavailable | None
Followed = Person | None
"""A person as the keeper follows them; null: there is no keeper, or nothing to follow."""
_log = logging.getLogger(__name__)


class Reader(Protocol):
    """Where features come from (features.Reader is one).

    local: reading takes well under a millisecond and waits for nobody, so it needs no thread and no time-out.
    """

    local: bool

    def read(self, user_ids: Sequence[str], now_us: int) -> list[Snapshot | None]:
        """The rows in the online store; None: nobody has seen this person. Raises what the store raises."""
        ...

    def pending(self, user_ids: Sequence[str], after: str | None = None) -> bool:
        """Whether an event that was accepted may be missing in the online row of any of these people.

        after: a message that the first of them has sent, and that has to be in it: takes longer to tell.
        """
        ...

    @property
    def set_aside(self) -> Mapping[str, str]:
        """The users whose rows cannot be computed, each with the reason."""
        ...

    def linked(self, anonymous_ids: Sequence[str], at_us: int) -> dict[str, str]:
        """The user whom each of these anonymous ids is by `at_us` (µs), without those that are nobody known."""
        ...

    def lag(self) -> int | None:
        """Events accepted and not yet applied; None: not known. Waits for nobody."""
        ...

    def ended(self, row: Snapshot, now_us: int) -> bool:
        """Whether the row is no longer in force at `now_us`: a window of it ended with no new event."""
        ...

    def in_force(self, rows: dict[str, Snapshot], now_us: int, patient: bool = True) -> dict[str, Snapshot | None]:
        """For people whose online row has ended: the rows in force now; None: nobody by themselves any more.

        Raises:
            TakesLong: whoever asks is not patient, and the rows of some of them take long to compute.
        """
        ...


class Engine:
    """Decides for people. Never raises for what a store, a model or the log does."""

    def __init__(
        self,
        reader: Reader,
        champion: Champion,
        playbook: Playbook,
        log: DecisionLog | None,
        keeper: Keeper | None = None,
        consent: Consent | None = None,
        explainer: Explainer | None = None,
        paused: Callable[[], tuple[str, ...]] = tuple,
        past_data: PastData | None = None,
        clock: Callable[[], int] = now_us,
        chance: Callable[[], int] = lambda: random.getrandbits(62),
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        """keeper: follows people; without one rules remember nothing. consent: who has opted out; null: nobody.
        explainer: says why in words; null: nothing does.
        paused: experiments that are. past_data: says when all data are too old; None: nothing does.
        """
        self.reader, self.champion, self.playbook, self.log, self.keeper = reader, champion, playbook, log, keeper
        self.consent, self.explainer = consent, explainer
        self.metrics = Metrics()
        self.store_error: str | None = None
        self._paused, self.past_data = paused, past_data
        self._clock, self._chance, self._timeout_s = clock, chance, read_timeout_s
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="features")
        self._slow_threads = ThreadPoolExecutor(SLOW, thread_name_prefix="features, slow lanes")

    async def user_keys(self, anonymous_ids: Sequence[str]) -> tuple[list[str], bool]:
        """Whom to decide for who is asked for by anonymous id, and whether it could not be told for certain.

        That is the user to whom the anonymous id is linked now, else the anonymous user.
        """
        anonymous = [f"{ANONYMOUS}{a}" for a in anonymous_ids]
        if not anonymous:
            return [], False
        stale = await self._settled(anonymous)
        patience_s = self._timeout_s * (1 + len(anonymous) / CHUNK)
        try:
            linked = await self._in_thread(patience_s, self.reader.linked, anonymous_ids, self._clock())
        except Exception as e:  # whatever the lake does, people still get a journey
            _log.warning("it cannot be told who anonymous users are by now: %s", _words(e))
            return anonymous, True
        return [linked.get(a, key) for a, key in zip(anonymous_ids, anonymous, strict=True)], stale

    async def decide(
        self, user_id: str, explain: bool = False, after: str | None = None, stale: bool = False
    ) -> Decision:
        """The decision for one user key, now.

        after: a message of theirs that it has to know. stale: it lacks an accepted event for certain.
        """
        stale = await self._settled([user_id], after) or stale
        at = self._clock()
        (found,) = await self._renew([user_id], await self._read([user_id], at), at)
        found, person = await self._follow(user_id, found, at)
        return self._answer(user_id, at, found, person, explain, stale)

    async def decide_many(self, user_ids: Sequence[str], explain: bool = False, stale: bool = False) -> list[Decision]:
        """Decisions of one moment, in the order of the ids; other requests get their turn every 50 people.

        Who is named more than once is read once, as their row may be written between two readings.
        """
        stale = await self._settled(user_ids) or stale
        at, found, answers = self._clock(), list[Found](), list[Decision]()
        persons = list(dict.fromkeys(user_ids))
        for start in range(0, len(persons), CHUNK):
            found += await self._read(persons[start : start + CHUNK], at)
            await asyncio.sleep(0)
        rows = dict(zip(persons, await self._renew(persons, found, at), strict=True))
        for start in range(0, len(user_ids), CHUNK):
            for user in user_ids[start : start + CHUNK]:
                answers.append(self._answer(user, at, *await self._follow(user, rows[user], at), explain, stale))
                if explain:  # which takes milliseconds
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        return answers

    def gauges(self) -> dict[str, float]:
        """The engine's state as numbers, for /metrics."""
        model = self.champion.model
        numbers = {
            "model_version": float(model.version) if model else 0.0,
            "model_swaps": float(self.champion.swaps),
            "model_error": float(self.champion.error is not None),
            "store_error": float(self.store_error is not None),
        }
        numbers["users_set_aside"] = float(len(self.reader.set_aside))
        if (lag := self.reader.lag()) is not None:
            numbers["log_lag"] = float(lag)
        if self.log:
            numbers |= {
                "log_written": float(self.log.written),
                "log_waiting": float(self.log.waiting),
                "log_dropped": float(self.log.dropped),
                "log_error": float(self.log.error is not None),
            }
        return numbers

    def close(self) -> None:
        """Stop the threads; the log is written to its end."""
        self.champion.close()
        for threads in (self._threads, self._slow_threads):
            threads.shutdown(wait=False, cancel_futures=True)
        if self.keeper:
            self.keeper.close()
        if self.log:
            self.log.close()

    async def _settled(self, user_ids: Sequence[str], after: str | None = None) -> bool:
        """Wait until what was accepted of these people's events can be seen online; whether that took too long."""
        deadline = time.monotonic() + SETTLE_S
        while await self._pending(user_ids, after, deadline):
            if time.monotonic() > deadline:
                return True
            await asyncio.sleep(0.001)
        return False

    async def _pending(self, user_ids: Sequence[str], after: str | None, deadline: float) -> bool:
        if after is None:
            return self.reader.pending(user_ids)
        try:
            return await self._in_thread(deadline - time.monotonic(), self.reader.pending, user_ids, after)
        except Exception as e:  # the history may be another system: what it does not say is not known
            _log.warning("it cannot be told whether %s is applied: %s", after, _words(e))
            await asyncio.sleep(0.05)
            return True

    async def _follow(self, user_id: str, found: Found, at: int) -> tuple[Found, Followed]:
        """What is known of a person beside their features; where it can't be had, the features say so."""
        if self.keeper is None or not isinstance(found, Snapshot) or self._out(user_id):
            return found, None
        if (person := self.keeper.known(user_id, found, at)) is not None:
            return found, person
        try:
            return found, await self._in_thread(self._timeout_s, self.keeper.follow, user_id, found, at)
        except Behind as behind:
            return msgspec.structs.replace(found, note=f"{UNFOLLOWED} in full ({behind})"), behind.person
        except Exception as e:
            _log.warning("the history cannot be read: %s", _words(e))
            return msgspec.structs.replace(found, note=f"{UNFOLLOWED} ({_words(e)})"), None

    def _out(self, user_id: str) -> bool:
        return self.consent is not None and self.consent.opted_out(user_id)

    def _situation(self, user_id: str, person: Followed, at: int) -> Situation:
        if self._out(user_id):
            return Situation(opted_out=True)
        if person is None:
            return Situation(paused=self._paused())
        known = self.playbook.policy.named, self.playbook.experiments.experiments
        return Situation(person.document.state, person.feedback(at).only(*known), self._paused())

    def _answer(self, user_id: str, at: int, found: Found, person: Followed, explain: bool, stale: bool) -> Decision:
        if user_id in self.reader.set_aside:
            stale = True
            if isinstance(found, Snapshot) and found.values:
                found = msgspec.structs.replace(found, note=SET_ASIDE)
            else:
                found = Unavailable(SET_ASIDE)
        elif stale and isinstance(found, Snapshot):
            found = msgspec.structs.replace(found, note=STALE)
        stale = stale or self._lacks_something(found, at)
        old = self.past_data.reason(at) if self.past_data and isinstance(found, Snapshot) else None
        if isinstance(found, Snapshot) and old is not None:
            found = msgspec.structs.replace(found, note=f"{found.note}; {old}" if found.note else old)
        model = self.champion.model
        asked, situation = Asked(user_id, at, decision_id(at, self._chance())), self._situation(user_id, person, at)
        receipt, placed = decide(asked, found, situation, model, self.playbook)
        if person is not None and self.keeper is not None:
            why = placed.reasons[0] if placed.reasons else ""
            self.keeper.note(user_id, person, placed, why, f"{receipt.model_name} {receipt.model_version}", at)
        if self.log:
            self.log.put(receipt)
        self.metrics.decided(receipt.segment)
        decision = answer(receipt, stale)
        return self._explained(decision, receipt, placed, model) if explain else decision

    def _lacks_something(self, found: Found, at: int) -> bool:
        """Whether the features are not those of this moment, or could not be read."""
        if isinstance(found, Snapshot):
            return self.reader.ended(found, at) or found.event_us > at
        return found is not None

    def _explained(self, decision: Decision, receipt: Receipt, placed: Placed, model: Model | None) -> Decision:
        effects = of_decision(model, receipt)
        if effects is not None and receipt.features is not None:
            decision = msgspec.structs.replace(decision, contributions=strongest(effects, receipt.features))
        if self.explainer is None:
            return decision
        told = self.explainer.explain(receipt, placed, model, self.playbook, effects)
        return msgspec.structs.replace(decision, explanation=told)

    async def _read(self, user_ids: Sequence[str], at: int) -> Sequence[Found]:
        """(ids) -> what the online store has, in the same order."""
        try:
            if self.reader.local:
                rows = self.reader.read(user_ids, at)
            else:
                rows = await self._in_thread(self._timeout_s, self.reader.read, user_ids, at)
        except Exception as e:  # the store is another system: whatever it does, people still get a journey
            down = Unavailable(f"the online store did not answer ({_words(e)})")
            if self.store_error is None:
                _log.warning("%s; every decision is the default journey", down.reason)
            self.store_error = down.reason
            return [down] * len(user_ids)
        self.store_error = None
        return rows

    async def _renew(self, user_ids: Sequence[str], found: Sequence[Found], at: int) -> Sequence[Found]:
        """Rows that have ended by `at`, or begin after it -> the rows in force at `at`; the others as they are.

        A row can begin after it because others write while it is read.
        """
        rows = {u: r for u, r in zip(user_ids, found, strict=True) if isinstance(r, Snapshot)}
        aside = self.reader.set_aside  # who would fail those who are renewed together with them
        ended = {u: r for u, r in rows.items() if (self.reader.ended(r, at) or r.event_us > at) and u not in aside}
        if not ended:
            return found
        renewed = dict(await self._in_force(ended, at))
        why = "there are no offline rows"
        renewed |= {u: _ended(r, why) for u, r in ended.items() if u not in renewed and r.values}
        return [renewed.get(u, None if u in ended else r) for u, r in zip(user_ids, found, strict=True)]

    async def _in_force(self, ended: dict[str, Snapshot], at: int, patient: bool = False) -> Mapping[str, Found]:
        """The rows in force at `at`; where they cannot be had, what went wrong, and the ended rows that have values.

        People whose rows take long have threads to themselves: nobody else's decision waits for one.
        """
        threads = self._slow_threads if patient else self._threads
        patience_s = self._timeout_s * (1 + len(ended) / CHUNK)
        try:
            return await self._in_thread(patience_s, self.reader.in_force, ended, at, patient, threads=threads)
        except TakesLong as e:
            long = {u: r for u, r in ended.items() if u in e.persons}
            others = {u: r for u, r in ended.items() if u not in long}
            found = await self._in_force(others, at, patient) if others else {}
            if patient:
                return {**found, **{u: _ended(r, _words(e)) for u, r in long.items()}}
            return {**found, **await self._in_force(long, at, patient=True)}
        except Exception as e:
            _log.warning("the rows in force cannot be read: %s", _words(e))
            return {u: _ended(r, _words(e)) for u, r in ended.items()}

    async def _in_thread(
        self, patience_s: float, read: Callable[..., T], *arguments: Any, threads: ThreadPoolExecutor | None = None
    ) -> T:
        reading = asyncio.get_running_loop().run_in_executor(threads or self._threads, read, *arguments)
        return await asyncio.wait_for(reading, patience_s)


def _ended(row: Snapshot, why: str) -> Found:
    """What is told of a user whose row has ended, where the row in force cannot be had; why: in words.

    A row without values is of a user who was nobody when it was written, and may be somebody by now.
    """
    unknown = f"the row in force is not known ({why})"
    if not row.values:
        return Unavailable(f"a window has ended since their row was written, and {unknown}")
    return msgspec.structs.replace(
        row, note=f"features as of {rfc3339(row.event_us)}: a window has ended since, and {unknown}"
    )


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError | TakesLong):
        return "it took too long"
    return f"{type(error).__name__}: {error}"[:300]


def answer(receipt: Receipt, stale: bool = False) -> Decision:
    """What the caller gets of a receipt."""
    model = None
    if receipt.model_name is not None and receipt.model_version is not None:
        model = ModelRef(receipt.model_name, receipt.model_version)
    user_id, anonymous_id = ids_of(receipt.user_id)
    return Decision(
        decision_id=receipt.decision_id,
        user_id=user_id,
        anonymous_id=anonymous_id,
        at=rfc3339(receipt.at_us),
        known=receipt.known,
        segment=receipt.segment,
        segments=list(receipt.segments),
        persona=receipt.persona,
        score=receipt.score,
        model=model,
        elements=list(receipt.elements),
        dropped=[DroppedElement(d.element, d.boundary, d.detail) for d in receipt.dropped],
        experiments=[Variant(v.experiment, v.variant) for v in receipt.variants],
        holdout=receipt.holdout,
        reasons=list(receipt.reasons),
        stale=stale,
    )
