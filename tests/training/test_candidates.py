"""The contract of every candidate, and what is particular to one."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier

from tests.training.world import INPUTS, STRINGS
from training.candidates import KINDS, BaseRate, Candidate, LightGBM, Logistic, RandomForest, by_name
from training.evaluate import metrics

SMALL = {"lightgbm": {"trees": 20, "columns": 0.5}, "random_forest": {"trees": 15, "depth": 6}}


def build(kind: type[Candidate], **params: object) -> Candidate:
    return kind(categorical=STRINGS, seed=3, **SMALL.get(kind.kind, {}), **params)


@pytest.fixture(scope="module", params=KINDS, ids=lambda k: k.kind)
def fitted(request: pytest.FixtureRequest, rows: pd.DataFrame) -> Candidate:
    return build(request.param).fit(rows[INPUTS], rows["label"])


def test_the_same_seed_gives_the_same_model(fitted: Candidate, rows: pd.DataFrame) -> None:
    again = clone(fitted).fit(rows[INPUTS], rows["label"])
    assert np.array_equal(again.predict_proba(rows[INPUTS]), fitted.predict_proba(rows[INPUTS]))


def test_probabilities(fitted: Candidate, rows: pd.DataFrame) -> None:
    p = fitted.predict_proba(rows[INPUTS])
    assert p.shape == (len(rows), 2) and ((p >= 0) & (p <= 1)).all()
    assert np.allclose(p.sum(axis=1), 1)
    assert abs(p[:, 1].mean() - rows["label"].mean()) < 0.05


def test_nulls_and_unseen_categories_have_a_score(fitted: Candidate) -> None:
    empty = pd.DataFrame({c: pd.Series([None, None], dtype=object if c in STRINGS else float) for c in INPUTS})
    strange = empty.assign(device=["fridge", "car"], clicks=[1e12, -1.0])
    for frame in (empty, strange):
        assert np.isfinite(fitted.predict_proba(frame)).all()


def test_it_fits_columns_that_are_all_null(fitted: Candidate, rows: pd.DataFrame) -> None:
    barren = rows[INPUTS].assign(ratio=np.nan, country=None)
    again = clone(fitted).fit(barren, rows["label"])
    assert np.isfinite(again.predict_proba(rows[INPUTS])).all()


def test_input_is_not_mutated(fitted: Candidate, rows: pd.DataFrame) -> None:
    X, y = rows[INPUTS].copy(), rows["label"].copy()
    clone(fitted).fit(X, y).predict_proba(X)
    pd.testing.assert_frame_equal(X, rows[INPUTS])
    pd.testing.assert_series_equal(y, rows["label"])


def test_it_pickles(fitted: Candidate, rows: pd.DataFrame) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(rows[INPUTS]), fitted.predict_proba(rows[INPUTS]))


def test_one_row_gets_the_bits_that_it_gets_among_many(fitted: Candidate, rows: pd.DataFrame) -> None:
    many = fitted.margins(fitted.encoder_.transform(rows[INPUTS]))
    some = rows[INPUTS].head(100)
    values = some.astype(object).where(some.notna(), None).to_numpy().tolist()
    assert [fitted.margins(fitted.encoder_.row(v)).item() for v in values] == many[:100].tolist()


def test_importance_is_shares_of_the_inputs(fitted: Candidate) -> None:
    shares = fitted.importance()
    if isinstance(fitted, BaseRate):
        assert shares == {}
        return
    assert set(shares) == set(INPUTS)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda k: k.kind)
def test_it_learns_from_what_matters(kind: type[Candidate], rows: pd.DataFrame) -> None:
    past, later = rows[rows["cohort"] < "w06"], rows[rows["cohort"] >= "w06"]
    model = build(kind).fit(past[INPUTS], past["label"])
    assert metrics(later["label"].to_numpy(), model.predict_proba(later[INPUTS])[:, 1])["roc_auc"] > 0.68
    assert "clicks" in list(model.importance())[:2]


def test_forest_scores_as_scikit_learn_does(rows: pd.DataFrame) -> None:
    model = RandomForest(STRINGS, seed=3, trees=15, depth=6).fit(rows[INPUTS], rows["label"])
    Z = model.dense_.transform(model.encoder_.transform(rows[INPUTS]))
    theirs = RandomForestClassifier(
        15, max_depth=6, min_samples_leaf=15, max_features=0.25, max_samples=0.5, n_jobs=1, random_state=3
    ).fit(Z, rows["label"])
    assert np.allclose(model.predict_proba(rows[INPUTS]), theirs.predict_proba(Z), atol=1e-5)


@pytest.mark.parametrize("imputation", ["median", "most_frequent", "knn"])
def test_logistic_imputations_and_penalties(imputation: str, rows: pd.DataFrame) -> None:
    sparse = Logistic(STRINGS, C=0.003, l1=1.0, imputation=imputation).fit(rows[INPUTS], rows["label"])
    dense = Logistic(STRINGS, C=0.003, l1=0.0, imputation=imputation).fit(rows[INPUTS], rows["label"])
    assert (sparse.weights_ == 0).sum() > (dense.weights_ == 0).sum()


def test_lightgbm_uses_one_thread_and_says_nothing(capfd: pytest.CaptureFixture[str], rows: pd.DataFrame) -> None:
    model = LightGBM(STRINGS, trees=3).fit(rows[INPUTS], rows["label"])
    assert model._settings()["num_threads"] == 1
    assert capfd.readouterr() == ("", "")


def test_candidates_by_name() -> None:
    assert by_name("lightgbm") is LightGBM
    with pytest.raises(ValueError, match="there are base_rate, logistic"):
        by_name("oracle")
