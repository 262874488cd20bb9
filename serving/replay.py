"""Decisions made again from their receipts: equal, or what differs, field by field.

decision log ─► receipt ─► playbook by version (Shelf), model by version (registry) ─► decide() ─► compared as a whole

Nothing of today is asked: not the features, not the rules, not the champion. A receipt that lacks what it was made from
(its person's past was erased, its model is gone) is counted with the reason, never guessed.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from feature_repo.settings import Settings
from serving import decision_log
from serving.decide import Asked, Model, Receipt, Situation, Snapshot, Unavailable, decide
from serving.experiments.assign import Assigned
from serving.playbook import Playbook, Shelf
from serving.policy import Dropped
from serving.values import Value

BATCH = 5_000
"""Rows that are in memory at once."""
TOLD = 20
"""Differing decisions of which the differences are kept; the others are only counted."""
OLD = "logged by a version that kept less of what a decision is made from"
ERASED = "erased: what it was made from is no longer held"
NO_PLAYBOOK = "its playbook is not in the state folder"
UNREADABLE = "its playbook cannot be read by this version"
NO_MODEL = "its model version is not in the registry"

Row = Mapping[str, Any]


class NotReplayable(Exception):
    """Why a decision cannot be made again, in words."""


class Playbooks(Protocol):
    """Playbooks by version (playbook.Shelf is one)."""

    def __getitem__(self, version: str) -> Playbook:
        """The playbook; KeyError: it is not here; ValueError: it cannot be read."""
        ...


class Difference(msgspec.Struct, frozen=True):
    """A field of a receipt that came out otherwise."""

    field: str
    logged: Any
    replayed: Any


@dataclass
class Outcome:
    """What came of many: counts, and the first differing decisions by id."""

    equal: int = 0
    different: int = 0
    not_replayable: Counter[str] = field(default_factory=Counter)
    differences: dict[str, tuple[Difference, ...]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Decisions that were looked at."""
        return self.equal + self.different + self.not_replayable.total()


class Replayer:
    """Makes decisions again.

    model: by name and version; NotReplayable: there is none. Each playbook and model is fetched once.
    """

    def __init__(self, playbooks: Playbooks, model: Callable[[str, int], Model]) -> None:
        self._playbooks, self._model = playbooks, model
        self._held: dict[object, Any] = {}

    def differences(self, row: Row) -> tuple[Difference, ...]:
        """What comes out otherwise for one row of the log; empty: nothing.

        Raises:
            NotReplayable: with the reason.
        """
        logged = receipt_of(row)
        playbook = self._once(("playbook", logged.playbook), lambda: self._playbook(logged.playbook))
        model = None
        if logged.model_name is not None and logged.model_version is not None:
            named = logged.model_name, logged.model_version
            model = self._once(named, lambda: self._model(*named))
        asked = Asked(logged.user_id, logged.at_us, logged.decision_id)
        again, _ = decide(asked, found_of(logged), logged.situation, model, playbook)
        if again == logged:
            return ()
        pairs = ((f, getattr(logged, f), getattr(again, f)) for f in Receipt.__struct_fields__)
        return tuple(Difference(f, a, b) for f, a, b in pairs if a != b)

    def all(self, rows: Iterator[Row], seen: Callable[[int], None] = lambda n: None) -> Outcome:
        """All of these rows. seen: is told after each how many more are done: 1."""
        outcome = Outcome()
        for row in rows:
            try:
                differences = self.differences(row)
            except NotReplayable as e:
                outcome.not_replayable[str(e)] += 1
            else:
                outcome.equal += not differences
                outcome.different += bool(differences)
                if differences and len(outcome.differences) < TOLD:
                    outcome.differences[row["decision_id"]] = differences
            seen(1)
        return outcome

    def _playbook(self, version: str) -> Playbook:
        try:
            return self._playbooks[version]
        except KeyError:
            raise NotReplayable(NO_PLAYBOOK) from None
        except ValueError:
            raise NotReplayable(UNREADABLE) from None

    def _once(self, key: object, fetch: Callable[[], Any]) -> Any:
        if key not in self._held:
            try:
                self._held[key] = fetch()
            except NotReplayable as e:
                self._held[key] = e
        if isinstance(held := self._held[key], NotReplayable):
            raise held
        return held


