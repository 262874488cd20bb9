"""`python -m serving rules` over a state folder with made-up people (see conftest.state)."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from feature_repo.settings import Settings
from serving.__main__ import main
from serving.engine import rfc3339
from serving.rules.fold import fold
from serving.rules.history import History, NoHistoryError
from serving.rules.reading import load

OLD = "domain: saas\nsegments:\n  keen: {why: clicks, when: clicks >= 100}\n"
NEW = """\
domain: saas
limits: {smallest_share: 0, most_segments: 3, most_overlap: 1, most_flips_per_day: 99}
segments:
  keen: {why: clicks a little, when: clicks >= 10}
  quiet: {why: not here, when: since_last_event > 1 hour}
"""


@pytest.fixture(autouse=True)
def environment(state: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up state folder, the old rules in force, and a wide terminal."""
    for name in ("FIRSTMILE_DOMAIN", "FIRSTMILE_NOW"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FIRSTMILE_HOME", str(state.settings.home))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FIRSTMILE_RULES", str(written(tmp_path, "old.yaml", OLD)))


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["rules", *map(str, arguments)])


def cells(result: Result, first: str) -> list[str]:
    """The cells of the table row that begins with this."""
    row = next(line for line in result.output.splitlines() if line.startswith(f"│ {first} "))
    return [cell.strip() for cell in row.strip("│").split("│")]


@pytest.mark.parametrize("command", [[], ["check"], ["test"]])
def test_help_has_an_example(command: list[str]) -> None:
    shown = run(*command, "--help")
    assert shown.exit_code == 0
    assert f"python -m serving rules {' '.join(command)}".strip() in shown.output


def test_check_shows_the_segments_or_what_is_wrong(tmp_path: Path) -> None:
    shown = run("check")
    assert shown.exit_code == 0
    assert shown.output.startswith("rules ")
    assert shown.output.splitlines()[1].split(maxsplit=1) == ["keen", "clicks"]
    refused = run("check", written(tmp_path, "bad.yaml", OLD.replace("clicks >=", "click >=")))
    assert refused.exit_code == 1
    assert "bad.yaml:3: feature 'click' is not known; did you mean 'clicks'?" in refused.output


def test_who_would_move(state: SimpleNamespace, tmp_path: Path) -> None:
    """At the middle of the second hour the even people are at their second row: n + 100 clicks."""
    at = rfc3339(state.now)
    file = written(tmp_path, "new.yaml", NEW)
    shown = run("test", file, "--at", at)
    assert shown.exit_code == 0, shown.output
    rows = {r["user_id"]: r for r in state.rows if r["event_us"] <= state.now}
    clicks = {u: r["clicks"] for u, r in rows.items()}
    old, new = ({u for u, n in clicks.items() if n >= least} for least in (100, 10))
    quiet = {u for u, r in rows.items() if r["last_event_us"] < state.now - 3_600_000_000}
    assert len(old) == 20
    assert cells(shown, "keen")[:4] == ["keen", str(len(old)), str(len(new)), f"{len(new) / 40:.1%}"]
    assert cells(shown, "quiet")[1:3] == ["-", str(len(quiet))]
    moved = (new ^ old) | quiet
    assert f"{len(moved)} people would move" in shown.output
    assert any(u in shown.output for u in sorted(new - old))
    assert "no limit is exceeded" in shown.output


def test_the_rules_in_force_move_nobody(tmp_path: Path) -> None:
    shown = run("test", written(tmp_path, "same.yaml", OLD + "  # the same\n"))
    assert "has the content of the rules in force" in shown.output
    assert "Nobody would move." in shown.output


def test_a_limit_that_is_exceeded_ends_with_1(state: SimpleNamespace, tmp_path: Path) -> None:
    file = written(tmp_path, "new.yaml", NEW.replace("smallest_share: 0", "smallest_share: 1"))
    shown = run("test", file, "--at", rfc3339(state.now))
    assert shown.exit_code == 1
    assert "limit exceeded: keen: " in shown.output and "smallest_share is 100.00%" in shown.output


