"""`python -m monitoring`: options, and errors that say what to do."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

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
