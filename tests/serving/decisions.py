"""A told situation -> the decision that the shipped playbook makes of it, in words: for the golden decisions."""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import msgspec

from feature_repo import domains
from feature_repo.history.history_store import Row
from feature_repo.vocabulary import HOUR, SECOND
from serving import playbook, policy
from serving.decide import Asked, Receipt, Situation, Snapshot, Unavailable, decide, decision_id
from serving.features import with_elapsed
from serving.playbook import Playbook
from serving.rules import Membership, State
from serving.yaml_file import UNITS
from tests.serving.policy.lives import row

CUTOFFS = {"saas": (0.2, 0.5, 0.8), "oulad": (0.3, 0.6)}
BEGINS = {"saas": ("signed_up_us",), "oulad": ("registered_at", "first_click_at")}
"""The features that say when somebody's onboarding began."""
SPAN = r"(\d+) (second|minute|hour|day|week)s?"
EVENT = re.compile(SPAN + r" ago: ((?:Element|Experiment) \w+|\w+)(?: (\w+))?(?: (?!times)(\w+))?(?:, (\d+) times)?")


@dataclass(frozen=True)
class ToldModel:
    """A champion whose score, and persona, are told. score: null: it fails."""

    domain: str
    score: float | None
    persona: str | None
    name: str = "champion"
    version: int = 7
    feature_service: str = "told"
    features: Sequence[str] = ()

    @property
    def personas(self) -> Sequence[str]:
        return (self.persona,) if self.persona else ()

    @property
    def segments(self) -> Sequence[str]:
        return [s.name for s in domains.load(self.domain).segments]

    @property
    def cutoffs(self) -> Sequence[float]:
        return CUTOFFS[self.domain]

    def score_one(self, values: Sequence[Any]) -> tuple[float, str]:
        if self.score is None:
            raise RuntimeError("the file of the model is damaged")
        return self.score, self.segments[bisect_right(self.cutoffs, self.score)]

    def persona_one(self, values: Sequence[Any]) -> str | None:
        return self.persona


@cache
def shipped(domain: str) -> Playbook:
    """What the domain's files declare."""
    return playbook.for_domain(domains.load(domain))


def told(case: Mapping[str, Any]) -> Receipt:
    """The decision of a case."""
    book, at_us = _playbook(case), moment(case["at"])
    past = [e for told in case.get("past", ()) for e in _events(told, at_us)]
    situation = Situation(
        State({name: _membership(was, at_us) for name, was in case.get("held", {}).items()}),
        policy.fold(past, at_us, book.policy.boundaries.session_gap_us),
        tuple(case.get("paused", ())),
        case.get("opted_out", False),
    )
    model = None if case.get("no_model") else ToldModel(case["domain"], case.get("score"), case.get("persona"))
    asked = Asked(case["person"], at_us, decision_id(at_us, 0))
    return decide(asked, _found(case, at_us), situation, model, book)[0]


def words(receipt: Receipt) -> dict[str, Any]:
    """What a product manager wants to know of a decision."""
    return {
        "segments": list(receipt.segments),
        "elements": list(receipt.elements),
        "dropped": [f"{d.element}: {d.boundary}, {d.detail}" for d in receipt.dropped],
        "variants": {v.experiment: v.variant for v in receipt.variants},
        "holdout": receipt.holdout,
        "why": list(receipt.reasons),
    }


def moment(at: str) -> int:
    """A moment as RFC 3339 has it, in µs."""
    return round(datetime.fromisoformat(at).timestamp()) * SECOND


def _playbook(case: Mapping[str, Any]) -> Playbook:
    """The shipped one, with experiments killed, or ended at a time, as the case says."""
    book = shipped(case["domain"])
    named = dict(book.experiments.experiments)
    for name in case.get("killed", ()):
        named[name] = msgspec.structs.replace(named[name], kill=True)
    for name, at in case.get("ended", {}).items():
        named[name] = msgspec.structs.replace(named[name], end_us=moment(at))
    return Playbook(book.policy, book.rules, msgspec.structs.replace(book.experiments, experiments=named), book.label)


def _found(case: Mapping[str, Any], at_us: int) -> Snapshot | Unavailable | None:
    if case.get("unknown"):
        return None
    if "unavailable" in case:
        return Unavailable(case["unavailable"])
    domain = domains.load(case["domain"])
    values: dict[str, Any] = {name: 0 if kind == "int64" else None for name, kind in domain.feature_types.items()}
    values |= dict.fromkeys((e.of for e in domain.elapsed), None)
    values |= {name: at_us - round(case["hours_in"] * HOUR) for name in BEGINS[case["domain"]]}
    values |= {name: _value(value, at_us) for name, value in case["features"].items()}
    return with_elapsed(domain, Snapshot(values, at_us), at_us)


def _value(value: Any, at_us: int) -> Any:
    """`4 days ago` as the moment; everything else as it is."""
    found = re.fullmatch(SPAN + " ago", value) if isinstance(value, str) else None
    return at_us - int(found[1]) * UNITS[found[2]] if found else value


def _membership(was: str, at_us: int) -> Membership:
    found = re.fullmatch(r"(in|excluded|waiting) for " + SPAN, was)
    assert found, f"{was!r}: expected `in for 20 minutes`"
    return Membership(found[1], at_us - int(found[2]) * UNITS[found[3]])  # type: ignore[arg-type]


def _events(told: str, at_us: int) -> list[Row]:
    """`5 minutes ago: Element Shown checklist, 20 times` as rows."""
    found = EVENT.fullmatch(told)
    assert found, f"{told!r}: expected `3 hours ago: Element Shown welcome_tour`"
    number, unit, name, subject, variant, times = found.groups()
    about = {"experiment_id": subject, "variation_id": variant} if variant else {"element": subject}
    ids = range(int(times or 1))
    return [row(n, name, at_us - int(number) * UNITS[unit], **about)._replace(message_id=f"{told} {n}") for n in ids]
