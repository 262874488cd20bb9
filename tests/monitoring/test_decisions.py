"""monitoring.decisions: the log of a week."""

from collections.abc import Callable
from pathlib import Path

from feature_repo.vocabulary import DAY, WEEK
from monitoring.decisions import first_week_with_any, newest, week


def test_no_log_and_an_empty_folder_are_fine(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        found = week(folder, WEEK, ["cold"])
        assert (found.total, found.count, found.newest_us, found.segments) == (0, 0, None, {})


def test_counts_of_the_week(tmp_path: Path, at_us: int, write_log: Callable[..., None]) -> None:
    write_log(tmp_path, at_us, 60)
    found = week(tmp_path, at_us, ["cold", "warm", "hot", "activated"])
    assert (found.count, found.people, found.unknown, found.newest_us) == (60, 40, 6, at_us)
    assert list(found.segments) == ["cold", "warm", "hot", "activated", "no segment"]
    assert sum(found.segments.values()) == 60 and found.segments["no segment"] == 6
    assert found.versions == {"3": 54}
    assert len(found.scores) == 54


def test_only_the_seven_days_count(tmp_path: Path, at_us: int, write_log: Callable[..., None]) -> None:
    write_log(tmp_path, at_us, 24)
    assert week(tmp_path, at_us - 1, []).count == 23
    later = week(tmp_path, at_us + WEEK - DAY // 24 - 1, [])
    assert (later.count, later.total) == (2, 24)


def test_the_first_week_with_any(tmp_path: Path, at_us: int, write_log: Callable[..., None]) -> None:
    assert first_week_with_any(tmp_path, [at_us, at_us - WEEK], []).to_us == at_us
    write_log(tmp_path, at_us - WEEK, 24)
    assert first_week_with_any(tmp_path, [at_us + WEEK, at_us - WEEK], []).to_us == at_us - WEEK


def test_the_newest_decision(tmp_path: Path, at_us: int, write_log: Callable[..., None]) -> None:
    assert newest(tmp_path) is None
    write_log(tmp_path, at_us)
    assert newest(tmp_path) == at_us
