"""Contributions to a score as two or three sentences.

{feature: what it added to the log odds} -> [features about the same thing make one] -> [the strongest] -> sentences
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from feature_repo.domain import Domain
from feature_repo.features.terms import base
from feature_repo.vocabulary import Count, Sum, Term, leaves
from serving.values import Value
from serving.why.words import Words, listed

MOST = 3
"""Signs in a sentence."""
WEAKEST = 0.15
"""Of the strongest sign's effect: what is weaker is not told."""
AVERAGE = 0.1
"""Log odds: within this of the average nobody is called more or less likely than it (0.1 is at most 2.5 points)."""


class Sign(NamedTuple):
    """Features about the same thing. feature: the one that says most. effect: of all together, log odds."""

    feature: str
    effect: float


def signs(domain: Domain, effects: Mapping[str, float]) -> list[Sign]:
    """What moved a score, strongest first; ties in the order of `effects`.

    Features are about the same thing where they are made of the same events, whatever the window: `sessions` and
    `sessions_7d`, `last_event_us` and `since_last_event`.
    """
    subject_of = subjects(domain)
    groups: dict[object, list[str]] = {}
    for feature in effects:
        groups.setdefault(subject_of.get(feature, feature), []).append(feature)
    found = []
    for members in groups.values():
        total = sum(effects[m] for m in members)
        found.append(Sign(max(members, key=lambda m: effects[m] if total > 0 else -effects[m]), total))
    return sorted(found, key=lambda s: -abs(s.effect))


def subjects(domain: Domain) -> dict[str, frozenset[Term]]:
    """By feature what it is about: the terms it is made of, without their windows."""
    found = {f.name: frozenset(_timeless(leaf) for leaf in leaves(f.term)) for f in domain.features}
    return found | {e.name: found[e.of] for e in domain.elapsed if e.of in found}


def _timeless(leaf: Term) -> Term:
    whole = base(leaf)
    return replace(whole, initial=None) if isinstance(whole, Count | Sum) else whole


def sentences(domain: Domain, effects: Mapping[str, float], values: Mapping[str, Value], at_us: int) -> list[str]:
    """What moved somebody's score, in two or three sentences about them.

    effects: of each feature on the log odds of the label, against the average person. at_us: of the values.
    """
    level, towards, away = _told(domain, effects, values, at_us)
    heads = ("Signs for it", "Signs against it") if domain.label.good else ("Warning signs", "Signs against it")
    said = [f"It is {level} that this person {domain.label.doc}."]
    said += [_sentence(head, what) for head, what in zip(heads, (towards, away), strict=True) if what]
    return said if len(said) > 1 else [*said, "Nothing that is known about them stands out."]


def to_the_person(domain: Domain, effects: Mapping[str, float], values: Mapping[str, Value], at_us: int) -> list[str]:
    """The same as what is said to the person, who is told no chances."""
    _, towards, away = _told(domain, effects, values, at_us)
    said = [f"We estimate whether somebody {domain.label.doc}."]
    said += [
        _sentence(head, what)
        for head, what in (("In your case this speaks for it", towards), ("This speaks against it", away))
        if what
    ]
    return said if len(said) > 1 else [*said, "Nothing that is known about you stands out."]


def _told(
    domain: Domain, effects: Mapping[str, float], values: Mapping[str, Value], at_us: int
) -> tuple[str, list[str], list[str]]:
    """How likely against the average, and the signs for and against, with their values."""
    found, words = signs(domain, effects), Words(domain)
    strong = [s for s in found if s.effect and abs(s.effect) >= WEAKEST * abs(found[0].effect)]
    said = {s: words.with_value(s.feature, values.get(s.feature), at_us) for s in strong}
    total = sum(effects.values())
    level = "more likely than on average" if total > AVERAGE else "less likely than on average"
    level = level if abs(total) > AVERAGE else "about as likely as on average"
    towards = [said[s] for s in strong if s.effect > 0][:MOST]
    return level, towards, [said[s] for s in strong if s.effect < 0][:MOST]


def _sentence(head: str, what: list[str]) -> str:
    return f"{head}: {listed(what)}."
