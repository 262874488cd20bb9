import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_repo import domains
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY
from tests.training.world import START, Shop, shop, write_features
from training import dataset

NOW = START + 20 * DAY


def people(*rows: tuple[str, int, int | None]) -> pa.Table:
    """(user, anchor day, outcome day or None), horizon 14 days."""
    return pa.table({
        "user_id": [u for u, _, _ in rows],
        "anchor_us": pa.array([START + a * DAY for _, a, _ in rows], pa.int64()),
        "outcome_us": pa.array([None if o is None else START + o * DAY for _, _, o in rows], pa.int64()),
        "end_us": pa.array([START + (a + 14) * DAY for _, a, _ in rows], pa.int64()),
        "cohort": ["w"] * len(rows),
    })  # fmt: skip


@pytest.fixture
def observe(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> object:
    def run(*rows: tuple[str, int, int | None], offsets: tuple[int, ...] = (DAY, 3 * DAY)) -> pd.DataFrame:
        monkeypatch.setattr(domains, "load", lambda name: shop(lambda _: people(*rows)))
        return dataset.observations(Settings(home=tmp_path, domain="shop"), NOW, offsets)  # type: ignore[arg-type]

    return run


def test_labels_of_those_whose_horizon_has_ended(observe) -> None:  # type: ignore[no-untyped-def]
    found = observe(("early", 0, 2), ("late", 0, 14), ("never", 0, None), ("after", 0, 15))
    labels = {(u, d // DAY): y for u, d, y in found[["user_id", "offset_us", "label"]].to_numpy()}
    assert labels == {
        ("early", 1): 1,  # at day 3 it has happened: nobody to score
        ("late", 1): 1, ("late", 3): 1,
        ("never", 1): 0, ("never", 3): 0,
        ("after", 1): 0, ("after", 3): 0,
    }  # fmt: skip


def test_at_the_very_moment_of_the_outcome_it_has_happened(observe) -> None:  # type: ignore[no-untyped-def]
    assert observe(("a", 0, 1))["offset_us"].tolist() == []


def test_whose_outcome_came_before_the_anchor_is_left_out_and_counted(observe) -> None:  # type: ignore[no-untyped-def]
    rows = ("before", 3, 1), ("with", 3, 3), ("after", 0, 3)
    assert set(observe(*rows)["user_id"]) == {"after"}
    assert dataset.done_before(people(*rows).to_pandas())["user_id"].tolist() == ["before", "with"]


def identified(known_as: str, known_day: int, done_day: int | None = None) -> pa.Table:
    """One user whose anchor event, of day 0, was another's until a day; done_us: see lake/outcomes.py."""
    more = {"known_as": [known_as], "known_us": [START + known_day * DAY]}
    done = pa.array([None if done_day is None else START + done_day * DAY], pa.int64())
    user = people(("u", 0, None))
    return pa.table(dict(zip(user.column_names, user.columns, strict=True)) | more | {"done_us": done})


@pytest.mark.parametrize(
    ("known_as", "known_day", "done_day", "users"),
    [
        ("u", 0, None, ["u", "u", "u"]),
        ("anon:d", 2, None, ["anon:d", "u", "u"]),  # the moment of the link is the user's already
        ("anon:d", 3, 3, ["anon:d", "anon:d"]),
        ("other", 3, None, ["u"]),  # before that it was the event of whoever used the device first
    ],
)
def test_a_user_is_who_they_were_at_that_moment(
    known_as: str, known_day: int, done_day: int | None, users: list[str]
) -> None:
    domain = shop(lambda _: pa.table({}))
    found = dataset.observed(domain, identified(known_as, known_day, done_day), NOW, (DAY, 2 * DAY, 3 * DAY))
    assert found.sort_values("now_us")["user_id"].tolist() == users


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ((), "no user has the anchor event"),
        ((("new", 15, None), ("before", 2, 1)), "of 2 users nobody's horizon has ended .*the outcome of 1 came"),
        ((("a", 0, None), ("b", 0, None)), "of 2 users whose horizon has ended nobody has had the outcome"),
        ((("a", 0, 13), ("b", 0, 13)), "of 2 users whose horizon has ended everybody has had the outcome"),
        ((("a", 0, 13), ("b", 0, None)), None),
    ],
)  # fmt: skip
def test_nothing_to_learn_from_is_said_in_words(rows: tuple, says: str | None) -> None:
    domain, outcomes = shop(lambda _: pa.table({})), people(*rows)
    known = dataset.matured(dataset.observed(domain, outcomes, NOW))
    if says is None:
        return dataset.refuse_nothing(domain, outcomes, known)
    with pytest.raises(ValueError, match=says):
        dataset.refuse_nothing(domain, outcomes, known)


def test_an_open_horizon_is_no_label_for_positives_either(observe) -> None:  # type: ignore[no-untyped-def]
    found = observe(("negative", 10, None), ("positive", 10, 12))
    assert not found["matured"].any() and found["label"].isna().all()
    assert set(found["user_id"]) == {"negative", "positive"}
    assert dataset.matured(found).empty


def test_nobody_is_observed_in_the_future_or_after_the_end(observe) -> None:  # type: ignore[no-untyped-def]
    found = observe(("new", 18, None), ("old", 0, None), offsets=(DAY, 3 * DAY, 14 * DAY))
    assert set(zip(found["user_id"], found["offset_us"] // DAY, strict=True)) == {("new", 1), ("old", 1), ("old", 3)}
    assert (found["now_us"] <= NOW).all()


def test_a_horizon_that_ends_now_has_ended(observe) -> None:  # type: ignore[no-untyped-def]
    assert observe(("a", 6, None))["matured"].all()


def test_features_are_those_in_force_at_the_observation(a_shop: Shop) -> None:
    known = dataset.matured(dataset.observations(a_shop.settings, a_shop.now_us))
    rows = dataset.with_features(a_shop.settings, known)
    assert len(rows) == len(known) and rows[known.columns.tolist()].equals(known)
    offline = a_shop.features.sort_values("event_timestamp")
    truth = pd.merge_asof(
        known.sort_values("now_us"), offline.drop(columns="created").rename(columns={"event_timestamp": "row_us"}),
        left_on="now_us", right_on="row_us", by="user_id",
    ).sort_values(["user_id", "now_us"])  # fmt: skip
    assert rows["clicks"].tolist() == truth["clicks"].tolist()
    assert rows["device"].tolist() == truth["device"].tolist()
    assert np.allclose(rows["since_click"], (truth["now_us"] - truth["last_click_us"]) / 1e6, atol=0)


def test_somebody_without_rows_is_kept_with_nulls(a_shop: Shop) -> None:
    known = dataset.matured(dataset.observations(a_shop.settings, a_shop.now_us)).head(1).assign(user_id="nobody")
    rows = dataset.with_features(a_shop.settings, known)
    assert len(rows) == 1 and rows[dataset.feature_names(a_shop.domain)].isna().all(axis=None)


def test_a_row_from_the_future_is_not_joined(a_shop: Shop) -> None:
    known = dataset.matured(dataset.observations(a_shop.settings, a_shop.now_us))
    before = dataset.with_features(a_shop.settings, known)
    planted = a_shop.features.drop_duplicates("user_id").assign(clicks=10**6, bought=1)
    planted["event_timestamp"] = planted["user_id"].map(known.groupby("user_id")["now_us"].max()) + 1
    try:
        write_features(a_shop.settings, pd.concat([a_shop.features, planted.dropna(subset="event_timestamp")]))
        pd.testing.assert_frame_equal(dataset.with_features(a_shop.settings, known), before)
    finally:
        write_features(a_shop.settings, a_shop.features)


def test_inputs_leave_out_timestamps_and_the_outcome(a_shop: Shop) -> None:
    known = ["clicks", "clicks_1d", "saves", "shares", "device", "country", "since_click"]
    assert dataset.inputs(a_shop.domain) == known
    assert dataset.categorical(a_shop.domain, dataset.inputs(a_shop.domain)) == ["device", "country"]


def test_the_fingerprint_is_of_the_data_not_of_its_order(rows: pd.DataFrame) -> None:
    print_of = dataset.fingerprint(rows)
    assert dataset.fingerprint(rows.sample(frac=1, random_state=1)) == print_of
    assert dataset.fingerprint(rows.assign(clicks=rows["clicks"].where(rows.index != 7, -1.0))) != print_of
    assert dataset.fingerprint(rows.rename(columns={"clicks": "klicks"})) != print_of
    assert dataset.fingerprint(rows.assign(country=rows["country"].where(rows.index != 7, "None!"))) != print_of
