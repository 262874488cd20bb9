"""Optuna over cross-validation in the order of time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from training.candidates import Candidate
from training.evaluate import log_loss
from training.splits import Split

OnTrial = Callable[["Trial"], None]


@dataclass(frozen=True)
class Trial:
    """One set of parameters, tried: the mean log loss over the folds that it got to, and each fold's.

    state: complete, pruned (given up after some folds because others did better).
    """

    number: int
    params: dict[str, Any]
    state: str
    loss: float
    folds: tuple[float, ...]
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Tuned:
    """The best parameters of a candidate, its cross-validated log loss and every trial."""

    kind: type[Candidate]
    params: dict[str, Any]
    loss: float
    trials: list[Trial] = field(repr=False)


@dataclass(frozen=True)
class Fold:
    """Features and labels of both sides of a split."""

    X: pd.DataFrame
    y: np.ndarray
    X_next: pd.DataFrame
    y_next: np.ndarray


def prepare(splits: Sequence[Split], inputs: Sequence[str]) -> list[Fold]:
    """The folds as features and labels."""
    return [
        Fold(s.train[list(inputs)], s.train["label"].to_numpy(), s.holdout[list(inputs)], s.holdout["label"].to_numpy())
        for s in splits
    ]


def tune(
    kind: type[Candidate],
    folds: Sequence[Fold],
    categorical: Sequence[str],
    trials: int,
    seed: int,
    timeout: float | None = None,
    on_trial: OnTrial = lambda trial: None,
) -> Tuned:
    """Try `trials` sets of parameters (the defaults first) for at most `timeout` seconds, and keep the best.

    The same seed and data give the same result as long as the timeout does not strike. Where there is nothing to tune,
    one trial.
    """
    import optuna
    from optuna.trial import FrozenTrial, TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=0),
    )
    if defaults := kind.suggest(optuna.trial.FixedTrial(kind().get_params())):  # type: ignore[arg-type]
        study.enqueue_trial(defaults)
    done: list[Trial] = []

    def objective(trial: optuna.Trial) -> float:
        losses: list[float] = []
        candidate = kind(categorical=categorical, seed=seed, **kind.suggest(trial))
        for step, fold in enumerate(folds):
            losses.append(_fold_loss(candidate, fold))
            trial.set_user_attr("folds", list(losses))
            trial.report(_mean(losses, folds), step)
            if step < len(folds) - 1 and trial.should_prune():
                raise optuna.TrialPruned
        return _mean(losses, folds)

    def after(_: optuna.Study, trial: FrozenTrial) -> None:
        done.append(_record(trial, folds, "complete" if trial.state == TrialState.COMPLETE else "pruned"))
        on_trial(done[-1])

    study.optimize(objective, n_trials=trials if defaults else 1, timeout=timeout, callbacks=[after])
    return Tuned(kind, dict(study.best_trial.params), float(study.best_value), done)


def _fold_loss(candidate: Candidate, fold: Fold) -> float:
    p = clone(candidate).fit(fold.X, fold.y).predict_proba(fold.X_next)[:, 1]
    return log_loss(fold.y_next, p, np.ones(len(p)))


def _mean(losses: Sequence[float], folds: Sequence[Fold]) -> float:
    """Mean loss over all rows that were validated on so far."""
    return float(np.average(losses, weights=[len(f.y_next) for f in folds[: len(losses)]]))


def _record(trial: Any, folds: Sequence[Fold], state: str) -> Trial:
    losses = tuple(trial.user_attrs["folds"])
    start, end = (int(t.timestamp() * 1000) for t in (trial.datetime_start, trial.datetime_complete))
    return Trial(trial.number, dict(trial.params), state, _mean(losses, folds), losses, start, end)
