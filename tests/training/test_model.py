from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.world import INPUTS, STRINGS, make_rows
from training.calibration import Calibration, Isotonic, Sigmoid
from training.candidates import KINDS, LightGBM
from training.model import EngagementModel

ROWS = make_rows(400)
FEATURES = ["seen_us", *INPUTS, "done"]
SMALL = {"lightgbm": {"trees": 15}, "random_forest": {"trees": 10}}
CURVES: dict[str, Calibration] = {
    "sigmoid": Sigmoid(0.9, -0.1),
    "isotonic": Isotonic((-1.0, 0.0, 1.0), (0.1, 0.4, 0.8)),
}
FITTED = {k.kind: k(STRINGS, seed=1, **SMALL.get(k.kind, {})).fit(ROWS[INPUTS], ROWS["label"]) for k in KINDS}


def model(kind: str = "lightgbm", curve: str = "sigmoid") -> EngagementModel:
    return EngagementModel(
        "shop_v1", FEATURES, INPUTS, FITTED[kind], CURVES[curve], ["cold", "warm", "hot"], [0.3, 0.4], "done", "buyer"
    )


def frame(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[INPUTS].assign(seen_us=1.7e15, done=0.0)[FEATURES]


def one_by_one(m: EngagementModel, rows: pd.DataFrame) -> pd.DataFrame:
    values = rows[m.features].astype(object).where(rows[m.features].notna(), None).to_numpy().tolist()
    return pd.DataFrame([m.score_one(v) for v in values], columns=["score", "segment"], index=rows.index)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("kind", FITTED)
def test_score_one_equals_predict_bit_for_bit(kind: str, curve: str) -> None:
    m, rows = model(kind, curve), frame(ROWS)
    pd.testing.assert_frame_equal(one_by_one(m, rows), m.predict(rows), check_exact=True)


NUMBER = st.one_of(st.none(), st.floats(), st.integers(-(2**40), 2**40))
STRING = st.one_of(st.none(), st.sampled_from(["desktop", "mobile", "de"]), st.text(max_size=2))


@given(st.lists(st.tuples(*(STRING if f in STRINGS else NUMBER for f in FEATURES)), min_size=1, max_size=5))
def test_score_one_equals_predict_on_anything(values: list[tuple[object, ...]]) -> None:
    rows = pd.DataFrame(values, columns=FEATURES).astype({f: object if f in STRINGS else float for f in FEATURES})
    for kind in FITTED:
        m = model(kind)
        said = m.predict(rows)
        assert said["score"].between(0, 1).all()
        assert [m.score_one(v) for v in values] == list(said.itertuples(index=False, name=None))


def test_segments_rise_with_the_score() -> None:
    said = model("logistic").predict(frame(ROWS)).sort_values("score")
    assert set(said["segment"]) == {"cold", "warm", "hot"}
    assert said.groupby("segment")["score"].max()["cold"] < 0.3 <= said.groupby("segment")["score"].min()["warm"]


def test_who_is_done_is_in_no_engagement_segment() -> None:
    rows = frame(ROWS).head(3).assign(done=[0.0, 2.0, np.nan])
    said = model().predict(rows)
    assert (said["segment"] == "buyer").tolist() == [False, True, False]
    assert said["score"].notna().all()
    assert one_by_one(model(), rows)["segment"].tolist() == said["segment"].tolist()


def test_columns_it_does_not_use_may_be_missing_but_inputs_not() -> None:
    m = model()
    assert m.predict(ROWS[INPUTS]).equals(m.predict(frame(ROWS)))
    with pytest.raises(ValueError, match="lack clicks"):
        m.predict(frame(ROWS).drop(columns="clicks"))


def test_no_rows() -> None:
    assert model().predict(frame(ROWS).head(0)).columns.tolist() == ["score", "segment"]


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    again = EngagementModel.read(model().save(tmp_path / "new"))
    pd.testing.assert_frame_equal(again.predict(frame(ROWS)), model().predict(frame(ROWS)), check_exact=True)
    assert EngagementModel.read(tmp_path / "new").cutoffs == [0.3, 0.4]


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="inputs that shop_v1 does not have: clicks"):
        EngagementModel("shop_v1", ["pages"], ["clicks"], LightGBM(), Sigmoid(1, 0), ["a"], [])
    for cutoffs in ([0.5, 0.4], [0.5], [0.5, 0.5]):
        with pytest.raises(ValueError, match="one rising cut-off fewer"):
            EngagementModel("shop_v1", [], [], LightGBM(), Sigmoid(1, 0), ["a", "b", "c"], cutoffs)
