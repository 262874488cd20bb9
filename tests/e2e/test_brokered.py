"""The same promises with a broker: workers in processes of their own, the history and the online rows on Redis."""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pyarrow.parquet as pq
import pytest

from feature_repo.contract.events import parse
from feature_repo.history.history_store import open_history
from feature_repo.log.event_log import open_log
from feature_repo.settings import Settings, now_us
from feature_repo.stream.workers import READY
from monitoring.distributed import environment
from tests import brokers, searching
from tests.e2e.processes import ROOT, SAAS, Server, as_defined, in_the_lake_once, send_all, until, wire

WORKERS = 2
MB = 1_000_000
PAIRS = 40


class Load:
    """Threads that send events of their users until they are told to end; `every` is what was sent in the end."""

    def __init__(self, server: Server, users: list[str]) -> None:
        self.every: list[dict[str, Any]] = []
        self._server, self._stop = server, threading.Event()
        self._pool = ThreadPoolExecutor(len(users))
        self._done = [self._pool.submit(self._send, user) for user in users]

    def _send(self, user: str) -> None:
        chance, n = random.Random(user), 0
        while not self._stop.wait(0.05):
            batch = [wire(user, n + i, chance) for i in range(2)]
            send_all(self._server, [batch], chance)
            self.every += batch
            n += 2

    def end(self) -> list[dict[str, Any]]:
        """Everything that was sent, all of it answered with 200."""
        self._stop.set()
        for future in self._done:
            future.result()
        return self.every


class Stream:
    """`python -m feature_repo stream`, which can be stopped, and whose workers can be killed."""

    def __init__(self, settings: Settings) -> None:
        command = [sys.executable, "-m", "feature_repo", "stream", "--workers", str(WORKERS)]
        self.log = settings.home / f"stream-{uuid4().hex[:4]}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment(settings), stdout=log, stderr=log)

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # a zombie has no command line
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def ready(self) -> None:
        """Wait until all workers work."""
        until(lambda: READY in self.log.read_text() or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def kill_one(self, chance: random.Random) -> None:
        """kill -9 of a worker."""
        if found := self.workers():
            chance.choice(found).kill()

    def kill(self) -> None:
        """kill -9 of the one that starts the workers; they have to end by themselves."""
        orphans = self.workers()
        self.process.kill()
        self.process.wait()
        assert orphans
        until(lambda: not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in orphans), 15)

    def stop(self) -> None:
        """SIGTERM; it has to end by itself."""
        self.process.terminate()
        assert self.process.wait(60) == 0, self.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], brokers.Server]]:
    """A server by name, started when it is first asked for."""
    start = {
        "kafka": brokers.kafka,
        "rabbitmq": lambda: brokers.rabbitmq(tmp_path_factory.mktemp("rabbitmq")),
        "kinesis": brokers.kinesis,
        "redis": lambda: brokers.redis(tmp_path_factory.mktemp("redis")),
    }
    running: dict[str, brokers.Server] = {}
    with ExitStack() as stack:

        def server(name: str) -> brokers.Server:
            if name not in running:
                running[name] = stack.enter_context(start[name]())
            return running[name]

        yield server


@pytest.fixture
def world(servers: Callable[[str], brokers.Server], tmp_path: Path) -> Iterator[Callable[[str], Settings]]:
    """Settings over a broker of that name and Redis, both empty."""

    def made(broker: str) -> Settings:
        import redis as client

        name, at = f"firstmile-{uuid4().hex[:8]}", servers(broker).address
        urls = {
            "kafka": f"kafka://{at}/{name}?group={name}&shards=4&session.timeout.ms=6000",
            "rabbitmq": f"amqp://{at}/?queue={name}&shards=4",
            "kinesis": f"kinesis://{name}?region=eu-west-1&shards=4&lease_s=3&checkpoints={tmp_path}/kinesis.db"
            f"&endpoint=http://{at}",
        }
        online = f"redis://{servers('redis').address}/0"
        client.Redis.from_url(online).flushdb()
        return Settings(home=tmp_path, domain="saas", log=urls[broker], history=online, online=online)

    yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("broker", "kills"),
    [("rabbitmq", 2), *(pytest.param(b, 60, marks=pytest.mark.soak) for b in ("kafka", "rabbitmq", "kinesis"))],
)
def test_killed_workers_lose_nothing_and_count_nothing_twice(
    world: Callable[[str], Settings], broker: str, kills: int
) -> None:
    settings, chance = world(broker), random.Random(kills)
    users = [f"u{i}" for i in range(8)]
    sent = {u: [wire(u, n, chance) for n in range(30 if kills < 10 else 400)] for u in users}
    every = [e for events in sent.values() for e in events]
    server, stream = Server(settings), Stream(settings)
    server.start()
    try:
        with ThreadPoolExecutor(len(users)) as pool:
            batches = {u: [events[i : i + 4] for i in range(0, len(events), 4)] for u, events in sent.items()}
            done = [pool.submit(send_all, server, batches[u], random.Random(u)) for u in users]
            for _ in range(kills):
                until(lambda: len(stream.workers()) == WORKERS, 60)
                time.sleep(chance.uniform(0.1, 3))
                stream.kill_one(chance)
            for future in done:
                future.result()
        settled(settings, every)
        as_defined(settings, every, users)
    finally:
        stream.stop()
        server.stop()
    in_the_lake_once(settings, every)


