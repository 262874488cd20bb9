"""What a domain is: the one module that a product needs to be known to Firstmile."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from feature_repo.declaration import findings, nearest
from feature_repo.vocabulary import Column, Elapsed, Feature, First, Last, Scalar, Term, feature_type, leaves, windows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from feature_repo.enrichment import Step
    from feature_repo.settings import Settings

BUILT_IN = {"type": "string", "name": "string", "day": "int64", "part_of_day": "string"}
"""Columns that every history has: the event's type and name, its UTC day number since 1970, and the part of
the UTC day (night 0-5, morning 6-11, afternoon 12-17, evening 18-23)."""


def _told_columns(leaf: Term) -> set[str]:
    """The columns whose values a term without parts gives away: the one it shows, and those that it asks for."""
    shown = {leaf.column} if isinstance(leaf, First | Last) else set()
    return shown | {column for column, _ in getattr(leaf, "where", ())}


@dataclass(frozen=True)
class Segment:
    """An engagement segment: people whose score is below the cut-off to the next one. `doc` is for people."""

    name: str
    doc: str


class Carried(Enum):
    """What the column of an event holds where the value is not said.

    NEW: one that this person has not had. AGAIN: the one that they had last. SOME: one that nobody knows beforehand.
    """

    NEW = "new"
    AGAIN = "again"
    SOME = "some"


@dataclass(frozen=True)
class Act:
    """Something that people can do more of, by their own choice: what "what would change the outcome" may advise.

    one, many: in words, after "one more" and "two more". columns: of the event, those that features read; an event that
    has others leaves them as they are. The event's type is `track` where it is not said. needs: an int64 feature that
    is above 0 for who can do it; None: everybody can.
    """

    one: str
    many: str
    columns: Mapping[str, Scalar | Carried]
    needs: str | None = None


@dataclass(frozen=True)
class Label:
    """What is predicted: at t, that the outcome happens after t and by the end of the person's horizon.

    done: name of an int64 feature (count or time) that is above 0 once the outcome has happened, or None where no
        feature may know it; people for whom it has are no longer scored and are in segment `done_segment`.
    good: whether the outcome is wished for (activation) or not (withdrawal).
    """

    name: str
    doc: str
    good: bool
    done: str | None = None
    done_segment: str = "activated"


@dataclass(frozen=True)
class Ingested:
    """What came of an ingest: events accepted, refused by reason, and values flagged by path (see Column)."""

    accepted: int
    refused: Mapping[str, int]
    flagged: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Domain:
    """A product: its events, features with their windows, horizon and label.

    ingest(settings, data, **options) fills the lake from the domain's source.
    outcomes(settings) gives an Arrow table, one row a person: `user_id` string, `anchor_us` int64 (what the
        observation times count from), `outcome_us` int64 or null, `end_us` int64 (end of the horizon), `cohort` string;
        where users can be anonymous also `known_as`, `known_us`, `done_us` (see lake/outcomes.py).
    observations: offsets from the anchor, in µs, at which people are scored for training and for the report.
    events: the declared event names; for each the properties that have a type, one of vocabulary.TYPES. A value of
        another type is flagged, see vocabulary.Column.
    segments: from the lowest score to the highest.
    attainable(settings, rows) gives the true probabilities of rows (user_id, now_us) where the source knows them.
    slices: names of string features over which a model must hold up; sensitive ones may be among them.
    sensitive: names of features that nothing may be decided by: no rule, no model and no persona reads them. They are
        still stored, served, exported and compared over slices.
    enrich: what events are given on their way in, in this order.
    acts: what people can do more of; the outcome itself is none. said: features as nouns in a sentence to the person,
        for those whose `doc` up to its first colon is none.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    events: Mapping[str, Mapping[str, str]]
    features: tuple[Feature, ...]
    elapsed: tuple[Elapsed, ...]
    horizon: int
    label: Label
    observations: tuple[int, ...]
    segments: tuple[Segment, ...]
    slices: tuple[str, ...]
    ingest: Callable[..., Ingested]
    outcomes: "Callable[[Settings], pa.Table]"
    needs_data: str = ""
    attainable: "Callable[[Settings, pd.DataFrame], Any] | None" = None
    enrich: tuple["Step", ...] = ()
    acts: tuple[Act, ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)
    sensitive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the declaration as a whole, when the program starts.

        Raises:
            ValueError: a name is used twice, or something is named that is not declared.
        """
        names = [f.name for f in self.features] + [e.name for e in self.elapsed]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"domain {self.name}: feature name used twice: {', '.join(twice)}")
        for f in self.features:
            for leaf in leaves(f.term):
                named = {c for c in [getattr(leaf, "column", None)] if c} | {c for c, _ in getattr(leaf, "where", ())}
                for missing in sorted(named - set(self.column_types)):
                    hint = nearest(missing, self.column_types)
                    raise ValueError(f"domain {self.name}: feature {f.name} reads undeclared column {missing!r}{hint}")
        types = self.feature_types
        for e in self.elapsed:
            if types.get(e.of) != "int64":
                raise ValueError(f"domain {self.name}: {e.name} is elapsed since {e.of!r}, which is no int64 feature")
        for s in self.slices:
            if types.get(s) != "string":
                strings = [name for name, kind in types.items() if kind == "string"]
                raise ValueError(f"domain {self.name}: slice {s!r} is no string feature{nearest(s, strings)}")
        self._check_sensitive(names)
        for act in self.acts:
            if undeclared := sorted(set(act.columns) - set(self.column_types)):
                raise ValueError(f"domain {self.name}: act {act.one!r} has undeclared columns: {', '.join(undeclared)}")
            if act.needs is not None and types.get(act.needs) != "int64":
                raise ValueError(f"domain {self.name}: act {act.one!r} needs {act.needs}, which is no int64 feature")
        for unknown in sorted(set(self.said) - set(names)):
            raise ValueError(f"domain {self.name}: words for {unknown!r}, which is no feature{nearest(unknown, names)}")
        if wrong := dict.fromkeys(findings(self)):  # each once
            raise ValueError(f"domain {self.name}: " + "; and ".join(wrong))
        for path, kind in (added for step in self.enrich for added in step.adds.items()):
            for c in self.columns:
                nested = f"{c.path}.".startswith(f"{path}.") or f"{path}.".startswith(f"{c.path}.")
                if nested and (c.path, c.type) != (path, kind):
                    raise ValueError(
                        f"domain {self.name}: column {c.name} reads {c.path} as {c.type}, "
                        f"to which enrichment adds {path} as {kind}"
                    )

    def _check_sensitive(self, names: Sequence[str]) -> None:
        """Every sensitive feature exists, nothing is decided by one, and no other feature says the same.

        Raises:
            ValueError: one of these does not hold.
        """
        for unknown in sorted(set(self.sensitive) - set(names)):
            hint = nearest(unknown, names)
            raise ValueError(f"domain {self.name}: sensitive {unknown!r} is no feature{hint}")
        if self.label.done in self.sensitive:
            raise ValueError(
                f"domain {self.name}: label {self.label.name} is done by {self.label.done}, a sensitive feature"
            )
        for act in self.acts:
            if act.needs in self.sensitive:
                raise ValueError(f"domain {self.name}: act {act.one!r} needs {act.needs}, a sensitive feature")
        terms = {f.name: f.term for f in self.features}
        told = {t.column: n for n in self.sensitive if isinstance(t := terms.get(n), First | Last)}
        read = {n: {c for leaf in leaves(t) for c in _told_columns(leaf)} for n, t in terms.items()}
        same = [(n, told[c]) for n, columns in read.items() for c in sorted(columns & set(told))]
        same += [(e.name, e.of) for e in self.elapsed if e.of in self.sensitive]
        for name, other in same:
            if name not in self.sensitive:
                raise ValueError(
                    f"domain {self.name}: feature {name} tells what the sensitive {other} does: "
                    "name it under sensitive too"
                )

    def sensitive_among(self, names: Iterable[str]) -> list[str]:
        """Those of the features that are sensitive, sorted, each once."""
        return sorted(set(self.sensitive).intersection(names))

    @property
    def column_types(self) -> dict[str, str]:
        """Type of every column a term may read, `string` or `int64`, as features see its values."""
        return BUILT_IN | {c.name: c.value_type for c in self.columns}

    @property
    def feature_types(self) -> dict[str, str]:
        """Type of every stored feature, in declared order: `int64`, `float64` or `string`."""
        return {f.name: feature_type(f.term, self.column_types) for f in self.features}

    @property
    def windows(self) -> list[int]:
        """Every window in use, µs."""
        return windows(self.features)

    @property
    def version(self) -> int:
        """The newest feature-service version."""
        return max([f.since for f in self.features] + [e.since for e in self.elapsed])

    def service(self, version: int | None = None) -> tuple[list[str], list[str]]:
        """Names of the stored and of the elapsed features of a feature-service version (default: the newest)."""
        v = version or self.version
        return [f.name for f in self.features if f.since <= v], [e.name for e in self.elapsed if e.since <= v]