def test_more_segments_than_the_file_allows_are_refused_before_anybody_is_followed(tmp_path: Path) -> None:
    shown = run("test", written(tmp_path, "new.yaml", NEW.replace("most_segments: 3", "most_segments: 1")))
    assert shown.exit_code == 1
    assert "new.yaml:2: 2 segments are declared, and most_segments is 1; merge or remove some" in shown.output


def test_a_sample_is_always_the_same_people(state: SimpleNamespace, tmp_path: Path) -> None:
    shown = run("test", written(tmp_path, "new.yaml", NEW), "--sample", 7, "--at", rfc3339(state.now))
    assert "Segments of 7 people" in shown.output
    history = History(state.settings.features, ["clicks"])
    assert history.sample(7, state.now) == history.sample(7, state.now) < history.sample(9, state.now)


def test_before_the_first_row_there_is_nobody(state: SimpleNamespace, tmp_path: Path) -> None:
    file = written(tmp_path, "new.yaml", NEW)
    assert "Segments of 0 people" in run("test", file, "--at", rfc3339(state.start - 1)).output


@pytest.mark.parametrize("at", ["soon", "2026-03-01T09:00:00"])
def test_a_moment_needs_a_zone(tmp_path: Path, at: str) -> None:
    refused = run("test", written(tmp_path, "new.yaml", NEW), "--at", at)
    assert refused.exit_code == 2
    assert "expected a moment such as" in refused.output


def test_without_rows_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path / "empty"))
    refused = run("test", written(tmp_path, "new.yaml", NEW))
    assert refused.exit_code == 1
    assert "`make ingest backfill` writes them" in refused.output
    with pytest.raises(NoHistoryError):
        History(Settings(home=tmp_path / "empty").features, []).sample(1, 0)


def test_without_a_champion_conditions_on_the_score_are_not_met(
    state: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.environment.TRACKING", f"sqlite:///{tmp_path / 'mlflow.db'}")
    text = "domain: saas\nlimits: {smallest_share: 0}\nsegments:\n  sure: {why: w, when: score >= 0}\n"
    shown = run("test", written(tmp_path, "new.yaml", text), "--at", rfc3339(state.now))
    assert "conditions on score and engagement segment count as not met" in shown.output
    assert cells(shown, "sure")[2] == "0"


def test_rows_of_one_moment_and_rows_that_repeat(state: SimpleNamespace, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    moment = pa.timestamp("us", "UTC")
    table = pa.table(
        {
            "user_id": ["v", "u", "u", "u", "u"],
            "event_timestamp": pa.array([9, 30, 10, 20, 10], pa.int64()).cast(moment),
            "created": pa.array([1, 1, 2, 1, 1], pa.int64()).cast(moment),
            "valid_until_us": [15, None, 10, 30, 20],
            "clicks": [4, 3, 1, 1, 2],
        }
    )
    pq.write_table(table, tmp_path / "0000.parquet")
    people = dict(History(tmp_path, ["clicks"]).people())
    pasts = {past.person: past for past in History(tmp_path, ["clicks"]).pasts(None)}
    assert people == {
        "u": [(10, {"clicks": 1}, 30), (30, {"clicks": 3}, None)],
        "v": [(9, {"clicks": 4}, 15)],
    }
    assert [[pasts[u].there(at) for at in (8, 9, 14, 15, 99)] for u in "vu"] == [
        [False, True, True, False, False], [False, False, True, True, True],
    ]  # fmt: skip
    assert [History(tmp_path, ["clicks"]).sample(1, at) for at in (8, 9, 15)] == [set(), {"v"}, {"u"}]
    assert History(tmp_path, []).sample(9, 14) == {"u", "v"}
    rules = load(written(tmp_path, "r.yaml", OLD.replace(">= 100", "== 1")), state.domain)
    assert [(m.entered, m.at_us) for m in fold(rules, people["u"]).moves] == [(True, 10), (False, 30)]
