import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.encode import OTHER, Encoder

FRAME = pd.DataFrame({"n": [1, 2, 3, 4], "kind": ["b", "a", "b", "a"]})
CELL = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["a", "b", float("nan")]))
NUMBER = st.one_of(st.none(), st.integers(-(2**53), 2**53), st.floats(allow_nan=True, allow_infinity=True))


def encoder() -> Encoder:
    return Encoder(["kind"], rarest=2).fit(FRAME)


def test_codes_are_alphabetical_and_null_is_nan() -> None:
    rows = pd.DataFrame({"n": [5.0, None], "kind": ["b", None]})
    assert np.array_equal(encoder().transform(rows), [[5.0, 2.0], [np.nan, np.nan]], equal_nan=True)


def test_rare_and_unseen_categories_are_other() -> None:
    rare = Encoder(["kind"], rarest=3).fit(FRAME.replace({"kind": {"a": "b"}}).assign(kind=["b", "b", "b", "z"]))
    rows = pd.DataFrame({"n": [0, 0, 0], "kind": ["z", "new", "b"]})
    assert rare.transform(rows)[:, 1].tolist() == [OTHER, OTHER, 1.0]


def test_columns_may_come_in_any_order() -> None:
    assert np.array_equal(encoder().transform(FRAME[["kind", "n"]]), encoder().transform(FRAME))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="lack n"):
        encoder().transform(FRAME[["kind"]])


@given(n=NUMBER, kind=CELL)
def test_one_row_is_encoded_as_in_a_frame(n: float | None, kind: str | None) -> None:
    frame = pd.DataFrame({"n": pd.Series([n], dtype="float64"), "kind": pd.Series([kind], dtype=object)})
    assert np.array_equal(encoder().row([n, kind]), encoder().transform(frame), equal_nan=True)
