"""Parity: every feature vector that was served, against the lake as it was known then.

decision log ─► receipts with features and a position ─► recomputed from the lake ─► equal? ─► wrong, by feature
                     └► the others: why not                      by what fault such values come about ◄─┘

A compaction forgets copies of a message that do not count. Where that may be why a vector differs, it is not counted as
wrong, but as one that can't be compared any more.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from feature_repo import domains
from feature_repo.contract.events import ids_of
from feature_repo.domain import Domain
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import drain
from feature_repo.progress import Bars
from feature_repo.settings import Settings, now_us
from monitoring.diagnosis import MOST, Diagnosis, diagnose, equal, same, suspects
from monitoring.recompute import Question, Recomputed
from serving import decision_log
from serving.engine import STALE

AT_ONCE = 20_000
"""Receipts that are read and recomputed together."""
SHOWN, ALIKE = 20, 3
"""Wrong vectors that are looked into, and how many of them may be wrong in the same features."""
FILE = "parity.json"
COLUMNS = ["decision_id", "at_us", "user_id", "features", "event_us", "applied_position", "reasons", "unavailable"]

UNKNOWN = "for people nobody has seen"
UNREAD = "whose features could not be read"
SAID_STALE = "that said an accepted event was not in yet"
SAID_OLDER = "that said their features were of an older row"
NO_POSITION = "without a log position beside the features"
BEYOND = "beyond what the lake has yet"
FORGOTTEN = "of which a compaction may have forgotten a copy"

Receipt = dict[str, Any]


@dataclass
class Tally:
    """Values of a feature: compared; of them another value than the lake's; null where it has a value; the reverse."""

    compared: int = 0
    mismatched: int = 0
    missing: int = 0
    extra: int = 0

    @property
    def wrong(self) -> int:
        """Values that differ."""
        return self.mismatched + self.missing + self.extra


@dataclass
class Parity:
    """What came of it, for every declared feature.

    vectors: compared; wrong_vectors: those that differ anywhere. because: how many were not comparable, by reason.
    faults: what the wrong vectors that were looked into, `examples`, look like.
    """

    features: dict[str, Tally]
    vectors: int = 0
    wrong_vectors: int = 0
    because: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Values that differ."""
        return sum(t.wrong for t in self.features.values())

    @property
    def wrong_features(self) -> dict[str, Tally]:
        """The features that differ anywhere, the worst first."""
        wrong = [(name, t) for name, t in self.features.items() if t.wrong]
        return dict(sorted(wrong, key=lambda found: (-found[1].wrong, found[0])))

    @property
    def not_comparable(self) -> int:
        """Receipts that could not be compared."""
        return sum(self.because.values())

    def leave_out(self, reasons: Counter[str]) -> None:
        """These were not comparable."""
        self.because = dict((Counter(self.because) + reasons).most_common())

    def equal(self, vectors: Mapping[tuple[str, ...], int]) -> None:
        """Count vectors that are what the lake gives: how many hold which features."""
        for names, count in vectors.items():
            self.vectors += count
            for name in names:
                self.features[name].compared += count

    def differs(self, served: dict[str, Any], known: dict[str, Any] | None) -> None:
        """Count a vector beside what the lake gives; None: the lake knows nobody."""
        self.equal({tuple(served): 1})
        self.wrong_vectors += 1
        for name, came in served.items():
            tally, wanted = self.features[name], known[name] if known else None
            if came is None and wanted is not None:
                tally.missing += 1
            elif came is not None and wanted is None:
                tally.extra += 1
            elif not equal(came, wanted):
                tally.mismatched += 1

    def figures(self) -> dict[str, Any]:
        """All of it as plain JSON values, for parity.json and the report's."""
        return asdict(self) | {"wrong": self.wrong, "not_comparable": self.not_comparable}

    def table(self) -> Table:
        """One row for each feature that differs anywhere, and one for all of them."""
        title = f"{self.vectors:,} served vectors against the lake, {self.not_comparable:,} not comparable"
        reasons = "\n".join(f"{n:,} {why}" for why, n in self.because.items())
        shown = Table("feature", "compared", "mismatched", "missing", "extra", title=title, caption=reasons or None)
        for name, tally in self.wrong_features.items():
            shown.add_row(name, *_cells([tally]), end_section=name == list(self.wrong_features)[-1])
        shown.add_row(f"all {len(self.features)} features", *_cells(list(self.features.values())))
        return shown


def _cells(tallies: Sequence[Tally]) -> list[str]:
    return [f"{sum(getattr(t, k) for t in tallies):,}" for k in ("compared", "mismatched", "missing", "extra")]


def parity(settings: Settings, progress: bool = True, clock: Callable[[], int] = now_us) -> Parity:
    """Recompute every served vector of the decision log from the lake; also written to parity.json, with the time."""
    found = compare(settings, receipts(settings.decisions), progress)
    settings.state.mkdir(parents=True, exist_ok=True)
    figures = {"at_us": clock()} | found.figures()
    (settings.state / FILE).write_text(json.dumps(figures, indent=2) + "\n")
    return found


