"""The whole loop on all of OULAD, while something else keeps a core busy."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OULAD = Path(os.environ.get("OULAD") or ROOT.parent / "shared" / "data" / "oulad")
PATIENCE_S = 3_000
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(2 * PATIENCE_S),
    pytest.mark.skipif(not OULAD.is_dir(), reason=f"OULAD's tables are not in {OULAD}"),
]


@pytest.fixture
def busy_core() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield
        process.kill()


def test_the_loop_passes_on_real_people(tmp_path: Path, busy_core: None) -> None:
    environment = os.environ | {"FIRSTMILE_HOME": str(tmp_path), "FIRSTMILE_DOMAIN": "oulad"}
    command = [sys.executable, "-m", "monitoring", "run", "--data", str(OULAD)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["events"]["accepted"] > 11_000_000
    assert run["decisions"]["known"] > 0 and run["live"]["moves"] > 0
    assert run["parity"]["wrong"] == 0 and run["parity"]["vectors"] > run["decisions"]["known"] - run["live"]["stale"]
    assert run["replay"]["different"] == 0
    day_28 = next(r for r in run["out_of_time"] if r["t"] == 28)
    assert day_28["roc_auc"] > 0.65 and day_28["pr_auc"] > 0.34
