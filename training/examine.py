"""A registered version on the newest holdout: figures with intervals, slices, segments."""

from dataclasses import dataclass

import pandas as pd

from feature_repo import domains
from feature_repo.settings import Settings
from training import dataset, registry, splits
from training.contest import labels
from training.evaluate import Interval, intervals, slices
from training.model import EngagementModel
from training.plan import Plan


@dataclass(frozen=True)
class Examined:
    """What came of it. segments: a row each with its share of the people and its rate of the label."""

    model: EngagementModel
    rows: int
    figures: dict[str, Interval]
    slices: pd.DataFrame
    segments: pd.DataFrame


def examine(settings: Settings, now_us: int, version: int | None = None, plan: Plan = Plan()) -> Examined:
    """Score a version (default: @champion) on the newest holdout of what is known at `now_us`.

    Raises:
        NoModelError: there is no such version, or no champion yet.
    """
    model = registry.load(settings, version)
    known = dataset.matured(dataset.observations(settings, now_us))
    held = splits.newest_holdout(known, plan.holdout, plan.gap_us).holdout
    rows = dataset.with_features(settings, held, dataset.service_version(model.feature_service))
    said = model.predict(rows)
    y, p = labels(rows), said["score"].to_numpy()
    figures = intervals(y, p, rows["user_id"].to_numpy(), plan.draws, plan.seed)
    by_slice = slices(rows, y, p, domains.load(settings.domain).slices, least=50)
    return Examined(model, len(rows), figures, by_slice, by_segment(model, said["segment"], rows["label"]))


def by_segment(model: EngagementModel, segment: pd.Series, label: pd.Series) -> pd.DataFrame:
    """segment | rows | share | rate, from the lowest score to the highest."""
    found = label.groupby(segment).agg(rows="size", rate="mean").reindex(model.segments)
    found["rows"] = found["rows"].fillna(0).astype("int64")
    found.insert(1, "share", found["rows"] / max(1, len(label)))
    return found.rename_axis("segment").reset_index()
