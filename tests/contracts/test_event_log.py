"""What every event log promises: what was accepted comes out, at least once, as it went in, one worker a user.

"At least once" leaves this much room: a log may deliver again what was acked after the first event of the same shard
that was not (all but RabbitMQ), and what was acked in the instant before a kill.
"""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.events import Event
from feature_repo.log.event_log import Busy, BusyError, Delivered, EventLog, Progress, decode, encode, open_log
from tests import brokers

LOGS = ["sqlite", "kafka", "rabbitmq", "kinesis"]
SETTLED_S = 1.5
"""Within it whatever was going to come has come."""
PATIENCE_S = 30.0


def event(n: object, user: str = "u", **properties: Any) -> Event:
    return Event("track", f"m{n}", user, None, 1, 2, "opened", properties, {}, {})


def events(n: int, users: int = 20, prefix: str = "") -> list[Event]:
    return [event(f"{prefix}{i}", f"user-{i % users}") for i in range(n)]


def ids(delivered: Sequence[Delivered]) -> list[str]:
    return [d.event.message_id for d in delivered]


def until(true: Callable[[], bool], within_s: float = 3 * PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


@dataclass
class Probe:
    """A log of one kind that was empty, and its workers. kind: of LOGS."""

    kind: str
    url: str
    server: brokers.Server | None
    inject: Callable[[bytes], None]
    """Puts a raw message into it, past our code."""
    opened: list[EventLog] = field(default_factory=list)
    poison: list[bytes] = field(default_factory=list)
    applied: set[int] = field(default_factory=set)
    """SQLite's positions that were acked: the history remembers them, not the log."""

    def open(self) -> Any:
        start = next(p for p in range(len(self.applied) + 1) if p + 1 not in self.applied)
        self.opened.append(open_log(self.url, start=start, on_poison=lambda raw, why: self.poison.append(raw)))
        return self.opened[-1]

    def ack(self, log: EventLog, delivered: Sequence[Delivered]) -> None:
        log.ack(delivered)
        self.applied |= {d.position for d in delivered if d.position is not None}

    def drain(self, log: EventLog, n: int) -> list[Delivered]:
        """At least `n` events, not acked."""
        found: list[Delivered] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < n:
            assert time.monotonic() < deadline, f"{len(found)} of {n} events came"
            found += log.poll(1_000, 0.5)
        return found

    def rest(self, log: EventLog) -> list[Delivered]:
        """Whatever comes until nothing does."""
        found: list[Delivered] = []
        while batch := log.poll(1_000, SETTLED_S):
            found += batch
        return found


def inject_sqlite(path: Path, raw: bytes) -> None:
    import sqlite3

    db = sqlite3.connect(path)
    db.execute("INSERT INTO log (event) VALUES (?)", [raw])
    db.commit()
    db.close()


def inject_kafka(address: str, topic: str, raw: bytes) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": address})
    producer.produce(topic, raw, "anybody")
    producer.flush()


def inject_rabbitmq(address: str, queue: str, raw: bytes) -> None:
    import asyncio

    import aio_pika

    async def publish() -> None:
        async with await aio_pika.connect(f"amqp://{address}/") as connection:
            channel = await connection.channel()
            await channel.default_exchange.publish(aio_pika.Message(raw), queue)

    asyncio.run(publish())


def inject_kinesis(address: str, stream: str, raw: bytes) -> None:
    import boto3

    client = boto3.client("kinesis", region_name="eu-west-1", endpoint_url=f"http://{address}")
    client.put_record(StreamName=stream, PartitionKey="anybody", Data=raw)


@pytest.fixture(params=LOGS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def probe(kind: str, servers: Callable[[str], brokers.Server], tmp_path: Path) -> Iterator[Probe]:
    name = f"t{uuid4().hex[:12]}"
    if kind == "sqlite":
        path = tmp_path / "log.db"
        probe = Probe(kind, str(path), None, lambda raw: inject_sqlite(path, raw))
    else:
        server = servers(kind)
        at = server.address
        settings = "session.timeout.ms=6000&heartbeat.interval.ms=300"
        if kind == "kafka":
            url = f"kafka://{at}/{name}?shards=4&group={name}&{settings}"
            probe = Probe(kind, url, server, lambda raw: inject_kafka(at, name, raw))
        elif kind == "rabbitmq":
            url = f"amqp://{at}/?queue={name}&shards=4"
            probe = Probe(kind, url, server, lambda raw: inject_rabbitmq(at, f"{name}.1", raw))
        else:
            checkpoints = tmp_path / "kinesis.db"
            url = f"kinesis://{name}?region=eu-west-1&shards=4&lease_s=3&checkpoints={checkpoints}&endpoint=http://{at}"
            probe = Probe(kind, url, server, lambda raw: inject_kinesis(at, name, raw))
    yield probe
    for log in probe.opened:
        log.close()


def test_what_goes_in_comes_out(probe: Probe) -> None:
    log = probe.open()
    extremes = Event(
        "alias",
        "żółć\n😀",
        "u" * 200,
        "a" * 200,
        -(2**62),
        2**62,
        None,
        {
            "integer": 10**4_000,
            "float": 5e-324,
            "zero": -0.0,
            "": "",
            "deep": {"list": [1, 1.0, None, True, {"é": []}]},
        },
        {"long": "x" * 30_000},
        {"a": {"b": {"c": "\x01 'quoted' \"twice\""}}},
    )
    anonymous = Event("page", "m", None, "a1", 1, 2, None, {}, {}, {})
    sent = [extremes, anonymous, *events(300)]
    positions = log.append(sent).result(PATIENCE_S)
    assert positions == (list(range(1, 303)) if probe.kind == "sqlite" else None)
    found = probe.drain(log, len(sent))
    assert sorted([d.event for d in found], key=repr) == sorted(sent, key=repr)
    assert str(next(d.event for d in found if d.event == extremes)) == str(extremes)  # 1 and 1.0, 0.0 and -0.0
    assert {type(d.position) for d in found} == {int if probe.kind == "sqlite" else type(None)}


def test_poll_gives_no_more_than_it_is_asked_for(probe: Probe) -> None:
    log = probe.open()
    log.append(events(30)).result(PATIENCE_S)
    found: list[str] = []
    while len(found) < 30:
        batch = log.poll(7, PATIENCE_S)
        assert 1 <= len(batch) <= 7
        found += ids(batch)
        probe.ack(log, batch)
    assert Counter(found) == Counter(e.message_id for e in events(30))


def test_nothing_is_appended_at_once_and_nothing_comes(probe: Probe) -> None:
    log = probe.open()
    assert not log.append([]).result(PATIENCE_S)
    began = time.monotonic()
    assert log.poll(10, 0.2) == []
    assert time.monotonic() - began < 10
    assert log.lag() == 0


def test_poll_waits_for_the_first_event_and_no_longer(probe: Probe) -> None:
    log = probe.open()
    log.append([event(0)]).result(PATIENCE_S)
    probe.ack(log, probe.drain(log, 1))
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(log.poll, 1_000, PATIENCE_S)
        time.sleep(0.3)
        began = time.monotonic()
        log.append([event(1)])
        assert ids(polled.result()) == ["m1"]
    assert time.monotonic() - began < PATIENCE_S / 2


def test_who_polls_is_told_when_they_have_their_part(probe: Probe) -> None:
    log = probe.open()
    log.append([event(0)]).result(PATIENCE_S)
    assert log.joined == (probe.kind == "sqlite")
    probe.drain(log, 1)
    assert log.joined


def test_what_was_not_acked_comes_again_and_what_was_does_not(probe: Probe) -> None:
    log = probe.open()
    log.append(events(100, prefix="first-")).result(PATIENCE_S)
    probe.ack(log, probe.drain(log, 100))
    log.append(events(100, prefix="second-")).result(PATIENCE_S)
    second = probe.drain(log, 100)
    random.Random(7).shuffle(second)
    probe.ack(log, second[:30])
    probe.ack(log, second[20:40])
    log.close()
    again = probe.open()
    due = set(ids(second[40:]))
    found = probe.drain(again, len(due))
    found += probe.rest(again)
    assert due <= set(ids(found)) <= set(ids(second))
    if probe.kind == "rabbitmq":
        assert due == set(ids(found))
    probe.ack(again, list(reversed(found)))
    again.close()
    assert probe.rest(probe.open()) == []


def test_what_somebody_else_got_meanwhile_can_be_acked_without_harm(probe: Probe) -> None:
    log = probe.open()
    log.append(events(20)).result(PATIENCE_S)
    mine = probe.drain(log, 20)
    probe.ack(log, mine)
    probe.ack(log, mine)
    log.append(events(20, prefix="later-")).result(PATIENCE_S)
    later = probe.drain(log, 20)
    log.close()
    again = probe.open()
    found = probe.drain(again, 20)
    again.ack(later)  # tokens of a log that is closed
    probe.ack(again, found)
    assert set(ids(found)) >= set(ids(later))


WORKER = """
import sys, threading, time
sys.path.insert(0, sys.argv[2])
from feature_repo.log.event_log import open_log
from feature_repo.contract.events import Event

log = open_log(sys.argv[1])

def say(text):
    with lock:
        print(text, flush=True)

def append():
    for n in range(1_000_000):
        batch = [Event("track", f"{sys.argv[3]}-{n}-{i}", f"u{n % 20}", None, 1, 2, "x", {}, {}, {}) for i in range(5)]
        log.append(batch).result()
        say("appended " + " ".join(e.message_id for e in batch))
        time.sleep(0.01)

lock = threading.Lock()
threading.Thread(target=append, daemon=True).start()
while True:
    delivered = log.poll(50, 1)
    say("acking " + " ".join(d.event.message_id for d in delivered[::2]))
    log.ack(delivered[::2])
    say("acking " + " ".join(d.event.message_id for d in delivered))
    log.ack(delivered)
"""


def work_and_die(url: str, out: Path, name: str) -> tuple[set[str], set[str]]:
    """What a process had appended, and what it had acked or was about to, when it was killed at some moment."""
    with out.open("wb") as file:
        command = [sys.executable, "-c", WORKER, url, str(Path(__file__).parents[2]), name]
        worker = subprocess.Popen(command, stdout=file)
    until(lambda: out.read_bytes().count(f"acking {name}-".encode()) > 2)
    time.sleep(random.uniform(0, 0.5))
    worker.kill()
    assert worker.wait() == -9
    told: dict[str, set[str]] = {"appended": set(), "acking": set()}
    for line in out.read_text().split("\n")[:-1]:  # the last one may be torn
        what, *which = line.split(" ")
        told[what].update(filter(None, which))
    return told["appended"], told["acking"]


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_kill_9_loses_nothing(probe: Probe, tmp_path: Path, kills: int) -> None:
    """Every event whose future was done comes again, or the worker had begun to ack it when it was killed."""
    missing = set[str]()
    for kill in range(kills):
        appended, acking = work_and_die(probe.url, tmp_path / f"{kill}.txt", str(kill))
        assert len(appended) > 10
        missing |= appended
        if probe.kind != "sqlite":  # there the history keeps what is applied
            missing -= acking
    log = probe.open()

    def all_came() -> bool:
        delivered = log.poll(1_000, 0.5)
        probe.ack(log, delivered)
        missing.difference_update(ids(delivered))
        return not missing

    until(all_came)


SHARED = pytest.mark.parametrize("kind", LOGS[1:], indirect=True)
"""Logs that several workers share; a SQLite log has one owner."""


class Worker:
    """Polls in a thread of its own, and notes whenever a user is somebody else's at that moment."""

    busy: dict[str, str]

    def __init__(self, name: str, log: EventLog, busy: dict[str, str]) -> None:
        self.name, self.log, self.busy = name, log, busy
        self.got: list[str] = []
        self.users = set[str]()
        self.clashes: list[tuple[str, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._stop.is_set():
            delivered = self.log.poll(20, 0.2)
            users = {str(d.event.user_id) for d in delivered}
            for user in users:
                if self.busy.setdefault(user, self.name) != self.name:
                    self.clashes.append((self.name, user))
            time.sleep(0.01)
            self.got += ids(delivered)
            self.users |= users
            for user in users:
                self.busy.pop(user, None)
            self.log.ack(delivered)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.log.close()


@SHARED
def test_two_workers_share_the_users_and_the_second_gets_the_rest(probe: Probe) -> None:
    busy: dict[str, str] = {}
    appending = probe.open()
    sent: list[Event] = []

    def send(n: int) -> None:
        batch = [event(len(sent) + i, f"user-{(len(sent) + i) % 40}") for i in range(n)]
        sent.extend(batch)
        appending.append(batch).result(PATIENCE_S)

    send(200)
    first = Worker("first", probe.open(), busy)
    until(lambda: len(first.got) == 200)
    assert len(first.users) == 40

    second = Worker("second", probe.open(), busy)

    def both_work() -> bool:
        send(20)
        return len(second.users) >= 5 and len(first.got) + len(second.got) > 400

    until(both_work)
    until(lambda: len(first.got) + len(second.got) >= len(sent))
    first.users.clear()
    second.users.clear()
    for _ in range(10):
        send(20)
    until(lambda: len(first.got) + len(second.got) >= len(sent))
    assert first.users and second.users
    assert not first.users & second.users

    send(200)
    first.stop()
    send(200)
    until(lambda: len(first.got) + len(second.got) >= len(sent))
    assert second.users == {f"user-{i}" for i in range(40)}
    second.stop()
    assert first.clashes == second.clashes == []
    assert Counter(first.got + second.got) == Counter(e.message_id for e in sent)


def test_a_sqlite_log_has_one_owner(tmp_path: Path) -> None:
    log = open_log(str(tmp_path / "log.db"))
    with pytest.raises(BusyError):
        open_log(str(tmp_path / "log.db"))
    log.close()
    open_log(str(tmp_path / "log.db")).close()


def test_poison_is_reported_and_does_not_block(probe: Probe) -> None:
    log = probe.open()
    log.append(events(10)).result(PATIENCE_S)
    probe.inject(b"\xff\x00 no event")
    if probe.kind == "sqlite":
        log.close()  # another connection took a position, which the log gives to nobody else
        log = probe.open()
    log.append(events(10, prefix="later-")).result(PATIENCE_S)
    found = probe.drain(log, 20)
    assert probe.poison == [b"\xff\x00 no event"]
    assert len(found) == 20
    probe.ack(log, found)
    if probe.kind == "sqlite":
        probe.applied.add(11)
    until(lambda: bool(log.lag() == 0), 10)
    log.close()
    assert probe.rest(probe.open()) == []
    assert len(probe.poison) == 1


def test_lag_is_what_was_accepted_and_not_acked(probe: Probe) -> None:
    log = probe.open()
    for e in events(12):  # each its own append: Tansu gives the beginning of the last batch as a topic's end
        log.append([e]).result(PATIENCE_S)
    assert log.lag() == 12
    found = probe.drain(log, 12)
    assert log.lag() == 12
    probe.ack(log, found)
    until(lambda: bool(log.lag() == 0), 10)


def test_many_threads_append(probe: Probe) -> None:
    log = probe.open()

    def append(thread: int) -> None:
        for n in range(20):
            log.append([event(f"{thread}-{n}-{i}", f"user-{thread}") for i in range(3)]).result(PATIENCE_S)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(8)))
    sent = {f"m{t}-{n}-{i}" for t in range(8) for n in range(20) for i in range(3)}
    assert Counter(ids(probe.drain(log, len(sent)))) == Counter(sent)


def test_closing_writes_what_waits(probe: Probe) -> None:
    log = probe.open()
    appended = [log.append([e]) for e in events(200)]
    log.close()
    log.close()
    for future in appended:
        future.result(0)
    assert set(ids(probe.drain(probe.open(), 200))) == {e.message_id for e in events(200)}


@SHARED
def test_a_server_that_does_not_answer_makes_append_refuse_and_nothing_is_lost(probe: Probe) -> None:
    log = probe.open()
    log.append([event("warm")]).result(PATIENCE_S)
    log.lag()
    assert probe.server
    taken: list[Any] = []
    with probe.server.stopped():
        large = [event(f"{i}", long="x" * 30_000) for i in range(500)]
        with pytest.raises(Busy, match=r"events wait to be written; try again in 1 s"):
            for _ in range(10):
                taken.append(log.append(large))
    assert 1 < len(taken) < 10  # 64 MiB may wait
    log.poll(0, 0)
    for future in taken:
        future.result(PATIENCE_S)
    found = set[str]()
    while found < {"mwarm", *(e.message_id for e in large)}:
        found |= set(ids(batch := log.poll(1_000, 1)))
        log.ack(batch)
    log.append([event("after")]).result(PATIENCE_S)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.text(), JSON, max_size=4)


@given(properties=DOCUMENTS, context=DOCUMENTS, message_id=st.text(min_size=1), user=st.none() | st.text(min_size=1))
def test_encoding_loses_nothing(properties: Any, context: Any, message_id: str, user: str | None) -> None:
    sent = Event("track", message_id, user, "a", 1, 2, "opened", properties, {}, context)
    found = decode(encode(sent), on_poison=lambda raw, why: pytest.fail(why))
    assert found == sent
    assert repr(found) == repr(sent)


@given(raw=st.binary() | JSON.map(msgspec.json.encode))
def test_whatever_is_no_event_is_told_and_never_raised(raw: bytes) -> None:
    told: list[tuple[bytes, str]] = []
    assert decode(raw, lambda raw, why: told.append((raw, why))) is None
    assert [r for r, _ in told] == [raw]


@given(acks=st.permutations(range(8)), delivered=st.integers(0, 8))
def test_progress_is_up_to_the_first_that_is_not_acked(acks: list[int], delivered: int) -> None:
    shard = Progress[int]()
    for token in range(delivered):
        shard.delivered(token)
    acked = set[int]()
    for token in acks:
        shard.acked(token)
        acked.add(token)
        expected = [t for t in range(delivered) if set(range(t + 1)) <= acked]
        assert shard.reached == (expected[-1] if expected else None)
        assert len(shard) == len(set(range(delivered)) - acked)


def test_an_address_that_no_log_has() -> None:
    with pytest.raises(ValueError, match=r"expected a path or kafka://….*came 'redis://x'"):
        open_log("redis://x")


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("kafka://h/t", "confluent_kafka", "kafka"),
        ("amqp://h", "aio_pika", "rabbitmq"),
        ("kinesis://s", "boto3", "kinesis"),
    ],
)
def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str) -> None:
    monkeypatch.delitem(sys.modules, f"feature_repo.log.{extra}_log", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs the module {module}.*pip install 'firstmile\[{extra}\]'"):
        open_log(url)
