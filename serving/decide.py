"""A decision as a pure function: (features, situation, model, playbook, time) -> receipt. No I/O, no clock, no globals.

features ─► score ─► engagement segment ─┐
        ├─► persona ─────────────────────┼─► segments, composed ─► variants ─► policy ─► elements, and what was dropped
        └─► rules, with what they hold ──┘

Somebody unknown, features that cannot be had, somebody who opted out: no segments, so the default journey. Without a
model the rules go on alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from feature_repo.domain import Label
from serving.experiments.assign import Assigned, Assignment, assign
from serving.playbook import Playbook
from serving.policy import Dropped, Feedback, Policy, choose
from serving.rules import Facts, MissingFeature, State, Step, step
from serving.values import Value


class Model(Protocol):
    """What a decision needs of a model (training.registry.Model is one)."""

    @property
    def name(self) -> str:
        """Name in the registry."""
        ...

    @property
    def version(self) -> int:
        """Version in the registry."""
        ...

    @property
    def feature_service(self) -> str:
        """The Feast feature service whose rows it takes."""
        ...

    @property
    def features(self) -> Sequence[str]:
        """Names of the features, in the order of `score_one`."""
        ...

    @property
    def personas(self) -> Sequence[str]:
        """Names of the personas; empty where it has none."""
        ...

    @property
    def segments(self) -> Sequence[str]:
        """Engagement segments, from the lowest score to the highest."""
        ...

    @property
    def cutoffs(self) -> Sequence[float]:
        """Scores from which on the next segment begins, one fewer than segments."""
        ...

    def score_one(self, values: Sequence[Value]) -> tuple[float, str]:
        """Probability and segment of one row, in the order of `features`."""
        ...

    def persona_one(self, values: Sequence[Value]) -> str | None:
        """The persona of one row; null: none is near."""
        ...


class Snapshot(msgspec.Struct, frozen=True):
    """A person's features in force at the time of asking.

    values: by name, stored and elapsed ones; null as the feature's catalogue entry says.
    event_us: timestamp of the change point the row is from. applied_position: the log position that was applied
    when it was written; null where the online store does not keep it. valid_until_us: the next change point known;
    null: the values hold until the next event. note: something to say in the reasons. row_position: that of the row as
    it is in the store.
    """

    values: Mapping[str, Value]
    event_us: int
    applied_position: int | None = None
    valid_until_us: int | None = None
    note: str | None = None
    row_position: int | None = None


class Unavailable(msgspec.Struct, frozen=True):
    """Why a person's features could not be read, in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: who, when (µs since 1970 UTC), and the id that the decision gets."""

    user_id: str
    at_us: int
    decision_id: str


class Situation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a person beside their features.

    state: what the rules remember of them, followed to the time of asking. feedback: what they did with what they were
    shown. paused: experiments that are paused. opted_out: they want no profile.
    """

    state: State = State()
    feedback: Feedback = Feedback()
    paused: tuple[str, ...] = ()
    opted_out: bool = False


class Receipt(msgspec.Struct, frozen=True):
    """A decision with all that it was made from: enough to make it again, and to explain it.

    segment: the engagement segment; segments: all of them, in the order in which they compose. unavailable: why there
    are no features. note: the snapshot's. playbook: version of the policy, rules and experiments together.
    """

    decision_id: str
    at_us: int
    user_id: str
    known: bool
    segment: str | None
    score: float | None
    persona: str | None
    segments: tuple[str, ...]
    model_name: str | None
    model_version: int | None
    feature_service: str | None
    elements: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    variants: tuple[Assigned, ...]
    holdout: bool
    reasons: tuple[str, ...]
    policy_version: str
    playbook: str
    features: Mapping[str, Value] | None
    event_us: int | None
    applied_position: int | None
    unavailable: str | None
    situation: Situation
    note: str | None = None


class Placed(msgspec.Struct, frozen=True):
    """A person's segments. reasons: in words. step: of the rules; null: they did not run."""

    engagement: str | None = None
    score: float | None = None
    persona: str | None = None
    step: Step | None = None
    reasons: tuple[str, ...] = ()


class ModelFault(RuntimeError):
    """The model could not score a row; the text says why."""


def decide(
    asked: Asked,
    found: Snapshot | Unavailable | None,
    situation: Situation,
    model: Model | None,
    playbook: Playbook,
) -> tuple[Receipt, Placed]:
    """Decide for one person.

    found: the person's features; None: nobody has seen this person; Unavailable: they could not be read.
    Never raises for what a store or a model does: the default journey is taken, and the reasons say so.
    """
    placed = place(asked.at_us, found, situation, model, playbook)
    segments = composed(placed, playbook.policy)
    assigned = _assigned(asked, segments, situation, playbook)
    over = [s for s in segments if s in playbook.policy.nothing_for]
    shows = over if assigned.holdout else segments
    show = {e: v.why for v in assigned.variants for e in v.show}
    hide = {e: v.why for v in assigned.variants for e in v.hide}
    choice = choose(playbook.policy, shows, situation.feedback, asked.at_us, show, hide)
    said = [v.why for v in assigned.variants]
    if assigned.holdout and segments:
        said.append("one of the few who are always shown the default journey, to measure all others by")
    snapshot = found if isinstance(found, Snapshot) and not situation.opted_out else None
    receipt = Receipt(
        decision_id=asked.decision_id,
        at_us=asked.at_us,
        user_id=asked.user_id,
        known=snapshot is not None,
        segment=placed.engagement,
        score=placed.score,
        persona=placed.persona,
        segments=segments,
        model_name=model.name if model else None,
        model_version=model.version if model else None,
        feature_service=model.feature_service if model else None,
        elements=choice.elements,
        dropped=choice.dropped,
        variants=assigned.variants,
        holdout=assigned.holdout,
        reasons=(*placed.reasons, *said, *choice.why),
        policy_version=playbook.policy.version,
        playbook=playbook.version,
        features=snapshot.values if snapshot else None,
        event_us=snapshot.event_us if snapshot else None,
        applied_position=snapshot.applied_position if snapshot else None,
        unavailable=found.reason if isinstance(found, Unavailable) else None,
        situation=situation,
        note=snapshot.note if snapshot else None,
    )
    return receipt, placed


