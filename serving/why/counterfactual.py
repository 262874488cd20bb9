"""What would change the outcome: the fewest further acts of a person after which they are in another segment.

acts of one kind, then of two ─► values with them (further.py) ─► score_one, rules ─► the first that leads on

An act is an event that the domain says people can do more of; what cannot be done (another country, a past without
errors) is never advised. All acts are taken to happen at the moment of the decision, so nothing else changes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import NamedTuple

import msgspec

from feature_repo.domain import Act, Domain
from serving.decide import Model, ModelFault, scored
from serving.rules import Facts, MissingFeature, Rules, State, step
from serving.values import Value
from serving.why.further import Further
from serving.why.words import counted, listed

MOST, MOST_OF_TWO = 8, 3
"""Acts of one kind that are advised, and of each kind where it takes two."""
CALLS = 120
"""Times that the model is asked: together with what the acts do to the features 5 to 15 ms."""

Does = tuple[tuple[str, int], ...]
"""Acts by their words, and how often."""


class Way(NamedTuple):
    """Acts, the values after them, and the features that were left as they are."""

    does: Does
    values: dict[str, Value]
    alone: frozenset[str]


class Counterfactual(msgspec.Struct, frozen=True):
    """Acts that lead to a segment.

    source: `engagement` or `rules`. alone: features that these acts may change in a way that nobody can foretell; they
    were left as they are.
    """

    segment: str
    source: str
    does: Does
    values: Mapping[str, Value]
    alone: tuple[str, ...] = ()


class Searcher:
    """Searches for the people of a domain."""

    def __init__(self, domain: Domain) -> None:
        self._domain, self._further = domain, Further(domain)
        self._many = {a.one: a.many for a in domain.acts}

    def engagement(
        self, model: Model, values: Mapping[str, Value], segment: str, at_us: int, calls: int = CALLS
    ) -> Counterfactual | None:
        """The fewest acts that lead from an engagement segment to a better one; null: none found within `calls`."""
        better = _better(model.segments, segment, self._domain.label.good)
        if not better:
            return None
        for way in islice(self._ways(values, at_us), calls):
            reached = _asked(model, way.values)[1]
            if reached is not None and reached in better:
                return _found(reached, "engagement", way, model.features)
        return None

    def rule(
        self, rules: Rules, state: State, facts: Facts, model: Model | None, calls: int = CALLS
    ) -> Counterfactual | None:
        """The fewest acts after which a rule segment holds that does not hold now; null: none found.

        state: after the step at these facts.
        """
        try:
            held, asks = set(step(rules, state, facts).held), model if rules.uses_score else None
            for way in islice(self._ways(facts.values, facts.at_us), calls):
                said = _asked(asks, way.values) if asks else (facts.score, facts.engagement)
                then = step(rules, state, Facts(way.values, facts.at_us, *said, facts.persona))
                if entered := [s for s in then.held if s not in held]:
                    return _found(entered[0], "rules", way, rules.needs)
        except MissingFeature:
            return None
        return None

    def words(self, found: Counterfactual) -> str:
        """`With one more file of 1 MB uploaded they would be in exploring.`"""
        return f"With {self.does(found)} they would be in {found.segment.replace('_', ' ')}."

    def does(self, found: Counterfactual) -> str:
        """`one more file of 1 MB uploaded and two more clicks`."""
        return listed([f"{counted(n)} more {one if n == 1 else self._many[one]}" for one, n in found.does])

    def _ways(self, values: Mapping[str, Value], at_us: int) -> Iterator[Way]:
        """Acts and the values after them: of one kind, the fewest first; then of two kinds."""
        acts = [a for a in self._domain.acts if a.needs is None or int(values.get(a.needs) or 0) > 0]
        again = {act.one: [Way((), dict(values), frozenset())] for act in acts}
        for n in range(1, MOST + 1):
            for act in acts:
                again[act.one].append(self._once_more(again[act.one][-1], act, n, at_us))
                yield again[act.one][-1]
        for total in range(2, 2 * MOST_OF_TWO + 1):
            for first, second in combinations(acts, 2):
                for n in range(max(1, total - MOST_OF_TWO), min(MOST_OF_TWO, total - 1) + 1):
                    yield self._further_still(again[first.one][n], second, total - n, at_us)

    def _further_still(self, way: Way, act: Act, times: int, at_us: int) -> Way:
        """A way, and then another act so many times."""
        then = Way((), way.values, way.alone)
        for n in range(1, times + 1):
            then = self._once_more(then, act, n, at_us)
        return then._replace(does=(*way.does, *then.does))

    def _once_more(self, way: Way, act: Act, n: int, at_us: int) -> Way:
        done = self._further.after(way.values, act, at_us)
        return Way(((act.one, n),), done.values, way.alone | done.alone)


def _better(segments: Sequence[str], segment: str, good: bool) -> Sequence[str]:
    """The segments that are better than one: higher where the outcome is wished for, else lower."""
    if segment not in segments:
        return ()
    at = list(segments).index(segment)
    return segments[at + 1 :] if good else segments[:at]


def _asked(model: Model, values: Mapping[str, Value]) -> tuple[float | None, str | None]:
    """Score and engagement segment; null: not scored."""
    try:
        score, segment, _ = scored(model, values)
    except ModelFault:
        return None, None
    return score, segment


def _found(segment: str, source: str, way: Way, read: Collection[str]) -> Counterfactual:
    return Counterfactual(segment, source, way.does, way.values, tuple(sorted(way.alone & set(read))))
