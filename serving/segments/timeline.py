"""The rules over a person's rows in time, each under the rules that were in force then. Pure.

rows (at, values, until) x eras (since, rules) -> [advance over each piece of time] -> state, moves
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise, repeat
from typing import Any, NamedTuple

from serving.decide import Value
from serving.rules import Facts, Move, Rules, State, advance
from serving.rules.fold import FOREVER

Row = tuple[int, Mapping[str, Value], int | None]
"""A change point (µs), the stored values from then on, and the next change point (null: none is known)."""
Era = tuple[int, Rules]
"""From when on (µs) these rules are in force."""
Scored = Callable[[Mapping[str, Value], int], Mapping[str, Any]]
"""Stored values at a moment (µs) -> `score`, `engagement` and `persona` of Facts."""


class Followed(NamedTuple):
    """What came of it.

    moves: with the version of the rules that each is due to. stepped_us: nothing happened after this moment (µs).
    until_us: where the last row ends; null: it does not. due_us: when time alone, or that other rules come into force,
    changes something; null: never.
    """

    state: State
    moves: list[tuple[Move, str]]
    stepped_us: int
    until_us: int | None
    due_us: int | None


def follow(
    eras: Sequence[Era],
    rows: Iterable[Row],
    state: State,
    through_us: int,
    at_us: int,
    scored: Scored | None = None,
    quiet: Iterable[bool] = (),
) -> Followed:
    """Go on from `through_us`, to which `state` was followed, to `at_us`.

    rows: in order of time; the first may have begun before `through_us`. scored: null: nobody is scored. quiet: of each
    row whether the one set of rules, in force from ever on, need not look at it; the last row never is.
    """
    moves, stepped, until, due = list[tuple[Move, str]](), through_us, None, None
    for (begins_us, values, ends_us), still in zip(rows, chain(quiet, repeat(False)), strict=False):
        until = ends_us
        if still and (due is None or due >= min(at_us + 1, ends_us or FOREVER)):
            stepped = max(stepped, begins_us)
            continue
        for start, last, rules in _pieces(eras, max(begins_us, through_us), min(at_us, (ends_us or FOREVER) - 1)):
            facts = Facts(values, start, **(scored(values, start) if scored and rules.uses_score else {}))
            done = advance(rules, state, facts, last)
            moves += [(move, rules.version) for move in done.moves]
            stepped = max([start, *(m.at_us for m in done.moves)]) if done.state != state else max(stepped, begins_us)
            state, due = done.state, done.due_us
    begins = (since for since, _ in eras if since > at_us)
    return Followed(state, moves, stepped, until, min((t for t in (due, *begins) if t is not None), default=None))


def _pieces(eras: Sequence[Era], start: int, last: int) -> Iterator[tuple[int, int, Rules]]:
    """The time from `start` to `last` (both included), cut where other rules come into force."""
    for (since, rules), (end, _) in pairwise([*eras, (FOREVER, None)]):
        if rules is not None and max(start, since) <= min(last, end - 1):
            yield max(start, since), min(last, end - 1), rules