def place(
    at_us: int, found: Snapshot | Unavailable | None, situation: Situation, model: Model | None, playbook: Playbook
) -> Placed:
    """A person's segments at a time, with the reasons."""
    if situation.opted_out:
        return Placed(reasons=("opted out of being profiled: default journey",))
    if not isinstance(found, Snapshot):
        why = "unknown user: default journey" if found is None else f"{found.reason}: default journey"
        return Placed(reasons=(why,))
    said = score(found.values, model, playbook.label)
    facts = Facts(found.values, at_us, said.score, said.engagement, said.persona)
    notes = said.reasons if found.note is None else (found.note, *said.reasons)
    try:
        done = step(playbook.rules, situation.state, facts)
    except MissingFeature as e:
        return msgspec.structs.replace(said, reasons=(*notes, f"no rule was asked: {e}"))
    held = tuple(f"{name}: {playbook.rules.why(name)}" for name in done.held)
    return msgspec.structs.replace(said, step=done, reasons=(*notes, *held))


def composed(placed: Placed, policy: Policy) -> tuple[str, ...]:
    """All of a person's segments in the order in which the policy composes them."""
    return policy.compose(
        {
            "rules": placed.step.held if placed.step else (),
            "engagement": (placed.engagement,) if placed.engagement else (),
            "personas": (placed.persona,) if placed.persona else (),
        }
    )


def _assigned(asked: Asked, segments: Sequence[str], situation: Situation, playbook: Playbook) -> Assignment:
    """The variants that a person is in; none for who opted out, of whom nothing is measured."""
    if situation.opted_out:
        return Assignment()
    exposures = {e: (x.variant, x.first_us) for e, x in situation.feedback.exposures.items()}
    return assign(playbook.experiments, asked.user_id, segments, exposures, asked.at_us, situation.paused)


def score(values: Mapping[str, Value], model: Model | None, label: Label) -> Placed:
    """What the model says of a person: score, engagement segment and persona."""
    persona, unknown = _persona(values, model) if model else (None, ())
    if label.done and (values.get(label.done) or 0) > 0:  # type: ignore[operator]
        why = f"{label.name} has happened ({label.done} is above 0): not scored, segment {label.done_segment}"
        return Placed(label.done_segment, None, persona, reasons=(why, *unknown))
    if model is None:
        return Placed(reasons=("no model is loaded: not scored",))
    try:
        score, segment, why = scored(model, values)
    except ModelFault as e:
        return Placed(reasons=(f"{e}: not scored",))
    return Placed(segment, score, persona, reasons=(why, *unknown))


def _persona(values: Mapping[str, Value], model: Model) -> tuple[str | None, tuple[str, ...]]:
    """The persona, and what to say where it can't be told."""
    try:
        return model.persona_one([values.get(name) for name in model.features]) if model.personas else None, ()
    except Exception as e:  # a model is foreign code: whatever it raises, the person still gets a journey
        return None, (f"no persona: {model.name} version {model.version} failed ({type(e).__name__}: {e})",)


def scored(model: Model, values: Mapping[str, Value]) -> tuple[float, str, str]:
    """Score, segment, and the reason in words.

    Raises:
        ModelFault: a feature is missing, the model failed, or what it gave is no probability or no segment.
    """
    try:
        score, segment = model.score_one([values[name] for name in model.features])
    except KeyError as e:
        raise ModelFault(
            f"{model.name} version {model.version} needs feature {e}, which the feature view does not hold"
        ) from e
    except Exception as e:  # a model is foreign code: whatever it raises, the person still gets a journey
        raise ModelFault(f"{model.name} version {model.version} failed ({type(e).__name__}: {e})") from e
    if not (math.isfinite(score) and segment in model.segments):
        raise ModelFault(f"{model.name} version {model.version} gave score {score} and segment {segment!r}")
    return (
        score,
        segment,
        f"score {score:.4f} by {model.name} version {model.version}: segment {segment}{_limits(model, segment)}",
    )


def _limits(model: Model, segment: str) -> str:
    at = list(model.segments).index(segment)
    if at > len(model.cutoffs):
        return ""
    low = f"from {model.cutoffs[at - 1]:.4f}" if at else ""
    high = f"below {model.cutoffs[at]:.4f}" if at < len(model.cutoffs) else ""
    words = " and ".join(w for w in (low, high) if w)
    return f" ({words})" if words else ""


def decision_id(at_us: int, chance: int) -> str:
    """The 32 hex digits of a UUID version 7 (RFC 9562): the millisecond, the microsecond within it, 62 random bits.

    at_us: µs since 1970 UTC. chance: 62 random bits. Ids made later sort later, to the microsecond.

    >>> decision_id(1_700_000_000_123_456, 0)
    '018bcfe5687b71c88000000000000000'
    """
    millisecond, micro = divmod(at_us, 1_000)
    return f"{(millisecond << 80) | (7 << 76) | (micro << 64) | (2 << 62) | chance:032x}"
