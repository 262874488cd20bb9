"""Erasing a person from every store: recorded before anything is removed, so that a kill only delays it.

tombstone ─► [late events are refused] ─► plan, recorded ─► each store ─► the plan is forgotten, hashes remain
                                                   └ a store that fails is tried again every minute, and after a start
"""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from feature_repo.contract.events import ANONYMOUS, ids_of
from feature_repo.erasing import erasure
from feature_repo.erasing.erasure import Plan
from feature_repo.settings import now_us
from feature_repo.stream.live import Live
from feature_repo.vocabulary import DAY, MINUTE, SECOND
from serving import decision_log, leftovers
from serving.decision_log import DecisionLog
from serving.segments.channels.dead_letters import DeadLetters, folder
from serving.segments.journal import FILE, Journal
from serving.segments.keeper import Keeper
from serving.times import rfc3339

RETRY_US = MINUTE
_log = logging.getLogger("bentoml.serve.firstmile")


class Removed(msgspec.Struct, frozen=True):
    """What one store had of a person."""

    store: str
    removed: Annotated[int, Meta(description="Events, rows, decisions or files.")]


class Pending(msgspec.Struct, frozen=True):
    """A store that may still hold something."""

    store: str
    until: Annotated[str, Meta(description="When it is tried again, or is gone by itself: RFC 3339, UTC.")]
    why: str


class Erased(msgspec.Struct, frozen=True, rename="camel"):
    """What became of an erasure."""

    user_id: Annotated[str | None, Meta(description="null: an anonymous user.")]
    anonymous_id: Annotated[str | None, Meta(description="The anonymous user's; null: a known one.")]
    status: Annotated[Literal["erased", "pending"], Meta(description="pending: something of them may still be there.")]
    requested_at: Annotated[str, Meta(description="When it was first asked for: RFC 3339, microseconds, UTC.")]
    aliases: Annotated[int, Meta(description="Anonymous ids that were erased with the person.")]
    unverified: Annotated[
        list[str],
        Meta(
            description="Anonymous ids that stay: only a key that browsers hold, which is public, and no signature "
            "said that they are this person's. Erase each by its anonymous id where you know that it is theirs."
        ),
    ]
    stores: list[Removed]
    pending: list[Pending]


class Erasing:
    """Erases people from the stores of one state folder, one at a time. From any thread; every call waits.

    quarantine: removes the refused events that have one of some ids in them. decisions: the log that this process
    writes; None: nobody writes it.
    """

    def __init__(
        self,
        live: Live,
        quarantine: Callable[[frozenset[str]], int],
        decisions: DecisionLog | None = None,
        keeper: Keeper | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._live, self._settings, self._tombstones = live, live.settings, live.erased
        self._quarantine, self._decisions, self._keeper, self._clock = quarantine, decisions, keeper, clock
        self._one = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._resume, name="erasures", daemon=True)

    def start(self) -> "Erasing":
        """Finish what was begun, before this start too; returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Begin nothing more; what is under way ends."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def erase(self, person: str) -> Erased:
        """Erase a person, by user id or "anon:" + anonymous id; whoever is not known is refused from now on too.

        Raises:
            KnownError: that anonymous id was identified (see erasure.plan).
        """
        with self._one:
            if person.startswith(ANONYMOUS):
                erasure.plan(self._settings, person)
            return self._carry_out(self._tombstones.begin(person, self._clock()))

    def _resume(self) -> None:
        while not self._stop.is_set():
            with self._one:
                for recorded in self._tombstones.unfinished():
                    self._carry_out(recorded)
            self._stop.wait(RETRY_US / SECOND)

    def _carry_out(self, recorded: dict[str, Any]) -> Erased:
        """What is recorded, as far as it goes now; a store that fails stops none of the others."""
        person, aliases, stores, pending = recorded["person"], 0, list[Removed](), list[Pending]()
        unverified = list[str]()
        retry = rfc3339(self._clock() + RETRY_US)
        try:
            planned = self._planned(recorded)
        except Exception as e:
            pending = [_failed("all", retry, e)]
        else:
            aliases, unverified = len(planned.aliases), list(planned.unverified)
            for store, act in self._steps(planned):
                try:
                    stores += [Removed(name, n) for name, n in act().items()]
                except Exception as e:
                    pending.append(_failed(store, retry, e))
        if not pending:
            self._tombstones.finish(person, self._clock())
        pending += self._broker()
        requested = self._tombstones.erasure(person)
        assert requested is not None
        status: Literal["erased", "pending"] = "pending" if pending else "erased"
        return Erased(*ids_of(person), status, rfc3339(requested.requested_us), aliases, unverified, stores, pending)

    def _planned(self, recorded: dict[str, Any]) -> Plan:
        """The plan that is recorded, or is now; by then nothing of the person can come any more."""
        if len(recorded) > 1:
            return msgspec.convert(recorded, Plan)
        self._live.settle()
        found = erasure.with_words(self._settings, erasure.plan(self._settings, recorded["person"]))
        self._tombstones.planned(found.person, msgspec.to_builtins(found), found.senders)
        return found

    def _steps(self, planned: Plan) -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
        """Each store, and what removes the person from it: safe to be done again after a kill in the middle."""
        settings = self._settings
        yield "quarantine", lambda: {"quarantine": self._quarantine(planned.ids)}
        yield "events", lambda: self._live.erase(planned)
        yield "features", lambda: self._features(planned)
        yield "online", lambda: {"online": erasure.erase_online(settings, planned)}
        yield "segments", lambda: {"segments": self._of_segments(planned)}
        yield "webhooks", lambda: {"webhooks": DeadLetters(folder(settings)).erase(planned.senders)}
        yield "decisions", lambda: {"decisions": self._of_decisions(planned)}
        yield "files", lambda: {"files": leftovers.erase(settings, planned)}

    def _features(self, planned: Plan) -> dict[str, int]:
        """Samples of training first: what is theirs there can be told only by the offline rows."""
        from training import erasure as training

        rows = training.feature_rows(self._settings, planned.senders)
        models = training.erase(self._settings, rows)
        return {"models": models, "features": erasure.erase_offline(self._settings, planned)}

    def _of_segments(self, planned: Plan) -> int:
        """What is followed of the person; of those whose rows change with it, it begins anew."""
        if self._keeper is not None:
            self._keeper.forget(planned.touched)
            return self._keeper.erase(planned.senders)
        if not (file := self._settings.state / FILE).exists():
            return 0
        journal = Journal(file)
        try:
            journal.forget(planned.touched)
            return journal.erase(planned.senders)
        finally:
            journal.close()

    def _of_decisions(self, planned: Plan) -> int:
        if self._decisions is not None:
            return self._decisions.erase(planned.senders, planned.touched)
        return decision_log.erase(self._settings.decisions, planned.senders, planned.touched)

    def _broker(self) -> list[Pending]:
        """What no key can be deleted from goes when it is old enough."""
        if self._settings.log == "sqlite":
            return []
        days = self._settings.retention_days
        why = f"a broker deletes by age only: {days} days after an event was sent (FIRSTMILE_RETENTION_DAYS)"
        return [Pending("broker", rfc3339(self._clock() + days * DAY), why)]


def _failed(store: str, retry: str, error: Exception) -> Pending:
    """A fault that is told once in the program's log, by its type: its words may name the person."""
    _log.warning("an erasure is not complete: %s failed (%s); it is tried again", store, type(error).__name__)
    return Pending(store, retry, f"{type(error).__name__}: {error}"[:300])
