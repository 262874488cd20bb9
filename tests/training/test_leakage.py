"""Features from the future, planted one way after another, and each of them caught."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_repo.domain import Domain
from tests.training.world import shop
from training import leakage
from training.leakage import LeakageError


@pytest.fixture
def domain() -> Domain:
    return shop(lambda _: pa.table({}))


@pytest.fixture
def honest(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        clicks_1d=rows["clicks"],
        last_click_us=rows["now_us"] - 5.0,
        bought=0.0,
        since_click=5e-6,
        country=rows["country"],
    )


def test_honest_rows_pass(honest: pd.DataFrame, domain: Domain) -> None:
    leakage.check(honest, domain)


def test_a_time_after_the_observation(honest: pd.DataFrame, domain: Domain) -> None:
    planted = honest.assign(last_click_us=honest["last_click_us"].where(honest.index != 3, honest["now_us"] + 1.0))
    with pytest.raises(LeakageError, match="last_click_us: 1 rows hold a time after the observation"):
        leakage.check(planted, domain)


def test_elapsed_since_a_time_to_come(honest: pd.DataFrame, domain: Domain) -> None:
    with pytest.raises(LeakageError, match="since_click"):
        leakage.check(honest.assign(since_click=-1.0), domain)


def test_the_outcome_among_people_who_have_not_had_it(honest: pd.DataFrame, domain: Domain) -> None:
    planted = honest.assign(bought=np.where(honest.index == 5, 1.0, 0.0))
    with pytest.raises(LeakageError, match="bought: 1 of 2400 rows know of an outcome"):
        leakage.check(planted, domain)


def test_a_number_that_is_the_label_in_other_words(honest: pd.DataFrame, domain: Domain) -> None:
    noise = np.random.default_rng(0).normal(size=len(honest)) * 0.2
    for planted in (honest["label"] + noise, -(honest["label"] + noise)):
        with pytest.raises(LeakageError, match="clicks_1d: its value alone separates"):
            leakage.check(honest.assign(clicks_1d=planted), domain)


def test_being_null_that_gives_the_label_away(honest: pd.DataFrame, domain: Domain) -> None:
    when = np.where(honest["label"] == 1, np.random.default_rng(0).random(len(honest)), np.nan)
    with pytest.raises(LeakageError, match=r"clicks_1d: .* alone separates"):
        leakage.check(honest.assign(clicks_1d=when), domain)


def test_a_category_that_names_the_label(honest: pd.DataFrame, domain: Domain) -> None:
    with pytest.raises(LeakageError, match="country: its value alone separates"):
        leakage.check(honest.assign(country=np.where(honest["label"] == 1, "buyer", "visitor")), domain)


def test_many_rare_categories_are_no_leak(honest: pd.DataFrame, domain: Domain) -> None:
    leakage.check(honest.assign(country=[f"c{i}" for i in range(len(honest))]), domain)


def test_a_feature_with_the_name_of_the_label() -> None:
    with pytest.raises(LeakageError, match="outcome_us"):
        leakage.refuse_outcome_names(["clicks", "outcome_us"])
