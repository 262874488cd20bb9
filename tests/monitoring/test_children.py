"""monitoring.children: a run's processes end with it, also by kill -9, and their last words are quoted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from feature_repo.settings import SOURCE
from monitoring import children
from tests.e2e.processes import until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
PARENT = """
import os, sys, time
from pathlib import Path
from monitoring import children
process = children.start(["http.server", "0", "--bind", "127.0.0.1"], os.environ, Path(sys.argv[1]))
print(process.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from monitoring import children
signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    children.start(["http.server", "0"], os.environ, Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_at_the_moment_of_a_fork_is_heard(tmp_path: Path) -> None:
    """Python only prints what the functions that libraries have registered for a fork raise."""
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "child.log")]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SOURCE)}, timeout=120).returncode == 130


@LINUX
def test_a_child_does_not_outlive_a_killed_run(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "child.log")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
    until(lambda: not alive(child), 60)


def test_stop_ends_the_whole_group_also_what_ignores_being_asked(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    log = tmp_path / "out.log"
    process = children.start(["stubborn"], os.environ | {"PYTHONPATH": str(tmp_path)}, log)
    until(lambda: log.read_text().strip().isdigit(), 60)
    children.stop(process, 0.5)
    assert process.returncode == -signal.SIGKILL
    until(lambda: not alive(int(log.read_text())), 60)


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    assert children.last_words(log) == f"{log} is empty"
    log.write_text("x" * 3_000 + "\nthe reason\n")
    said = children.last_words(log)
    assert said.startswith(f"{log} ends:\nxxx") and said.endswith("x\nthe reason") and len(said) < 2_200
