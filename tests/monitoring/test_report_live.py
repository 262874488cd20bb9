"""The weekly report after live events that no backfill has computed rows for."""

from pathlib import Path
from typing import Any

import pytest

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.store import apply, feature_store
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY, HOUR
from monitoring.report import report
from tests.serving.conftest import made_up_state
from tests.serving.test_service import make_model
from training import dataset, registry, tracking

NEWEST = 1_780_000_000_000_000
USERS = 120


def sign_ups(group: str, last_us: int) -> list[Event]:
    """Users who signed up in the six days before `last_us`, with a page that each of them saw in the hour after."""
    events = []
    for n in range(USERS):
        at = last_us - n * 6 * DAY // USERS
        user = f"{group}{n}"
        events.append(Event("track", f"{user}-1", user, None, at, at, "Signed Up", {}, {}, {}))
        seen = at + HOUR
        events.append(Event("page", f"{user}-2", user, None, seen, seen, "Home", {}, {}, {}))
    return events


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state folder with a champion, whose offline rows lack the users of the newest week."""
    made_up, settings = made_up_state(tmp_path / "made-up"), Settings(home=tmp_path / "home", domain="saas")
    apply(settings)
    lake = Lake(settings.lake)
    lake.append(sign_ups("before", NEWEST - 30 * DAY))
    backfill(settings, progress=False)
    model = make_model(made_up, 1)
    rows = dataset.with_features(settings, dataset.observations(settings, NEWEST))
    rows = rows.join(model.predict(rows[model.features])[["score", "segment"]]).drop(columns="user_id")
    rows.to_parquet(tmp_path / registry.REFERENCE)
    feast_mlflow = tracking.feast_mlflow(settings, feature_store(settings))
    with feast_mlflow.start_run(run_name="one", experiment_id=tracking.experiment(settings)) as run:
        tracking.client(settings).log_artifact(run.info.run_id, str(tmp_path / registry.REFERENCE))
        registry.register(settings, feast_mlflow, made_up.domain, model, {})
    registry.move_champion(settings, 1)
    lake.append(sign_ups("live", NEWEST - 2 * DAY))
    return settings


def test_users_of_live_events_have_features_in_the_report(settings: Settings) -> None:
    figures: dict[str, Any] = report(settings, NEWEST).figures
    drift = figures["drift"]
    assert drift["n_now"] >= USERS and drift["n_reference"] >= USERS
    assert [f["name"] for f in drift["features"] if f["missing_now"] != f["missing_reference"]] == []
    assert "Missing values as in training" in [v["title"] for v in figures["verdicts"]]
    known = {f["name"] for f in drift["features"] if f["missing_now"] < 1}
    assert len(known) > len(domains.load("saas").features) // 2