def settled(settings: Settings, sent: list[dict[str, Any]]) -> None:
    """Every event has been applied, and every row written."""
    keys = [(e.get("userId") or f"anon:{e['anonymousId']}", e["messageId"]) for e in sent]
    history = open_history(settings)
    until(lambda: all(history.known(keys)) and not history.waiting(now_us()), 120)
    history.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", ["kafka", "rabbitmq", "kinesis"])
def test_a_decision_knows_the_message_that_it_is_asked_to_wait_for(
    world: Callable[[str], Settings], broker: str
) -> None:
    settings = world(broker)
    server, stream = Server(settings), Stream(settings)
    server.start()
    try:
        stream.ready()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            slow = client.post("/v1/decide", json={"userId": "p", "after": "never sent"}).json()
            assert slow["stale"] and not slow["known"]
            stale = []
            for n in range(PAIRS):
                event = {"type": "track", "event": "Clicked", "messageId": f"m{n}", "userId": "p"}
                sent = {"batch": [event | {"timestamp": datetime.now(UTC).isoformat()}]}
                assert client.post("/v1/batch", json=sent).status_code == 200
                answer = client.post("/v1/decide", json={"userId": "p", "after": f"m{n}", "explain": True}).json()
                stale += [n] if answer["stale"] else []
        assert not stale
    finally:
        stream.stop()
        server.stop()
    logged = [r for f in settings.decisions.glob("*.parquet") for r in pq.read_table(f).to_pylist() if r["features"]]
    clicks = [json.loads(r["features"])["clicks"] for r in sorted(logged, key=lambda r: r["decision_id"])]
    assert clicks == list(range(1, PAIRS + 1))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["redis", "rabbitmq"])
def test_a_server_that_is_away_for_a_while_costs_nothing(
    world: Callable[[str], Settings], servers: Callable[[str], brokers.Server], part: str
) -> None:
    settings, chance = world("rabbitmq"), random.Random(1)
    users = [f"u{i}" for i in range(4)]
    sent = {u: [wire(u, n, chance) for n in range(24)] for u in users}
    every = [e for events in sent.values() for e in events]
    server, stream = Server(settings), Stream(settings)
    server.start()
    try:
        until(lambda: len(stream.workers()) == WORKERS, 60)
        with ThreadPoolExecutor(len(users)) as pool:
            batches = {u: [events[i : i + 2] for i in range(0, len(events), 2)] for u, events in sent.items()}
            done = [pool.submit(send_all, server, batches[u], random.Random(u)) for u in users]
            with servers(part).stopped():
                time.sleep(4)
                with httpx.Client(base_url=server.url, timeout=30) as client:
                    answer = client.post("/v1/decide", json={"userId": "u0"}).json()
                    assert answer["elements"], answer
            for future in done:
                future.result()
        settled(settings, every)
        as_defined(settings, every, users)
    finally:
        stream.stop()
        server.stop()
    in_the_lake_once(settings, every)


