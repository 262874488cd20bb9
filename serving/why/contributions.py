"""What each feature added to a score: additive contributions to the log odds, exact for trees (TreeSHAP)."""

import logging
from collections.abc import Mapping
from typing import Any

from serving.decide import Model, Receipt
from serving.schema import Contribution
from serving.values import Value

STRONGEST = 5

_log = logging.getLogger(__name__)


def of_decision(model: Model | None, receipt: Receipt) -> dict[str, float] | None:
    """The contributions to a decision's score; None where there is no score or no way to tell. Never raises."""
    if model is None or receipt.score is None or receipt.features is None:
        return None
    if (receipt.model_name, receipt.model_version) != (model.name, model.version):
        return None
    try:
        return contributions(model, receipt.features)
    except Exception as e:  # an explanation is no reason to lose the decision
        _log.warning("%s version %s could not explain: %s: %s", model.name, model.version, type(e).__name__, e)
        return None


def strongest(effects: Mapping[str, float], values: Mapping[str, Value]) -> list[Contribution]:
    """The strongest contributions, strongest first."""
    names = sorted(effects, key=lambda name: -abs(effects[name]))[:STRONGEST]
    return [Contribution(name, values.get(name), round(effects[name], 6)) for name in names]


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
