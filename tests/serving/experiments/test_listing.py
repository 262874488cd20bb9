import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from feature_repo.settings import Settings
from serving.__main__ import main
from serving.experiments import listing, parsing
from serving.experiments.declared import Experiment, Experiments, Step, Variant
from serving.experiments.paused import Paused

ARMS = {"control": Variant(1), "tour": Variant(3)}
ONE = Experiment("one", "Why?", "l", (0, 0.5), 100, 200, (Step(100, 0.1), Step(150, 1)), ARMS, "activation")


@pytest.mark.parametrize(
    ("at_us", "held", "said"),
    [
        (99, {}, "not begun"),
        (100, {}, "running"),
        (100, {"one": Paused("errors up", 1)}, "paused: errors up"),
        (200, {}, "ended"),
        (200, {"one": Paused("errors up", 1)}, "paused: errors up"),
    ],
)
def test_where_an_experiment_stands(at_us: int, held: dict[str, Paused], said: str) -> None:
    assert listing.standing(ONE, held, at_us) == said


def test_the_table_tells_layer_slice_share_and_variants() -> None:
    out = io.StringIO()
    found = Experiments("saas", layers={"l": "s"}, experiments={"one": ONE})
    Console(file=out, width=160).print(listing.table(found, {}, 120))
    row = next(line for line in out.getvalue().splitlines() if "Why?" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "one", "l", "[0, 0.5)", "10%", "running", "control 1, tour 3", "Why?",
    ]  # fmt: skip


def test_the_command_shows_the_shipped_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FIRSTMILE_DOMAIN", parsing.VARIABLE, "FIRSTMILE_POLICY"):
        monkeypatch.delenv(name, raising=False)
    shown = CliRunner().invoke(main, ["experiments"])
    assert shown.exit_code == 0, shown.output
    for experiment in listing.of(Settings(home=tmp_path, domain="saas")).experiments:
        assert experiment in shown.output
    assert "5% in the permanent holdout" in shown.output


def test_the_command_refuses_a_file_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("domain: saas\n")
    monkeypatch.setenv(parsing.VARIABLE, str(tmp_path / "mine.yaml"))
    shown = CliRunner().invoke(main, ["experiments", "--domain", "saas"])
    assert (shown.exit_code, "mine.yaml:1: key 'layers' is missing" in shown.output) == (1, True)
