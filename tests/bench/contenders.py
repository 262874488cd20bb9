"""Who is asked: the decision service and what one would use instead, each in a process of its own on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pandas as pd
import yaml

from feature_repo.settings import SOURCE, Settings, now_us
from monitoring import live
from training.model import EngagementModel

STARTS_WITHIN_S = 120
SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Contender:
    """A service under test.

    bodies: a request each. score: takes the score out of an answer; None where it does not score.
    """

    key: str
    words: str
    port: int
    path: str
    bodies: list[dict[str, Any]]
    score: Callable[[Any], float] | None = None

    def requests(self) -> list[str]:
        """Whole HTTP requests, in base64."""
        return [b64encode(self._request(json.dumps(body).encode())).decode() for body in self.bodies]

    def _request(self, body: bytes) -> bytes:
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def answer(self, number: int) -> Any:
        """What it says to one of its bodies.

        Raises:
            httpx.HTTPStatusError: it refuses it.
        """
        asked = httpx.post(f"http://127.0.0.1:{self.port}{self.path}", json=self.bodies[number], timeout=30)
        if asked.is_error:
            raise RuntimeError(f"{self.words}: expected 200, came {asked.status_code}: {asked.text[:500]}")
        return asked.json()


@contextmanager
def started(
    settings: Settings, model: EngagementModel, people: list[str], say: Callable[[str], None]
) -> Iterator[list[Contender]]:
    """All contenders, warm and ready; all stopped at the end.

    Raises:
        TimeoutError: one did not get ready; the message holds the end of its log.
    """
    with ExitStack() as stack:
        found: list[Contender] = []
        for begin in (_decide, _plain, _feast, _mlflow, _empty):
            say(f"starting {begin.__name__.removeprefix('_')}")
            found += begin(stack, settings, model, people)
        yield found


def _decide(stack: ExitStack, settings: Settings, model: EngagementModel, people: list[str]) -> list[Contender]:
    port = live.free_port()
    stack.enter_context(live.service(settings, port))
    bodies = [{"userId": user} for user in people]
    return [Contender("decide", "`/v1/decide`", port, "/v1/decide", bodies, _score)]


def _plain(stack: ExitStack, settings: Settings, model: EngagementModel, people: list[str]) -> list[Contender]:
    port = _bento(stack, settings, "plain_service:Plain")
    bodies = [{"user_id": user} for user in people]
    ways = {
        "plain": ("/pyfunc", "pyfunc `predict`"),
        "bare": ("/bare", "the model's own `predict`"),
        "fast": ("/fast", "the model's path for one row"),
    }
    return [
        Contender(key, f"(a) plain Bento: `to_df()`, {words}", port, path, bodies, _score)
        for key, (path, words) in ways.items()
    ]


def _feast(stack: ExitStack, settings: Settings, model: EngagementModel, people: list[str]) -> list[Contender]:
    """Without access log, and without the restart after every 1,000 requests that is its default."""
    from feature_repo.feature_store.store import repo_config

    port = live.free_port()
    config = settings.state / "bench_feature_store.yaml"
    config.write_text(yaml.safe_dump(repo_config(settings, lineage=False)))
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--no-access-log", "--max-requests", "0", "--max-requests-jitter", "0"]
    command = [str(SCRIPTS / "feast"), "-f", str(config), "serve", *options]
    stack.enter_context(server(command, settings, port, "/health", SOURCE / "feature_repo"))
    service = model.feature_service
    bodies = [{"feature_service": service, "entities": {"user_id": [u], "now_us": [now_us()]}} for u in people]
    words = "(b) `feast serve`: the same feature service, no model"
    return [Contender("feast", words, port, "/get-online-features", bodies)]


def _mlflow(stack: ExitStack, settings: Settings, model: EngagementModel, people: list[str]) -> list[Contender]:
    port = live.free_port()
    uri = f"models:/{model.name}/{model.version}"
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [str(SCRIPTS / "mlflow"), "models", "serve", "-m", uri, *options]
    stack.enter_context(server(command, settings, port, "/ping", settings.home))
    rows = json.loads(features(settings, model, people).to_json(orient="split", index=False, double_precision=15))
    bodies = [{"dataframe_split": {"columns": rows["columns"], "data": [row]}} for row in rows["data"]]
    words = "(c) `mlflow models serve`, the features sent along"
    return [Contender("mlflow", words, port, "/invocations", bodies, lambda a: a["predictions"][0]["score"])]


def _empty(stack: ExitStack, settings: Settings, model: EngagementModel, people: list[str]) -> list[Contender]:
    bodies = [{"user_id": user} for user in people]
    api = _bento(stack, settings, "empty_service:EmptyApi")
    asgi = _bento(stack, settings, "empty_service:EmptyAsgi")
    return [
        Contender("empty_api", "(d) an empty Bento endpoint, `@bentoml.api`", api, "/empty", bodies),
        Contender("empty_asgi", "(d) an empty Bento endpoint, mounted ASGI", asgi, "/empty", bodies),
    ]


def _score(answer: Any) -> float:
    return float(answer["score"])


def features(settings: Settings, model: EngagementModel, people: list[str]) -> pd.DataFrame:
    """What the feature service gives for each of the people now, in the model's order."""
    from feature_repo.feature_store.store import feature_store

    store = feature_store(settings, lineage=False)
    asked = [{"user_id": user, "now_us": now_us()} for user in people]
    service = store.get_feature_service(model.feature_service)
    return store.get_online_features(features=service, entity_rows=asked).to_df()[model.features]


def _bento(stack: ExitStack, settings: Settings, service: str) -> int:
    """Start one of the Bento services of this folder; its port."""
    port = live.free_port()
    command = [sys.executable, "-m", "bentoml", "serve", f"tests.bench.{service}", "--working-dir", str(SOURCE)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    stack.enter_context(server(command, settings, port, "/readyz", SOURCE))
    return port


@contextmanager
def server(
    command: list[str],
    settings: Settings,
    port: int,
    ready: str,
    folder: Path,
    given: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[None]:
    """A server in a process group of its own while the block runs; its log is in the state's home.

    given: more of its environment.

    Raises:
        TimeoutError: it was not ready in time, or ended; the message holds the end of its log.
    """
    log = settings.home / f"bench-{Path(command[0]).name}-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**_environment(settings), **given},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}{ready}", log)
        yield
        log.unlink()
    finally:
        _stop(process)


def _environment(settings: Settings) -> dict[str, str]:
    """No access logs, no tracking; the scripts of this Python before any other."""
    given = {
        "FIRSTMILE_HOME": str(settings.home),
        "FIRSTMILE_DOMAIN": settings.domain,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "BENTOML_HOME": str(settings.home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "UVICORN_ACCESS_LOG": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", "")]),
    }
    return os.environ | given


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    end = log.read_text(errors="replace")[-2000:]
    raise TimeoutError(f"{url} did not answer within {STARTS_WITHIN_S} s; {log} ends:\n{end}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: ask first, then insist."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
            process.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
