"""Experiments through the lake: exposures, outcomes, segments, guardrails, pauses, the simulated one and its truth."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from feature_repo import domains
from feature_repo.domains.saas import DOMAIN
from feature_repo.domains.saas.experiment import TEMPLATES
from feature_repo.domains.saas.experiment import Experiment as Planted
from feature_repo.feature_store import store
from feature_repo.feature_store.backfill import backfill
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY, HOUR
from monitoring import comparison, covariates, experiments, experiments_console
from monitoring.__main__ import main
from monitoring.population import observed, population
from monitoring.simulated_experiment import Simulated, simulated
from serving.experiments import paused
from serving.experiments.declared import Experiment, Experiments, Guardrail, Step, Variant
from serving.experiments.paused import Paused

END = 1_790_000_000_000_000 // HOUR * HOUR
ARMS = {"control": Variant(1), "template_gallery": Variant(1, show=("template_gallery",))}
NO_EVENTS = pd.DataFrame({"user_id": [], "name": [], "ts_us": []})


def declared(start_us: int = 0, **changes) -> Experiment:
    fields = {"metric": "activation", "segments": (), "guardrails": (), "end_us": None} | changes
    return Experiment(
        "template_gallery", "?", "one", (0, 1), start_us, ramp=(Step(start_us, 1.0),), variants=ARMS, **fields
    )


def of(experiment: Experiment) -> Experiments:
    return Experiments("saas", layers={"one": "one"}, experiments={experiment.name: experiment})


def people(**columns: list) -> pd.DataFrame:
    n = len(columns["exposed_us"])
    fields = {"user_id": [f"u{i}" for i in range(n)], "variant": ["control"] * n, "variants": 1, "segment": None}
    found = pd.DataFrame(fields | columns)
    return found.astype({c: "Int64" for c in ("anchor_us", "outcome_us", "end_us") if c in found})


# who counts, and from when on


def test_who_was_exposed_while_it_ran_to_a_variant_that_it_has() -> None:
    seen = pd.DataFrame({
        "user_id": list("abcde"), "experiment": ["template_gallery"] * 4 + ["other"],
        "variant": ["control", "control", "old", "template_gallery", "control"],
        "exposed_us": [5, 10, 11, 20, 12], "variants": 1,
    })  # fmt: skip
    outcomes = pd.DataFrame({"user_id": ["b"], "anchor_us": [9], "outcome_us": [None], "end_us": [99]})
    found = population(seen, outcomes, declared(10, end_us=20))
    assert found["user_id"].tolist() == ["b"]
    found = population(seen, outcomes, declared(10))
    assert found[["user_id", "end_us"]].astype(object).where(found.notna(), None).values.tolist() == [
        ["b", 99],
        ["d", None],
    ]


def test_a_label_counts_at_the_end_of_the_onboarding_whenever_it_came() -> None:
    rows = people(
        exposed_us=[10, 10, 10, 10, 200], anchor_us=[5, 5, 5, None, 5], outcome_us=[50, None, 8, None, None],
        end_us=[100, 100, 100, None, 100],
    )  # fmt: skip
    found = observed(rows, "activation", "activation", NO_EVENTS)
    told = found[["user_id", "y", "known_us"]].values.tolist()
    assert told == [["u0", 1.0, 100], ["u1", 0.0, 100]], "not: before the exposure, never known, exposed after the end"


def test_a_guardrail_with_a_time_counts_everybody_once_that_is_over() -> None:
    rows = people(exposed_us=[10, 10, 10, 10], anchor_us=[None] * 4, outcome_us=[None] * 4, end_us=[None] * 4)
    came = [("u0", "E", 9), ("u0", "E", 30), ("u1", "E", 31), ("u2", "F", 20), ("u3", "E", 10)]
    events = pd.DataFrame(came, columns=["user_id", "name", "ts_us"])
    found = observed(rows, "E", "activation", events, within_us=20)
    assert found["y"].tolist() == [1.0, 0.0, 0.0, 0.0] and set(found["known_us"]) == {30}


def test_somebody_counts_at_the_very_moment_at_which_it_is_known() -> None:
    rows = pd.DataFrame({"variant": ["control", "template_gallery"], "y": 1.0, "known_us": [5, 6], "covariate": np.nan})
    found = comparison.compare(rows, declared(), "template_gallery", "activation", np.array([4, 5, 6]), 0.05)
    assert found.people.tolist() == [0, 1, 2]


def test_looks_are_the_ends_of_days_and_the_last_moment() -> None:
    assert comparison.looks(np.array([DAY // 2, DAY]), 2 * DAY + 5).tolist() == [DAY, 2 * DAY, 2 * DAY + 5]
    assert comparison.looks(np.array([], dtype=np.int64), 7).tolist() == [7]


def test_several_treatments_share_the_level() -> None:
    rng = np.random.default_rng(0)
    variants = {"control": Variant(1), "b": Variant(1), "c": Variant(1)}
    rows = pd.DataFrame({"variant": rng.choice(list(variants), 900), "y": rng.integers(0, 2, 900).astype(float)})
    rows = rows.assign(known_us=5, covariate=np.nan, segment=None)
    one = Experiment("e", "?", "l", (0, 1), 0, None, (), variants, "activation")
    wide, narrow = (comparison.compare(rows, one, "b", "activation", np.array([9]), level) for level in (0.025, 0.05))
    assert wide.high[-1] - wide.low[-1] > narrow.high[-1] - narrow.low[-1]
    exposed = people(exposed_us=[1] * 900, anchor_us=[0] * 900, end_us=[5] * 900).assign(variant=rows["variant"])
    exposed["outcome_us"] = pd.array(np.where(rows["y"] > 0, 4, -1), dtype="Int64")
    exposed["outcome_us"] = exposed["outcome_us"].mask(exposed["outcome_us"] < 0)
    found = experiments.result(one, DOMAIN, exposed, None, NO_EVENTS, 9)
    assert [c.treatment for c in found.overall] == ["b", "c"]
    assert found.overall[0].low[-1] == pytest.approx(wide.low[-1])


def test_segments_are_those_of_the_exposure_and_share_the_level_too() -> None:
    rng = np.random.default_rng(4)
    exposed = people(exposed_us=[1] * 900, anchor_us=[0] * 900, end_us=[5] * 900)
    exposed["variant"] = rng.choice(list(ARMS), 900)
    exposed["segment"] = rng.choice(["racing", "exploring"], 900)
    exposed["outcome_us"] = pd.array(rng.choice([4, 99], 900), dtype="Int64")
    found = experiments.result(declared(), DOMAIN, exposed, None, NO_EVENTS, 9)
    assert [c.segment for c in found.segments] == [s.name for s in DOMAIN.segments]
    by = {c.segment: c for c in found.segments}
    racing = exposed[exposed["segment"] == "racing"]
    happened = racing.groupby("variant")["outcome_us"].apply(lambda us: (us <= 5).mean())
    assert by["racing"].effect[-1] == pytest.approx(happened["template_gallery"] - happened["control"])
    assert not by["at_risk"].known and by["racing"].people[-1] == len(racing)
    half = (by["racing"].high[-1] - by["racing"].low[-1]) / 2
    alone = observed(racing, "activation", "activation", NO_EVENTS).assign(covariate=np.nan)
    single = comparison.compare(alone, declared(), "template_gallery", "activation", np.array([9]), 0.05 / 4)
    assert half == pytest.approx((single.high[-1] - single.low[-1]) / 2)


def test_a_prediction_is_of_others_only() -> None:
    rng = np.random.default_rng(1)
    features = pd.DataFrame({"x": rng.normal(size=400), "t": rng.choice(["a", "b", None], 400), "void": np.nan})
    users = pd.Series([f"u{i}" for i in range(400)])
    y = pd.Series((rng.random(400) < 1 / (1 + np.exp(-2 * features["x"]))).astype(float)).where(users.index < 300)
    found = covariates.cross_fitted(features, users, y)
    assert np.corrcoef(found[:300], y[:300])[0, 1] > 0.4 and not np.isnan(found).any()
    other = y.copy()
    other[7] = 1 - other[7]
    changed = covariates.cross_fitted(features, users, other)
    assert changed[7] == found[7] and not np.array_equal(changed, found)
    assert np.isnan(covariates.cross_fitted(features, users, y * 0)).all()


# pauses


def harmful(guardrail: Guardrail | None = None, lost: float = 0.0) -> experiments.Result:
    """An experiment whose treatment takes activation from a half to a quarter, or which loses exposures."""
    rng = np.random.default_rng(2)
    treated = rng.random(1_500) < 0.5
    treated = treated[~treated | (rng.random(1_500) >= lost)]
    happens = rng.random(len(treated)) < np.where(treated, 0.25, 0.5)
    exposed = np.sort(rng.integers(0, 10 * DAY, len(treated)))
    rows = people(exposed_us=exposed.tolist(), anchor_us=[0] * len(treated), end_us=(exposed + DAY).tolist())
    rows["variant"] = np.where(treated, "template_gallery", "control")
    rows["outcome_us"] = pd.array(exposed + HOUR, dtype="Int64")
    rows["outcome_us"] = rows["outcome_us"].where(happens)
    rails = () if guardrail is None else (guardrail,)
    return experiments.result(declared(guardrails=rails), DOMAIN, rows, None, NO_EVENTS, 12 * DAY)


def test_a_broken_guardrail_pauses_and_says_so(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    found = harmful(Guardrail("activation", 0.05, good=True))
    assert experiments.pause(settings, [found]) == paused.read(settings.state)
    held = paused.read(settings.state)["template_gallery"]
    assert held.reason.startswith(
        "activation of template_gallery is worse than control by more than 5 points, sure since"
    )
    assert held.since_us == 12 * DAY
    again = experiments.pause(settings, [harmful()])
    assert again["template_gallery"] == held, "what is paused stays so"


def test_what_is_allowed_does_not_pause(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    for found in (
        harmful(),
        harmful(Guardrail("activation", 0.3, True)),
        harmful(Guardrail("activation", 0.05, False)),
    ):
        assert experiments.pause(settings, [found]) == {}
    assert not (settings.state / paused.FILE).exists()


def test_lost_exposures_pause_too() -> None:
    why = harmful(lost=0.3).pause
    assert why is not None and why.startswith("the variants do not have the intended shares (control 7")


def test_a_paused_experiment_goes_on_when_somebody_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    paused.write(tmp_path / "saas", {"a": Paused("errors", 1), "b": Paused("x", 2)})
    said = CliRunner().invoke(main, ["experiments", "--domain", "saas", "--resume", "a"])
    assert (said.exit_code, "a goes on; it was paused: errors" in said.output) == (0, True)
    assert list(paused.read(tmp_path / "saas")) == ["b"]
    refused = CliRunner().invoke(main, ["experiments", "--domain", "saas", "--resume", "a"])
    assert (refused.exit_code, "'a' is not paused; b is" in refused.output) == (1, True)


# from simulated events to the table, with the features of before the exposure


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FIRSTMILE_LAKE", raising=False)
        patch.delenv("FIRSTMILE_EXPERIMENTS", raising=False)
        state = Settings(home=tmp_path_factory.mktemp("state"), domain="saas", online="sqlite")
        DOMAIN.ingest(state, users=450, seed=5, end_us=END, days=30, progress=False, experiment=TEMPLATES)
        backfill(state)
        store.apply(state)
        yield state


@pytest.fixture(scope="module")
def found(settings: Settings) -> Simulated:
    found = simulated(settings, END)
    assert found is not None
    return found


def test_the_simulated_experiment_is_divided_as_the_hash_says(settings: Settings, found: Simulated) -> None:
    outcomes = domains.load("saas").outcomes(settings).to_pandas()
    shown = [TEMPLATES.shows(u) for u in outcomes["user_id"]]
    assert found.result.exposed == {"control": len(shown) - sum(shown), "template_gallery": sum(shown)}
    assert (found.result.crossed, found.result.unknown, found.result.pause) == (0, 0, None)
    assert len(found.result.people) == (outcomes["end_us"] <= END).sum()
    for user, variant in zip(found.result.people["user_id"], found.result.people["variant"], strict=True):
        assert (variant != "control") == TEMPLATES.shows(user)


def test_its_rates_are_those_of_the_lake(settings: Settings, found: Simulated) -> None:
    outcomes = domains.load("saas").outcomes(settings).to_pandas()
    over = outcomes[outcomes["end_us"] <= END]
    treated = over["user_id"].map(TEMPLATES.shows)
    happened = over["outcome_us"].notna()
    [curve] = found.result.overall
    assert curve.plain[-1] == pytest.approx(happened[treated].mean() - happened[~treated].mean())
    assert curve.control[-1] == pytest.approx(happened[~treated].mean())


def test_its_interval_holds_the_truth_and_is_narrower_for_the_features(found: Simulated) -> None:
    [curve] = found.result.overall
    assert 0.05 < found.truth[None] < 0.1
    assert found.covers(curve) and found.figures()["truth"] == round(found.truth[None], 6)
    assert 0.8 < curve.narrowed < 0.99
    assert Path(found.picture).stat().st_size > 10_000


def test_the_table_says_it(found: Simulated) -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(found.table())
    row = next(line for line in out.getvalue().splitlines() if "everybody" in line)
    assert f"{100 * found.truth[None]:+.1f}" in row and "yes" in row


def test_without_features_it_is_the_plain_difference(settings: Settings, found: Simulated, tmp_path: Path) -> None:
    rows = found.result.people.assign(variants=1, exposed_us=1, anchor_us=0, end_us=5)
    happened = rows["user_id"].str[-1].isin(["1", "2", "3"])
    rows["outcome_us"] = pd.array(np.where(happened, 3, 0), dtype="Int64")
    rows["outcome_us"] = rows["outcome_us"].where(happened)
    rows = rows.astype({"anchor_us": "Int64", "end_us": "Int64"}).reset_index(drop=True)
    [curve] = experiments.result(declared(), DOMAIN, rows, None, NO_EVENTS, 9).overall
    assert (curve.low[-1], curve.high[-1]) == (curve.plain_low[-1], curve.plain_high[-1])


def test_the_command_analyses_draws_pauses_and_says_so(settings: Settings, tmp_path: Path, monkeypatch) -> None:
    text = """\
