"""monitoring.replay: one retrieval for all frames, and people who are done are not scored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.domain import Label
from feature_repo.settings import Settings
from monitoring import replay
from training import dataset

LABEL = Label("activation", "activates", good=True, done="activations", done_segment="activated")


class Steps:
    """A model by hand: a tenth for each page, hot from 0.5; it has its own idea of people who are done."""

    def __init__(self) -> None:
        self.feature_service, self.features = "saas_v1", ["pages", "activations"]

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """score and segment."""
        assert list(rows.columns) == self.features
        score = rows["pages"] / 10
        return pd.DataFrame({"score": score, "segment": np.where(score >= 0.5, "hot", "cold")}, index=rows.index)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """What Feast is asked; its answer: pages are the digit in the user's name, "d..." is done."""
    questions: list[pd.DataFrame] = []

    def with_features(settings: Settings, observed: pd.DataFrame, version: int | None = None) -> pd.DataFrame:
        assert version == 1
        questions.append(observed)
        pages, done = observed["user_id"].str[1:].astype(float), observed["user_id"].str.startswith("d").astype(float)
        return observed.assign(pages=pages, activations=done)

    monkeypatch.setattr(dataset, "with_features", with_features)
    return questions


def frame(users: Sequence[str], now_us: int, **more: list[int]) -> pd.DataFrame:
    """Somebody's observations at one time."""
    return pd.DataFrame({"user_id": users, "now_us": now_us}).assign(**more)


def test_scores_and_segments_beside_what_was_there(asked: list[pd.DataFrame], tmp_path: Path) -> None:
    first, second = replay.scored(
        Settings(home=tmp_path),
        Steps(),
        LABEL,
        [frame(["u2", "u7"], 5, label=[0, 1]), frame(["d9", "u2"], 6)],
    )
    assert first[["user_id", "label", "score", "segment"]].values.tolist() == [
        ["u2", 0, 0.2, "cold"],
        ["u7", 1, 0.7, "hot"],
    ]
    assert second["segment"].tolist() == ["activated", "cold"]
    assert np.isnan(second["score"][0]) and second["score"][1] == 0.2


def test_everybody_is_asked_for_once_at_their_own_time(asked: list[pd.DataFrame], tmp_path: Path) -> None:
    both = [frame(["u2"], 1_700_000_000_000_000), frame(["u2", "u3"], 1_700_000_000_000_000)]
    replay.scored(Settings(home=tmp_path), Steps(), LABEL, both)
    (question,) = asked
    assert question["user_id"].tolist() == ["u2", "u3"]
    assert str(question["event_timestamp"][0]) == "2023-11-14 22:13:20+00:00"
    assert str(question["event_timestamp"].dtype) == "datetime64[us, UTC]"


def test_where_no_feature_says_so_nobody_is_done(asked: list[pd.DataFrame], tmp_path: Path) -> None:
    label = Label("withdraws", "leaves", good=False)
    (found,) = replay.scored(Settings(home=tmp_path), Steps(), label, [frame(["d9"], 5)])
    assert (found["score"][0], found["segment"][0]) == (0.9, "hot")
