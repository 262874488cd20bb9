"""What would change the outcome: the fewest further acts of a person after which they are in another segment.

acts of one kind, then of two ─► values with them (further.py) ─► score_one, rules ─► the first that leads on

An act is an event that the domain says people can do more of; what cannot be done (another country, a past without
errors) is never advised. All acts are taken to happen at the moment of the decision, so nothing else changes.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from feature_repo.domain import Act, Domain
from serving.decide import Model, ModelFault, scored
from serving.rules import Facts, MissingFeature, Rules, State, step
from serving.values import Value
from serving.why.further import Further
from serving.why.words import counted, listed

MOST, MOST_OF_TWO = 8, 3
"""Acts of one kind that are advised, and of each kind where it takes two."""
CALLS = 150
"""Times that the model is asked: 3 to 6 ms at 20 to 40 µs."""

Doing = tuple[tuple[Act, int], ...]
Score = tuple[float | None, str | None]
"""Score and engagement segment; null: not scored."""


class Counterfactual(msgspec.Struct, frozen=True):
    """Acts that lead to a segment.

    source: `engagement` or `rules`. does: acts by their words, and how often. alone: features that these acts may change
    in a way that nobody can foretell; they were left as they are.
    """

    segment: str
    source: str
    does: tuple[tuple[str, int], ...]
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
        for (doing, after, alone), _ in zip(self._ways(values, at_us), range(calls), strict=False):
            reached = _asked(model, after)[1]
            if reached in better:
                return _found(reached, "engagement", doing, after, alone & set(model.features))
        return None

    def rule(
        self, rules: Rules, state: State, facts: Facts, model: Model | None, calls: int = CALLS
    ) -> Counterfactual | None:
        """The fewest acts after which a rule segment holds that does not hold now; null: none found.

        state: after the step at these facts.
        """
        try:
            held = set(step(rules, state, facts).held)
            for (doing, after, alone), _ in zip(self._ways(facts.values, facts.at_us), range(calls), strict=False):
                score, engagement = (
                    _asked(model, after) if model and rules.uses_score else (facts.score, facts.engagement)
                )
                then = step(rules, state, Facts(after, facts.at_us, score, engagement, facts.persona))
                if entered := [s for s in then.held if s not in held]:
                    return _found(entered[0], "rules", doing, after, alone & set(rules.needs))
        except MissingFeature:
            return None
        return None

    def words(self, found: Counterfactual, who: str = "they") -> str:
        """`With one more file of 1 MB uploaded they would be in exploring.`"""
        does = [f"{counted(n)} more {one if n == 1 else self._many[one]}" for one, n in found.does]
        return f"With {listed(does)} {who} would be in {found.segment.replace('_', ' ')}."

    def _ways(
        self, values: Mapping[str, Value], at_us: int
    ) -> Iterator[tuple[Doing, dict[str, Value], frozenset[str]]]:
        """Acts and the values after them: of one kind, the fewest first; then of two kinds."""
        acts = self._domain.acts
        for n, level in enumerate(self._repeated(acts, values, at_us), start=1):
            yield from ((((act, n),), after, alone) for act, after, alone in level)
            if n == MOST:
                break
        for total in range(2, 2 * MOST_OF_TWO + 1):
            yield from self._pairs(acts, values, at_us, total)

    def _repeated(
        self, acts: Sequence[Act], values: Mapping[str, Value], at_us: int
    ) -> Iterator[list[tuple[Act, dict[str, Value], frozenset[str]]]]:
        level = [(act, dict(values), frozenset[str]()) for act in acts]
        while True:
            level = [(act, *self._more(act, 1, v, at_us, alone)) for act, v, alone in level]
            yield level

    def _pairs(
        self, acts: Sequence[Act], values: Mapping[str, Value], at_us: int, total: int
    ) -> Iterator[tuple[Doing, dict[str, Value], frozenset[str]]]:
        for i, first in enumerate(acts):
            for second in acts[i + 1 :]:
                for n in range(max(1, total - MOST_OF_TWO), min(MOST_OF_TWO, total - 1) + 1):
                    once = self._more(first, n, dict(values), at_us, frozenset())
                    yield ((first, n), (second, total - n)), *self._more(second, total - n, once[0], at_us, once[1])

    def _more(
        self, act: Act, times: int, values: dict[str, Value], at_us: int, alone: frozenset[str]
    ) -> tuple[dict[str, Value], frozenset[str]]:
        for _ in range(times):
            done = self._further.after(values, act, at_us)
            values, alone = done.values, alone | done.alone
        return values, alone


def _better(segments: Sequence[str], segment: str, good: bool) -> Sequence[str]:
    """The segments that are better than one: higher where the outcome is wished for, else lower."""
    if segment not in segments:
        return ()
    at = list(segments).index(segment)
    return segments[at + 1 :] if good else segments[:at]


def _asked(model: Model, values: Mapping[str, Value]) -> Score:
    try:
        score, segment, _ = scored(model, values)
    except ModelFault:
        return None, None
    return score, segment


def _found(
    segment: str, source: str, doing: Doing, values: Mapping[str, Value], alone: frozenset[str]
) -> Counterfactual:
    return Counterfactual(segment, source, tuple((act.one, n) for act, n in doing), values, tuple(sorted(alone)))
