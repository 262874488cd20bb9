"""The values that one variable may take, and whether several demands on it can be met at once."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Demand = tuple[str, Any]
"""(operator, value): a comparison, `in` with several values, `null` or `not null`."""


@dataclass(frozen=True)
class Span:
    """What a variable can be: a number from low to high (both included), whole or not; or text; and whether null."""

    number: bool
    whole: bool
    low: float
    high: float
    nullable: bool

    def meets(self, demands: Iterable[Demand]) -> bool:
        """Whether one value meets all of the demands. A comparison is not met by null.

        Text knows `==`, `!=` and `in` only; there `!=` is met by whatever is not named, null for one.
        """
        asked = list(demands)
        compared = [d for d in asked if d[0] not in ("null", "not null")]
        if any(op == "null" for op, _ in asked):
            return self.nullable and len(asked) == sum(op == "null" for op, _ in asked)
        named = _named(compared)
        barred = {v for op, v in compared if op == "!="}
        ordered = [d for d in compared if d[0] in (">", ">=", "<", "<=")]
        if named is not None:
            return any(v not in barred and self._within(v, ordered) for v in named)
        return not self.number or self._room(ordered, barred)

    def _within(self, value: Any, ordered: list[Demand]) -> bool:
        if not self.number:
            return True
        if self.whole and value != math.floor(value):
            return False
        return self.low <= value <= self.high and all(_holds(value, op, limit) for op, limit in ordered)

    def _room(self, ordered: list[Demand], barred: set[Any]) -> bool:
        low, high, open_low, open_high = self._bounds(ordered)
        if low > high or (low == high and (open_low or open_high)):
            return False
        if self.whole and high - low < len(barred):
            return any(v not in barred for v in range(int(low), int(high) + 1))
        return low < high or low not in barred

    def _bounds(self, ordered: list[Demand]) -> tuple[float, float, bool, bool]:
        """The bounds that are left, and whether each of them is itself left out; whole numbers have closed bounds."""
        low, high, open_low, open_high = self.low, self.high, False, False
        for op, limit in ordered:
            if self.whole:
                op, limit = _closed(op, limit)
            if op in (">", ">=") and (limit, op == ">") > (low, open_low):
                low, open_low = limit, op == ">"
            if op in ("<", "<=") and (limit, op == "<=") < (high, not open_high):
                high, open_high = limit, op == "<"
        return low, high, open_low, open_high


def _named(compared: list[Demand]) -> set[Any] | None:
    """The values that are named by every `==` and `in`; None: there is no such demand."""
    sets = [{v} if op == "==" else set(v) for op, v in compared if op in ("==", "in")]
    return set.intersection(*sets) if sets else None


def _holds(value: Any, op: str, limit: Any) -> bool:
    if op in (">", ">="):
        return bool(value > limit or (op == ">=" and value == limit))
    return bool(value < limit or (op == "<=" and value == limit))


def _closed(op: str, limit: float) -> Demand:
    """The same bound on whole numbers, itself allowed: > 2.5 is >= 3."""
    match op:
        case ">":
            return ">=", math.floor(limit) + 1
        case ">=":
            return ">=", math.ceil(limit)
        case "<":
            return "<=", math.ceil(limit) - 1
        case _:
            return "<=", math.floor(limit)
