"""The live part in processes of its own, for tests: started, sent events to, killed, and held to the definition."""

import multiprocessing
import random
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import httpx

from feature_repo import domains
from feature_repo.contract.events import Event, canonical_json, parse
from feature_repo.feature_store.store import feature_store, read_online
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings, now_us
from feature_repo.stream.embedded import Embedded
from monitoring.distributed import environment
from monitoring.live import free_port
from tests.e2e import live_child
from tests.feature_repo import oracle

ROOT = Path(__file__).resolve().parents[2]
SAAS = domains.load("saas")
NAMES = ["Clicked", "Feature Used", "Help Opened", "File Uploaded"]


class Server:
    """The live part on one state folder, which can be killed and started again on the same port."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.port = settings, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.e2e.live_child", str(self.port)]
        with (self.settings.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment(self.settings), stdout=log, stderr=log)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", verify=False).status_code == 200:
                    return
            time.sleep(0.05)
        raise TimeoutError((self.settings.home / "server.log").read_text()[-3000:])

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM; it has to end by itself."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(30) == 0


class Warm(Server):
    """The same, forked from a process that has imported everything, because these imports take seconds."""

    IMPORTED = (
        "tests.e2e.live_child", "feature_repo.feature_store.definitions", "feature_repo.feature_store.online",
        "ibis.backends.duckdb", "lightgbm", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store", "pandas", "training.erasure", "training.registry",
    )  # fmt: skip

    @classmethod
    def warm_up(cls) -> None:
        """Begin with the imports, in the background."""
        multiprocessing.set_forkserver_preload(list(cls.IMPORTED))
        forkserver.ensure_running()

    def start(self) -> None:
        self.warm_up()
        context = multiprocessing.get_context("forkserver")
        log = self.settings.home / "server.log"
        self.forked = context.Process(target=live_child.forked, args=(self.port, environment(self.settings), log))
        self.forked.start()
        self.wait_until_ready()

    def kill(self) -> None:
        self.forked.kill()
        self.forked.join()

    def stop(self) -> None:
        self.forked.terminate()
        self.forked.join(60)
        assert self.forked.exitcode == 0, self.forked.exitcode


def wire(user: str, n: int, chance: random.Random) -> dict[str, Any]:
    """An event of a person as an SDK sends it; some are anonymous, and then somebody says who that was."""
    at = datetime.fromtimestamp(time.time() - chance.choice([0, 1, 4_000, 90_000]), UTC).isoformat()
    event: dict[str, Any] = {"messageId": f"{user}-{n}", "timestamp": at, "anonymousId": f"device-{user}"}
    if n % 10 == 7:
        return event | {"type": "identify", "userId": user, "traits": {"plan": chance.choice(["free", "pro"])}}
    known = {"userId": user} if n % 3 else {}
    return event | known | {"type": "track", "event": chance.choice(NAMES), "properties": {"feature": f"f{n % 4}"}}


def row(sent: dict[str, Any]) -> dict[str, Any]:
    """A sent event as the oracle takes it."""
    event = parse(sent, SAAS, now_us())
    assert isinstance(event, Event), event
    found = {f: getattr(event, f) for f in ("message_id", "type", "name", "user_id", "anonymous_id", "ts_us")}
    return found | {d: canonical_json(getattr(event, d)).decode() for d in ("properties", "traits", "context")}


def send_all(server: Server, batches: list[list[dict[str, Any]]], chance: random.Random) -> None:
    """Send each batch until it is answered with 200, as an SDK does; some once more although they were."""
    with httpx.Client(base_url=server.url, timeout=30, verify=False) as client:  # a TLS context would take 20 ms
        for batch in batches:
            times = chance.choice([1, 1, 1, 2])
            deadline = time.monotonic() + 40
            while times and time.monotonic() < deadline:
                try:
                    answer = client.post("/v1/batch", json={"batch": batch})
                    assert answer.status_code in (200, 429, 503), answer.text
                    times -= answer.status_code == 200
                except httpx.TransportError:
                    time.sleep(0.05)
            assert times == 0, "the service did not come back"


def exactly_once(settings: Settings, sent: list[dict[str, Any]], users: list[str]) -> None:
    """The online features of everybody are those of exactly these events, and so is the lake."""
    live = Embedded(settings).start()
    try:
        until(lambda: not live.pending.of(users) and not live.pending.history.waiting(now_us()))
        as_defined(settings, sent, users)
    finally:
        live.close()
    in_the_lake_once(settings, sent)


def as_defined(settings: Settings, sent: list[dict[str, Any]], users: list[str]) -> None:
    """The online features of everybody are those of exactly these events."""
    found = read_online(feature_store(settings, lineage=False), SAAS, users, list(SAAS.feature_types))
    rows, t = [row(e) for e in sent], now_us()
    by_user = {u: [r for r in rows if r["anonymous_id"] == f"device-{u}"] for u in users}
    assert dict(zip(users, found, strict=True)) == {u: oracle.row(by_user[u], SAAS, u, t) for u in users}


def in_the_lake_once(settings: Settings, sent: list[dict[str, Any]]) -> None:
    """Every event that was sent, and no other, counts once in the lake."""
    import ibis

    kept = Lake(settings.lake).events(ibis.duckdb.connect()).message_id.to_pyarrow().to_pylist()
    assert sorted(kept) == sorted(e["messageId"] for e in sent)


def until(done: Any, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