def receipts(folder: Path, after_us: int | None = None, to_us: int | None = None) -> pa.Table:
    """What a comparison needs of the decisions in (after_us, to_us], µs; None: without that limit."""
    log = decision_log.read(folder, COLUMNS)
    if after_us is not None:
        log = log.filter(pc.greater(log["at_us"], after_us))
    return log if to_us is None else log.filter(pc.less_equal(log["at_us"], to_us))


def compare(settings: Settings, log: pa.Table, progress: bool = False) -> Parity:
    """Recompute the vectors of some receipts. log: COLUMNS of the decision log."""
    drain(settings)
    domain = domains.load(settings.domain)
    found = Parity({name: Tally() for name in _declared(domain)})
    persons = pc.unique(log["user_id"]).to_pylist()
    with (
        Bars(disable=not progress, transient=True) as bar,
        Recomputed(Lake(settings.lake), domain, persons) as recomputed,
    ):
        task = bar.add_task("parity", total=len(log))
        comparison = _Comparison(domain, recomputed, found)
        for start in range(0, len(log), AT_ONCE):
            comparison.take(log.slice(start, AT_ONCE).to_pylist())
            bar.advance(task, AT_ONCE)
    return found


def _declared(domain: Domain) -> list[str]:
    return [*domain.feature_types, *(e.name for e in domain.elapsed)]


def not_comparable(receipt: Receipt, last_position: int) -> str | None:
    """Why a receipt's features can't be compared; None: they can.

    last_position: the lake's.
    """
    if receipt["features"] is None:
        return UNKNOWN if receipt["unavailable"] is None else UNREAD
    if STALE in receipt["reasons"]:
        return SAID_STALE
    if any(r.startswith("features as of ") for r in receipt["reasons"]):
        return SAID_OLDER
    if not receipt["applied_position"]:
        return NO_POSITION
    return BEYOND if receipt["applied_position"] > last_position else None


class _Comparison:
    """Receipts, some at a time, into a Parity."""

    def __init__(self, domain: Domain, recomputed: Recomputed, found: Parity) -> None:
        self._domain, self._recomputed, self._found = domain, recomputed, found
        self._alike: Counter[frozenset[str]] = Counter()
        self._decode = msgspec.json.Decoder(dict[str, Any]).decode

    def take(self, receipts: list[Receipt]) -> None:
        why = [not_comparable(r, self._recomputed.last_position) for r in receipts]
        receipts = [r for r, no in zip(receipts, why, strict=True) if no is None]
        asked = [Question(r["user_id"], r["applied_position"], r["at_us"]) for r in receipts]
        right: Counter[tuple[str, ...]] = Counter()
        wrong: list[tuple[int, dict[str, Any], dict[str, Any] | None]] = []
        for n, row in self._recomputed.rows(asked):
            served = {k: v for k, v in self._decode(receipts[n]["features"]).items() if k in self._found.features}
            known = self._recomputed.with_elapsed(row, asked[n].at_us)
            if known is not None and same(served, known):
                right[tuple(served)] += 1
            else:
                wrong.append((n, served, known))
        wrong.sort(key=lambda found: found[0])
        forgotten = self._recomputed.forgotten([asked[n] for n, _, _ in wrong])
        self._found.equal(right)
        self._found.leave_out(Counter(filter(None, why)) + Counter({FORGOTTEN: len(forgotten)}))
        for n, served, known in (found for at, found in enumerate(wrong) if at not in forgotten):
            self._found.differs(served, known)
            self._look_into(receipts[n], asked[n], served, known)

    def _look_into(
        self, receipt: Receipt, asked: Question, served: dict[str, Any], known: dict[str, Any] | None
    ) -> None:
        """Keep a wrong vector as an example with its diagnosis, unless there are enough, or enough like it."""
        differ = {n: {"served": v, "recomputed": known and known[n]} for n, v in served.items()
                  if known is None or not equal(v, known[n])}  # fmt: skip
        self._alike[frozenset(differ)] += 1
        if len(self._found.examples) >= SHOWN or self._alike[frozenset(differ)] > ALIKE:
            return
        named = self._diagnose(receipt, asked, served, known)
        self._found.faults[named.fault] = self._found.faults.get(named.fault, 0) + 1
        user_id, anonymous_id = ids_of(receipt["user_id"])
        example = {"decision_id": receipt["decision_id"], "user_id": user_id, "anonymous_id": anonymous_id}
        example |= {k: receipt[k] for k in ("at_us", "applied_position")}
        self._found.examples.append(example | {"fault": named.fault, "evidence": named.words, "features": differ})

    def _diagnose(
        self, receipt: Receipt, asked: Question, served: dict[str, Any], known: dict[str, Any] | None
    ) -> Diagnosis:
        events = self._recomputed.events(asked.person, asked.reached, MOST)
        suspected = suspects(asked, receipt["event_us"], events, self._domain.windows)
        rows = dict(self._recomputed.rows([s.question for s in suspected]))
        return diagnose(served, known, [(s, rows[n]) for n, s in enumerate(suspected)])
