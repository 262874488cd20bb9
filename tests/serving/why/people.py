"""People of domain saas, made up, and models that were trained on them: what the tests of reasons ask."""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.features.elapsed import elapsed_seconds
from feature_repo.vocabulary import HOUR
from training import calibration
from training.candidates import LightGBM, Logistic
from training.model import EngagementModel

SAAS = domains.load("saas")
NOW = 1_775_000_000_000_000
STRINGS = {"device": ["mobile", "desktop", None], "referral": ["search", "friend", None], "role": ["designer", None]}


def make_values(rng: np.random.Generator, domain: Domain = SAAS, now_us: int = NOW) -> dict[str, Any]:
    """Somebody's features at a time, consistent where it is cheap to be."""
    values: dict[str, Any] = {}
    for name, kind in domain.feature_types.items():
        values[name] = int(rng.poisson(2)) if kind == "int64" else None
        if kind == "float64" and rng.random() < 0.8:
            values[name] = float(rng.random() * 5)
        if kind == "string":
            values[name] = rng.choice(np.array(STRINGS.get(name, ["x", None]), dtype=object))
    values["activations"] = 0
    values["upload_bytes"] = values["uploads"] * 1_000_000
    for name in ("signed_up_us", "last_event_us", "last_interaction_us"):
        values[name] = now_us - int(rng.integers(1, 72)) * HOUR
    values["activated_us"] = None
    for e in domain.elapsed:
        values[e.name] = elapsed_seconds(now_us, values[e.of])
    return values


def make_people(n: int, seed: int = 1) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [make_values(rng) for _ in range(n)]


@lru_cache
def model(kind: str = "lightgbm", version: int = 1, seed: int = 1, without: tuple[str, ...] = ()) -> EngagementModel:
    """Trained on made-up people who activate the likelier the more they upload, try and come back."""
    people = pd.DataFrame(make_people(600, seed))
    features = [*SAAS.feature_types, *(e.name for e in SAAS.elapsed)]
    inputs = [f for f in features if f not in ("activations", "activated_us", *without)]
    pull = people["uploads"] + people["features_used"] + people["sessions_7d"] - people["errors"] - 4.0
    label = (np.random.default_rng(seed).random(len(people)) < 1 / (1 + np.exp(-pull))).astype(int)
    strings = [f for f in inputs if SAAS.feature_types.get(f) == "string"]
    made = LightGBM(strings, trees=60, learning_rate=0.1) if kind == "lightgbm" else Logistic(strings)
    candidate = made.fit(people[inputs], label)
    return EngagementModel(
        "saas_v1", features, inputs, candidate, calibration.Sigmoid(1.0, 0.0), [s.name for s in SAAS.segments],
        [0.2, 0.5, 0.8], "activations", "activated", "saas-engagement", version,
    )  # fmt: skip
