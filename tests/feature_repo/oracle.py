"""The definition of every term, in plain Python loops: what the two compilations are held against."""

import json
import math
import re
from fractions import Fraction
from typing import Any

from feature_repo.domain import Domain
from feature_repo.vocabulary import (
    DAY,
    HOUR,
    Column,
    Count,
    Distinct,
    First,
    FirstTime,
    Last,
    LastTime,
    Linear,
    Ratio,
    Sessions,
    SessionTime,
    Sum,
    Term,
    Where,
)

Row = dict[str, Any]


def canonical(events: list[Row]) -> list[Row]:
    """Of several copies of a sender's message, of equal content: the smallest timestamp."""
    best: dict[tuple[str, str], Row] = {}
    for e in events:
        key = (e["user_id"] or "anon:" + e["anonymous_id"], e["message_id"])
        held = best.get(key)
        if held is None or e["ts_us"] < held["ts_us"]:
            best[key] = e
    return list(best.values())


def owner(event: Row, events: list[Row], t: int) -> str:
    """Whose event it is at t."""
    if event["user_id"]:
        return str(event["user_id"])
    anonymous = event["anonymous_id"]
    edges = sorted(
        (e["ts_us"], e["message_id"], e["user_id"])
        for e in events
        if e["type"] in ("identify", "alias") and e["user_id"] and e["anonymous_id"] == anonymous and e["ts_us"] <= t
    )
    for ts, _, user in edges:
        if ts >= event["ts_us"]:
            return str(user)
    return str(edges[-1][2]) if edges else "anon:" + anonymous


def row(events: list[Row], domain: Domain, entity: str, t: int) -> Row | None:
    """The feature values of one entity at t, or None where it has no event by then."""
    mine = [_typed(e, domain) for e in events if e["ts_us"] <= t and owner(e, events, t) == entity]
    if not mine:
        return None
    mine.sort(key=lambda e: (e["ts_us"], e["message_id"]))
    return {f.name: saturated(f.term, value(f.term, mine, t)) for f in domain.features}


def saturated(term: Term, exact: Any) -> Any:
    """A sum as int64: the nearest one."""
    return min(max(exact, -(2**63)), 2**63 - 1) if isinstance(term, Sum | Linear) else exact


def entities(events: list[Row]) -> set[str]:
    """Everybody who owns an event at some time."""
    times = {e["ts_us"] for e in events}
    return {owner(e, events, t) for e in events for t in times if t >= e["ts_us"]}


def value(term: Term, mine: list[Row], t: int) -> Any:
    """A term over one person's events with timestamp <= t, sorted."""
    match term:
        case Linear(parts=parts):
            return sum(value(part, mine, t) * weight for part, weight in parts)
        case Ratio(numerator=a, denominator=b):
            below = saturated(b, value(b, mine, t))
            return saturated(a, value(a, mine, t)) / below if below else None
        case Count(column=c):
            return sum(1 for e in _seen(term, mine, t) if c is None or e[c] is not None)
        case Sum(column=c):
            return sum(e[c] or 0 for e in _seen(term, mine, t))
        case Distinct(column=c):
            return len({e[c] for e in _seen(term, mine, t)} - {None})
        case First(column=c):
            return next((e[c] for e in _seen(term, mine, t) if e[c] is not None), None)
        case Last(column=c):
            return next((e[c] for e in reversed(_seen(term, mine, t)) if e[c] is not None), None)
        case FirstTime():
            return min((e["ts_us"] for e in _seen(term, mine, t)), default=None)
        case LastTime():
            return max((e["ts_us"] for e in _seen(term, mine, t)), default=None)
        case Sessions() | SessionTime():
            return _sessions(term, [e["ts_us"] for e in mine if _matches(e, term.where)], t)
    raise TypeError(f"no definition for {term!r}")


def _sessions(term: Sessions | SessionTime, times: list[int], t: int) -> int:
    total, before = 0, None
    for ts in sorted(set(times)):
        starts = before is None or ts - before > term.gap
        if term.window is None or ts > t - term.window:
            total += starts if isinstance(term, Sessions) else 0 if starts else (ts - before) // 1000
        before = ts
    return total


def _seen(term: Any, mine: list[Row], t: int) -> list[Row]:
    found = [e for e in mine if _matches(e, term.where)]
    if getattr(term, "window", None) is not None:
        found = [e for e in found if t - term.window < e["ts_us"]]
    if getattr(term, "initial", None) is not None:
        start = min((e["ts_us"] for e in mine if _matches(e, term.initial.since)), default=None)
        found = [e for e in found if start is not None and start <= e["ts_us"] < start + term.initial.period]
    return found


def _matches(event: Row, where: Where) -> bool:
    return all(event[c] in values for c, values in where)


def _typed(event: Row, domain: Domain) -> Row:
    hour = event["ts_us"] // HOUR % 24
    typed = event | {
        "day": event["ts_us"] // DAY,
        "part_of_day": ["night", "morning", "afternoon", "evening"][hour // 6],
    }
    for c in domain.columns:
        root, *keys = c.path.split(".")
        found = json.loads(event[root])
        for k in keys:
            found = found.get(k) if isinstance(found, dict) else None
        typed[c.name] = _bounded(_value(found, c), c)
    return typed


def _value(found: Any, column: Column) -> Any:
    """What JSON says, as the column's type; None where it is of another."""
    if column.type == "boolean":
        return {True: 1, False: 0}[found] if isinstance(found, bool) else None
    if isinstance(found, bool) or found is None:
        return None
    if column.type == "string":
        return found if isinstance(found, str) else None
    if column.type == "int64":
        return found if isinstance(found, int) and -(2**63) <= found < 2**63 else None
    if isinstance(found, str) and not re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?", found, re.ASCII):
        return None
    if not isinstance(found, int | float | str):
        return None
    exact = Fraction(repr(found) if isinstance(found, float) else found) * 10**column.scale
    units = math.floor(abs(exact) + Fraction(1, 2)) * (1 if exact > 0 else -1)  # half away from zero
    return units if -(2**63) <= units < 2**63 else None


def _bounded(found: Any, column: Column) -> Any:
    for bound, beyond in ((column.low, -1), (column.high, 1)):
        if bound is not None and found is not None:
            units = int(Fraction(bound) * 10 ** (column.scale or 0))
            if (found - units) * beyond > 0:
                found = units if column.outside == "clip" else None
    return found
