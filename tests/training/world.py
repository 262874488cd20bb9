"""Feature rows with a known truth: weekly cohorts, nulls, categories, outliers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.domain import Domain, Ingested, Label, Segment
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY, HOUR, WEEK, Column, Count, Elapsed, Feature, First, Last, LastTime, where

START = 1_700_000_000_000_000
INPUTS = ["clicks", "pages", "trend", "ratio", "device", "country", "age_seconds"]
STRINGS = ["device", "country"]
COUNTRIES = np.array(["de", "fr", "us", "xx", None], dtype=object)


def make_rows(
    people: int = 1200, weeks: int = 10, seed: int = 0, offsets: tuple[int, ...] = (DAY, 3 * DAY)
) -> pd.DataFrame:
    """Labelled rows as `dataset.matured(with_features(...))` gives them; the label depends on clicks and device."""
    rng = np.random.default_rng(seed)
    anchor = np.sort(START + rng.integers(0, weeks * WEEK, people))
    skill, device = rng.normal(size=people), rng.choice(["desktop", "mobile", "tablet"], people, p=[0.6, 0.37, 0.03])
    odds = -0.8 + 1.2 * skill + np.where(device == "desktop", 0.5, -0.5)
    label = (rng.random(people) < 1 / (1 + np.exp(-odds))).astype("int8")
    frames = []
    for offset in offsets:
        clicks = rng.poisson(np.exp(1.5 + 0.6 * skill)).astype(float)
        clicks[rng.random(people) < 0.005] *= 1000
        frame = pd.DataFrame({
            "user_id": [f"u{i}" for i in range(people)],
            "event_timestamp": pd.to_datetime(anchor + offset, unit="us", utc=True).astype("datetime64[us, UTC]"),
            "now_us": anchor + offset, "anchor_us": anchor, "offset_us": offset, "end_us": anchor + 14 * DAY,
            "label": label, "cohort": [f"w{(a - START) // WEEK:02d}" for a in anchor], "matured": True,
            "clicks": clicks, "pages": clicks + rng.poisson(3, people), "trend": rng.normal(size=people),
            "ratio": np.where(rng.random(people) < 0.2, np.nan, skill + rng.normal(size=people)),
            "device": device, "country": rng.choice(COUNTRIES, people, p=[0.3, 0.3, 0.3, 0.005, 0.095]),
            "age_seconds": offset / 1e6 + rng.random(people), "saves": 1, "shares": 1,
        })  # fmt: skip
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).sort_values(["user_id", "now_us"], ignore_index=True)


def no_ingest(settings: Settings, data: Path | None = None) -> Ingested:
    """The shop's rows are written by the tests."""
    return Ingested(0, {})


def shop(outcomes: Callable[[Settings], pa.Table]) -> Domain:
    """A small product: what its people do, have and are."""
    clicks = where(name="Clicked")
    return Domain(
        name="shop",
        title="A shop",
        columns=(Column("device", "context.device"), Column("country", "context.country")),
        events={"Clicked": {}, "Saved": {}, "Shared": {}, "Bought": {}},
        features=(
            Feature("clicks", Count(clicks), "clicks so far"),
            Feature("clicks_1d", Count(clicks, window=DAY), "clicks in the last day"),
            Feature("saves", Count(where(name="Saved")), "things saved"),
            Feature("shares", Count(where(name="Shared")), "things shared"),
            Feature("device", Last("device"), "last device"),
            Feature("country", First("country"), "first country"),
            Feature("last_click_us", LastTime(clicks), "last click", "µs"),
            Feature("bought", Count(where(name="Bought")), "purchases"),
        ),
        elapsed=(Elapsed("since_click", "last_click_us", "since the last click"),),
        horizon=14 * DAY,
        label=Label("buys", "buys within 14 days", good=True, done="bought", done_segment="buyer"),
        observations=(DAY, 3 * DAY),
        segments=(Segment("cold", ""), Segment("warm", ""), Segment("hot", "")),
        slices=("device",),
        ingest=no_ingest,
        outcomes=outcomes,
    )


@dataclass(frozen=True)
class Shop:
    """Settings of a state folder with a shop's feature rows in it, and when everything about them is known."""

    settings: Settings
    domain: Domain
    people: pd.DataFrame
    features: pd.DataFrame
    now_us: int


def shop_people(people: int = 500, weeks: int = 9, seed: int = 4) -> pd.DataFrame:
    """user_id, anchor_us, outcome_us, end_us, cohort, and `skill`, on which the outcome depends.

    Of one in a hundred the outcome came before the anchor.
    """
    rng = np.random.default_rng(seed)
    anchor = np.sort(START + rng.integers(0, weeks * WEEK, people))
    skill = rng.normal(size=people)
    buys = rng.random(people) < 1 / (1 + np.exp(0.6 - 1.5 * skill))
    outcome = np.where(buys, anchor + rng.integers(DAY // 2, 14 * DAY, people), -1)
    return pd.DataFrame({
        "user_id": [f"u{i:03d}" for i in range(people)], "anchor_us": anchor,
        "outcome_us": pd.array(outcome, dtype="Int64"), "end_us": anchor + 14 * DAY,
        "cohort": [f"w{(a - START) // WEEK:02d}" for a in anchor], "skill": skill,
    }).assign(
        outcome_us=lambda d: d["outcome_us"].mask(d["outcome_us"] < 0).mask(d.index % 100 == 7, d["anchor_us"] - DAY)
    )  # fmt: skip


def shop_features(people: pd.DataFrame, seed: int = 5) -> pd.DataFrame:
    """Feature rows at sign-up, after a day and after two days: clicks say something of `skill`.

    The skilled share a lot and save little, the others do the opposite.
    """
    rng = np.random.default_rng(seed)
    sharing, spread = (people["skill"] > 0.5).to_numpy(), np.random.default_rng(seed + 1)
    saves, shares = (spread.poisson(np.where(much, 60, 6)) for much in (~sharing, sharing))
    frames = []
    for days in (0, 1, 2):
        at = (people["anchor_us"] + days * DAY - (days > 0) * HOUR).to_numpy()
        clicks = rng.poisson(np.exp(1 + 0.7 * people["skill"])) + 3 * days
        frames.append(pd.DataFrame({
            "user_id": people["user_id"], "event_timestamp": at, "created": at, "valid_until_us": None,
            "applied_position": 1,
            "clicks": clicks, "clicks_1d": rng.poisson(2, len(people)),
            "saves": saves, "shares": shares,
            "device": rng.choice(["phone", "desk"], len(people)),
            "country": pd.Series("de", people.index).mask(rng.random(len(people)) < 0.1, None),
            "last_click_us": at, "bought": (people["outcome_us"] < people["anchor_us"]).fillna(False).astype(int),
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def write_features(settings: Settings, frame: pd.DataFrame) -> None:
    """The frame as the offline rows of the contract."""
    times = ("event_timestamp", "created")
    kinds = dict.fromkeys(times, pa.timestamp("us", "UTC")) | dict.fromkeys(
        ("valid_until_us", "applied_position", "clicks", "clicks_1d", "saves", "shares", "last_click_us", "bought"),
        pa.int64(),
    )
    schema = pa.schema([(c, kinds.get(c, pa.string())) for c in frame.columns])
    stamped = {c: pd.to_datetime(frame[c], unit="us", utc=True).astype("datetime64[us, UTC]") for c in times}
    table = pa.Table.from_pandas(frame.assign(**stamped), schema, preserve_index=False)
    settings.features.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, settings.features / "0.parquet")
