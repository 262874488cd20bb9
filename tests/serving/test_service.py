"""The whole room: Feast on SQLite, a LightGBM champion in MLflow, Bento, HTTP. Starts two real servers."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from feature_repo.settings import SOURCE
from serving import decision_log
from serving.http_limits import HEAD_BYTES
from serving.segments.channels.running import STREAM

KEY = "e2e-" + "k" * 32


def make_model(state: SimpleNamespace, seed: int) -> Any:
    """A LightGBM model that took a look at the made-up people."""
    from feature_repo.features.elapsed import elapsed_seconds
    from training import dataset
    from training.calibration import Sigmoid
    from training.candidates import LightGBM
    from training.model import EngagementModel

    domain, rows = state.domain, pd.DataFrame(state.rows)
    for e in domain.elapsed:
        rows[e.name] = elapsed_seconds(state.now, rows[e.of])
    inputs, names = dataset.inputs(domain), [s.name for s in domain.segments]
    candidate = LightGBM(categorical=dataset.categorical(domain, inputs), seed=seed, trees=20, leaf_rows=5)
    candidate.fit(rows[inputs], (rows["clicks"] + np.arange(len(rows)) % (20 + seed) > 60).to_numpy(np.int8))
    return EngagementModel(
        dataset.service_name(domain), dataset.feature_names(domain), inputs, candidate, Sigmoid(1.0, 0.0), names,
        [(i + 1) / len(names) for i in range(len(names) - 1)], domain.label.done, domain.label.done_segment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def registered(make_state: Callable[[], SimpleNamespace]) -> SimpleNamespace:
    """A state folder with two model versions; version 1 is the champion."""
    from feature_repo.feature_store.store import feature_store
    from training import registry, tracking

    state = make_state()
    feast_mlflow = tracking.feast_mlflow(state.settings, feature_store(state.settings))
    experiment = tracking.experiment(state.settings)
    for seed in (1, 2):
        with feast_mlflow.start_run(run_name=f"seed {seed}", experiment_id=experiment):
            version = registry.register(state.settings, feast_mlflow, state.domain, make_model(state, seed), {})
            assert version == seed
    registry.move_champion(state.settings, 1)
    return state


@contextmanager
def served(state: SimpleNamespace, folder: Path, *arguments: str) -> Iterator[SimpleNamespace]:
    """A server started from another folder. It leaves nothing behind."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(SOURCE), "FIRSTMILE_HOME": str(state.settings.home), "FIRSTMILE_DOMAIN": "saas",
        "FIRSTMILE_SERVER_KEYS": f"other-{KEY},{KEY}", "FIRSTMILE_POLL_SECONDS": "0.2", "FIRSTMILE_ONLINE": "sqlite",
    }  # fmt: skip
    command = [sys.executable, "-m", "serving", "serve", "--port", str(port), *arguments]
    log = folder / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out, umask=0)

    def kill() -> None:
        """kill -9 of the workers and of what started them."""
        master = psutil.Process(process.pid)
        for one in [*master.children(recursive=True), master]:
            one.kill()
        process.wait(10)

    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield SimpleNamespace(port=port, kill=kill, process=process)
    finally:
        process.terminate()
        process.wait(30)
        until(lambda: not listens(port))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(port: int) -> bool:
    try:
        return call(port, "GET", "/readyz")[0] == 200
    except OSError:
        return False


