"""People as they were at a moment, scored by the champion: features through Feast, one retrieval for all."""

from collections.abc import Sequence
from typing import Protocol

import pandas as pd

from feature_repo.domain import Label
from feature_repo.settings import Settings
from training import dataset

KEYS = ["user_id", "now_us"]


class Model(Protocol):
    """What a replay needs of a model (training.registry.Model is one)."""

    feature_service: str
    features: list[str]

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Feature rows → `score`, `segment`."""
        ...


def scored(settings: Settings, model: Model, label: Label, frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Each frame [user_id, now_us, ...] with the model's features, `score` and `segment` beside it.

    Somebody whose outcome has happened by then is in the label's `done_segment` and has no score.
    """
    asked = pd.concat([frame[KEYS] for frame in frames]).drop_duplicates(ignore_index=True)
    asked["event_timestamp"] = pd.to_datetime(asked["now_us"], unit="us", utc=True).astype("datetime64[us, UTC]")
    version = dataset.service_version(model.feature_service)
    rows = dataset.with_features(settings, asked, version).drop(columns="event_timestamp")
    rows = rows.join(predicted(model, label, rows))
    return [frame.merge(rows, on=KEYS, how="left", validate="many_to_one") for frame in frames]


def predicted(model: Model, label: Label, rows: pd.DataFrame) -> pd.DataFrame:
    """`score` (null: outcome has happened) and `segment` of feature rows, with their index."""
    found = model.predict(rows[list(model.features)])[["score", "segment"]]
    if label.done in rows.columns:
        done = pd.to_numeric(rows[label.done]).fillna(0) > 0
        found = found.assign(score=found["score"].mask(done), segment=found["segment"].mask(done, label.done_segment))
    return found
