"""The live part as the service sees it: events in, and who knows what of them when it decides.

no broker:  append ─► log, stream, history and lake in this process (embedded.py)
a broker:   append ─► broker ─► workers (workers.py) ─► history, online store, lake; here only what they know is read
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import pyarrow as pa

from feature_repo.contract.events import Event
from feature_repo.erasing.erasure import Plan
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.history.history_store import HistoryStore, Row
from feature_repo.settings import Settings


class Held(NamedTuple):
    """A copy of an event was accepted before. row: the one that counts; None: which one counts is not known yet."""

    row: Row | None


class Known(Protocol):
    """What is known of events that were accepted."""

    def of(self, persons: Iterable[str], after: str | None = None) -> bool:
        """Whether the online row of any of these may lack an accepted event.

        after: a message id that the row has to have, of the first of them.
        """
        ...

    def due(self, person: str, at_us: int) -> bool:
        """Whether it is known here that this person's row has changed by a time, and is not written yet."""
        ...

    def known(self, events: Sequence[Event]) -> list[Held | None]:
        """For each event the copy that was accepted before; None: there is none, as far as can be told from here."""
        ...

    def claims(self, anonymous_ids: Sequence[str]) -> Mapping[str, Set[str]]:
        """The users whom accepted events have said each of these anonymous ids to be, as far as can be told here."""
        ...


class Live(Protocol):
    """Takes events in, and gives rows as of now."""

    @property
    def pending(self) -> Known:
        """Who has events that are not in their rows."""
        ...

    @property
    def applied(self) -> int:
        """The log position up to which the online rows have every event of people who are not pending; 0: not known."""
        ...

    @property
    def settings(self) -> Settings:
        """What it was made of."""
        ...

    @property
    def history(self) -> HistoryStore:
        """Everybody's past; another thread takes a `reader` of it."""
        ...

    def on_written(self, told: Callable[[Sequence[str]], object]) -> None:
        """Call this with the persons whose rows have been written, each time; it must not wait."""
        ...

    @property
    def erased(self) -> Tombstones:
        """Of whom nothing more is taken."""
        ...

    def settle(self) -> None:
        """Give the lake what was accepted: all of it, or, where a broker holds it, what the workers have applied.

        Raises:
            TimeoutError: the disk takes too long.
        """
        ...

    def erase(self, erasing: Plan) -> dict[str, int]:
        """Remove a person's events, and have the others' rows written anew; returns how many events each store had."""
        ...

    def append(self, events: Sequence[Event]) -> "Future[list[int] | None]":
        """As `EventLog.append`."""
        ...

    def rows(self, persons: Iterable[str], at_us: int, patient: bool = True) -> tuple[pa.Table, int]:
        """The rows in force at a time, and the position up to which events are in them, see `Lanes.rows`.

        Raises:
            TakesLong: whoever asks is not patient, and somebody is in the slow lane.
        """
        ...

    @property
    def set_aside(self) -> Mapping[str, str]:
        """The users whose rows cannot be computed, each with the reason, as far as is known here by now."""
        ...

    @property
    def sums_at_limit(self) -> int | None:
        """How many values are sums at a limit of int64, in rows written here since the start; None: others write."""
        ...

    def lag(self) -> int | None:
        """Events accepted and not yet applied, as of some seconds ago; None: not known. Waits for nobody."""
        ...

    def close(self) -> None:
        """Finish what is under way."""
        ...


def open_live(settings: Settings) -> Live:
    """The live part that the settings name, started.

    Raises:
        BusyError: another process has this state folder's log.
    """
    if settings.log == "sqlite":
        from feature_repo.stream.embedded import Embedded

        return Embedded(settings).start()
    from feature_repo.stream.brokered import Brokered

    return Brokered(settings)
