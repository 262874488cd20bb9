"""Conditions compiled to Python, once: whether one holds, when it may change with time alone, and why, in words.

What holds, and which of many rules may move at all, is generated source: one function over all rules costs a fraction
of a call for each. All that enters it is the repr of the numbers, strings and booleans of a rule.
"""

from collections.abc import Callable, Sequence
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
    atoms,
    duration,
    words,
)
from serving.rules.facts import Scene

Test = Callable[[Scene], bool]
Due = Callable[[Scene], int | None]
"""When a condition may change with time alone, given that nothing else does: µs, after the scene's moment; null: never.

A change of another segment is not foreseen here: that segment foresees it itself.
"""
Awake = Callable[[Scene], list[int]]


def _crossed(op: str, us: int) -> int:
    """How long (µs) after a time began the comparison of what has passed since changes: `>` and `<=` 1 µs later."""
    return us + (op in (">", "<="))


@lru_cache(maxsize=16_384)
def test(condition: Condition) -> Test:
    """Whether a condition holds in a scene. Equal conditions share a function.

    Raises, when it is called:
        KeyError: the scene's values lack a feature.
    """
    holds: Test = eval(f"lambda s: {_holds(condition)}")
    return holds


def awake(conditions: Sequence[Condition]) -> Awake:
    """Which of these conditions hold, or may come to hold with time or by another segment alone; by their numbers.

    Those that it leaves out do not hold, and `due` of them is null. It may name some too many, never one too few.
    """
    asked = [f"    if {_holds(c)} or {_stirs(c)}: found.append({n})" for n, c in enumerate(conditions)]
    names: dict[str, Awake] = {}
    exec("\n".join(["def awake(s):", "    found = []", *asked, "    return found"]), names)
    return names["awake"]


def _holds(condition: Condition) -> str:
    """The source of `test`, over a scene `s`."""
    match condition:
        case All(parts=parts):
            return f"({' and '.join(map(_holds, parts)) or True})"
        case Any(parts=parts):
            return f"({' or '.join(map(_holds, parts)) or False})"
        case Not(part=part):
            return f"(not {_holds(part)})"
        case Compare(feature=name, op=op, value=value):
            return f"((v := s.values[{name!r}]) is not None and v {op} {value!r})"
        case OneOf(feature=name, values=values):
            return f"(s.values[{name!r}] in {values!r})"
        case Null(feature=name, null=null):
            return f"((s.values[{name!r}] is None) is {null!r})"
        case Elapsed(of=name, op=op, us=us):
            return f"((v := s.values[{name!r}]) is not None and s.at_us - v {op} {us!r})"
        case TimeIn(segment=name, op=op, us=us):
            return f"((v := s.held.get({name!r})) is not None and s.at_us - v {op} {us!r})"
        case Score(op=op, value=value):
            return f"(s.score is not None and s.score {op} {value!r})"
        case Engagement(segment=name):
            return f"(s.engagement == {name!r})"
        case Persona(persona=name):
            return f"(s.persona == {name!r})"
        case In(segment=name):
            return f"({name!r} in s.held)"
        case Never():
            return "False"


def _stirs(condition: Condition) -> str:
    """The source of `may come to hold with time or by another segment alone`, of a condition that does not hold."""
    if any(isinstance(a, In | TimeIn) for a in atoms(condition)):
        return "True"
    match condition:
        case Elapsed(of=name, op=op, us=us):
            return f"((v := s.values[{name!r}]) is not None and v + {_crossed(op, us)} > s.at_us)"
        case Not(part=part):
            return _stirs(part)
        case All(parts=parts) | Any(parts=parts):
            moving = [_stirs(p) for p in parts if due(p) is not None]
            fixed = [_holds(p if isinstance(condition, All) else Not(p)) for p in parts if due(p) is None]
            return f"({' and '.join([*fixed, '(' + ' or '.join(moving) + ')'])})" if moving else "False"
        case _:
            return "False"


def due(condition: Condition) -> Due | None:
    """When a condition may change with time alone; None where it never does."""
    match condition:
        case Elapsed(of=name, op=op, us=us):
            return _crossing(lambda s: s.values[name], _crossed(op, us))
        case TimeIn(segment=name, op=op, us=us):
            return _crossing(lambda s: s.held.get(name), _crossed(op, us))
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
