"""Conditions compiled to closures, once: whether one holds, when it may change with time alone, and why, in words."""

import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any as Anything

from serving.rules.conditions import (
    All,
    Any,
    Atom,
    Compare,
    Condition,
    Elapsed,
    Engagement,
    In,
    Never,
    Not,
    Null,
    OneOf,
    Persona,
    Score,
    TimeIn,
    duration,
    words,
)
from serving.rules.facts import Scene

Test = Callable[[Scene], bool]
Due = Callable[[Scene], int | None]
"""When a condition may change with time alone, given that nothing else does: µs, after the scene's moment; null: never.

A change of another segment is not foreseen here: that segment foresees it itself.
"""
OPERATORS: Mapping[str, Callable[[Anything, Anything], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
FROM_THRESHOLD = (">=", "<")
"""Operators on a passing time that change at the threshold itself; the others change 1 µs after it."""


@lru_cache(maxsize=16_384)
def test(condition: Condition) -> Test:
    """Whether a condition holds in a scene. Equal conditions share a closure."""
    match condition:
        case All(parts=parts):
            return _all([test(p) for p in parts])
        case Any(parts=parts):
            return _any([test(p) for p in parts])
        case Not(part=part):
            inner = test(part)
            return lambda s: not inner(s)
        case _:
            return _atom(condition)


def _all(tests: list[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda s: first(s) and second(s)

    def every(s: Scene) -> bool:
        for one in tests:  # noqa: SIM110 (a generator costs more than the tests)
            if not one(s):
                return False
        return True

    return every


def _any(tests: list[Test]) -> Test:
    def some(s: Scene) -> bool:
        for one in tests:  # noqa: SIM110
            if one(s):
                return True
        return False

    return some


def _atom(atom: Atom) -> Test:
    match atom:
        case Compare(feature=name, op=op, value=value):
            compare = OPERATORS[op]
            return lambda s: (v := s.values[name]) is not None and compare(v, value)
        case OneOf(feature=name, values=values):
            known = frozenset(values)
            return lambda s: s.values[name] in known
        case Null(feature=name, null=null):
            return lambda s: (s.values[name] is None) is null
        case Elapsed(of=name, op=op, us=us):
            compare = OPERATORS[op]
            return lambda s: (v := s.values[name]) is not None and compare(s.at_us - v, us)  # type: ignore[operator]
        case TimeIn(segment=name, op=op, us=us):
            compare = OPERATORS[op]
            return lambda s: (v := s.held.get(name)) is not None and compare(s.at_us - v, us)
        case Score(op=op, value=value):
            compare = OPERATORS[op]
            return lambda s: s.score is not None and compare(s.score, value)
        case Engagement(segment=name):
            return lambda s: s.engagement == name
        case Persona(persona=name):
            return lambda s: s.persona == name
        case In(segment=name):
            return lambda s: name in s.held
        case Never():
            return lambda s: False


def due(condition: Condition) -> Due | None:
    """When a condition may change with time alone; None where it never does."""
    match condition:
        case Elapsed(of=name, op=op, us=us):
            return _crossing(lambda s: s.values[name], us + (op not in FROM_THRESHOLD))
        case TimeIn(segment=name, op=op, us=us):
            return _crossing(lambda s: s.held.get(name), us + (op not in FROM_THRESHOLD))
        case Not(part=part):
            return due(part)
        case All(parts=parts):
            return _of_parts(parts, decided_by=False)
        case Any(parts=parts):
            return _of_parts(parts, decided_by=True)
        case _:
            return None


def _crossing(since: Callable[[Scene], Anything], after: int) -> Due:
    def at(s: Scene) -> int | None:
        start = since(s)
        return None if start is None or start + after <= s.at_us else start + after

    return at


def _of_parts(parts: tuple[Condition, ...], decided_by: bool) -> Due | None:
    """For `all` (decided by a part that is false) and `any` (by one that is true).

    Where parts decide, all of those have to change before the whole can: the latest; never, where one of them never
    does. Else any change may: the earliest.
    """
    both = [(test(p), due(p)) for p in parts]
    fixed = [holds for holds, when in both if when is None]
    moving = [(holds, when) for holds, when in both if when is not None]
    if not moving:
        return None

    def at(s: Scene) -> int | None:
        for holds in fixed:
            if holds(s) is decided_by:
                return None
        deciding = [when for holds, when in moving if holds(s) is decided_by]
        moments = [when(s) for when in deciding or [w for _, w in moving]]
        known = [m for m in moments if m is not None]
        if deciding:
            return max(known) if len(known) == len(moments) else None
        return min(known, default=None)

    return at


def reason(condition: Condition, scene: Scene) -> str:
    """Why a condition holds, or does not, in words: the questions that decide it, with the values they met."""
    holds = test(condition)(scene)
    match condition:
        case Not(part=part):
            return reason(part, scene)
        case All(parts=parts) | Any(parts=parts):
            told = [p for p in parts if test(p)(scene) is holds] or list(parts)
            whole = isinstance(condition, All) is holds
            return " and ".join(reason(p, scene) for p in (told if whole else told[:1]))
        case _:
            said = words(condition) if holds else f"not {words(condition)}"
            met = _met(condition, scene)
            return f"{said} (is {met})" if met else said


def _met(atom: Atom, scene: Scene) -> str:
    match atom:
        case Compare(feature=name) | OneOf(feature=name) | Null(feature=name):
            return _said(scene.values[name])
        case Elapsed(of=name):
            since = scene.values[name]
            return "null" if since is None else duration(scene.at_us - int(since))
        case TimeIn(segment=name):
            return duration(scene.at_us - scene.held[name]) if name in scene.held else "out"
        case Score():
            return "null" if scene.score is None else f"{scene.score:.4f}"
        case Engagement():
            return _said(scene.engagement)
        case Persona():
            return _said(scene.persona)
        case _:
            return ""


def _said(value: Anything) -> str:
    if value is None:
        return "null"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
