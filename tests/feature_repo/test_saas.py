"""The simulated sign-ups: repeatable, true to their own truth, faulty as real clients are, and in the lake once."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from feature_repo import domains
from feature_repo.contract.events import Event, Refusal, parse
from feature_repo.domains.saas import DOMAIN, filling, truth
from feature_repo.domains.saas.clock import activity, age, instant
from feature_repo.domains.saas.delivery import FAULTS
from feature_repo.domains.saas.experiment import TEMPLATES
from feature_repo.domains.saas.kinds import KINDS, NAMES
from feature_repo.domains.saas.people import People, draw
from feature_repo.domains.saas.simulator import Simulation, simulate
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY, HOUR, WEEK

END = 1_790_000_000_000_000 // HOUR * HOUR
MANY = 50_000
TOUR = {"guided_tour": {"hesitant": 0.6, "racer": -0.2}}
REASONS = {
    "cut_off": "not_json",
    "unknown_field": "unknown_field",
    "number_as_text": "",
    "no_sender": "missing_id",
    "no_message_id": "missing_field",
    "clock_ahead": "timestamp_in_future",
}


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(600, seed=3, end_us=END, days=42, effects=TOUR)


@pytest.fixture(scope="module")
def many() -> People:
    return draw(MANY, seed=11, end_us=END, days=112)


def wire(simulation: Simulation) -> bytes:
    lines = [(raw if isinstance(raw, bytes) else msgspec.json.encode(raw), at) for raw, at in simulation]
    return b"\n".join(raw + str(at).encode() for raw, at in lines)


def within_chance(happened: npt.NDArray[np.bool_], chance: npt.NDArray[np.float64], sigmas: float = 4.5) -> bool:
    """Whether as many happened as independent events with those chances would let expect."""
    spread = np.sqrt((chance * (1 - chance)).sum())
    return bool(abs(happened.sum() - chance.sum()) <= sigmas * spread + 1e-9)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    first, again, other = (simulate(60, seed=s, end_us=END, days=30, effects=TOUR) for s in (5, 5, 6))
    assert wire(first) == wire(again)
    assert wire(first) == wire(first), "iterating twice gives the same events"
    assert first.truth.equals(again.truth)
    assert wire(first) != wire(other)


def test_events_come_in_the_order_of_arrival_and_none_after_the_end(simulation: Simulation) -> None:
    received = [at for _, at in simulation]
    assert received == sorted(received)
    assert received[-1] < END
    assert len(received) == len(simulation)
    assert 50 < len(received) / 600 < 90


def test_the_activity_clock_turns_back_and_runs_seven_days_a_week() -> None:
    at = np.random.default_rng(0).integers(1_600_000_000_000_000, 1_800_000_000_000_000, 5_000)
    assert np.abs(instant(activity(at)) - at).max() < 1_000
    assert np.allclose(age(at, np.zeros_like(at), at + 14 * DAY), 14.0, atol=1e-7)
    monday_3h, monday_15h = 4 * DAY + 3 * HOUR, 4 * DAY + 15 * HOUR
    hour = [float(activity(np.array(t + HOUR)) - activity(np.array(t))) for t in (monday_3h, monday_15h)]
    assert hour[1] > 10 * hour[0]


@pytest.mark.parametrize("hours", [0, 1, 24, 72, 168, 300])
def test_the_true_probability_is_calibrated(many: People, hours: int) -> None:
    table = truth.table(many)
    at_us = many.signup_us + hours * HOUR
    chance = truth.probability(table, at_us)
    still = ~np.isnan(chance)
    chance, activates = chance[still], many.activates[still]
    bins = np.digitize(chance, np.quantile(chance, np.linspace(0.1, 0.9, 9)))
    assert np.unique(bins).size > 4
    for one in np.unique(bins):
        assert within_chance(activates[bins == one], chance[bins == one]), (hours, one)
    trying = (np.asarray(table["attempt_us"].fill_null(2**62)) <= at_us)[still] & (chance > 0)
    for kind in range(len(KINDS)):
        for state in (trying, ~trying):
            those = state & (many.kind[still] == kind)
            assert within_chance(activates[those], chance[those]), (hours, NAMES[kind])


def test_who_has_activated_has_no_probability_and_who_has_left_none_left(many: People) -> None:
    table = truth.table(many)
    at_us = many.signup_us + 5 * DAY
    chance = truth.probability(table, at_us)
    activated = np.asarray(table["activated_us"].fill_null(2**62)) <= at_us
    left = np.asarray(table["left_us"].fill_null(2**62)) <= at_us
    assert activated.sum() > 4_000 and left.sum() > 2_000
    assert (np.isnan(chance) == activated).all()
    assert (chance[left] == 0).all()
    assert (np.nan_to_num(truth.probability(table, many.signup_us + 15 * DAY)) == 0).all()


def test_behaviour_says_nothing_about_what_is_still_to_come() -> None:
    """Else a model could beat the attainable figure: alike in kind, propensity and state, they behave alike."""
    simulation = simulate(12_000, seed=2, end_us=END, days=60)
    people, acts = simulation.people, simulation.stream.acts
    early = acts.ts_us < people.signup_us[acts.person] + 2 * DAY
    number = np.bincount(acts.person[early], minlength=len(people))
    days = age(people.signup_us, people.zone_us, people.signup_us + 2 * DAY)
    cold = ~(people.attempt_day <= days) & ~(people.left_day <= days) & (people.signup_us < END - 3 * DAY)
    work = np.log1p(number)
    weighted, weights = 0.0, 0.0
    for kind in range(len(KINDS)):
        those = np.flatnonzero(cold & (people.kind == kind))
        for group in np.array_split(those[np.argsort(people.propensity[those])], 100):
            yes, no = work[group[people.activates[group]]], work[group[~people.activates[group]]]
            if min(len(yes), len(no)) > 2:
                weight = 1 / (work[group].var() * (1 / len(yes) + 1 / len(no)))
                weighted, weights = weighted + weight * (yes.mean() - no.mean()), weights + weight
    assert abs(weighted) < 4 * np.sqrt(weights), f"{weighted / np.sqrt(weights):.1f} standard errors"


def test_an_element_shifts_activation_by_kind_as_planted() -> None:
    people = draw(MANY, seed=4, end_us=END, days=112, effects=TOUR, assignment={"guided_tour": 0.5})
    shown = people.shown["guided_tour"]
    assert within_chance(shown, np.full(MANY, 0.5))
    logit = np.log(people.p1["guided_tour"] / (1 - people.p1["guided_tour"])) - np.log(people.p0 / (1 - people.p0))
    for kind, shift in zip(NAMES, (-0.2, 0.0, 0.6, 0.0), strict=True):
        those = people.kind == NAMES.index(kind)
        assert np.allclose(logit[those], shift)
        assert within_chance(people.activates[those & shown], people.p1["guided_tour"][those & shown])
        assert within_chance(people.activates[those & ~shown], people.p0[those & ~shown])
    hesitant = people.kind == NAMES.index("hesitant")
    assert people.activates[hesitant & shown].mean() > people.activates[hesitant & ~shown].mean() + 0.08


def test_without_the_element_the_same_people_have_the_same_fate() -> None:
    plain, toured = (draw(2_000, seed=4, end_us=END, days=112, effects=e) for e in (None, TOUR))
    same = ~toured.shown["guided_tour"]
    assert (plain.activates[same] == toured.activates[same]).all()
    changed = plain.activates != toured.activates
    assert 0 < changed.sum() < 120
    assert np.array_equal(plain.p, toured.p0)


def test_an_assignment_may_be_a_function_and_what_was_shown_is_told() -> None:
    simulation = simulate(80, 1, END, 30, TOUR, lambda i, rng: {"guided_tour"} if i % 2 else {"checklist"})
    table = simulation.truth
    assert table["elements"].to_pylist()[:2] == [["checklist"], ["guided_tour"]]
    told = {
        r["userId"]: r["properties"]["element"]
        for r, _ in simulation
        if isinstance(r, dict) and r.get("event") == "Element Shown"
    }
    expected = {u: e[0] for u, e in zip(table["user_id"].to_pylist(), table["elements"].to_pylist(), strict=True)}
    assert set(told) >= set(list(expected)[:70])
    assert all(expected[u] == e for u, e in told.items())
    assert np.array_equal(table["p1_checklist"], table["p0"])


def test_an_effect_on_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown kind sprinter; there are racer"):
        draw(10, 1, END, 10, {"guided_tour": {"sprinter": 1.0}})


def test_every_malformed_event_is_refused_by_its_name_and_every_other_accepted(simulation: Simulation) -> None:
    came = Counter[tuple[str, str]]()
    for (raw, at), fault in zip(simulation, simulation.stream.fault.tolist(), strict=True):
        event = parse(raw, DOMAIN, at)
        came["" if fault < 0 else FAULTS[fault], str(event.reason) if isinstance(event, Refusal) else ""] += 1
    malformed = {fault: reason for fault, reason in came if fault}
    assert malformed == REASONS
    assert {pair for pair in came if not pair[0]} == {("", "")}
    assert 0.0025 < sum(n for (fault, _), n in came.items() if fault) / len(simulation) < 0.0075


def test_some_events_come_twice_and_some_late(simulation: Simulation) -> None:
    events = [e for raw, at in simulation if isinstance(e := parse(raw, DOMAIN, at), Event)]
    copies = Counter((e.user_id or e.anonymous_id, e.message_id) for e in events)
    twice = {key for key, n in copies.items() if n == 2}
    assert set(copies.values()) == {1, 2}
    assert 0.006 < len(twice) / len(events) < 0.014
    stamps = {(e.user_id or e.anonymous_id, e.message_id, e.ts_us) for e in events}
    assert len(stamps) == len(events), "a retry has another corrected timestamp"
    delay = np.array([e.received_us - e.ts_us for e in events])
    assert 0.01 < (delay > HOUR).mean() < 0.06
    assert (delay > DAY).any()
    assert np.median(delay) < 1_000_000


def test_people_are_anonymous_until_they_sign_up_and_leave_some_fields_empty(simulation: Simulation) -> None:
    events = [e for raw, at in simulation if isinstance(e := parse(raw, DOMAIN, at), Event)]
    identified = {e.anonymous_id: e.user_id for e in events if e.type == "identify"}
    anonymous = [e for e in events if e.user_id is None]
    assert len({e.anonymous_id for e in anonymous} & set(identified)) > 500
    assert {e.type for e in anonymous} == {"page", "track"}
    roles = [e.traits.get("role") for e in events if e.type == "identify"]
    assert 0.1 < roles.count(None) / len(roles) < 0.6
    assert {e.name for e in events if e.type == "track"} == set(DOMAIN.events)


def test_sign_ups_grow_and_follow_the_week(many: People) -> None:
    start = END - 112 * DAY
    assert (many.signup_us >= start).all() and (many.signup_us < END).all()
    first, last = np.bincount((many.signup_us - start) // (56 * DAY))
    assert 1.1 < last / first < 1.4
    weekday = ((many.signup_us + many.zone_us) // DAY + 3) % 7
    assert (weekday >= 5).mean() < 0.2


def test_the_declaration_has_what_onboarding_people_name() -> None:
    assert "saas" in domains.names() and domains.load("saas") is DOMAIN
    assert len(DOMAIN.features) >= 30
    assert DOMAIN.windows == [HOUR, DAY, WEEK]
    assert DOMAIN.label.done in DOMAIN.feature_types
    assert {
        "sessions",
        "session_time_avg",
        "click_to_signup",
        "features_used",
        "engagement",
        "signup_part_of_day",
    } <= set(DOMAIN.feature_types)
    assert all(f.doc for f in DOMAIN.features) and all(e.doc for e in DOMAIN.elapsed)
    assert DOMAIN.observations == tuple(sorted(DOMAIN.observations)) and DOMAIN.observations[-1] < DOMAIN.horizon


# into the lake


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("FIRSTMILE_LAKE", raising=False)
    return Settings(home=tmp_path, domain="saas", online="sqlite")


SMALL = {"users": 60, "seed": 9, "days": 30, "progress": False}


def test_ingest_fills_lake_and_quarantine_once(settings: Settings) -> None:
    first = DOMAIN.ingest(settings, None, end_us=END, **SMALL)
    last = Lake(settings.lake).last_position()
    assert first.accepted == last > 2_000
    assert first.accepted + sum(first.refused.values()) == len(simulate(60, 9, END, 30))
    assert sum(first.refused.values()) > 0
    assert DOMAIN.ingest(settings, **SMALL) == first, "the end is not asked for: whatever it was"
    assert Lake(settings.lake).last_position() == last


def test_ingest_of_something_else_is_an_error_that_says_what_to_do(settings: Settings) -> None:
    DOMAIN.ingest(settings, end_us=END, **SMALL)
    for other in ({"seed": 10}, {"users": 61}, {"end_us": END - HOUR}, {"effects": TOUR}):
        with pytest.raises(ValueError, match=r"another STATE folder, or `make clean`"):
            DOMAIN.ingest(settings, **(SMALL | other))


def test_an_experiment_is_part_of_what_was_simulated(settings: Settings) -> None:
    assert filling.experiment(settings) is None
    DOMAIN.ingest(settings, end_us=END, experiment=TEMPLATES, **SMALL)
    assert filling.experiment(settings) == TEMPLATES
    assert DOMAIN.ingest(settings, experiment=TEMPLATES, **SMALL).accepted > 2_000
    with pytest.raises(ValueError, match=r"another STATE folder, or `make clean`"):
        DOMAIN.ingest(settings, **SMALL)


def test_everybody_in_an_experiment_says_what_they_saw_when_they_saw_it() -> None:
    parsed = (parse(raw, DOMAIN, at) for raw, at in simulate(80, 1, END, 30, experiment=TEMPLATES))
    latest_first = sorted((e for e in parsed if isinstance(e, Event)), key=lambda e: -e.ts_us)
    shown = {e.user_id: e.ts_us for e in latest_first if e.name == "Element Shown"}
    viewed = {e.user_id: e for e in latest_first if e.name == "Experiment Viewed"}
    signed_up = {e.user_id for e in latest_first if e.name == "Signed Up"}
    assert set(viewed) == signed_up and len(signed_up) > 75
    for user, event in viewed.items():
        assert user is not None and event.properties["experiment_id"] == TEMPLATES.name
        assert event.properties["variation_id"] == (TEMPLATES.element if TEMPLATES.shows(user) else "control")
        assert (user in shown) == TEMPLATES.shows(user) and shown.get(user, event.ts_us) == event.ts_us


def test_an_element_with_two_effects_is_an_error() -> None:
    with pytest.raises(ValueError, match="template_gallery has an effect of its own and one of template_gallery"):
        draw(10, 1, END, 10, {"template_gallery": {"racer": 1.0}}, experiment=TEMPLATES)


def test_ingest_notices_that_the_lake_is_gone(settings: Settings) -> None:
    DOMAIN.ingest(settings, end_us=END, **SMALL)
    Lake(settings.lake).clear()
    with pytest.raises(ValueError, match="ends at position 0"):
        DOMAIN.ingest(settings, **SMALL)


def test_ingest_starts_over_after_a_crash(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    append, calls = Lake.append, []

    def crash(lake: Lake, events: list[Event]) -> int:
        calls.append(len(events))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return append(lake, events)

    monkeypatch.setattr("feature_repo.lake.intake.BATCH", 1_000)
    monkeypatch.setattr(Lake, "append", crash)
    with pytest.raises(KeyboardInterrupt):
        DOMAIN.ingest(settings, end_us=END, **SMALL)
    assert Lake(settings.lake).last_position() > 1_500
    monkeypatch.setattr(Lake, "append", append)
    ingested = DOMAIN.ingest(settings, end_us=END, **SMALL)
    assert Lake(settings.lake).last_position() == ingested.accepted
    recorded = json.loads((settings.state / "simulation.json").read_text())
    assert recorded["accepted"] == ingested.accepted and recorded["end_us"] == END


def test_ingest_leaves_events_alone_that_no_simulation_wrote(settings: Settings) -> None:
    event = parse(
        {"type": "page", "userId": "real", "messageId": "1", "timestamp": "2026-01-01T00:00:00Z"}, DOMAIN, END
    )
    assert isinstance(event, Event)
    Lake(settings.lake).append([event])
    with pytest.raises(ValueError, match="no simulation wrote"):
        DOMAIN.ingest(settings, end_us=END, **SMALL)
    assert Lake(settings.lake).last_position() == 1


def test_ingest_takes_no_data(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Leave DATA out"):
        DOMAIN.ingest(settings, tmp_path)


def test_outcomes_tell_what_is_true(settings: Settings) -> None:
    DOMAIN.ingest(settings, end_us=END, **(SMALL | {"users": 150}))
    came = DOMAIN.outcomes(settings).to_pandas()
    true = truth.read(settings).to_pandas().set_index("user_id").loc[came["user_id"]].reset_index()
    assert came["user_id"].is_monotonic_increasing and came["user_id"].is_unique
    assert len(came) >= 148
    assert (came["anchor_us"] == true["signup_us"]).all()
    assert (came["end_us"] == came["anchor_us"] + 14 * DAY).all()
    settled = (true["activated_us"].isna() | (true["activated_us"] < END - HOUR)).to_numpy()
    assert came["outcome_us"][settled].astype("Int64").equals(true["activated_us"][settled].astype("Int64"))
    assert came["outcome_us"].notna().sum() > 20
    weeks = [datetime.fromtimestamp(us // 1_000_000, UTC).isocalendar() for us in came["anchor_us"]]
    assert came["cohort"].tolist() == [f"{w.year}-W{w.week:02d}" for w in weeks]


def test_attainable_follows_the_order_of_the_observations(settings: Settings) -> None:
    DOMAIN.ingest(settings, end_us=END, **SMALL)
    table = truth.read(settings)
    now = np.asarray(table["signup_us"]) + DAY
    expected = truth.probability(table, now)
    asked = pd.DataFrame({"user_id": table["user_id"].to_pylist(), "now_us": now}).iloc[::-1]
    assert np.array_equal(truth.attainable(settings, asked), expected[::-1], equal_nan=True)
    stamped = asked.assign(event_timestamp=pd.to_datetime(asked["now_us"], unit="us", utc=True)).drop(columns="now_us")
    assert np.array_equal(truth.attainable(settings, stamped), expected[::-1], equal_nan=True)
    stranger = pd.DataFrame({"user_id": ["nobody"], "now_us": [END]})
    assert np.isnan(truth.attainable(settings, stranger)).all()