def call(port: int, method: str, path: str, body: Any = None, key: str | None = KEY) -> tuple[int, Any]:
    """Status and body (parsed if JSON) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    connection.close()
    return response.status, json.loads(text) if text and "json" in response.headers.get("content-type", "") else text


class Load(threading.Thread):
    """Asks for decisions over one connection until stopped; `answers` are (status, decision)."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.answers, self.go_on = port, list[tuple[int, Any]](), True

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        number = 0
        while self.go_on:
            number = (number + 1) % 40
            try:
                connection.request("POST", "/v1/decide", json.dumps({"userId": f"u{number}"}), headers)
                response = connection.getresponse()
                self.answers.append((response.status, json.loads(response.read())))
            except (OSError, http.client.HTTPException):
                return


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_registry_mode_decides_swaps_and_survives_a_kill(
    registered: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import registry

    state = registered
    registry.move_champion(state.settings, 1)
    before = set(state.settings.home.rglob("*"))
    with served(state, tmp_path) as server:
        _decisions_are_those_of_the_model(server.port, state)
        _routes_answer(server.port)
        _what_it_writes_is_for_its_user_alone(set(state.settings.home.rglob("*")) - before, before)
        _a_swap_fails_no_request(server.port, state)
        _a_kill_loses_at_most_a_second(server, state)


def _decisions_are_those_of_the_model(port: int, state: SimpleNamespace) -> None:
    from training import registry

    model = registry.load(state.settings, 1)
    users = [f"u{i}" for i in range(40)] + ["nobody"]
    status, batch = call(port, "POST", "/v1/decide/batch", {"userIds": users})
    assert status == 200
    for user, decision in zip(users, batch["decisions"], strict=True):
        status, one = call(port, "POST", "/v1/decide", {"userId": user, "explain": True})
        assert status == 200
        assert (one["known"], one["segment"]) == (decision["known"], decision["segment"])
        assert (one["model"], one["known"]) == ({"name": model.name, "version": 1}, user != "nobody")
    _the_log_can_be_replayed(state, model)
    assert len(one["reasons"]) == 3 and one["elements"] == ["welcome_tour", "checklist"]


def _what_it_writes_is_for_its_user_alone(paths: set[Path], before: set[Path]) -> None:
    """Although the process was started with a mask that hides nothing.

    But for SQLite's own files beside a database that was there before: they get the rights of the database.
    """
    beside = {path.with_name(path.name + suffix) for path in before for suffix in ("-wal", "-shm", "-journal")}
    assert {"log.db", "segments.db"} <= {path.name for path in paths}
    assert [path for path in paths - beside if path.exists() and path.stat().st_mode & 0o077] == []


def _the_log_can_be_replayed(state: SimpleNamespace, model: Any) -> None:
    """Features of the logged decisions: those in force (even people: the row of an hour later); score: the model's."""
    until(lambda: len(logged(state)) >= 82, 5)
    for row in logged(state):
        if row["user_id"] == "nobody":
            assert (row["known"], row["features"], row["score"]) == (False, None, None)
            continue
        features = json.loads(row["features"])
        step = 0 if int(row["user_id"][1:]) % 2 else 1
        assert features["clicks"] == int(row["user_id"][1:]) + 100 * step
        assert row["event_us"] == state.start + step * 3_600_000_000
        score, segment = model.score_one([features[name] for name in model.features])
        assert (row["score"], row["segment"]) == (score, segment)
        frame = model.predict(pd.DataFrame([features]))
        assert (frame["score"][0], frame["segment"][0]) == (score, segment)


def _routes_answer(port: int) -> None:
    _, document = call(port, "GET", "/openapi.json", key=None)
    for path, item in document["paths"].items():
        if path == STREAM:  # its answer does not end
            continue
        for method, operation in item.items():
            body = {"userId": "u1", "userIds": ["u1"]} if method == "post" else None
            status, _ = call(port, method.upper(), path, body)
            assert str(status) in operation["responses"], f"{method} {path} answered {status}"
            if path.startswith("/v1/decide"):
                assert status == 422
                assert call(port, "POST", path, body, key=None)[0] == 401
                assert call(port, "POST", path, body, key="x" * 32)[0] == 401
                assert call(port, "GET", path)[0] == 405
    assert call(port, "GET", "/nothing")[0] == 404
    for path in ("/nothing", "/schema.json", "/readyz"):  # Bento itself answers some of these
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        assert connection.getresponse().headers.get_all("x-content-type-options") == ["nosniff"], path
        connection.close()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:  # Bento's uvicorn has our limits
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * HEAD_BYTES + b"\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 431")


