"""A decision as a pure function: (features, model, policy, time) -> receipt. No I/O, no clock, no globals.

person not found ------------------------> default journey
store or model not available ------------> default journey
outcome has happened already ------------> the journey of the people who are done
else: score -> engagement segment -------> the journey of that segment
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from feature_repo.domain import Label
from serving.policy import Feedback, Policy, choose

Value = float | int | str | None


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


class Snapshot(msgspec.Struct, frozen=True):
    """A person's features in force at the time of asking.

    values: by name, stored and elapsed ones; null as the feature's catalogue entry says.
    event_us: timestamp of the change point the row is from. applied_position: the log position that was applied
    when it was written; null where the online store does not keep it. valid_until_us: the next change point known;
    null: the values hold until the next event. note: something to say in the reasons.
    """

    values: Mapping[str, Value]
    event_us: int
    applied_position: int | None = None
    valid_until_us: int | None = None
    note: str | None = None


class Unavailable(msgspec.Struct, frozen=True):
    """Why a person's features could not be read, in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: who, when (µs since 1970 UTC), and the id that the decision gets."""

    user_id: str
    at_us: int
    decision_id: str


class Receipt(msgspec.Struct, frozen=True):
    """A decision with all that it was made from: enough to recompute and to explain it."""

    decision_id: str
    at_us: int
    user_id: str
    known: bool
    segment: str | None
    score: float | None
    model_name: str | None
    model_version: int | None
    feature_service: str | None
    elements: tuple[str, ...]
    reasons: tuple[str, ...]
    policy_version: str
    features: Mapping[str, Value] | None
    event_us: int | None
    applied_position: int | None


class ModelFault(RuntimeError):
    """The model could not score a row; the text says why."""


def decide(
    asked: Asked, found: Snapshot | Unavailable | None, model: Model | None, policy: Policy, label: Label
) -> Receipt:
    """Decide for one person.

    found: the person's features; None: nobody has seen this person; Unavailable: they could not be read.
    Never raises for what a store or a model does: the default journey is taken, and the reasons say so.
    """
    if not isinstance(found, Snapshot):
        why = "unknown user: default journey" if found is None else f"{found.reason}: default journey"
        return _receipt(asked, None, model, policy, None, None, why)
    if model is None:
        return _receipt(asked, found, model, policy, None, None, "no model is loaded: default journey")
    if label.done and (found.values.get(label.done) or 0) > 0:  # type: ignore[operator]
        why = f"{label.name} has happened ({label.done} is above 0): not scored, segment {label.done_segment}"
        return _receipt(asked, found, model, policy, label.done_segment, None, why)
    try:
        score, segment, why = scored(model, found.values)
        return _receipt(asked, found, model, policy, segment, score, why)
    except ModelFault as e:
        return _receipt(asked, found, model, policy, None, None, f"{e}: default journey")


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


def _receipt(
    asked: Asked,
    found: Snapshot | None,
    model: Model | None,
    policy: Policy,
    segment: str | None,
    score: float | None,
    why: str,
) -> Receipt:
    if segment is not None and segment not in policy.segments:
        segment, score, why = None, None, f"{why}, which the policy does not know: default journey"
    choice = choose(policy, [] if segment is None else [segment], Feedback(), asked.at_us)
    dropped = tuple(f"{d.element} is not shown: {d.boundary}: {d.detail}" for d in choice.dropped)
    return Receipt(
        decision_id=asked.decision_id,
        at_us=asked.at_us,
        user_id=asked.user_id,
        known=found is not None,
        segment=segment,
        score=score,
        model_name=model.name if model else None,
        model_version=model.version if model else None,
        feature_service=model.feature_service if model else None,
        elements=choice.elements,
        reasons=(*([found.note] if found and found.note else []), why, *choice.why, *dropped),
        policy_version=policy.version,
        features=found.values if found else None,
        event_us=found.event_us if found else None,
        applied_position=found.applied_position if found else None,
    )


def decision_id(at_us: int, chance: int) -> str:
    """The 32 hex digits of a UUID version 7 (RFC 9562): the millisecond, the microsecond within it, 62 random bits.

    at_us: µs since 1970 UTC. chance: 62 random bits. Ids made later sort later, to the microsecond.

    >>> decision_id(1_700_000_000_123_456, 0)
    '018bcfe5687b71c88000000000000000'
    """
    millisecond, micro = divmod(at_us, 1_000)
    return f"{(millisecond << 80) | (7 << 76) | (micro << 64) | (2 << 62) | chance:032x}"