domain: saas
holdout: 0
layers: {one: {salt: s}}
experiments:
  template_gallery:
    layer: one
    question: Do templates help?
    buckets: [0, 1]
    start: 2026-01-01T00:00:00Z
    share: 1
    variants:
      control: {weight: 3}
      template_gallery: {weight: 1, show: [template_gallery]}
    metric: activation
    guardrails: [{metric: Error Shown, worse_than: 0.2, within: 3 days}]
"""
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setenv("FIRSTMILE_EXPERIMENTS", str(tmp_path / "mine.yaml"))
    monkeypatch.delenv("FIRSTMILE_LAKE", raising=False)
    out = io.StringIO()
    [result] = experiments_console.show(settings, END, Console(file=out, width=200))
    assert "MISMATCH" in out.getvalue() and "PAUSED template_gallery since" in out.getvalue(), "weights 3:1, people 1:1"
    assert list(paused.read(settings.state)) == ["template_gallery"]
    assert (settings.report / "experiments" / "template_gallery.png").exists()
    [told] = json.loads((settings.report / "experiments" / "experiments.json").read_text())
    assert told["pause"] == result.pause and told["exposed"] == result.exposed
    assert told["overall"][0]["effect"] == pytest.approx(result.overall[0].effect[-1], abs=1e-4)
    [guarded] = result.guarded
    assert guarded.curve.people[-1] > result.overall[0].people[-1], "three days are over sooner than fourteen"


def test_the_command_on_a_product_without_experiments_and_on_one_without_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    for name in ("FIRSTMILE_LAKE", "FIRSTMILE_EXPERIMENTS"):
        monkeypatch.delenv(name, raising=False)
    said = CliRunner().invoke(main, ["experiments", "--domain", "oulad"])
    assert (said.exit_code, "oulad has no experiments" in said.output) == (0, True)
    said = CliRunner().invoke(main, ["experiments", "--domain", "saas", "--at", "2026-06-01T00:00:00Z"])
    assert (said.exit_code, said.output.count("too few people yet (0)")) == (0, 5), said.output


def test_without_a_planted_experiment_there_is_nothing_to_analyse(tmp_path: Path) -> None:
    assert simulated(Settings(home=tmp_path, domain="saas"), END) is None


def test_a_planted_experiment_leaves_who_people_are_as_it_was() -> None:
    from feature_repo.domains.saas.people import draw

    nothing = Planted("n", "checklist", {})
    plain, tried = (draw(400, 3, END, 30, experiment=e) for e in (None, nothing))
    assert all(
        np.array_equal(getattr(plain, f), getattr(tried, f)) for f in ("kind", "signup_us", "p", "p0", "activates")
    )
    assert 150 < tried.shown["checklist"].sum() < 250
