"""Conditions as data: what a rule asks, resolved against the feature catalogue, and its words.

A comparison with null does not hold, whatever its operator; `not` turns that round: for somebody whose role is null
neither `role == designer` nor `role != designer` holds, and `not: role == designer` does.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from feature_repo.vocabulary import DAY, HOUR, MINUTE, SECOND

Order = Literal[">", ">=", "<", "<="]
Operator = Literal[">", ">=", "<", "<=", "==", "!="]
Scalar = int | float | str


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """A stored feature against a value."""

    feature: str
    op: Operator
    value: Scalar


class OneOf(msgspec.Struct, frozen=True, tag="one_of"):
    """A stored feature has one of these values."""

    feature: str
    values: tuple[Scalar, ...]


class Null(msgspec.Struct, frozen=True, tag="null"):
    """A stored feature is null (or, not `null`: it is not)."""

    feature: str
    null: bool


class Elapsed(msgspec.Struct, frozen=True, tag="elapsed"):
    """Time since the timestamp in stored feature `of`, in whole µs. `name` is the elapsed feature's, for the words."""

    name: str
    of: str
    op: Order
    us: int


class Score(msgspec.Struct, frozen=True, tag="score"):
    """The model's score, 0 to 1; null where there is none."""

    op: Operator
    value: float


class Engagement(msgspec.Struct, frozen=True, tag="engagement"):
    """The engagement segment that the model (or the outcome) puts somebody in."""

    segment: str


class Persona(msgspec.Struct, frozen=True, tag="persona"):
    """The discovered persona of somebody."""

    persona: str


class In(msgspec.Struct, frozen=True, tag="in"):
    """Another rule segment holds at the same moment."""

    segment: str


class TimeIn(msgspec.Struct, frozen=True, tag="time_in"):
    """Another rule segment holds, and has for this long, in µs: does not hold where that segment does not."""

    segment: str
    op: Order
    us: int


class All(msgspec.Struct, frozen=True, tag="all"):
    """Every part holds."""

    parts: tuple["Condition", ...]


class Any(msgspec.Struct, frozen=True, tag="any"):
    """At least one part holds."""

    parts: tuple["Condition", ...]


class Not(msgspec.Struct, frozen=True, tag="not"):
    """The part does not hold."""

    part: "Condition"


class Never(msgspec.Struct, frozen=True, tag="never"):
    """Does not hold: `exit: never`."""


Atom = Compare | OneOf | Null | Elapsed | Score | Engagement | Persona | In | TimeIn | Never
Condition = Atom | All | Any | Not


def atoms(condition: Condition) -> Iterator[Atom]:
    """The questions that a condition is made of, in the order of the file."""
    match condition:
        case All(parts=parts) | Any(parts=parts):
            for part in parts:
                yield from atoms(part)
        case Not(part=part):
            yield from atoms(part)
        case _:
            yield condition


def features(condition: Condition) -> Iterator[str]:
    """The stored features that a condition reads."""
    for atom in atoms(condition):
        if isinstance(atom, Compare | OneOf | Null):
            yield atom.feature
        elif isinstance(atom, Elapsed):
            yield atom.of


def words(atom: Atom) -> str:
    """A question as it could stand in the file."""
    match atom:
        case Compare(feature=feature, op=op, value=value):
            return f"{feature} {op} {value}"
        case OneOf(feature=feature, values=values):
            return f"{feature} in {', '.join(str(v) for v in values)}"
        case Null(feature=feature, null=null):
            return f"{feature} is {'null' if null else 'not null'}"
        case Elapsed(name=name, op=op, us=us):
            return f"{name} {op} {duration(us)}"
        case Score(op=op, value=value):
            return f"score {op} {value:g}"
        case Engagement(segment=segment) | In(segment=segment):
            return f"segment {segment}"
        case Persona(persona=persona):
            return f"persona {persona}"
        case TimeIn(segment=segment, op=op, us=us):
            return f"time in {segment} {op} {duration(us)}"
        case Never():
            return "never"


UNITS = (("day", DAY), ("hour", HOUR), ("minute", MINUTE), ("second", SECOND))


def duration(us: int) -> str:
    """A duration in words, its two largest units; what is smaller is left out.

    >>> duration(3 * DAY), duration(90 * MINUTE), duration(400_000)
    ('3 days', '1 hour 30 minutes', '0 seconds')
    """
    said: list[str] = []
    for unit, length in UNITS:
        number, us = divmod(us, length)
        if number:
            said.append(f"{number} {unit}{'' if number == 1 else 's'}")
    return " ".join(said[:2]) or "0 seconds"
