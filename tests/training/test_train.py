"""The whole room on one small shop: Feast offline rows → training in MLflow → gate → roll back."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from feature_repo import domains
from feature_repo.settings import Settings
from tests.training.world import Shop, write_features
from training import dataset, examine, promote, registry, tables, tracking
from training.__main__ import main
from training.leakage import LeakageError
from training.plan import Plan
from training.train import Trained, train

PLAN = Plan(trials=2, folds=2, draws=30)


@pytest.fixture(scope="module")
def trained(a_shop: Shop) -> Iterator[Trained]:
    assert registry.champion_version(a_shop.settings) is None
    yield train(a_shop.settings, a_shop.now_us, PLAN)


def children(settings: Settings, run_id: str) -> dict[str, Any]:
    c = tracking.client(settings)
    found = c.search_runs([tracking.experiment(settings)], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {r.info.run_name: r for r in found}


def artifacts(settings: Settings, run_id: str) -> set[str]:
    return {a.path for a in tracking.client(settings).list_artifacts(run_id)}


def test_before_any_training_there_is_no_model_and_no_file(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "empty", domain="shop")
    assert registry.champion_version(settings) is None and registry.newest_version(settings) is None
    with pytest.raises(registry.NoModelError, match="make train"):
        registry.load(settings)
    with pytest.raises(registry.NoModelError, match="make train"):
        promote.promote(settings)
    assert not settings.home.exists()


def test_the_best_candidate_beats_the_base_rate(trained: Trained) -> None:
    assert trained.version == 1 and trained.best != "base_rate"
    assert trained.metrics["roc_auc"] > 0.65
    assert trained.intervals["roc_auc"].low < trained.metrics["roc_auc"] < trained.intervals["roc_auc"].high
    assert {r.kind for r in trained.results} == {"base_rate", "logistic", "random_forest", "lightgbm"}


def test_runs_lie_below_each_other(a_shop: Shop, trained: Trained) -> None:
    candidates = children(a_shop.settings, trained.run_id)
    assert set(candidates) == {r.kind for r in trained.results}
    trials = children(a_shop.settings, candidates["lightgbm"].info.run_id)
    assert set(trials) == {"lightgbm trial 0", "lightgbm trial 1"}
    assert all(t.data.metrics["cv.log_loss"] > 0 and "leaves" in t.data.params for t in trials.values())
    metrics = candidates["lightgbm"].data.metrics
    assert {"roc_auc", "pr_auc", "log_loss", "brier", "ece", "slice/device/phone/roc_auc"} <= set(metrics)
    assert {"roc.png", "precision_recall.png", "calibration.png", "importance.png", "slices.csv"} <= artifacts(
        a_shop.settings, candidates["lightgbm"].info.run_id
    )


def test_the_parent_run_says_what_it_learnt_from(a_shop: Shop, trained: Trained) -> None:
    run = tracking.client(a_shop.settings).get_run(trained.run_id)
    assert len(run.data.tags["dataset.fingerprint"]) == 64
    assert run.data.tags["feast.feature_service"] == "shop_v1" and run.data.tags["feast.project"] == "shop"
    assert run.data.params["plan.seed"] == "7" and run.data.params["users.done_before_anchor"] == "5"
    assert {"feast_features.json", "reference.parquet", "roc.png"} <= artifacts(a_shop.settings, trained.run_id)


def test_feast_resolves_the_features_of_the_model(a_shop: Shop, trained: Trained) -> None:
    from feature_repo.feature_store.store import feature_store

    resolved = feature_store(a_shop.settings).mlflow.resolve_features("models:/shop-engagement/1")
    assert resolved == "shop_v1"


def test_all_state_is_in_the_home(a_shop: Shop, trained: Trained) -> None:
    assert os.listdir(os.getcwd()) == []
    assert (a_shop.settings.home / "mlflow.db").exists() and any((a_shop.settings.home / "mlartifacts").iterdir())


def rows_of(a_shop: Shop) -> pd.DataFrame:
    known = dataset.matured(dataset.observations(a_shop.settings, a_shop.now_us))
    return dataset.with_features(a_shop.settings, known)


def test_pyfunc_and_unwrapped_model_say_the_same(a_shop: Shop, trained: Trained) -> None:
    model = registry.load(a_shop.settings, 1)
    assert (model.name, model.version, model.feature_service) == ("shop-engagement", 1, "shop_v1")
    assert model.features == dataset.feature_names(a_shop.domain)
    rows = rows_of(a_shop)[model.features]
    pyfunc = tracking.connect(a_shop.settings).pyfunc.load_model("models:/shop-engagement/1")
    said = model.predict(rows)
    pd.testing.assert_frame_equal(pyfunc.predict(rows), said, check_exact=True)
    whole = rows.fillna({"clicks": 0}).astype({"clicks": "int64", "bought": "int64"})
    pd.testing.assert_frame_equal(pyfunc.predict(whole), said, check_exact=True)
    values = rows.astype(object).where(rows.notna(), None).to_numpy().tolist()
    assert [model.score_one(v) for v in values] == list(said.itertuples(index=False, name=None))


def test_the_reference_has_scores_and_no_people(a_shop: Shop, trained: Trained) -> None:
    reference = registry.reference(a_shop.settings, 1)
    assert {"score", "segment", "label", *dataset.feature_names(a_shop.domain)} <= set(reference.columns)
    assert "user_id" not in reference.columns and len(reference) == trained.train_rows


def test_personas_travel_with_the_version(a_shop: Shop, trained: Trained) -> None:
    model = registry.load(a_shop.settings, 1)
    rows = rows_of(a_shop)
    shares = rows["shares"] > 25
    found = trained.personas
    assert found is not None and found.personas is not None and model.personas == found.personas.names
    assert len(model.personas) == 2 and model.discovered is not None
    told = pd.Series(model.discovered.many(rows))
    assert told[shares].nunique() == told[~shares].nunique() == 1 and told.nunique() == 2
    values = rows[model.features].astype(object).where(rows[model.features].notna(), None).to_numpy().tolist()
    assert [model.persona_one(v) for v in values] == told.tolist()


def test_the_run_says_how_the_personas_were_found(a_shop: Shop, trained: Trained) -> None:
    assert {"personas.json", "personas.csv", "personas.png", "personas_tried.png"} <= artifacts(
        a_shop.settings, trained.run_id
    )
    run = tracking.client(a_shop.settings).get_run(trained.run_id)
    assert run.data.metrics["personas"] == 2 and run.data.metrics["personas.stability"] > 0.9
    assert set(run.data.tags["personas"].split(",")) == set(registry.load(a_shop.settings, 1).personas)
    folder = tracking.connect(a_shop.settings).artifacts
    words = json.loads(folder.load_text(f"runs:/{trained.run_id}/personas.json"))
    assert {p["name"] for p in words["personas"]} == set(registry.load(a_shop.settings, 1).personas)
    assert words["features"] == ["clicks", "saves", "shares"]
    assert "kmeans 2," in folder.load_text(f"runs:/{trained.run_id}/personas.csv")


def test_gate_then_the_same_again_then_roll_back(a_shop: Shop, trained: Trained) -> None:
    settings = a_shop.settings
    first = promote.promote(settings)
    assert first.promoted and first.standing is None, first.reason
    assert registry.champion_version(settings) == 1 == registry.load(settings).version
    assert registry.tags(settings, 1)["gate.verdict"] == "promoted"
    assert "of the base rate" in registry.tags(settings, 1)["gate.reason"]
    again = promote.promote(settings)
    assert not again.promoted and "champion already" in again.reason

    second = train(settings, a_shop.now_us, replace(PLAN, personas=False))
    assert second.personas is None and registry.load(settings, 2).personas == ()
    assert (second.version, second.best, second.metrics) == (2, trained.best, trained.metrics)
    refused = promote.promote(settings)
    assert not refused.promoted and refused.standing == 1 and registry.champion_version(settings) == 1
    assert registry.tags(settings, 2)["gate.verdict"] == "refused"
    assert "of version 1: +0.0000" in registry.tags(settings, 2)["gate.reason"]

    forced = promote.promote(settings, version=2, reason="to see it live")
    assert forced.promoted and registry.champion_version(settings) == 2
    assert registry.tags(settings, 2)["gate.reason"].startswith("to see it live")
    promote.promote(settings, version=1)
    assert registry.champion_version(settings) == 1
    assert registry.tags(settings, 1)["gate.verdict"] == "rolled back"
    with pytest.raises(registry.NoModelError, match="no version 9"):
        promote.promote(settings, version=9)


def test_the_gate_refuses_a_model_that_reads_a_sensitive_feature(
    a_shop: Shop, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = trained.version
    model, champion = registry.load(a_shop.settings, version), registry.champion_version(a_shop.settings)
    assert {"clicks", "country", "bought"} <= set(model.reads) and "last_click_us" not in model.reads
    assert promote.not_sensitive(a_shop.domain, model).passed
    monkeypatch.setattr(domains, "load", lambda _: replace(a_shop.domain, sensitive=("country",)))
    found = {c.name: c for c in promote._gated(a_shop.settings, version, version, promote.Gate()).checks}
    assert not found["sensitive features"].passed and "reads country" in found["sensitive features"].words
    assert "of the base rate" in found["better"].words, "a champion that may not be used is no rival"
    with pytest.raises(ValueError, match="domain shop declares country sensitive, and version 1 reads country"):
        promote.promote(a_shop.settings, version=version)
    assert registry.champion_version(a_shop.settings) == champion


def test_examine_and_tables(a_shop: Shop, trained: Trained) -> None:
    found = examine.examine(a_shop.settings, a_shop.now_us, 1, PLAN)
    assert found.segments["segment"].tolist() == ["cold", "warm", "hot"]
    assert found.segments["share"].sum() == pytest.approx(1)
    out = io.StringIO()
    console = Console(file=out, width=140)
    tables.examined(found, console)
    tables.candidates(trained, console)
    tables.verdict(promote.Verdict(2, 1, False, [promote.Check("better", False, "it is not")]), console)
    for words in ("ROC-AUC", "warm", "desk", "lightgbm", "@champion stays: version 1", "2 personas by kmeans 2"):
        assert words in out.getvalue()
    for words in ("Left out: 5 of 500 users", "such as u007"):
        assert words in out.getvalue()


def test_a_planted_feature_from_the_future_stops_the_training(a_shop: Shop, trained: Trained) -> None:
    """The purchase itself, stamped as if it had been known at sign-up."""
    buys = a_shop.people.set_index("user_id")["outcome_us"].notna()
    planted = a_shop.features.assign(clicks_1d=a_shop.features["user_id"].map(buys).astype(int))
    before = registry.newest_version(a_shop.settings)
    try:
        write_features(a_shop.settings, planted)
        with pytest.raises(LeakageError, match="feature clicks_1d: its value alone separates the labels"):
            train(a_shop.settings, a_shop.now_us, PLAN)
    finally:
        write_features(a_shop.settings, a_shop.features)
    assert registry.newest_version(a_shop.settings) == before


@pytest.mark.parametrize("command", ["train", "promote", "evaluate", "personas", "compare"])
def test_help_has_an_example(command: str) -> None:
    found = CliRunner().invoke(main, [command, "--help"])
    assert found.exit_code == 0 and f"python -m training {command}" in found.output


def test_commands(a_shop: Shop, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(a_shop.settings.home))
    promoted = CliRunner().invoke(main, ["promote", "--domain", "shop", "--version", "1", "--reason", "by hand"])
    assert promoted.exit_code == 0 and "@champion is version 1" in promoted.output
    shown = CliRunner().invoke(main, ["evaluate", "--domain", "shop"])
    assert shown.exit_code == 0 and "shop-engagement version 1" in shown.output
    people = CliRunner().invoke(main, ["personas", "--domain", "shop"])
    assert people.exit_code == 0 and "Personas of shop-engagement version 1, 488 people" in people.output
    assert "less_saves_more_clicks" in people.output
    wrong = CliRunner().invoke(main, ["promote", "--domain", "shop", "--version", "77"])
    assert wrong.exit_code == 1 and "has no version 77" in wrong.output
    early = CliRunner().invoke(main, ["train", "--domain", "shop", "--now", "2000-01-01"])
    assert early.exit_code == 1 and "no label to learn from" in early.output
    assert json.loads(json.dumps(registry.tags(a_shop.settings, 1)))["gate.reason"].startswith("by hand")
