"""monitoring.inputs: what a step is made from changes when that changes, and not otherwise."""

import shutil
from pathlib import Path

import pytest

from feature_repo.contract.events import Event
from feature_repo.lake.lake import Lake
from feature_repo.settings import SOURCE, Settings
from monitoring import inputs


def event(user: str, number: int) -> Event:
    at = 1_700_000_000_000_000 + number
    return Event("track", f"{user}-{number}", user, None, at, at, "Clicked", {}, {}, {})


def test_the_source_is_the_lake_without_the_users_of_live_parts(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    lake = Lake(settings.lake)
    lake.append([event("u-1", 1), event("u-2", 2)])
    before = inputs.source(settings)
    assert before == {"events": 2, "position": 2}
    lake.append([event("live-1764547200000-3", 3), event("u-1", 1)])  # of a live part, and a copy
    lake.compact(progress=False)
    assert inputs.source(settings) == before
    lake.append([event("live-at-heart", 4)])
    assert inputs.source(settings) == {"events": 3, "position": 5}
    lake.erase(["u-2"])
    assert inputs.source(settings)["events"] == 2


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for room in inputs.ROOMS:
        shutil.copytree(SOURCE / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    monkeypatch.setattr(inputs, "SOURCE", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("feature_repo/domains/saas/features.py", ["feature_repo", "training", "serving", "monitoring"]),
        ("training/plan.py", ["training", "serving", "monitoring"]),
        ("serving/rules/saas.yaml", ["serving", "monitoring"]),
        ("monitoring/page.py", ["monitoring"]),
        ("requirements.lock", ["feature_repo", "training", "serving", "monitoring"]),
    ],
)
def test_code_changes_the_rooms_that_use_it(rooms: Path, file: str, changed: list[str]) -> None:
    before = {room: inputs.code(room) for room in inputs.ROOMS}
    with (rooms / file).open("a") as of:
        of.write("\n# another line\n")
    assert [room for room in inputs.ROOMS if inputs.code(room) != before[room]] == changed


def test_a_bento_is_there_until_it_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "bentos" / "firstmile_saas" / "abc"
    folder.mkdir(parents=True)
    assert not inputs.bento_there(tmp_path, "firstmile_saas:abc")
    (folder / "bento.yaml").touch()
    assert inputs.bento_there(tmp_path, "firstmile_saas:abc")