_DOCUMENTS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "features": msgspec.json.Decoder(dict[str, Value]),
    "dropped": msgspec.json.Decoder(tuple[Dropped, ...]),
    "variants": msgspec.json.Decoder(tuple[Assigned, ...]),
    "situation": msgspec.json.Decoder(Situation),
}
_LISTS = ("elements", "reasons", "segments")


def receipt_of(row: Row) -> Receipt:
    """The receipt that a row of the decision log holds.

    Raises:
        NotReplayable: it is not whole.
    """
    if row.get("playbook") is None or "note" not in row:
        raise NotReplayable(OLD)
    if row["situation"] is None:
        raise NotReplayable(ERASED)
    columns = {f: row[f] for f in Receipt.__struct_fields__}
    try:
        for name, document in _DOCUMENTS.items():
            columns[name] = None if row[name] is None else document.decode(row[name])
    except msgspec.ValidationError:
        raise NotReplayable(OLD) from None
    return Receipt(**columns | {name: tuple(row[name]) for name in _LISTS})


def found_of(logged: Receipt) -> Snapshot | Unavailable | None:
    """What had been found of the person."""
    if logged.unavailable is not None:
        return Unavailable(logged.unavailable)
    if logged.features is None or logged.event_us is None:
        return None
    return Snapshot(logged.features, logged.event_us, logged.applied_position, note=logged.note)


def from_registry(settings: Settings) -> Callable[[str, int], Model]:
    """Models by name and version out of the state folder's registry."""
    from training import registry, tracking

    def model(name: str, version: int) -> Model:
        if name != tracking.model_name(settings):
            raise NotReplayable(NO_MODEL)
        try:
            return registry.load(settings, version)
        except registry.NoModelError:
            raise NotReplayable(NO_MODEL) from None
        except Exception as e:  # pickles of another time, artifacts that were deleted: said, and the rest goes on
            raise NotReplayable(f"its model version cannot be loaded ({type(e).__name__})") from e

    return model


def replayer(settings: Settings) -> Replayer:
    """What makes a state folder's decisions again."""
    return Replayer(Shelf(settings), from_registry(settings))


def rows(folder: Path, ids: Collection[str] | None = None) -> Iterator[Row]:
    """The rows of a decision log, also while it is written; of these ids only, or of all."""
    chosen = None if ids is None else [("decision_id", "in", list(ids))]
    for table in decision_log.tables(folder, where=chosen):
        for batch in table.to_batches(max_chunksize=BATCH):
            yield from batch.to_pylist()


def ids(folder: Path) -> list[str]:
    """The ids of all decisions in a log, in the order in which they were made."""
    return sorted(decision_log.read(folder, ["decision_id"])["decision_id"].to_pylist())


def sample(every: list[str], size: int, seed: int = 0) -> list[str]:
    """So many of the ids by chance; all of them where there are no more."""
    return every if size >= len(every) else random.Random(seed).sample(every, size)


def table(outcome: Outcome) -> list[str]:
    """The outcome as lines."""
    lines = [("equal", outcome.equal), ("different", outcome.different)]
    lines.append(("not replayable", outcome.not_replayable.total()))
    lines += [(f"  {reason}", n) for reason, n in sorted(outcome.not_replayable.items())]
    width = max(len(name) for name, _ in lines)
    told = [f"{name:{width}} {n:>9,}" for name, n in lines]
    for decision, differences in outcome.differences.items():
        told += [f"different: {decision}", *words(differences)]
    return told


def words(differences: tuple[Difference, ...]) -> list[str]:
    """What differs, a field a line."""
    return [f"  {d.field}: logged {d.logged!r}, replayed {d.replayed!r}" for d in differences]
