"""The whole loop on some simulated people: real lake, Feast, MLflow, Bento over HTTP, report."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feature_repo.lake.log_to_lake import log_file
from feature_repo.settings import Settings
from feature_repo.storage import flock
from monitoring.live import free_port, service
from serving import decision_log

ROOT = Path(__file__).resolve().parents[2]
USERS = "1500"
PATIENCE_S = 1_500
"""Seconds for a run beside whatever else the machine does; alone it takes one or two minutes."""
pytestmark = pytest.mark.timeout(2 * PATIENCE_S)
NOON = "2026-11-28T12:00:00Z"
"""When the runs take place: who has signed up by then is drawn anew for every hour, and of so few people a model that
the gate lets through cannot be had every time."""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


def start(home: Path, *words: str) -> subprocess.Popen:
    """A command of a room in a process group of its own."""
    environment = os.environ | {"FIRSTMILE_HOME": str(home), "FIRSTMILE_DOMAIN": "saas", "FIRSTMILE_NOW": NOON}
    return subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True, preexec_fn=interruptible,
    )  # fmt: skip


def interruptible() -> None:
    """A shell without a terminal starts what runs in the background deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: subprocess.Popen) -> str:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said[-4000:]
    return said


@pytest.fixture(scope="module")
def run(home) -> dict:
    """What the run wrote to run.json."""
    finish(start(home, "monitoring", "run", "--users", USERS))
    return json.loads((home / "run.json").read_text())


def test_a_run_says_what_came_out(run, home):
    assert 0.5 < run["roc_auc"] < run["attainable_roc_auc"] < 1
    assert run["events"]["accepted"] > 10_000
    assert set(run["events"]["refused"]) >= {"missing_id", "not_json", "missing_field", "timestamp_in_future"}
    assert run["decisions"]["n"] == run["decisions"]["known"] + 1
    assert run["model"] == {"name": "saas-engagement", "version": 1}
    assert run["live"]["moves"] > 0
    tried = run["experiment"]
    assert tried["low"] <= tried["truth"] <= tried["high"] and tried["people"] > 500
    compared, left_out = run["parity"]["vectors"], run["parity"]["not_comparable"]
    asked = run["live"]["events"] - run["live"]["feedback"]
    assert run["parity"]["wrong"] == 0 and compared + left_out > asked > 0
    assert left_out <= 1 + run["live"]["stale"], "those that said they were stale, and the user nobody knows"
    assert run["replay"] == {"decisions": compared + left_out, "equal": compared + left_out, "different": 0}
    assert Path(run["report"]).read_text().startswith("<!")
    served = json.loads(Path(run["report"]).with_name("report.json").read_text())["served"]
    assert served["wrong"] == 0 and served["vectors"] == compared
    assert list((home / "bentoml" / "bentos" / "firstmile_saas").glob("*/bento.yaml"))


def test_its_decisions_are_in_the_log_with_their_receipts(run, home):
    log = decision_log.read(Settings(home=home).decisions).to_pylist()
    assert len({row["decision_id"] for row in log}) == len(log) >= run["decisions"]["n"]
    known = [row for row in log if row["known"]]
    assert all(row["applied_position"] and json.loads(row["features"]) for row in known)


def test_every_step_can_be_run_again(run, home):
    assert "nothing to do" in finish(start(home, "feature_repo", "backfill"))
    with flock(log_file(Settings(home=home)).with_name("log.db.lock"), "test", 0):
        while_served = start(home, "feature_repo", "simulate", "--users", USERS)
        assert "service" in while_served.communicate(timeout=PATIENCE_S)[0]
        assert while_served.returncode == 1
    again = finish(start(home, "feature_repo", "simulate", "--users", USERS))
    assert f"{run['events']['accepted']:,} accepted" in again
    refused = start(home, "feature_repo", "simulate", "--users", "7")
    assert "make clean" in refused.communicate(timeout=PATIENCE_S)[0]
    assert refused.returncode == 1


def test_a_second_start_goes_on_and_trains_nothing_anew(run, home):
    said = finish(start(home, "monitoring", "run", "--users", USERS))
    again = json.loads((home / "run.json").read_text())
    for step in ("train", "promote", "evaluate", "segments", "build the Bento", "experiment"):
        assert f"{step}: unchanged since 20" in said and step not in again["seconds"]
    same = ("at", "events", "candidates", "model", "roc_auc", "attainable_roc_auc", "segments", "bento", "experiment")
    assert {name: again[name] for name in same} == {name: run[name] for name in same}
    assert again["replay"]["decisions"] > run["replay"]["decisions"] and again["parity"]["wrong"] == 0


def test_ctrl_c_leaves_nothing_behind(run, home):
    port = free_port()
    with pytest.raises(KeyboardInterrupt), service(Settings(home=home), port) as process:
        assert listens(port)
        raise KeyboardInterrupt
    assert process.poll() is not None
    assert not listens(port)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_ctrl_c_during_a_run_ends_it_and_its_service(run, home):
    log = home / "saas" / "service.log"
    log.unlink()
    process = start(home, "monitoring", "run", "--users", USERS)
    deadline = time.monotonic() + PATIENCE_S
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode not in (0, None)
    assert services(home) == []


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def services(home: Path) -> list[str]:
    """Command lines of processes that work on this state folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment, line = (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"FIRSTMILE_HOME={home}".encode() in environment.split(b"\0"):
            found.append(line.decode(errors="replace"))
    return found
