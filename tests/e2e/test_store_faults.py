"""Each call on the files of history, online rows, opt-outs, tombstones, segments and decisions fails once."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT


@pytest.mark.timeout(3_600)
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="needs Linux and gcc, for faults.c")
@pytest.mark.parametrize("samples", [1, pytest.param(0, marks=pytest.mark.soak)])
def test_one_call_that_fails_loses_nothing_acknowledged_in_any_store(samples: int, tmp_path: Path) -> None:
    library = tmp_path / "faults.so"
    source = ROOT / "tests" / "feature_repo" / "faults.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    command = [sys.executable, "-m", "tests.e2e.store_faults_child", str(tmp_path / "home"), str(samples)]
    environment = os.environ | {"LD_PRELOAD": str(library)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3_500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3_000:]
    told = re.findall(r"(\w+), how (\d): (\d+) of (\d+) calls", done.stdout)
    assert {(name, int(how)) for name, how, *_ in told} == {
        (name, how) for name in ("stream", "consents", "journal", "decisions") for how in range(4)
    }
    for name, how, tried, calls in told:
        assert int(tried) == int(calls) if samples == 0 else int(tried) > 0 or how == "3", (name, how)
