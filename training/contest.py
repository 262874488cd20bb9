"""The contest: every candidate is tuned, fitted, calibrated and judged on the same holdout."""

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from sklearn.base import clone

from feature_repo.domain import Domain
from training import calibration, dataset, segments, splits
from training.candidates import KINDS, BaseRate, Candidate
from training.evaluate import metrics
from training.model import EngagementModel
from training.plan import Plan
from training.progress import Progress
from training.splits import Split
from training.tune import Trial, Tuned, prepare, tune

EQUAL = 0.003
"""Nats of log loss that are no difference: folds in time differ by ten times as much."""


@dataclass(frozen=True)
class Result:
    """A tuned and fitted candidate, and how it does on the holdout."""

    tuned: Tuned
    model: EngagementModel
    scores: np.ndarray
    metrics: dict[str, float]

    @property
    def kind(self) -> str:
        """Name of the candidate."""
        return self.tuned.kind.kind


@contextmanager
def one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """A pool with a thread for each core, in which every fit uses one thread, so that it gives the same bits anywhere.

    What is under way when an error ends the training is waited for; what has not begun is not. A fit that does not
    converge warns nobody: it is judged by its scores like the others.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        pool = ThreadPoolExecutor(
            os.cpu_count() or 1, "training", threadpool_limits, (1,)
        )  # OpenMP counts a thread's own
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def compete(
    domain: Domain,
    split: Split,
    plan: Plan,
    progress: Progress,
    pool: ThreadPoolExecutor,
    kinds: Sequence[type[Candidate]] = KINDS,
) -> list["Future[Result]"]:
    """Tune, fit, calibrate and judge each candidate in a thread of the pool; their results, in the order of `kinds`."""
    inputs = dataset.inputs(domain, plan.service or None)
    strings = dataset.categorical(domain, inputs)
    parts = splits.time_folds(split.train, plan.folds, plan.gap_us)
    folds = prepare([Split(thin(s.train, plan.fold_rows, plan.seed), s.holdout, s.dropped) for s in parts], inputs)
    progress.expect(sum(plan.trials_of(kind.kind) for kind in kinds))
    progress.say(f"tuning {', '.join(kind.kind for kind in kinds)} over {len(folds)} folds in time")
    on_trial = _in_turn(progress)

    def result_of(kind: type[Candidate]) -> Result:
        tuned = tune(
            kind, folds, strings, plan.trials_of(kind.kind), plan.seed, plan.timeout, partial(on_trial, kind.kind)
        )
        return judge(tuned, domain, split, strings, plan)

    slowest_first = {kind: pool.submit(result_of, kind) for kind in reversed(kinds)}
    return [slowest_first[kind] for kind in kinds]


def _in_turn(progress: Progress) -> Callable[[str, Trial], None]:
    """Notes each trial of each candidate with the progress, from any thread."""
    lock = threading.Lock()

    def on_trial(kind: str, trial: Trial) -> None:
        with lock:
            progress.step(f"{kind}, log loss {trial.loss:.4f} ({trial.state})")

    return on_trial


def judge(tuned: Tuned, domain: Domain, split: Split, strings: list[str], plan: Plan) -> Result:
    """Fit on the training part, score the holdout."""
    model = fit(tuned, domain, split.train, strings, plan)
    scores = model.probabilities(split.holdout)
    return Result(tuned, model, scores, metrics(labels(split.holdout), scores))


def fit(tuned: Tuned, domain: Domain, rows: pd.DataFrame, strings: list[str], plan: Plan) -> EngagementModel:
    """The model as it would serve: candidate, calibration, segments.

    Calibration and cut-offs come from the newest part of the rows, scored by a candidate that has not seen it. Then
    the candidate is fitted again on all rows, because the newest ones are the likest to those to come.
    """
    service = plan.service or None
    inputs = dataset.inputs(domain, service)
    candidate = tuned.kind(categorical=strings, seed=plan.seed, **tuned.params)
    older, newest = splits.newest_part(rows, plan.calibrate)
    odds = odds_of(clone(candidate).fit(older[inputs], labels(older)), newest)
    curve = calibration.choose(odds, labels(newest))
    names = [s.name for s in domain.segments]
    cutoffs = segments.choose_cutoffs(calibration.apply(curve, odds), len(names))
    return EngagementModel(
        dataset.service_name(domain, service), dataset.feature_names(domain, service), inputs,
        candidate.fit(rows[inputs], labels(rows)), curve, names, cutoffs,
        domain.label.done, domain.label.done_segment if domain.label.done else None,
    )  # fmt: skip


def odds_of(candidate: Candidate, rows: pd.DataFrame) -> np.ndarray:
    """(n,) log odds, before calibration."""
    return candidate.margins(candidate.encoder_.transform(rows))


def labels(rows: pd.DataFrame) -> np.ndarray:
    """(n,) labels."""
    return rows["label"].to_numpy(dtype=np.int8)


def thin(rows: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """About `most` of the rows: whole people drawn by `seed`, in the order they had."""
    if len(rows) <= most:
        return rows
    people = np.sort(rows["user_id"].unique())
    kept = np.random.default_rng(seed).permutation(people)[: max(1, len(people) * most // len(rows))]
    return rows[rows["user_id"].isin(set(kept))]


def choose(results: Sequence[Result]) -> Result:
    """The least cross-validated log loss; of those within EQUAL of it the quickest. The holdout has no say in it."""
    able = [r for r in results if r.tuned.kind is not BaseRate]
    least = min(r.tuned.loss for r in able)
    return min((r for r in able if r.tuned.loss <= least + EQUAL), key=lambda r: r.tuned.kind.microseconds)