def _a_swap_fails_no_request(port: int, state: SimpleNamespace) -> None:
    from training import registry

    loads = [Load(port) for _ in range(4)]
    for load in loads:
        load.start()
    time.sleep(0.5)
    registry.move_champion(state.settings, 2)
    until(lambda: all(load.answers[-1][1]["model"]["version"] == 2 for load in loads))
    for load in loads:
        load.go_on = False
        load.join()
        assert {status for status, _ in load.answers} == {200}
        versions = [decision["model"]["version"] for _, decision in load.answers]
        assert versions == sorted(versions) and set(versions) == {1, 2}
        assert all(decision["segment"] for _, decision in load.answers)


def _a_kill_loses_at_most_a_second(server: SimpleNamespace, state: SimpleNamespace) -> None:
    load = Load(server.port)
    load.start()
    time.sleep(2.5)
    server.kill()
    load.join()
    kept = {row["decision_id"] for row in logged(state)}
    answered = [decision for _, decision in load.answers]
    lost = [decision["at"] for decision in answered if decision["decisionId"] not in kept]
    assert len(answered) - len(lost) > 20
    if lost:
        assert pd.Timestamp(answered[-1]["at"]) - pd.Timestamp(lost[0]) < pd.Timedelta(seconds=1)


def logged(state: SimpleNamespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = decision_log.read(state.settings.decisions).to_pylist()
    return rows


def test_a_bento_holds_the_champion_and_runs_elsewhere(registered: SimpleNamespace, tmp_path: Path) -> None:
    from training import registry

    state = registered
    registry.move_champion(state.settings, 1)
    environment = os.environ | {"FIRSTMILE_HOME": str(state.settings.home), "FIRSTMILE_DOMAIN": "saas"}
    environment.pop("BENTOML_HOME", None)
    built = subprocess.run(
        [sys.executable, "-m", "serving", "build"], cwd=SOURCE, env=environment, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (bento,) = (state.settings.home / "bentoml" / "bentos" / "firstmile_saas").glob("*/bento.yaml")
    _everything_is_in_it(bento.parent, state)
    registry.move_champion(state.settings, 2)
    with served(state, tmp_path, "--mode", "bundled") as server:
        status, decision = call(server.port, "POST", "/v1/decide", {"userId": "u3"})
        assert (status, decision["model"]["version"], decision["known"]) == (200, 1, True)
        time.sleep(1)
        assert call(server.port, "POST", "/v1/decide", {"userId": "u3"})[1]["model"]["version"] == 1
        server.process.kill()  # the worker follows: `served` waits until nobody listens


def _everything_is_in_it(bento: Path, state: SimpleNamespace) -> None:
    files = (
        "serving/service.py",
        "serving/policies/saas.yaml",
        "training/model.py",
        "feature_repo/feature_store/online.py",
    )
    for file in (*files, "serving/collect/firstmile.js", "serving/console/index.html", "serving/console/demo.js"):
        assert (bento / "src" / file).is_file()
    assert (bento / "src" / "feature_repo" / "feature_store.yaml").is_file()
    assert not (bento / "src" / "var").exists() and not (bento / "src" / "tests").exists()
    (model,) = (state.settings.home / "bentoml" / "models" / "saas-engagement").glob("*/engagement.pkl")
    assert f"saas-engagement:{model.parent.name}" in (bento / "bento.yaml").read_text()
    requirements = (bento / "env" / "python" / "requirements.txt").read_text()
    for package in ("feast", "bentoml", "lightgbm", "mlflow", "msgspec"):
        assert f"\n{package}==" in requirements or requirements.startswith(f"{package}==")
    dockerfile = (bento / "env" / "docker" / "Dockerfile").read_text()
    for needed in ("uv --directory", "libgomp1", "FIRSTMILE_HOME=/home/bentoml/var", "ENTRYPOINT"):
        assert needed in dockerfile
