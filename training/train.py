"""One training: data in time, candidates tuned and judged on the newest holdout, the best one registered."""

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.settings import Settings
from training import dataset, leakage, registry, splits, tracking
from training.board import Board
from training.contest import Result, choose, compete, labels, one_thread_each
from training.discovery import Discovered, discover
from training.evaluate import Interval, intervals
from training.plan import Plan
from training.progress import Progress
from training.splits import Split

if TYPE_CHECKING:
    from feast import FeatureStore


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    intervals: 90 % bootstrap intervals of the best candidate on the holdout. personas: None where not looked for.
    users: with an anchor event; left_out: ids of those of them whose outcome came before their anchor.
    """

    version: int
    run_id: str
    best: str
    rows: int
    train_rows: int
    holdout_rows: int
    results: list[Result]
    intervals: dict[str, Interval]
    seconds: float
    personas: Discovered | None = None
    users: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """The best candidate's figures on the holdout."""
        return next(r.metrics for r in self.results if r.kind == self.best)


def train(settings: Settings, now_us: int, plan: Plan = Plan(), progress: Progress = Progress()) -> Trained:
    """Train every candidate on what is known at `now_us`, register the best as a new version; @champion stays.

    Raises:
        ValueError: there is nothing to learn from, or the history is too short for a holdout in time.
        LeakageError: a feature knows the future.
    """
    from feature_repo.feature_store.store import feature_store

    began = time.monotonic()
    domain, store = domains.load(settings.domain), feature_store(settings)
    feast_mlflow = tracking.feast_mlflow(settings, store)
    experiment_id = tracking.experiment(settings)
    with feast_mlflow.start_run(run_name=f"train {domain.name}", experiment_id=experiment_id) as run:
        progress.say("point-in-time rows")
        outcomes = domain.outcomes(settings)  # a row for each user with an anchor event
        left_out = tuple(dataset.done_before(outcomes.to_pandas())["user_id"])
        known = dataset.matured(dataset.observed(domain, outcomes, now_us))  # user_id, event_timestamp, label, …
        dataset.refuse_nothing(domain, outcomes, known)
        rows = labelled_rows(store, feast_mlflow, domain, known, plan)  # the same, and the features
        leakage.check(rows, domain, plan.service or None)
        split = splits.newest_holdout(rows, plan.holdout, plan.gap_us)  # train | holdout
        sizes = len(rows), len(split.train), len(split.holdout)
        progress.say(f"of {sizes[0]} rows {sizes[1]} to learn from, {sizes[2]} held out, the others known too late")
        board = Board(settings, domain, experiment_id, run.info.run_id)
        with one_thread_each() as pool:
            found_later = pool.submit(personas_of, domain, split, plan)
            results = [board.post(r.result(), split) for r in compete(domain, split, plan, progress, pool)]
            progress.say("personas: clusterings of the people to learn from")
            found = found_later.result()
        best = with_personas(choose(results), found)
        figures = intervals(
            labels(split.holdout), best.scores, split.holdout["user_id"].to_numpy(), plan.draws, plan.seed
        )
        board.summary(results, best, figures, split, rows, plan, len(left_out))
        if found is not None:
            board.personas(found)
        version = registry.register(
            settings, feast_mlflow, domain, best.model, facts(best, split, now_us, plan, figures)
        )
    seconds = time.monotonic() - began
    return Trained(
        version, run.info.run_id, best.kind, *sizes, results, figures, seconds, found, len(outcomes), left_out
    )  # fmt: skip


def labelled_rows(
    store: "FeatureStore", feast_mlflow: Any, domain: Domain, known: pd.DataFrame, plan: Plan
) -> pd.DataFrame:
    """The matured observations with their features; Feast tells the active run which feature service gave them."""
    rows = dataset.features_of(store, domain, known, plan.service or None)
    service = store.get_feature_service(dataset.service_name(domain, plan.service or None))
    refs = [f"{p.name_to_use()}:{f.name}" for p in service.feature_view_projections for f in p.features]
    feast_mlflow.log_dict(refs, "feast_features.json")  # Feast's own log_model cannot write a pyfunc
    return rows


def personas_of(domain: Domain, split: Split, plan: Plan) -> Discovered | None:
    """The personas of the people to learn from, None where the plan leaves them out."""
    return discover(domain, split.train, plan.service or None, plan.seed) if plan.personas else None


def with_personas(best: Result, found: Discovered | None) -> Result:
    """The result, its model with the personas."""
    return replace(best, model=replace(best.model, discovered=found.personas)) if found else best


def facts(best: Result, split: Split, now_us: int, plan: Plan, figures: dict[str, Interval]) -> dict[str, str]:
    """What the gate and people need to know of a version: its tags."""
    own = {
        "candidate": best.kind,
        "now_us": str(now_us),
        "known_by_us": str(split.known_by_us),
        "holdout": str(plan.holdout),
        "gap_us": str(plan.gap_us),
        "cohorts_held": ",".join(splits.cohorts(split.holdout)),
    }
    return own | {f"holdout.{k}": f"{v.value:.4f} [{v.low:.4f}, {v.high:.4f}]" for k, v in figures.items()}
