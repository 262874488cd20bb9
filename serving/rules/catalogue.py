"""What conditions may name in a domain: features, traits, events, and what is known of a feature's values."""

from dataclasses import dataclass
from functools import cached_property

from feature_repo.domain import Domain
from feature_repo.vocabulary import (
    Column,
    Count,
    Distinct,
    FirstTime,
    Last,
    LastTime,
    Linear,
    Ratio,
    Sessions,
    SessionTime,
    Sum,
    Term,
    where,
)
from serving.policy import segment_names
from serving.rules.conditions import Compare, Condition, Elapsed, Null, duration


class Undeclared(LookupError):
    """No feature of the domain says what was asked; the text is the feature to declare."""


@dataclass(frozen=True)
class Catalogue:
    """A domain's catalogue, looked at by name and by term."""

    domain: Domain

    @cached_property
    def types(self) -> dict[str, str]:
        """Stored features with their types."""
        return self.domain.feature_types

    @cached_property
    def terms(self) -> dict[str, Term]:
        """Stored features with their terms."""
        return {f.name: f.term for f in self.domain.features}

    @cached_property
    def units(self) -> dict[str, str]:
        """Stored features with their units; may be empty."""
        return {f.name: f.unit for f in self.domain.features}

    @cached_property
    def elapsed(self) -> dict[str, str]:
        """Elapsed features, each with the feature that holds its timestamp."""
        return {e.name: e.of for e in self.domain.elapsed}

    @cached_property
    def engagement(self) -> tuple[str, ...]:
        """The engagement segments, and the one of the people who are done."""
        return segment_names(self.domain)

    @cached_property
    def traits(self) -> dict[str, Column]:
        """Traits that the domain takes out of its events, with their columns."""
        return {c.path.removeprefix("traits."): c for c in self.domain.columns if c.path.startswith("traits.")}

    def never_null(self, feature: str) -> bool:
        """Whether the vocabulary promises that a feature has a value."""
        return isinstance(self.terms[feature], Count | Sum | Distinct | Sessions | SessionTime | Linear)

    def floor(self, feature: str) -> int | None:
        """The smallest value that a feature can have; None: there is none, or it is text."""
        return 0 if _natural(self.terms[feature]) else None

    def trait(self, name: str) -> str:
        """The feature that holds a trait's last value.

        Raises:
            Undeclared: there is none.
        """
        column = self.traits[name].name
        if (found := self._with(Last(column))) is None:
            raise Undeclared(f'Feature("{column}", Last("{column}"), "...")')
        return found

    def event(self, name: str, at_least: int, within_us: int | None) -> Condition:
        """Whether an event came at least this often, in the last `within_us` (None: ever).

        A count of the event answers it; where once is enough, so does the time of its last (or, ever, first) one.

        Raises:
            Undeclared: no feature holds any of these.
        """
        event = where(name=name)
        if (counted := self._with(Count(event, window=within_us))) is not None:
            return Compare(counted, ">=", at_least)
        if at_least == 1 and (last := self._with(LastTime(event))) is not None:
            if within_us is None:
                return Null(last, False)
            return Elapsed(last, last, "<", within_us)
        if at_least == 1 and within_us is None and (first := self._with(FirstTime(event))) is not None:
            return Null(first, False)
        window = f", window={_in_source(within_us)}" if within_us else ""
        short = name.lower().replace(" ", "_") + (f"_{duration(within_us).replace(' ', '_')}" if within_us else "")
        raise Undeclared(f'Feature("{short}", Count(where(name="{name}"){window}), "...")')

    def _with(self, term: Term) -> str | None:
        return next((name for name, t in self.terms.items() if t == term), None)


def _natural(term: Term) -> bool:
    """Whether a term cannot be below 0."""
    if isinstance(term, Ratio):
        return _natural(term.numerator) and _natural(term.denominator)
    if isinstance(term, Linear):
        return all(_natural(part) and weight >= 0 for part, weight in term.parts)
    return isinstance(term, Count | Distinct | Sessions | SessionTime | FirstTime | LastTime)


def _in_source(us: int) -> str:
    number, unit = duration(us).split()[:2]
    return f"{number} * {unit.rstrip('s').upper()}" if number != "1" else unit.upper()
