"""What MLflow is told of a training: below the parent run a run for each candidate, below that one for each trial."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from training import dataset, plots, registry, tracking
from training.contest import Result, labels, thin
from training.discovery import Discovered
from training.evaluate import Interval, slices
from training.model import EngagementModel
from training.plan import Plan
from training.splits import Split
from training.tune import Trial

REFERENCE_ROWS = 5_000
SLICE_ROWS = 50


class Board:
    """Writes a training into MLflow: below the parent run a run for each candidate, below that one for each trial."""

    def __init__(self, settings: Settings, domain: Domain, experiment_id: str, parent: str) -> None:
        self.domain = domain
        self.client = tracking.client(settings)
        self.experiment_id = experiment_id
        self.parent = parent

    def post(self, result: Result, split: Split) -> Result:
        """Log a candidate with its trials, figures, pictures and slices; returns it."""
        y, p = labels(split.holdout), result.scores
        child = tracking.Child(
            self.client, self.experiment_id, self.parent, result.kind, result.tuned.trials[0].start_ms
        )
        for trial in result.tuned.trials:
            self._trial(trial, child.run_id, result.kind)
        by_slice = slices(split.holdout, y, p, self.domain.slices, least=50)
        named = _slice_metrics(by_slice)
        child.log(
            {"cv.log_loss": result.tuned.loss} | result.metrics | named, result.tuned.params, {"candidate": result.kind}
        )
        child.text(by_slice.to_csv(index=False, float_format="%.5f"), "slices.csv")
        self._pictures(child, result, y)
        child.close()
        return result

    def _trial(self, trial: Trial, parent: str, kind: str) -> None:
        child = tracking.Child(self.client, self.experiment_id, parent, f"{kind} trial {trial.number}", trial.start_ms)
        steps = {f"cv.log_loss.fold{i}": loss for i, loss in enumerate(trial.folds)}
        child.log({"cv.log_loss": trial.loss} | steps, trial.params, {"trial.state": trial.state})
        child.close("FINISHED" if trial.state == "complete" else "KILLED", trial.end_ms)

    def _pictures(self, child: tracking.Child, result: Result, y: np.ndarray) -> None:
        scores = {result.kind: result.scores}
        child.picture(plots.roc(y, scores), "roc.png")
        child.picture(plots.precision_recall(y, scores), "precision_recall.png")
        child.picture(plots.calibration(y, scores), "calibration.png")
        if shares := result.model.candidate.importance():
            child.picture(plots.importance(result.kind, shares), "importance.png")
            child.text(json.dumps(shares, indent=1), "importance.json")

    def summary(
        self,
        results: list[Result],
        best: Result,
        figures: dict[str, Interval],
        split: Split,
        rows: pd.DataFrame,
        plan: Plan,
        left_out: int = 0,
    ) -> None:
        """Log what the candidates have in common, and the best one's figures, with the parent run.

        left_out: users whose outcome came before their anchor.
        """
        c, y = self.client, labels(split.holdout)
        ends = {f"{k}.{end}": getattr(v, end) for k, v in figures.items() for end in ("low", "high")}
        sizes = {
            "rows": len(rows),
            "rows.train": len(split.train),
            "rows.holdout": len(split.holdout),
            "rows.dropped": split.dropped,
            "users.done_before_anchor": left_out,
        }
        data = {"dataset.fingerprint": dataset.fingerprint(rows), "candidate": best.kind}
        tracking.log_batch(c, self.parent, best.metrics | ends, plan.params() | sizes, data)
        scores = {r.kind: r.scores for r in results}
        for name, draw in (
            ("roc", plots.roc),
            ("precision_recall", plots.precision_recall),
            ("calibration", plots.calibration),
        ):
            c.log_figure(self.parent, draw(y, scores), f"{name}.png")
        c.log_figure(self.parent, plots.importance(best.kind, best.model.candidate.importance()), "importance.png")
        c.log_text(
            self.parent, slices(split.holdout, y, best.scores, self.domain.slices, 50).to_csv(index=False), "slices.csv"
        )
        self._reference(best.model, split.train, plan)

    def personas(self, found: Discovered) -> None:
        """Log the clusterings that were tried, the personas and their pictures with the parent run."""
        c, named = self.client, found.personas.personas if found.personas else ()
        words = {"why": found.why, "people": found.people, "personas": [asdict(p) for p in named]}
        if found.personas:
            words |= {"method": found.personas.method, "features": found.personas.inputs}
        c.log_text(self.parent, json.dumps(words, indent=1), "personas.json")
        c.log_text(self.parent, pd.DataFrame(found.tried).to_csv(index=False, float_format="%.4f"), "personas.csv")
        c.log_figure(self.parent, plots.clusterings(found.tried), "personas_tried.png")
        if named:
            c.log_figure(self.parent, plots.personas(found.points, found.named), "personas.png")
        told = ("silhouette", "stability", "smallest", "noise", "chance")
        figures = {f"personas.{k}": getattr(t, k) for t in found.tried if not t.refused for k in told}
        tags = {"personas": ",".join(p.name for p in named) or "none"}
        tracking.log_batch(c, self.parent, {"personas": len(named)} | figures, {}, tags)

    def _reference(self, model: EngagementModel, train: pd.DataFrame, plan: Plan) -> None:
        """A sample of what the model learnt from and what it says of it, for drift; nobody's id."""
        sample = thin(train, REFERENCE_ROWS, plan.seed)
        table = pd.concat([sample[[*model.features, "offset_us", "label"]], model.predict(sample)], axis=1)
        with TemporaryDirectory() as folder:
            path = Path(folder) / registry.REFERENCE
            table.to_parquet(path, index=False)
            self.client.log_artifact(self.parent, str(path))


def _slice_metrics(by_slice: pd.DataFrame) -> dict[str, float]:
    """slice/<column>/<value>/roc_auc of each row of `evaluate.slices`."""
    rows = by_slice[["slice", "value", "roc_auc"]].to_numpy(dtype=object).tolist()
    return {f"slice/{column}/{_safe(value)}/roc_auc": float(auc) for column, value, auc in rows}


def _safe(value: str) -> str:
    """A slice's value as part of a metric's name: MLflow takes letters, digits and _ - . only (and some signs)."""
    return "".join(ch if ch.isalnum() or ch in "_-. " else "_" for ch in value)
