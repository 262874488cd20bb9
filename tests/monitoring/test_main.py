"""`python -m monitoring`: options, and errors that say what to do."""

import socket
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from feature_repo.settings import SOURCE
from feature_repo.storage import flock
from monitoring.__main__ import Moment, main


@pytest.mark.parametrize(
    ("words", "us"),
    [
        ("2026-05-28T20:26:40Z", 1_780_000_000_000_000),
        ("2026-05-28T22:26:40.000001+02:00", 1_780_000_000_000_001),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_times(words: str, us: int) -> None:
    assert Moment().convert(words, None, None) == us


@pytest.mark.parametrize(
    ("words", "says"), [("2026-05-28T20:26:40", "no time zone"), ("yesterday", "no RFC 3339 time")]
)
def test_times_that_are_none(words: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says):
        Moment().convert(words, None, None)


@pytest.mark.parametrize("command", ["report", "run"])
def test_help_has_an_example(command: str) -> None:
    said = CliRunner().invoke(main, [command, "--help"]).output
    assert "Example" in said and f"python -m monitoring {command} --" in said


def test_without_a_model_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = CliRunner().invoke(main, ["report"])
    assert result.exit_code == 1
    assert "make train" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "saas" / "report").exists()


def test_an_unknown_domain_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["report", "--domain", "shop"])
    assert result.exit_code == 1 and "no domain 'shop'" in result.output


def test_a_run_of_an_unknown_domain_ends_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "--domain", "sass"])
    assert result.exit_code == 1 and "no domain 'sass'" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "sass").exists()


def test_a_run_on_a_port_in_use_ends_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        result = CliRunner().invoke(main, ["run", "--users", "10", "--port", str(port)])
    assert result.exit_code == 1 and f"port {port} of 127.0.0.1 is in use" in result.output
    assert "PORT" in result.output and not (tmp_path / "saas" / "lake").exists()


@pytest.mark.parametrize(("words", "passed"), [([], ""), (["PORT=4000"], "--port 4000")])
def test_make_run_passes_the_port_that_was_asked_for(words: list[str], passed: str) -> None:
    said = subprocess.run(
        ["make", "-n", "-o", ".venv/.ready", "run", *words], cwd=SOURCE, capture_output=True, text=True
    )
    assert ("--port" in said.stdout) == bool(passed) and passed in said.stdout


def test_two_runs_of_a_state_folder_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    with flock(tmp_path / "saas" / "run.lock", "run", 0):
        result = CliRunner().invoke(main, ["run", "--users", "10"])
    assert result.exit_code == 1 and "another process holds run.lock" in result.output
    assert "Log: " in result.output and not (tmp_path / "saas" / "lake").exists()


def test_missing_data_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "--domain", "oulad"])
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "the step 'events' failed: oulad needs the folder of its tables: DATA=<folder>" in result.output
    assert "Traceback" in (tmp_path / "oulad" / "run.log").read_text()
    result = CliRunner().invoke(main, ["run", "--domain", "oulad", "--data", str(tmp_path)])
    assert result.exit_code == 1 and "missing assessments, courses" in result.output
