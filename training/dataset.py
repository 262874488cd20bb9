"""Labelled, point-in-time rows: who could be scored when, what came of it, and what was known at that moment.

The only module that asks Feast for training data.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from feature_repo import domains
from feature_repo.contract.events import ANONYMOUS
from feature_repo.domain import Domain
from feature_repo.lake.outcomes import event_names
from feature_repo.settings import Settings
from feature_repo.vocabulary import FirstTime, LastTime

if TYPE_CHECKING:
    from feast import FeatureStore

OBSERVED = ["user_id", "event_timestamp", "now_us", "anchor_us", "offset_us", "end_us", "label", "cohort", "matured"]
"""Columns of an observation."""


def observations(settings: Settings, now_us: int, offsets: Sequence[int] | None = None) -> pd.DataFrame:
    """A row for each person and offset (default: the domain's) at which they could be scored by now.

    At t = anchor + offset a person is in the population if t is before the end of their horizon and not after
    `now_us`, and the outcome has not happened by t. Whether there is any event of theirs does not matter.
    `label` (Int8): 1 if the outcome happens after t and by the end, else 0; <NA> unless `matured`. `matured`: the
    horizon has ended by `now_us`. Somebody whose horizon has not ended has no label, even if the outcome is known:
    counting only the early positives would bias the rate. `user_id` is that of the moment: an anonymous user's before
    they become known, as their features were those of the anonymous user.
    """
    return observed(domains.load(settings.domain), domains.load(settings.domain).outcomes(settings), now_us, offsets)


def observed(domain: Domain, outcomes: pa.Table, now_us: int, offsets: Sequence[int] | None = None) -> pd.DataFrame:
    """As `observations`, of the domain's outcomes."""
    people = outcomes.to_pandas()
    frames = [_at_offset(people, offset, now_us) for offset in (offsets or domain.observations)]
    found = pd.concat(frames, ignore_index=True)
    return found.sort_values(["user_id", "now_us"], kind="stable", ignore_index=True)[OBSERVED]


def _at_offset(people: pd.DataFrame, offset: int, now_us: int) -> pd.DataFrame:
    t = people["anchor_us"] + offset
    outcome = people["outcome_us"]
    inside = (t < people["end_us"]) & (t <= now_us) & (outcome.isna() | (outcome > t))
    if "done_us" in people:
        inside &= people["done_us"].isna() | (people["done_us"] > t)
    at = known_at(people[inside].assign(now_us=t[inside].astype("int64")))
    at["offset_us"] = np.int64(offset)
    at["event_timestamp"] = pd.to_datetime(at["now_us"], unit="us", utc=True).astype("datetime64[us, UTC]")
    at["matured"] = at["end_us"] <= now_us
    happened = (at["outcome_us"].notna() & (at["outcome_us"] <= at["end_us"])).astype("Int8")
    at["label"] = happened.mask(~at["matured"])
    return at


def known_at(people: pd.DataFrame) -> pd.DataFrame:
    """The rows of outcomes with `user_id` as it was at `now_us`, µs: an anonymous one before the user became known.

    Left out is who was nobody by then: their anchor event counted as another known user's, who used the device before.
    """
    if "known_as" not in people:
        return people.copy()
    before = people["now_us"] < people["known_us"]
    known = people["user_id"].mask(before, people["known_as"])
    return people.assign(user_id=known)[~before | people["known_as"].str.startswith(ANONYMOUS)].copy()


def done_before(people: pd.DataFrame) -> pd.DataFrame:
    """Those rows of outcomes whose outcome came before their anchor, or with it: there is nothing to predict."""
    return people[people["outcome_us"] <= people["anchor_us"]]


def refuse_nothing(domain: Domain, outcomes: pa.Table, known: pd.DataFrame) -> None:
    """Say what is missing where there is nothing to learn from.

    outcomes: the domain's; known: the matured observations of them.

    Raises:
        ValueError: no user has the anchor event, no label is known yet, or all labels are the same.
    """
    if not len(outcomes):
        raise ValueError(no_anchor(domain))
    if known.empty:
        done = len(done_before(outcomes.to_pandas()))
        raise ValueError(
            f"domain {domain.name}: there is no label to learn from yet: of {len(outcomes)} users nobody's horizon has "
            f"ended with an observation before the outcome (the outcome of {done} came before their anchor event)"
        )
    if known["label"].nunique() < 2:
        which, what = "nobody" if known["label"].iloc[0] == 0 else "everybody", event_names(domain, "outcome")
        raise ValueError(
            f"domain {domain.name}: there is nothing to tell apart: of {known['user_id'].nunique()} users whose "
            f"horizon has ended {which} has had the outcome{f' (the event {what})' if what else ''}"
        )


def no_anchor(domain: Domain) -> str:
    """What to say where no user has an anchor event."""
    names = event_names(domain, "anchor")
    return (
        f"domain {domain.name}: no user has the anchor event{f' {names}' if names else ''} yet: ingest events with it"
    )


def matured(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose label is known, `label` as int8."""
    known = rows[rows["matured"]].copy()
    known["label"] = known["label"].astype("int8")
    return known


def with_features(settings: Settings, observed: pd.DataFrame, version: int | None = None) -> pd.DataFrame:
    """The observations and, beside each, the features of the feature service in force at its time.

    version: of the feature service (default: the newest). A person without a feature row by then has nulls.

    Raises:
        ValueError: the feature service does not give a feature that the domain declares for it.
    """
    from feature_repo.feature_store.store import feature_store

    domain = domains.load(settings.domain)
    return features_of(feature_store(settings, lineage=False), domain, observed, version)


def features_of(
    store: "FeatureStore", domain: Domain, observed: pd.DataFrame, version: int | None = None
) -> pd.DataFrame:
    """As `with_features`, through an open Feast store (whose MLflow client notes the retrieval in the active run)."""
    names = feature_names(domain, version)
    service = store.get_feature_service(service_name(domain, version))
    entities = observed[["user_id", "event_timestamp", "now_us"]].copy()
    found = store.get_historical_features(entity_df=entities, features=service).to_df()
    if missing := [n for n in names if n not in found.columns]:
        raise ValueError(f"feature service {service.name} gave no {', '.join(missing)}: run `make apply` and try again")
    keys = ["user_id", "now_us"]
    rows = observed.merge(found[[*keys, *names]], on=keys, how="left", validate="one_to_one")
    strings = categorical(domain, names)
    return rows.astype({n: object if n in strings else "float64" for n in names})


def service_name(domain: Domain, version: int | None = None) -> str:
    """Name of a version of the domain's feature service."""
    return f"{domain.name}_v{version or domain.version}"


def service_version(name: str) -> int:
    """The version in a feature service's name."""
    return int(name.rsplit("_v", 1)[1])


def feature_names(domain: Domain, version: int | None = None) -> list[str]:
    """Every feature of a feature service, stored then elapsed."""
    stored, elapsed = domain.service(version)
    return [*stored, *elapsed]


def inputs(domain: Domain, version: int | None = None) -> list[str]:
    """The features that a model may learn from: all but sensitive ones, raw timestamps and the label's own `done`.

    A timestamp says in which year it is, which no later person shares; the elapsed features stand for it. `done` is 0
    for everybody in the population.
    """
    left_out = {*domain.sensitive, *timestamps(domain), domain.label.done}
    return [n for n in feature_names(domain, version) if n not in left_out]


def timestamps(domain: Domain) -> list[str]:
    """Names of the features that are points in time (µs since 1970)."""
    return [f.name for f in domain.features if isinstance(f.term, FirstTime | LastTime)]


def categorical(domain: Domain, names: Sequence[str]) -> list[str]:
    """Those of the names that are string features."""
    types = domain.feature_types
    return [n for n in names if types.get(n) == "string"]


def fingerprint(rows: pd.DataFrame) -> str:
    """sha256 of the rows sorted by person and time, and of their columns and types: the same data, the same value."""
    digest = hashlib.sha256(json.dumps([[c, str(t)] for c, t in rows.dtypes.items()]).encode())
    for _, column in rows.sort_values(["user_id", "now_us"], kind="stable").items():
        if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
            numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
            digest.update(np.where(np.isnan(numbers), np.nan, numbers).tobytes())
        else:
            digest.update(json.dumps([None if pd.isna(v) else str(v) for v in column]).encode())
    return digest.hexdigest()
