import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.preprocess import IMPUTATIONS, Clip, Dense, Impute

NAN = np.nan


def holes(n: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)) * [1, 10, 100, 1]
    X[rng.random(X.shape) < 0.2] = NAN
    return X


def test_clip_learns_from_the_training_part_only() -> None:
    clip = Clip(0.0, 0.5).fit(np.array([[0.0], [1.0], [2.0], [NAN]]))
    later = np.array([[1000.0], [-5.0], [0.5], [NAN]])
    assert np.array_equal(clip.transform(later), [[1.0], [0.0], [0.5], [NAN]], equal_nan=True)


@pytest.mark.parametrize(("strategy", "filled"), [("median", 2.0), ("most_frequent", 1.0)])
def test_impute_by_column(strategy: str, filled: float) -> None:
    X = np.array([[1.0], [1.0], [2.0], [5.0], [7.0]])
    assert Impute(strategy).fit(X).transform(np.array([[NAN], [9.0]])).tolist() == [[filled], [9.0]]


def test_knn_takes_the_mean_of_the_nearest_who_have_it() -> None:
    donors = np.array([[0.0, 10.0], [0.1, 20.0], [0.2, NAN], [9.0, 900.0]])
    filled = Impute("knn", k=2).fit(donors).transform(np.array([[0.05, NAN]]))
    assert filled.tolist() == [[0.05, 15.0]]


@pytest.mark.parametrize("strategy", IMPUTATIONS)
def test_nothing_is_left_null_even_in_an_empty_column(strategy: str) -> None:
    X = np.column_stack([holes(), np.full(60, NAN)])
    filled = Impute(strategy).fit(X).transform(X)
    assert not np.isnan(filled).any()
    assert np.array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
    assert set(filled[:, 4]) == {0.0}


def test_an_unknown_imputation_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of median"):
        Impute("mode").fit(holes())


@pytest.mark.parametrize("strategy", IMPUTATIONS)
@given(seed=st.integers(0, 1000))
def test_one_row_gets_the_bits_that_it_gets_among_many(strategy: str, seed: int) -> None:
    X = np.column_stack([holes(40, seed), np.random.default_rng(seed).integers(0, 3, 40)])
    dense = Dense([(4, 2)], strategy).fit(X)
    many = dense.transform(X)
    assert all(np.array_equal(dense.transform(X[i : i + 1])[0], many[i]) for i in range(0, 40, 7))


def test_dense_gives_null_and_unseen_categories_columns_of_their_own() -> None:
    X = np.array([[1.0, 1.0], [2.0, 2.0], [NAN, NAN], [4.0, 0.0]])
    Z = Dense([(1, 2)]).fit(X).transform(X)
    assert Z[:, 1].tolist() == [0, 0, 1, 0]  # was the number null
    assert Z[:, 2:].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
