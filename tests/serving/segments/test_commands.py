"""`python -m serving segments` over a state folder with made-up people (see conftest.state)."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from serving.__main__ import main
from serving.engine import rfc3339

RULES = """\
domain: saas
limits: {smallest_share: 0.9, most_overlap: 0.5}
segments:
  power_user: {why: clicks, when: clicks >= 10}
  stuck: {why: clicks too, when: clicks >= 10}
  getting_going: {why: never, when: clicks >= 10000}
"""


@pytest.fixture(autouse=True)
def environment(state: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the made-up state folder, the rules above, and a wide terminal."""
    shutil.copytree(state.settings.home, tmp_path / "home")
    (tmp_path / "rules.yaml").write_text(RULES)
    for name, value in {
        "FIRSTMILE_HOME": str(tmp_path / "home"),
        "FIRSTMILE_RULES": str(tmp_path / "rules.yaml"),
        "FIRSTMILE_NOW": rfc3339(state.now),
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)


def test_everybody_is_followed_and_the_guard_has_its_say() -> None:
    shown = CliRunner().invoke(main, ["segments", "--domain", "saas"])
    assert shown.exit_code == 0, shown.output
    assert "40 people followed" in shown.output
    said = " ".join(shown.output.split())
    assert "Segments by rule" in said and "power_user: 100% of the time in either" in said
    assert "power_user and stuck: 100.0% of their time is in both, and most_overlap is 50.0%" in said
    assert "getting_going: 0.00% of the people were ever in it (0 of 40), and smallest_share is 90.00%" in said
    assert "no limit is exceeded" not in said
