"""monitoring.outcomes against scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from monitoring.outcomes import calibration, quality, rates, wilson


def scored(n: int = 600, seed: int = 0) -> pd.DataFrame:
    """DataFrame[user_id, label, score, segment]: three rows a person, scores rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    score = rng.random(n).round(2)
    label = (rng.random(n) < score).astype(int)
    segment = np.where(score < 0.5, "cold", "hot")
    return pd.DataFrame(
        {"user_id": [f"u{i // 3}" for i in range(n)], "label": label, "score": score, "segment": segment}
    )


def test_auc_and_brier_are_those_of_scikit_learn() -> None:
    rows = scored()
    found = quality(rows)
    assert found is not None and found.people == 200 and found.rows == 600
    assert found.auc == pytest.approx(roc_auc_score(rows["label"], rows["score"]))
    assert found.brier == pytest.approx(brier_score_loss(rows["label"], rows["score"]))
    assert found.auc and found.low and found.high and found.low < found.auc < found.high


def test_the_interval_covers_and_does_not_depend_on_the_order_of_rows() -> None:
    rows = scored()
    assert quality(rows) == quality(rows.sample(frac=1, random_state=5))
    wide = quality(scored(60))
    narrow = quality(scored(3000))
    assert wide and narrow and wide.high and wide.low and narrow.high and narrow.low
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_one_class_only_has_no_auc() -> None:
    found = quality(scored().assign(label=0))
    assert found is not None and (found.auc, found.low, found.high) == (None, None, None)


def test_rows_that_were_not_scored_do_not_count() -> None:
    rows = scored()
    done = rows.head(100).assign(score=np.nan, label=1)
    assert quality(pd.concat([rows, done])) == quality(rows)
    assert quality(done) is None


def test_calibration_groups_hold_everybody_and_rise() -> None:
    bins = calibration(scored())
    assert sum(b.n for b in bins) == 600 and len(bins) == 10
    predicted = [b.predicted for b in bins]
    assert predicted == sorted(p for p in predicted if p is not None)


def test_calibration_error_by_hand() -> None:
    rows = pd.DataFrame({"user_id": list("abcd"), "label": [1, 0, 1, 0], "score": [0.8] * 4})
    found = quality(rows)
    assert found is not None and found.calibration_error == pytest.approx(0.3)


def test_chance_bounds_the_calibration_error_of_true_probabilities() -> None:
    found = [quality(one_row_each(300, seed)) for seed in range(60)]
    below = sum(q.calibration_error <= q.calibration_chance for q in found if q) / len(found)
    assert 0.85 < below <= 1
    crowd = quality(one_row_each(3000, 0))
    assert crowd and found[0] and crowd.calibration_chance < found[0].calibration_chance / 2


def one_row_each(n: int, seed: int) -> pd.DataFrame:
    """As `scored`, one row a person."""
    return scored(n, seed).assign(user_id=[f"u{i}" for i in range(n)])


def test_rates_in_the_order_of_the_segments_without_empty_ones() -> None:
    rows = pd.DataFrame(
        {
            "user_id": list("aabc"),
            "label": [1, 0, 0, 1],
            "score": [0.9, 0.1, 0.2, np.nan],
            "segment": ["hot", "cold", "cold", "done"],
        }
    )
    found = rates(rows, "segment", ["cold", "warm", "hot", "done"])
    assert [(r.name, r.n, r.happened, r.rate) for r in found] == [
        ("cold", 2, 0, 0.0),
        ("hot", 1, 1, 1.0),
        ("done", 1, 1, 1.0),
    ]
    assert found[0].predicted == pytest.approx(0.15) and found[2].predicted is None


@pytest.mark.parametrize(
    ("happened", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_wilson_by_the_tables(happened: int, n: int, low: float, high: float) -> None:
    assert wilson(happened / n, n) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_counts_people_not_labels() -> None:
    rows = pd.DataFrame(
        {"user_id": list("aaabbb"), "label": [1, 1, 1, 0, 0, 0], "score": [0.5] * 6, "segment": ["hot"] * 6}
    )
    (found,) = rates(rows, "segment", ["hot"])
    assert (found.n, found.people, found.rate) == (6, 2, 0.5)
    assert (found.low, found.high) == wilson(0.5, 2)
