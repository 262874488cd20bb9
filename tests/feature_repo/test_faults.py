"""Each read, write, fsync, rename and truncation of log and lake fails, tears or is the last: nothing is lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(3_600)
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs Linux and gcc, for faults.c")
@pytest.mark.parametrize("step", [151, pytest.param(1, marks=pytest.mark.soak)])
def test_one_call_that_fails_loses_nothing_acknowledged_and_doubles_nothing(step: int, tmp_path: Path) -> None:
    library = tmp_path / "faults.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    command = [sys.executable, "-m", "tests.feature_repo.faults_child", str(tmp_path / "home"), str(step)]
    environment = os.environ | {"LD_PRELOAD": str(library)}
    done = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=3_000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3_000:]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["how 0", "how 1", "how 2", "how 3"]
    assert all(int(line.split()[2]) > 50 for line in done.stdout.splitlines())
