"""The Feast objects say what the domain says, and every feature means the same offline and online."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureService, FeatureView, OnDemandFeatureView

from feature_repo import domains
from feature_repo.domain import Domain, Ingested, Label
from feature_repo.feature_store import definitions, store
from feature_repo.settings import Settings
from feature_repo.vocabulary import (
    DAY,
    Count,
    Elapsed,
    Feature,
    FirstTime,
    Last,
    LastTime,
    Ratio,
    null_meaning,
    where,
)

SHOP = Domain(
    name="shop",
    title="A shop",
    columns=(),
    events={"Clicked": {}, "Signed Up": {}},
    features=(
        Feature("clicks", Count(where(name="Clicked"), window=DAY), "clicks of the last day", unit="clicks"),
        Feature("share", Ratio(Count(where(name="Clicked")), Count()), "clicks among events", null="no events yet"),
        Feature("signed_up_us", FirstTime(where(name="Signed Up")), "time of the sign-up", unit="µs"),
        Feature("last_us", LastTime(), "time of the last event", unit="µs", since=2),
        Feature("last_name", Last("name"), "name of the last event", since=3),
    ),
    elapsed=(
        Elapsed("since_last", "last_us", "since the last event", since=2),
        Elapsed("since_sign_up", "signed_up_us", "since the sign-up", since=1),
    ),
    horizon=14 * DAY,
    label=Label("buys", "buys within 14 days", good=True),
    observations=(DAY,),
    segments=(),
    slices=(),
    ingest=lambda *_, **__: Ingested(0, {}),
    outcomes=lambda _: pa.table({}),
)
T0 = 1_709_251_199_999_999
LONG_AGO = 31_536_000_000_001


def feature_rows(domain: Domain = SHOP) -> pa.Table:
    """Somebody with a row of 1971, somebody with nulls, somebody with two rows."""
    stamp = pa.timestamp("us", "UTC")
    columns = {
        "user_id": ["old", "new", "twice", "twice"],
        "event_timestamp": pa.array([LONG_AGO, T0, T0 - 5, T0], stamp),
        "created": pa.array([1, 2, 3, 4], stamp),
        "valid_until_us": pa.array([None, T0 + DAY, T0, None], pa.int64()),
        "applied_position": pa.array([1, 2, 3, 4], pa.int64()),
        "clicks": pa.array([1, 0, 2, 3], pa.int64()),
        "share": pa.array([0.1, None, 1 / 3, 0.75], pa.float64()),
        "signed_up_us": pa.array([LONG_AGO, None, T0 - 5, T0 - 5], pa.int64()),
        "last_us": pa.array([LONG_AGO, None, T0 - 5, T0], pa.int64()),
        "last_name": pa.array(["Clicked", None, "Sïgned Up", "Clicked"], pa.string()),
    }
    return pa.table(columns)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state folder with feature rows in two files, applied, and the same rows online."""
    made = Settings(home=tmp_path, domain="shop", online="sqlite")
    made.features.mkdir(parents=True)
    pq.write_table(feature_rows().slice(0, 2), made.features / "0.parquet")
    pq.write_table(feature_rows().slice(2), made.features / "1.parquet")
    store.apply(made, SHOP)
    store.write_online(store.feature_store(made, lineage=False), SHOP, feature_rows())
    return made


def of_type(found: list[Any], kind: type) -> list[Any]:
    return [o for o in found if type(o) is kind]


def test_the_view_says_what_the_domain_says(tmp_path: Path) -> None:
    (view,) = of_type(definitions.objects(SHOP, Settings(home=tmp_path, domain="shop")), FeatureView)
    fields = {f.name: f for f in view.features}
    assert list(fields) == [*SHOP.feature_types, "valid_until_us", "applied_position"]
    assert view.ttl == timedelta(0)
    for feature in SHOP.features:
        field = fields[feature.name]
        assert field.description == feature.doc
        assert field.tags == {"unit": feature.unit, "null": null_meaning(feature), "since": f"v{feature.since}"}
    assert [str(f.dtype) for f in view.features[:3]] == ["Int64", "Float64", "Int64"]


