"""The over-segmentation guard: how many segments, how small, how alike, how restless; and which limits that exceeds.

Pure: people's moves in, figures out.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from feature_repo.vocabulary import DAY
from serving.rules.facts import Move
from serving.rules.limits import Limits


@dataclass(frozen=True, slots=True)
class Life:
    """What a fold found of one person, looked at from `begin_us` (the first row) to `end_us`."""

    user_id: str
    begin_us: int
    end_us: int
    moves: Sequence[Move]
    held: Sequence[str]


@dataclass
class SegmentFigures:
    """now: people in it at the end. ever: people who were in it at some time, observed for `observed_us` altogether.
    held_us: the time in it. flips: times that one of them entered or left."""

    now: int = 0
    ever: int = 0
    observed_us: int = 0
    held_us: int = 0
    flips: int = 0

    @property
    def flips_per_day(self) -> float:
        """Of those who were ever in it, for each of them and day observed; 0 where no time has passed."""
        return self.flips * DAY / self.observed_us if self.observed_us else 0.0


@dataclass
class Figures:
    """What a set of rules does to people. together_us: for pairs of names, in order, the time in both."""

    segments: Mapping[str, SegmentFigures]
    people: int = 0
    observed_us: int = 0
    flips: int = 0
    together_us: Counter[tuple[str, str]] = field(default_factory=Counter)

    def overlap(self, first: str, second: str) -> float:
        """The time in both segments over the time in at least one of them (Jaccard's index), 0 to 1."""
        both = self.together_us[min(first, second), max(first, second)]
        either = self.segments[first].held_us + self.segments[second].held_us - both
        return both / either if either else 0.0

    @property
    def overlaps(self) -> list[tuple[float, str, str]]:
        """Every pair with time in common, the most alike first."""
        return sorted(((self.overlap(a, b), a, b) for a, b in self.together_us), reverse=True)

    @property
    def flips_per_day(self) -> float:
        """Moves of any segment, for each person and day observed."""
        return self.flips * DAY / self.observed_us if self.observed_us else 0.0


def nobody(segments: Sequence[str]) -> Figures:
    """The figures of rules with these segments, before the first person is added."""
    return Figures({name: SegmentFigures() for name in segments})


def add(figures: Figures, life: Life) -> None:
    """One more person."""
    observed = life.end_us - life.begin_us
    figures.people += 1
    figures.observed_us += observed
    figures.flips += len(life.moves)
    for name in life.held:
        figures.segments[name].now += 1
    for name, flips in Counter(m.segment for m in life.moves).items():
        of = figures.segments[name]
        of.ever, of.flips, of.observed_us = of.ever + 1, of.flips + flips, of.observed_us + observed
    for held, lasted_us in _stretches(life):
        for name in held:
            figures.segments[name].held_us += lasted_us
        for pair in combinations(sorted(held), 2):
            figures.together_us[pair] += lasted_us


def _stretches(life: Life) -> Iterator[tuple[set[str], int]]:
    """What somebody was in, and for how long (µs), one stretch after the other."""
    held, since = set[str](), life.begin_us
    for move in life.moves:
        if move.at_us > since and held:
            yield held, move.at_us - since
        held, since = held ^ {move.segment}, move.at_us
    if held:
        yield held, life.end_us - since


def exceeded(figures: Figures, limits: Limits) -> tuple[str, ...]:
    """The limits that are exceeded, each with the figures and what to do; none: all is well."""
    return (
        *_too_many(figures, limits),
        *_too_small(figures, limits),
        *_too_alike(figures, limits),
        *_restless(figures, limits),
    )


def _too_many(figures: Figures, limits: Limits) -> Iterator[str]:
    if (number := len(figures.segments)) > limits.most_segments:
        yield f"{number} segments, and most_segments is {limits.most_segments}: merge some, or raise the limit"


def _too_small(figures: Figures, limits: Limits) -> Iterator[str]:
    for name, of in figures.segments.items():
        share = of.ever / figures.people if figures.people else 0.0
        if figures.people and share < limits.smallest_share:
            yield (
                f"{name}: {share:.2%} of the people were ever in it ({of.ever:,} of {figures.people:,}), and "
                f"smallest_share is {limits.smallest_share:.2%}: widen its condition, or merge it with another"
            )


def _too_alike(figures: Figures, limits: Limits) -> Iterator[str]:
    for share, first, second in figures.overlaps:
        if share > limits.most_overlap:
            yield (
                f"{first} and {second}: {share:.1%} of their time is in both, and most_overlap is "
                f"{limits.most_overlap:.1%}: keep one of them, or put them in one group"
            )


def _restless(figures: Figures, limits: Limits) -> Iterator[str]:
    for name, of in figures.segments.items():
        if of.flips_per_day > limits.most_flips_per_day:
            yield (
                f"{name}: {of.flips_per_day:.2f} times in or out a person and day, and most_flips_per_day is "
                f"{limits.most_flips_per_day:g}: give it an exit apart from its enter, or stay_at_least"
            )
