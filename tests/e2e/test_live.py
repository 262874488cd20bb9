"""The promises of the live part, over HTTP: nothing lost, nothing twice, and a decision knows what came before it."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from feature_repo import domains
from feature_repo.embedded import Embedded
from feature_repo.events import Event, canonical_json, parse
from feature_repo.lake import Lake
from feature_repo.settings import Settings, now_us
from feature_repo.store import feature_store, read_online
from monitoring.live import free_port
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
        environment = os.environ | {"FIRSTMILE_HOME": str(self.settings.home), "FIRSTMILE_DOMAIN": "saas"}
        command = [sys.executable, "-m", "tests.e2e.live_child", str(self.port)]
        with (self.settings.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(Settings(home=tmp_path, domain="saas"))
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill()


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
    with httpx.Client(base_url=server.url, timeout=10) as client:
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
        until(lambda: not live.pending.of(users) and not live.history.due(now_us(), 1))
        found = read_online(feature_store(settings, lineage=False), SAAS, users, list(SAAS.feature_types))
        rows, t = [row(e) for e in sent], now_us()
        by_user = {u: [r for r in rows if r["anonymous_id"] == f"device-{u}"] for u in users}
        assert dict(zip(users, found, strict=True)) == {u: oracle.row(by_user[u], SAAS, u, t) for u in users}
    finally:
        live.close()
    import ibis

    kept = Lake(settings.lake).events(ibis.duckdb.connect()).message_id.to_pyarrow().to_pylist()
    assert sorted(kept) == sorted(e["messageId"] for e in sent)


def until(done: Any, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=pytest.mark.soak)])
def test_kill_9_loses_nothing_and_counts_nothing_twice(server: Server, kills: int) -> None:
    chance = random.Random(kills)
    users = [f"u{i}" for i in range(12)]
    sent = {u: [wire(u, n, chance) for n in range(40 if kills < 10 else 1_500)] for u in users}
    batches = {u: [events[i : i + 4] for i in range(0, len(events), 4)] for u, events in sent.items()}
    server.start()
    with ThreadPoolExecutor(len(users)) as pool:
        done = [pool.submit(send_all, server, batches[u], random.Random(u)) for u in users]
        for _ in range(kills):
            time.sleep(chance.uniform(0.01, 0.6))
            server.kill()
            server.start()
        for future in done:
            future.result()
    server.kill()
    exactly_once(server.settings, [e for events in sent.values() for e in events], users)


def test_sigterm_under_load_finishes_what_was_answered(server: Server) -> None:
    chance = random.Random(1)
    users = [f"u{i}" for i in range(6)]
    sent = {u: [wire(u, n, chance) for n in range(40)] for u in users}
    server.start()
    threads = [
        threading.Thread(target=send_all, args=(server, [[e] for e in events], chance)) for events in sent.values()
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.stop()
    server.start()
    for thread in threads:
        thread.join()
    server.stop()
    exactly_once(server.settings, [e for events in sent.values() for e in events], users)


@pytest.mark.parametrize("pairs", [400, pytest.param(10_000, marks=pytest.mark.soak)])
def test_a_decision_knows_every_event_answered_before_it(server: Server, pairs: int) -> None:
    server.start()
    asked: dict[str, int] = {}

    def person(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=10) as client:
            for n in range(1, pairs // 8 + 1):
                event = {"type": "track", "event": "Clicked", "messageId": f"{number}-{n}", "userId": f"p{number}"}
                at = {"timestamp": datetime.now(UTC).isoformat()}
                assert client.post("/v1/batch", json={"batch": [event | at]}).status_code == 200
                answer = client.post("/v1/decide", json={"userId": f"p{number}"}).json()
                assert answer["known"] and not answer["stale"], answer
                asked[answer["decisionId"]] = n

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(person, range(8)))
    server.stop()
    logged = [r for f in server.settings.decisions.glob("*.parquet") for r in pq.read_table(f).to_pylist()]
    found = {r["decision_id"]: json.loads(r["features"])["clicks"] for r in logged}
    assert found == asked