def test_every_version_has_a_service_with_its_features_in_order(tmp_path: Path) -> None:
    services = of_type(definitions.objects(SHOP, Settings(home=tmp_path, domain="shop")), FeatureService)
    chosen = {s.name: [f.name for p in s.feature_view_projections for f in p.features] for s in services}
    assert chosen == {
        "shop_v1": ["clicks", "share", "signed_up_us", "since_sign_up"],
        "shop_v2": ["clicks", "share", "signed_up_us", "last_us", "since_last", "since_sign_up"],
        "shop_v3": ["clicks", "share", "signed_up_us", "last_us", "last_name", "since_last", "since_sign_up"],
    }


@pytest.mark.parametrize("name", domains.names())
def test_every_domain_has_its_objects(name: str, tmp_path: Path) -> None:
    domain = domains.load(name)
    found = definitions.objects(domain, Settings(home=tmp_path, domain=name))
    assert len(of_type(found, FeatureService)) == domain.version
    assert len(of_type(found, OnDemandFeatureView)) == bool(domain.elapsed)
    store.apply(Settings(home=tmp_path, domain=name, online="sqlite"))


READ = """
import json, sys
from pathlib import Path
from feature_repo.feature_store import store
from feature_repo.settings import Settings
fs = store.feature_store(Settings(home=Path(sys.argv[1]), domain="shop", online="sqlite"), lineage=False)
service, users, now = fs.get_feature_service(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
rows = [{"user_id": user, "now_us": now} for user in users]
print(json.dumps(fs.get_online_features(features=service, entity_rows=rows).to_dict()))
"""


def online(settings: Settings, service: str, users: list[str], now: int) -> dict[str, list[Any]]:
    """What a new process, which has never seen the domain, reads online."""
    arguments = [str(settings.home), service, json.dumps(users), str(now)]
    done = subprocess.run(
        [sys.executable, "-c", READ, *arguments], cwd=store.FOLDER.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def offline(settings: Settings, service: str, users: list[str], now: int) -> pa.Table:
    asked = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)
    entities = pd.DataFrame({"user_id": users, "event_timestamp": [asked] * len(users), "now_us": now})
    fs = store.feature_store(settings, lineage=False)
    return fs.get_historical_features(entities, features=fs.get_feature_service(service)).to_arrow()


def test_offline_and_a_fresh_process_online_give_the_same_values(settings: Settings) -> None:
    users, now = ["twice", "nobody", "old", "new"], T0 + 12_345_678_901
    there = offline(settings, "shop_v3", users, now)
    here = online(settings, "shop_v3", users, now)
    stored, elapsed = SHOP.service(3)
    for name in (*stored, *elapsed):
        assert here[name] == there[name].to_pylist(), name
    assert here["clicks"] == [3, None, 1, 0]
    assert here["since_last"] == [12345.678901, None, (now - LONG_AGO) / 1_000_000, None]
    assert there["since_last"].type == pa.float64()


def test_elapsed_features_of_nobody_are_nulls_of_their_type(settings: Settings) -> None:
    there = offline(settings, "shop_v1", ["nobody", "new"], T0)
    assert there["since_sign_up"].to_pylist() == [None, None]
    assert there["since_sign_up"].type == pa.float64()


def test_full_names_offline(settings: Settings) -> None:
    fs = store.feature_store(settings, lineage=False)
    asked = pd.DataFrame({"user_id": ["old"], "event_timestamp": [pd.Timestamp.now("UTC")], "now_us": [LONG_AGO + 1]})
    service = fs.get_feature_service("shop_v1")
    found = fs.get_historical_features(asked, features=service, full_feature_names=True).to_arrow()
    assert found["shop_elapsed__since_sign_up"].to_pylist() == [1e-06]
    assert found["shop_user__clicks"].to_pylist() == [1]
