"""What a step of the rules reads and what it keeps: facts of one moment, state, moves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from serving.values import Value

Phase = Literal["in", "excluded", "waiting"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a person at a moment.

    values: stored features by name, the source timestamps (µs) of the elapsed ones among them; other names do no harm.
    at_us: the moment, µs since 1970 UTC. score: null where nobody was scored. engagement: the engagement segment,
    null for none. persona: null for none.
    """

    values: Mapping[str, Value]
    at_us: int
    score: float | None = None
    engagement: str | None = None
    persona: str | None = None


class Membership(msgspec.Struct, frozen=True):
    """What is remembered of one segment.

    phase: `in`: it holds; `excluded`: it would hold, and another one comes first; `waiting`: it has expired, and
        `enter` has held ever since. since_us: from when on, µs.
    """

    phase: Phase
    since_us: int


class State(msgspec.Struct, frozen=True):
    """A person's rule segments; those that are plainly out are not in it."""

    segments: dict[str, Membership] = {}

    @property
    def held(self) -> dict[str, int]:
        """Since when (µs) each segment holds that does."""
        return {name: m.since_us for name, m in self.segments.items() if m.phase == "in"}


class Move(msgspec.Struct, frozen=True):
    """Somebody entered or left a segment at a moment (µs). cause: in words, with the values that decided."""

    segment: str
    entered: bool
    at_us: int
    cause: str


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a step.

    held: the segments that hold, the first in priority first. due_us: the next moment (µs) at which that may change
    with no new event and no new facts; null: never.
    """

    state: State
    held: tuple[str, ...]
    moves: tuple[Move, ...] = ()
    due_us: int | None = None


@dataclass(slots=True)
class Scene:
    """What compiled conditions read: the facts of a moment, and since when (µs) the segments hold that do."""

    values: Mapping[str, Value]
    at_us: int
    score: float | None = None
    engagement: str | None = None
    persona: str | None = None
    held: dict[str, int] = field(default_factory=dict)


class MissingFeature(LookupError):
    """The facts lack a feature that the rules read."""