@pytest.mark.timeout(300)
def test_who_is_erased_is_gone_from_history_and_lake_and_the_broker_names_its_day(
    world: Callable[[str], Settings], servers: Callable[[str], brokers.Server]
) -> None:
    settings, chance = world("rabbitmq"), random.Random(1)
    sent = {u: [wire(u, n, chance) for n in range(20)] for u in ("stays", "person-to-erase")}
    gone = ["person-to-erase", "device-person-to-erase"]
    server, stream = Server(settings), Stream(settings)
    server.start()
    try:
        until(lambda: len(stream.workers()) == WORKERS, 60)
        for events in sent.values():
            send_all(server, [events], chance)
        settled(settings, [e for events in sent.values() for e in events])
        assert searching.in_redis(settings.history, gone)
        with httpx.Client(base_url=server.url, timeout=60) as client:
            answer = client.delete("/v1/users/person-to-erase")
            assert answer.status_code == 202, answer.text
            (pending,) = answer.json()["pending"]
            day = datetime.fromtimestamp(now_us() / 1e6 + 7 * 86_400, UTC).date().isoformat()
            assert (pending["store"], pending["until"][:10]) == ("broker", day)
            assert client.get("/v1/users/person-to-erase").status_code == 410
            late = wire("person-to-erase", 99, chance)
            receipts = client.post("/v1/batch", json={"batch": [late]}).json()["receipts"]
            assert receipts[0]["reason"] == "erased"
        past_the_door = open_log(settings.log)  # as an event that was in the broker already
        past_the_door.append([parse(wire("person-to-erase", 100, chance), SAAS, now_us())]).result()
        past_the_door.append([parse(wire("stays", 100, chance), SAAS, now_us())]).result()
        past_the_door.close()
        settled(settings, [wire("stays", 100, chance)])
        time.sleep(1)
        assert searching.in_redis(settings.history, gone) == []
    finally:
        stream.stop()
        server.stop()
    assert searching.found(settings.state, gone) == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_redis_and_the_stream_end_under_load_and_come_back(
    world: Callable[[str], Settings], servers: Callable[[str], brokers.Server], rounds: int
) -> None:
    """Redis by kill -9, the stream by SIGTERM, its parent by kill -9."""
    settings, users = world("rabbitmq"), [f"u{i}" for i in range(4)]
    server, stream = Server(settings), Stream(settings)
    server.start()
    try:
        stream.ready()
        load = Load(server, users)
        for _ in range(rounds):
            time.sleep(1)
            with servers("redis").killed():
                time.sleep(1)
            time.sleep(3)
            stream.stop()
            stream = Stream(settings)
            stream.ready()
            stream.kill()
            stream = Stream(settings)
            stream.ready()
        every = load.end()
        assert len(every) > 50
        settled(settings, every)
        as_defined(settings, every, users)
    finally:
        stream.stop()
        server.stop()
    in_the_lake_once(settings, every)


@pytest.mark.timeout(300)
def test_a_broker_that_is_away_does_not_fill_the_memory(
    world: Callable[[str], Settings], servers: Callable[[str], brokers.Server]
) -> None:
    """64 MiB of events may wait; what comes then is answered with 503 and when to come again, and needs no memory."""
    settings = world("rabbitmq")
    server = Server(settings)
    server.start()
    assert server.process
    memory = psutil.Process(server.process.pid).memory_info
    padding, answers = "x" * 10_000, list[httpx.Response | None]()

    def post(thread: int, n: int, properties: dict[str, Any], patience_s: float = 1.0) -> httpx.Response | None:
        """None: no answer within that time."""
        made = [
            {"type": "track", "event": "Clicked", "messageId": f"{thread}-{n}-{i}", "userId": f"u{thread}"}
            | {"properties": properties, "timestamp": datetime.now(UTC).isoformat()}
            for i in range(40)
        ]
        with suppress(httpx.ReadTimeout):
            return httpx.post(f"{server.url}/v1/batch", json={"batch": made}, timeout=patience_s, verify=False)
        return None

    def flood(thread: int) -> None:
        for n in range(32):
            answers.append(post(thread, n, {"target": padding}))

    try:
        assert post(9, 0, {}, 30.0).status_code == 200
        until(lambda: "firstmile_log_lag 40" in httpx.get(f"{server.url}/metrics", verify=False).text.splitlines())
        before = memory().rss
        with servers("rabbitmq").stopped(), ThreadPoolExecutor(8) as pool:
            list(pool.map(flood, range(8)))
            list(pool.map(flood, range(8)))
            full = memory().rss
            assert httpx.get(f"{server.url}/metrics").elapsed.total_seconds() < 5
            list(pool.map(flood, range(8)))
            grown = memory().rss
        refused = [a for a in answers if a is not None]
        assert len(refused) > 200, len(refused)
        assert {a.status_code for a in refused} == {503}
        assert all(int(a.headers["retry-after"]) >= 1 for a in refused)
        assert full - before < 600 * MB, (full - before) / MB
        assert grown - full < 100 * MB, (grown - full) / MB
        until(lambda: (a := post(9, 1, {})) is not None and a.status_code == 200, 60)
    finally:
        server.stop()
