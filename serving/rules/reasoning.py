"""What can be told of a condition without any data: whether it can hold at all, and whether one implies another.

A condition is written as alternatives (disjunctive normal form), each a set of demands on single variables, and each
variable's demands are put together as an interval, a set of texts, or null. Not seen: links between features (a window
never exceeds the total), between moments, and of conditions with more than 256 alternatives; what is not seen counts
as possible and as not implied.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any as Anything
from typing import NamedTuple

from serving.rules.catalogue import Catalogue
from serving.rules.conditions import (
    All,
    Any,
    Atom,
    Compare,
    Condition,
    Elapsed,
    Engagement,
    In,
    Not,
    Null,
    OneOf,
    Persona,
    Score,
    TimeIn,
)
from serving.rules.intervals import Span

MOST_ALTERNATIVES = 256
INVERSE: Mapping[str, str] = {
    ">": "<=",
    "<=": ">",
    "<": ">=",
    ">=": "<",
    "==": "!=",
    "!=": "==",
    "null": "not null",
    "not null": "null",
}


class Demand(NamedTuple):
    """A demand on one variable: (kind, name). op: a comparison, `in`, `null` or `not null`; text variables too."""

    kind: str
    name: str
    op: str
    value: Anything = None


Alternative = frozenset[Demand]


class TooManyError(Exception):
    """More alternatives than are looked at."""


@dataclass(frozen=True)
class Reasoning:
    """Reasons over a domain's features. exclusive: pairs of rule segments that never hold together."""

    catalogue: Catalogue
    exclusive: frozenset[frozenset[str]] = field(default_factory=frozenset)

    def possible(self, condition: Condition) -> bool:
        """Whether some values meet a condition; True where that is not seen."""
        try:
            return bool(self._alternatives(condition, True))
        except TooManyError:
            return True

    def implies(self, first: Condition, then: Condition) -> bool:
        """Whether whatever meets the first meets the other too; False where that is not seen."""
        return not self.possible(All((first, Not(then))))

    def _alternatives(self, condition: Condition, positive: bool) -> list[Alternative]:
        match condition:
            case Not(part=part):
                return self._alternatives(part, not positive)
            case All(parts=parts) | Any(parts=parts):
                each = [self._alternatives(p, positive) for p in parts]
                return self._both(each) if isinstance(condition, All) is positive else _either(each)
            case _:
                demanded = [frozenset(d) for d in self._demands(condition, positive)]
                return [d for d in demanded if self._meetable(d)]

    def _both(self, each: list[list[Alternative]]) -> list[Alternative]:
        found: list[Alternative] = [frozenset()]
        for alternatives in each:
            if len(found) * len(alternatives) > MOST_ALTERNATIVES * 16:
                raise TooManyError
            joined = {a | b for a, b in product(found, alternatives)}
            found = [a for a in joined if self._meetable(a)]
            if len(found) > MOST_ALTERNATIVES:
                raise TooManyError
        return found

    def _demands(self, atom: Atom, positive: bool) -> list[list[Demand]]:
        """An atom, or its opposite, as alternatives of demands. The opposite of a comparison is also met by null."""
        match atom:
            case Compare(feature=name, op=op, value=value):
                return _signed("value", name, op, value, positive)
            case OneOf(feature=name, values=values) if positive:
                return [[Demand("value", name, "in", values)]]
            case OneOf(feature=name, values=values):
                return [[Demand("value", name, "!=", v) for v in values], [Demand("value", name, "null")]]
            case Null(feature=name, null=null):
                return [[Demand("value", name, "null" if null is positive else "not null")]]
            case Elapsed(of=name, op=op, us=us) if positive:
                return [[Demand("elapsed", name, op, us), Demand("value", name, "not null")]]
            case Elapsed(of=name, op=op, us=us):
                return [[Demand("elapsed", name, INVERSE[op], us)], [Demand("value", name, "null")]]
            case Score(op=op, value=value):
                return _signed("score", "", op, value, positive)
            case TimeIn(segment=name, op=op, us=us) if positive:
                return [[Demand("time", name, op, us), Demand("in", name, "==", "yes")]]
            case TimeIn(segment=name, op=op, us=us):
                return [[Demand("time", name, INVERSE[op], us)], [Demand("in", name, "!=", "yes")]]
            case In(segment=name):
                return [[Demand("in", name, "==" if positive else "!=", "yes")]]
            case Engagement(segment=value) | Persona(persona=value):
                kind = "engagement" if isinstance(atom, Engagement) else "persona"
                return [[Demand(kind, "", "==" if positive else "!=", value)]]
            case _:
                return [] if positive else [[]]

    def _meetable(self, alternative: Alternative) -> bool:
        inside = {d.name for d in alternative if d.kind == "in" and d.op == "=="}
        if any(pair <= inside for pair in self.exclusive):
            return False
        variables: dict[tuple[str, str], list[Demand]] = {}
        for demand in alternative:
            variables.setdefault(demand[:2], []).append(demand)
        return all(self._span(*variable).meets((d.op, d.value) for d in ds) for variable, ds in variables.items())

    def _span(self, kind: str, name: str) -> Span:
        if kind == "value":
            number = self.catalogue.types[name] != "string"
            low = self.catalogue.floor(name) if number else None
            whole = self.catalogue.types[name] == "int64"
            return Span(number, whole, -math.inf if low is None else low, math.inf, not self.catalogue.never_null(name))
        if kind == "score":
            return Span(True, False, 0, 1, True)
        return Span(True, True, 0, math.inf, False) if kind in ("elapsed", "time") else Span(False, False, 0, 0, True)


def _signed(kind: str, name: str, op: str, value: Anything, positive: bool) -> list[list[Demand]]:
    if positive:
        return [[Demand(kind, name, op, value)]]
    return [[Demand(kind, name, INVERSE[op], value)], [Demand(kind, name, "null")]]


def _either(each: Iterable[list[Alternative]]) -> list[Alternative]:
    found = [a for alternatives in each for a in alternatives]
    if len(found) > MOST_ALTERNATIVES:
        raise TooManyError
    return found
