"""The comparison on rows that only look like OULAD's; its figures on the real ones are measured by the run."""

import io

import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from feature_repo import domains
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY, WEEK
from tests.training.world import make_rows, shop
from training import dataset, oulad, tables
from training.splits import Split

COHORTS = ["2013B"] * 2 + ["2013J"] * 2 + ["2014B"] * 3 + ["2014J"] * 3


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    made = make_rows(900, offsets=(14 * DAY, 28 * DAY))
    made["cohort"] = [COHORTS[int(c[1:])] for c in made["cohort"]]
    made["end_us"] = made["anchor_us"] + 5 * WEEK
    made = made.assign(clicks_1d=made["clicks"], last_click_us=made["now_us"] - 1.0, bought=0.0, since_click=1e-6)
    monkeypatch.setattr(domains, "load", lambda name: shop(lambda _: pa.table({"end_us": [0]})))
    monkeypatch.setattr(dataset, "observations", lambda settings, now_us, offsets: made)
    monkeypatch.setattr(dataset, "with_features", lambda settings, observed: observed)
    return made


def test_both_splits_are_scored_on_the_same_people(rows: pd.DataFrame) -> None:
    found = oulad.compare(Settings(domain="oulad"))
    assert [day["t"] for day in found] == [14, 28]
    for day in found:
        tested = rows[(rows["offset_us"] == day["t"] * DAY) & rows["cohort"].isin(oulad.TEST)]
        assert day["n"] == day["as_of"]["n"] == len(tested)
        assert day["roc_auc"] > 0.65 and 0 < day["pr_auc"] < 1
        assert [p["presentation"] for p in day["as_of"]["presentations"]] == ["2014B", "2014J"]
    assert found[0]["published"] == {"n": 16027, "roc_auc": 0.596, "pr_auc": 0.283}
    out = io.StringIO()
    tables.published(found, Console(file=out, width=120))
    assert "published XGBoost" in out.getvalue() and "label maturity is ignored" in out.getvalue().replace("\n", " ")


def test_as_of_learns_only_from_what_had_ended(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Split] = []
    score = oulad._score

    def noted(split: Split) -> oulad.Scored:
        seen.append(split)
        return score(split)

    monkeypatch.setattr(oulad, "_score", noted)
    oulad._as_of(rows[rows["offset_us"] == 14 * DAY])
    assert [set(s.holdout["cohort"]) for s in seen] == [{"2014B"}, {"2014J"}]
    assert all(s.train["end_us"].max() <= s.holdout["now_us"].min() for s in seen)
    assert set(seen[0].train["cohort"]) == {"2013B"}


def test_it_is_for_oulad_only() -> None:
    with pytest.raises(ValueError, match="DOMAIN=oulad"):
        oulad.compare(Settings(domain="saas"))
