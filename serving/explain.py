"""Which features moved a score most: additive contributions to the log odds, exact for trees (TreeSHAP)."""

import logging
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, UnsetType

from serving.decide import Model, Receipt, Value
from serving.schema import Contribution

STRONGEST = 5

_log = logging.getLogger(__name__)


def explained(model: Model | None, receipt: Receipt) -> list[Contribution] | UnsetType:
    """The strongest contributions to a score, strongest first; unset where there is no score or no way to tell."""
    if model is None or receipt.score is None or receipt.features is None or receipt.model_version != model.version:
        return UNSET
    try:
        effects = contributions(model, receipt.features)
    except Exception as e:  # an explanation is no reason to lose the decision
        _log.warning("%s version %s could not explain: %s: %s", model.name, model.version, type(e).__name__, e)
        return UNSET
    if effects is None:
        return UNSET
    strongest = sorted(effects, key=lambda name: -abs(effects[name]))[:STRONGEST]
    return [Contribution(name, receipt.features.get(name), round(effects[name], 6)) for name in strongest]


def contributions(model: Any, features: Mapping[str, Value]) -> dict[str, float] | None:
    """What each feature added to the log odds of one person; None for a model that cannot say.

    A model may offer `explain_one(values) -> {feature: effect}`; a candidate with `contributions` is asked for its
    own, which with its base value sum up to its log odds. About 1 ms.
    """
    if hasattr(model, "explain_one"):
        return {n: float(e) for n, e in model.explain_one([features[n] for n in model.features]).items()}
    candidate = getattr(model, "candidate", None)
    if candidate is None or not hasattr(candidate, "contributions"):
        return None
    effects = candidate.contributions(candidate.encoder_.row([features[name] for name in model.inputs]))[0]
    return {name: float(effect) for name, effect in zip(model.inputs, effects, strict=True)}
