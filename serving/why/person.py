"""Why, for the person: what they were shown last and why, in plain words and without what is nobody's business.

It says nothing of scores, models, segments, experiments or other people; what it does say is about this person alone.
"""

from collections.abc import Mapping, Sequence

from serving.decide import Model, Receipt
from serving.playbook import Playbook
from serving.policy import Policy
from serving.policy.choice import composed
from serving.policy.model import DEFAULT
from serving.times import rfc3339
from serving.why.answers import Element, Why
from serving.why.explanation import Explainer
from serving.why.sentences import to_the_person

CHOICES = [
    "You can say that you want no profile: then nothing more is collected about you, and you are shown what everybody "
    "is shown. The product does it with PUT {path}/opt-out, and takes it back with DELETE {path}/opt-out.",
    "You can see everything that is held about you: GET {path}.",
    "You can have all of it erased, for good: DELETE {path}.",
]
OPTED_OUT = ("You opted out: nothing is collected or worked out about you, and you are shown what everybody is shown.",)
BOUNDARIES = {
    "at_once": "there was enough to see already",
    "all_per_session": "you had been shown enough on this visit",
    "all_per_day": "you had been shown enough that day",
    "per_session": "you had seen it on this visit",
    "per_day": "you had seen it that day",
    "ever": "you had seen it often enough",
    "cool_down": "you had seen it a short while before",
    "dismissal": "you had closed it",
    "completed": "you had done it",
    "after": "something else comes first",
    "skips": "you no longer needed it",
    "excludes": "something was shown that it does not go with",
    "nothing_for": "you have come so far that nothing more is shown",
}
"""What a boundary is to a person, after "not shown because"."""
BY_CHANCE = "it is being tried out: who sees it is decided by chance"


def opted_out(path: str) -> Why:
    """The answer to somebody who opted out. path: of the person's routes."""
    return Why(True, None, [], [], list(OPTED_OUT), [], None, _choices(path))


def undecided(path: str) -> Why:
    """The answer to somebody about whom nothing was decided yet."""
    return Why(False, None, [], [], ["Nothing has been decided for you yet."], [], None, _choices(path))


def unexplained(path: str) -> Why:
    """The answer where what the last decision was made from is no longer held."""
    said = "What the last decision about you was made from is no longer held, so it cannot be explained."
    return Why(False, None, [], [], [said], [], None, _choices(path))


def why(
    explainer: Explainer,
    receipt: Receipt,
    playbook: Playbook | None,
    model: Model | None,
    effects: Mapping[str, float] | None,
    path: str,
) -> Why:
    """The answer about one decision.

    playbook: the one that decided; None: it is gone, and only what the receipt itself holds is told. model: the one
    that decided; None: it has been replaced, and what counted most is not told.
    """
    return Why(
        opted_out=False,
        at=rfc3339(receipt.at_us),
        shown=_shown(receipt, playbook.policy) if playbook else [],
        not_shown=_not_shown(receipt, playbook.policy) if playbook else [],
        sentences=[*_sentences(explainer, receipt, model, effects), *_experiments(receipt)],
        data=list(explainer.used(receipt, model, playbook.rules).values()) if playbook else [],
        data_as_of=rfc3339(receipt.event_us) if receipt.event_us is not None else None,
        your_choices=_choices(path),
    )


def _choices(path: str) -> list[str]:
    return [words.format(path=path) for words in CHOICES]


def _shown(receipt: Receipt, policy: Policy) -> list[Element]:
    segments: Sequence[str] = () if receipt.holdout else [s for s in receipt.segments if s in policy.segments]
    given = {e.name: e.why[segment] for e, segment in composed(policy, segments or [DEFAULT])}
    titles = {e.name: e.title for e in policy.elements}
    return [Element(titles.get(name, name), given.get(name, BY_CHANCE)) for name in receipt.elements]


def _not_shown(receipt: Receipt, policy: Policy) -> list[Element]:
    titles = {e.name: e.title for e in policy.elements}
    told = [(d.element, BOUNDARIES.get(d.boundary)) for d in receipt.dropped]
    return [Element(titles.get(name, name), words) for name, words in told if words is not None]


def _sentences(
    explainer: Explainer, receipt: Receipt, model: Model | None, effects: Mapping[str, float] | None
) -> list[str]:
    label = explainer.domain.label
    if receipt.unavailable is not None:
        return ["What is known about you could not be read at that moment, so you were shown what everybody is shown."]
    if receipt.features is None:
        return ["Nothing was known about you, so you were shown what everybody is shown."]
    if label.done and receipt.segment == label.done_segment:
        return ["You have done what the onboarding is for."]
    if effects is None:
        return []
    said = to_the_person(explainer.domain, effects, receipt.features, receipt.at_us)
    if not receipt.holdout and (found := explainer.better(receipt, model)) is not None:
        said.append(f"With {explainer.searcher.does(found)} you would be shown what fits people who are further on.")
    return said


def _experiments(receipt: Receipt) -> list[str]:
    if receipt.holdout:
        return ["You are one of a few people, chosen by chance, who are always shown what everybody is shown."]
    return (
        ["Something is being tried out, and by chance you are one of those it is tried out with."]
        if receipt.variants
        else []
    )
