"""A made-up week: every chart, table and verdict of the page has something to show."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_repo.vocabulary import DAY, WEEK
from monitoring import decisions
from monitoring.drift import Drift, FeatureDrift
from monitoring.evidently_pages import Page
from monitoring.outcomes import quality, rates
from monitoring.page import Week
from monitoring.parity import UNKNOWN, Parity, Tally
from monitoring.segments import moves_by_week, shares_by_week
from monitoring.verdicts import Verdict

AT = 1_780_000_000_000_000
SEGMENTS = ["cold", "warm", "hot", "activated"]
MakeWeek = Callable[..., Week]


@pytest.fixture
def at_us() -> int:
    """The end of the made-up week: 28 May 2026."""
    return AT


@pytest.fixture
def write_log() -> Callable[..., None]:
    """Writes a decision log, see `log_into`."""
    return log_into


@pytest.fixture
def make_week(tmp_path: Path) -> MakeWeek:
    """Makes up a week, see `made_up`."""
    return lambda **options: made_up(tmp_path, **options)


def replayed(people: int = 300, weeks: int = 8) -> pd.DataFrame:
    """DataFrame[user_id, now_us, segment] of `weeks` week ends; about half of the people stay for two."""
    drawn = np.random.default_rng(1).choice(SEGMENTS, size=(weeks, people), p=[0.4, 0.3, 0.2, 0.1])
    ends = [AT - (weeks - 1 - week) * WEEK for week in range(weeks)]
    rows = [(f"u{w * people // 2 + i}", ends[w], drawn[w, i]) for w in range(weeks) for i in range(people)]
    return pd.DataFrame(rows, columns=["user_id", "now_us", "segment"])


def matured(people: int = 400) -> pd.DataFrame:
    """DataFrame[user_id, label, score, segment], calibrated."""
    rng = np.random.default_rng(2)
    score = rng.beta(1.2, 3, people)
    segment = np.array(SEGMENTS)[np.digitize(score, [0.2, 0.5])]
    frame = {"user_id": [f"u{i}" for i in range(people)], "label": (rng.random(people) < score).astype(int)}
    return pd.DataFrame(frame | {"score": score, "segment": segment})


def log_into(folder: Path, at_us: int, count: int = 60) -> None:
    """A decision log of `count` decisions an hour apart, up to `at_us`; every tenth is for somebody unknown."""
    folder.mkdir(parents=True, exist_ok=True)
    unknown = [i % 10 == 0 for i in range(count)]
    scores = np.random.default_rng(3).random(count)
    log = {
        "decision_id": [f"d{i}" for i in range(count)],
        "at_us": [at_us - i * DAY // 24 for i in range(count)],
        "user_id": [f"u{i % 40}" for i in range(count)],
        "known": [not u for u in unknown],
        "segment": [None if u else SEGMENTS[i % 4] for i, u in enumerate(unknown)],
        "score": [None if u else s for u, s in zip(unknown, scores, strict=True)],
        "model_version": pd.array([None if u else 3 for u in unknown], dtype="Int64"),
    }
    pd.DataFrame(log).to_parquet(folder / "1.parquet")


def served(feature: str) -> Parity:
    """Sixty decisions: two vectors wrong in two features, six not comparable."""
    tallies = {feature: Tally(54, mismatched=2), "pages": Tally(54, missing=1), "never": Tally(54)}
    example = {"decision_id": "d1", "user_id": None, "anonymous_id": "visitor-9", "at_us": AT - DAY}
    example |= {"applied_position": 12_345, "features": {}}
    older = {"fault": "an older row", "evidence": "equals the row as of position 12,001, 3 events ago"}
    ended = {
        "fault": "a row served after its end",
        "evidence": "equals the row as it was at 2026-05-27T20:26:40.000000Z",
    }
    return Parity(
        tallies, vectors=54, wrong_vectors=2, because={UNKNOWN: 6}, faults={"an older row": 1, ended["fault"]: 1},
        examples=[example | older, example | ended],
    )  # fmt: skip


def made_up(folder: Path, feature: str = "sessions_24h", pages: Sequence[Page] = (), log: bool = True) -> Week:
    """A week; `feature` is the name of the first feature, `pages` those that Evidently is said to have written."""
    if log:
        log_into(folder / "decisions", AT)
    rows, labels = replayed(), matured()
    weeks, score = shares_by_week(rows, SEGMENTS), np.random.default_rng(4)
    features = [FeatureDrift(feature, 0.31, 0.02, 0.12, True), FeatureDrift("pages", 0.12, 0, 0)]
    features += [FeatureDrift(f"distinct_features_used_{i}", 0.05 / (i + 1), 0.1, 0.1) for i in range(12)]
    features += [FeatureDrift("never", None, 1, 1, note="no value in the newest week")]
    return Week(
        title="A product, the week to 28 May 2026",
        domain="saas",
        at_us=AT,
        week_end_us=AT,
        model_name="saas-engagement",
        model_version=3,
        train_end_us=AT - 4 * WEEK,
        outcome="activation",
        label_doc="Activates within 14 days.",
        good=True,
        verdicts=[
            Verdict("good", "Score stable", "PSI 0.03 against training (look from 0.1, act from 0.2).", "score"),
            Verdict("look", "Some features drift", f"1 of 14 features at or above PSI 0.2: {feature}.", "drift"),
            Verdict("act", "Segments unstable", "PSI 0.31 against the week before.", "segments"),
            Verdict("act", "Served features are wrong", f"3 values in 2 of 54 vectors: {feature}, pages.", "served"),
            Verdict("unknown", "AUC: too few matured labels to tell", "12 matured labels.", "outcomes"),
        ],
        drift=Drift(features, 0.03, 5000, 700, 3, list(pages)),
        scores_reference=score.beta(1.2, 3, 5000).tolist(),
        scores_now=score.beta(1.5, 3, 700).tolist(),
        reference_words="People of the same ages on both sides.",
        timestamps=["signed_up_us"],
        docs={f.name: f"What {f.name} counts." for f in features},
        segments=SEGMENTS,
        done_segment="activated",
        weeks=weeks,
        in_training=[w.end_us < AT - 4 * WEEK for w in weeks],
        people={w.end_us: w.people for w in weeks},
        sampled=False,
        moves=moves_by_week(rows, SEGMENTS),
        ages_scored="1 day, 3 days and 7 days",
        rates=rates(labels, "segment", SEGMENTS),
        quality=(figures := quality(labels)),
        ages=[("1 day", figures)] if figures else [],
        labels_words="scored since the training period",
        decisions=decisions.week(folder / "decisions", AT, SEGMENTS),
        served=served(feature),
    )
