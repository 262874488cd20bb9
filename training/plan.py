"""How much is tried in training, and which rows are kept for what."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Plan:
    """The settings of a training.

    trials: of LightGBM; the logistic regression gets half, the forest a third. timeout: seconds
    for tuning a candidate; None, so that a busy machine tries as much as an idle one: `fold_rows` bounds the cost.
    folds: of the cross-validation in time. fold_rows: most rows that a fold is fitted on, whole people drawn by `seed`.
    holdout: smallest share of the people in the newest cohorts that are held out. gap_us: time between the last label
    known in training and the first observation held out. calibrate: share of the people in training, the newest, that
    calibration and segments are learnt on. draws: of the bootstrap. service: feature-service version, 0 for the newest.
    personas: whether they are looked for.
    """

    trials: int = 9
    timeout: float | None = None
    folds: int = 3
    fold_rows: int = 6_000
    holdout: float = 0.2
    gap_us: int = 0
    calibrate: float = 0.2
    draws: int = 200
    seed: int = 7
    service: int = 0
    personas: bool = True

    def trials_of(self, kind: str) -> int:
        """Trials of a candidate, at least one."""
        return max(1, self.trials // {"logistic": 2, "random_forest": 3}.get(kind, 1))

    def params(self) -> dict[str, Any]:
        """As MLflow parameters."""
        return {f"plan.{f.name}": getattr(self, f.name) for f in fields(self)}
