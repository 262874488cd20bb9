from pathlib import Path

import pytest

from feature_repo.contract.events import Event
from feature_repo.contract.feedback import VIEWED
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from monitoring import exposures


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("FIRSTMILE_LAKE", raising=False)
    return Settings(home=tmp_path, domain="saas", online="sqlite")


def viewed(at: int, variant: str | None, user: str | None = None, anonymous: str | None = None, **of: str) -> Event:
    properties = {"experiment_id": of.get("experiment", "a")} | ({"variation_id": variant} if variant else {})
    number = of.get("message", f"{at}{variant}{user}{anonymous}")
    return Event("track", number, user, anonymous, at, at + 5, VIEWED, properties, {}, {})


def identify(at: int, user: str, anonymous: str) -> Event:
    return Event("identify", f"i{at}{user}", user, anonymous, at, at, None, {}, {}, {})


def first(settings: Settings, *events: Event) -> list[tuple[str, str, str, int, int]]:
    Lake(settings.lake).append(list(events))
    found = exposures.first(exposures.attributed(settings, {VIEWED}))
    return list(
        found[["user_id", "experiment", "variant", "exposed_us", "variants"]].itertuples(index=False, name=None)
    )


def test_the_first_exposure_counts_and_a_second_variant_is_told(settings: Settings) -> None:
    found = first(settings, viewed(30, "y", "u"), viewed(20, "x", "u"), viewed(25, "x", "u"), viewed(9, "y", "v"))
    assert found == [("v", "a", "y", 9, 1), ("u", "a", "x", 20, 2)]


def test_each_experiment_has_its_own(settings: Settings) -> None:
    found = first(settings, viewed(20, "x", "u"), viewed(10, "z", "u", experiment="b"))
    assert found == [("u", "b", "z", 10, 1), ("u", "a", "x", 20, 1)]


def test_what_was_seen_before_somebody_was_known_is_theirs(settings: Settings) -> None:
    """Of two devices, too: the earliest exposure of all counts."""
    events = [
        viewed(20, "x", anonymous="one"),
        identify(30, "u", "one"),
        viewed(10, "y", anonymous="two"),
        identify(40, "u", "two"),
        viewed(50, "x", "u"),
    ]
    assert first(settings, *events) == [("u", "a", "y", 10, 2)]


def test_two_people_on_one_device_stay_two(settings: Settings) -> None:
    events = [
        viewed(10, "x", anonymous="d"),
        identify(20, "u", "d"),
        viewed(30, "y", anonymous="d"),
        identify(40, "v", "d"),
        viewed(50, "z", anonymous="d"),
    ]
    assert first(settings, *events) == [("u", "a", "x", 10, 1), ("v", "a", "y", 30, 2)]


def test_who_never_became_known_is_somebody_too(settings: Settings) -> None:
    assert first(settings, viewed(10, "x", anonymous="d")) == [("anon:d", "a", "x", 10, 1)]


def test_copies_count_once_and_events_that_say_no_variant_not_at_all(settings: Settings) -> None:
    copies = [viewed(at, "x", "u", message="m") for at in (12, 10)]
    assert first(settings, *copies, viewed(5, None, "u")) == [("u", "a", "x", 10, 1)]


def test_an_empty_lake_has_no_exposure(settings: Settings) -> None:
    assert exposures.first(exposures.attributed(settings, {VIEWED})).empty
