"""GET /v1/playbook: the rules, elements and experiments that decide now, in words, with the catalogue of features.

Playbook, domain ─► once: rules, elements, features
paused.json, report/experiments/experiments.json ─► each time: where the experiments stand, and what they have brought
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.settings import Settings, now_us
from serving.asgi import Answer
from serving.console.phrases import phrase
from serving.experiments import listing
from serving.experiments.declared import Experiment
from serving.experiments.paused import Paused
from serving.playbook import Playbook
from serving.policy import Element
from serving.policy.shown import of_all, of_one
from serving.policy.words import span
from serving.rules import Segment

PATH = "/v1/playbook"
FIGURES = ("experiments", "experiments.json")
"""Where in the report's folder `python -m monitoring experiments` writes what experiments have brought."""
_encoder = msgspec.json.Encoder()
_figures = msgspec.json.Decoder(list[dict[str, Any]])


class RuleInWords(msgspec.Struct, frozen=True, rename="camel"):
    """A segment by rule."""

    segment: str
    why: str
    enter: Annotated[str, Meta(description="The condition.", examples=["sessions > 5"])]
    exit: Annotated[str, Meta(description="The condition; `never`: once in, always in.")]
    priority: Annotated[int, Meta(description="Higher ones come first.")]
    notes: Annotated[list[str], Meta(description="Minimum stay, expiry, group and exclusions.")]


class SegmentInWords(msgspec.Struct, frozen=True):
    """An engagement segment."""

    segment: str
    why: str


class ElementInWords(msgspec.Struct, frozen=True, rename="camel"):
    """Something that the product can show."""

    element: str
    kind: str
    title: str
    segments: Annotated[list[str], Meta(description="Whom it is for.")]
    why: Annotated[dict[str, str], Meta(description="For each of these segments the reason.")]
    priority: int
    boundaries: Annotated[list[str], Meta(examples=[["at most 3 ever", "never again once dismissed"]])]


class Arm(msgspec.Struct, frozen=True):
    """A variant of an experiment, and what it does to the elements."""

    name: str
    weight: float
    show: list[str]
    hide: list[str]


class ExperimentNow(msgspec.Struct, frozen=True, rename="camel"):
    """An experiment, where it stands, and what it has brought."""

    experiment: str
    question: str
    layer: str
    standing: Annotated[str, Meta(examples=["running", "paused: activation of help is worse than control"])]
    share: Annotated[float, Meta(description="Of its slice of the layer, the share that is in now, 0 to 1.")]
    buckets: Annotated[list[float], Meta(description="Its slice of the layer, [from, to) of [0, 1].")]
    segments: Annotated[list[str], Meta(description="Who may enter; empty: everybody.")]
    metric: str
    variants: Annotated[list[Arm], Meta(description="The control first.")]
    figures: Annotated[
        dict[str, Any] | None,
        Meta(description="As `python -m monitoring experiments` wrote them last; null: it has not."),
    ]


class FeatureInWords(msgspec.Struct, frozen=True):
    """An entry of the feature catalogue."""

    name: str
    doc: str
    unit: str
    null: Annotated[str, Meta(description="What null means; empty: it is never null.")]


class PlaybookNow(msgspec.Struct, frozen=True, rename="camel"):
    """What decides now."""

    domain: str
    title: str
    version: Annotated[str, Meta(description="As receipts name it.")]
    rules: Annotated[list[RuleInWords], Meta(description="The highest priority first.")]
    engagement: Annotated[list[SegmentInWords], Meta(description="From the lowest score to the highest.")]
    elements: list[ElementInWords]
    nothing_for: Annotated[dict[str, str], Meta(description="Segments whose people are shown nothing, and why.")]
    at_once: Annotated[int, Meta(description="Most elements in one decision.")]
    boundaries: Annotated[list[str], Meta(description="Of all elements together.")]
    holdout: Annotated[float, Meta(description="The share of people who always get the default journey, 0 to 1.")]
    experiments: list[ExperimentNow]
    features: list[FeatureInWords]


class Declared:
    """Answers the route for one state folder and playbook."""

    def __init__(self, settings: Settings, playbook: Playbook, clock: Callable[[], int] = now_us) -> None:
        self._settings, self._playbook, self._clock = settings, playbook, clock
        self._domain = domains.load(settings.domain)

    async def respond(self) -> Answer:
        """GET /v1/playbook."""
        return Answer(_encoder.encode(await asyncio.to_thread(self.now)))

    def now(self) -> PlaybookNow:
        """All of it; a damaged file of pauses or figures counts as none."""
        book, at_us = self._playbook, self._clock()
        held, figures = self._held(), self._figures()
        tried = book.experiments.experiments.values()
        return PlaybookNow(
            domain=self._domain.name,
            title=self._domain.title,
            version=book.version,
            rules=[_rule(s) for s in book.rules.declared.values()],
            engagement=_engagement(self._domain, book),
            elements=[_element(e) for e in book.policy.elements],
            nothing_for=book.policy.nothing_for,
            at_once=book.policy.boundaries.at_once,
            boundaries=of_all(book.policy),
            holdout=book.experiments.holdout,
            experiments=[_experiment(e, held, figures.get(e.name), at_us) for e in tried],
            features=[FeatureInWords(f.name, f.doc, f.unit, f.null or "") for f in self._domain.features],
        )

    def _held(self) -> Mapping[str, Paused]:
        try:
            return listing.paused(self._settings)
        except ValueError:
            return {}

    def _figures(self) -> dict[str, dict[str, Any]]:
        try:
            found = _figures.decode(self._settings.report.joinpath(*FIGURES).read_bytes())
        except (OSError, msgspec.DecodeError):
            return {}
        return {str(f.get("experiment")): f for f in found}


def _rule(segment: Segment) -> RuleInWords:
    notes = [f"stays at least {span(segment.stay_us)}"] if segment.stay_us else []
    if segment.expires_us is not None:
        notes.append(f"expires after {span(segment.expires_us)}")
    if segment.group is not None:
        notes.append(f"one of group {segment.group}")
    if segment.excludes:
        notes.append(f"keeps out {', '.join(segment.excludes)}")
    leave = "once that holds no more" if segment.exit is None else phrase(segment.exit)
    return RuleInWords(segment.name, segment.why, phrase(segment.enter), leave, segment.priority, notes)


def _engagement(domain: Domain, book: Playbook) -> list[SegmentInWords]:
    found = [SegmentInWords(s.name, s.doc) for s in domain.segments]
    if domain.label.done:
        found.append(
            SegmentInWords(domain.label.done_segment, book.policy.nothing_for.get(domain.label.done_segment, ""))
        )
    return found


def _element(element: Element) -> ElementInWords:
    bounds = (
        [*of_one(element)] if element.again_after_us is not None else [*of_one(element), "never again once dismissed"]
    )
    return ElementInWords(
        element.name, element.kind, element.title, list(element.segments), element.why, element.priority, bounds
    )


def _experiment(e: Experiment, held: Mapping[str, Paused], figures: dict[str, Any] | None, at_us: int) -> ExperimentNow:
    return ExperimentNow(
        experiment=e.name,
        question=e.question,
        layer=e.layer,
        standing=listing.standing(e, held, at_us),
        share=e.share(at_us),
        buckets=list(e.buckets),
        segments=list(e.segments),
        metric=e.metric,
        variants=[Arm(name, v.weight, list(v.show), list(v.hide)) for name, v in e.variants.items()],
        figures=figures,
    )
