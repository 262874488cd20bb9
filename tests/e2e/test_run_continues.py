"""A run that is killed at every step in turn, and goes on each time, ends with the figures of one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import until
from tests.e2e.test_loop import NOON, PATIENCE_S, ROOT, USERS, services

STEPS = (
    "as of", "features", "train", "promote", "evaluate", "segments", "build the Bento", "decide", "experiment",
)  # fmt: skip
SAME = ("at", "domain", "events", "candidates", "roc_auc", "attainable_roc_auc", "segments", "experiment")
pytestmark = [pytest.mark.soak, pytest.mark.timeout(4 * PATIENCE_S)]


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FIRSTMILE_HOME": str(home), "FIRSTMILE_DOMAIN": "saas", "FIRSTMILE_NOW": NOON}
    environment |= {"BENTOML_HOME": str(home / "bentoml")}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )


def finished(home: Path) -> dict:
    done = command(home, "monitoring", "run", "--users", USERS)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    found = json.loads((home / "run.json").read_text())
    found["experiment"].pop("picture")
    return found


def test_killed_at_every_step_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    home = tmp_path / "killed"
    for folder in (home, tmp_path / "whole"):  # so that both work as of the same minute
        assert command(folder, "feature_repo", "simulate", "--users", USERS).returncode == 0
    for step in STEPS:
        killed = command(home, "tests.e2e.run_child", step)
        assert killed.returncode == -signal.SIGKILL, killed.stdout[-3_000:] + killed.stderr[-3_000:]
        until(lambda: services(home) == [], PATIENCE_S)
    ended, whole = finished(home), finished(tmp_path / "whole")
    assert {name: ended[name] for name in SAME} == {name: whole[name] for name in SAME}
    assert ended["parity"]["wrong"] == whole["parity"]["wrong"] == 0
    assert ended["replay"]["different"] == 0 and len(ended["skipped"]) == len(STEPS) - 2
