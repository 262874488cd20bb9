"""The RabbitMQ log: what it promises beyond the contract of all logs (tests/contracts/test_event_log.py)."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import pytest

from feature_repo.contract.events import Event
from feature_repo.log.event_log import EventLog, open_log
from tests import brokers


def events(n: int, prefix: str = "") -> list[Event]:
    return [Event("track", f"{prefix}{i}", f"user-{i % 20}", None, 1, 2, "opened", {}, {}, {}) for i in range(n)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Server]:
    with brokers.rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


class Proxy:
    """A way to the server that can be cut."""

    def __init__(self, to: str) -> None:
        host, port = to.split(":")
        self._to = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            here, _ = self._listening.accept()
            there = socket.create_connection(self._to)
            self._open += [here, there]
            for pair in [(here, there), (there, here)]:
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        source.close()
        sink.close()

    def cut(self) -> int:
        """How many connections there were."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        cut, self._open = len(self._open) // 2, []
        return cut


def append_at_last(log: EventLog, sent: list[Event]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            log.append(sent).result(30)
            return
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_connection_that_breaks_comes_back_and_nothing_is_lost(server: brokers.Server) -> None:
    user, address = server.address.split("@")
    proxy = Proxy(address)
    log = open_log(f"amqp://{user}@{proxy.address}/?queue=t{uuid4().hex}&shards=3")
    log.append(events(60)).result(30)
    held = []
    while len(held) < 40:
        held += log.poll(40 - len(held), 5)
    assert proxy.cut() == 2
    time.sleep(0.5)
    log.ack(held)  # the broker gives them to somebody again: these acks come too late
    append_at_last(log, events(20, "later-"))
    found = Counter[str]()
    deadline = time.monotonic() + 30
    while len(found) < 80 and time.monotonic() < deadline:
        delivered = log.poll(1_000, 1)
        found.update(d.event.message_id for d in delivered)
        log.ack(delivered)
    assert found == Counter(e.message_id for e in events(60) + events(20, "later-"))
    assert log.poll(10, 1) == []
    assert log.lag() == 0
    log.close()


def test_an_append_that_finds_no_connection_fails(server: brokers.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.log.rabbitmq_log.TIMEOUT_S", 1.0)
    user, address = server.address.split("@")
    proxy = Proxy(address)
    log = open_log(f"amqp://{user}@{proxy.address}/?queue=t{uuid4().hex}&shards=3")
    proxy._to = ("127.0.0.1", brokers.free_port())
    proxy.cut()
    with pytest.raises((OSError, TimeoutError, RuntimeError)):
        log.append(events(10)).result(10)
    proxy._to = (address.split(":")[0], int(address.split(":")[1]))
    append_at_last(log, events(10))
    log.close()


def test_another_number_of_shards_is_refused(server: brokers.Server) -> None:
    url = f"amqp://{server.address}/?queue=t{uuid4().hex}&shards="
    open_log(url + "3").close()
    with pytest.raises(
        ValueError, match=r"expected the number of shards that the queues were made with.*current is '3'"
    ):
        open_log(url + "4")
    open_log(url + "3").close()


def test_a_message_that_no_queue_takes_is_not_accepted(server: brokers.Server) -> None:
    import asyncio

    import aio_pika

    name = f"t{uuid4().hex}"
    log = open_log(f"amqp://{server.address}/?queue={name}&shards=1")

    async def delete() -> None:
        async with await aio_pika.connect(f"amqp://{server.address}/") as connection:
            await (await connection.channel()).queue_delete(f"{name}.0")

    asyncio.run(delete())
    with pytest.raises(aio_pika.exceptions.AMQPError):
        log.append(events(1)).result(30)
    log.close()


def test_three_workers_that_start_together_end_with_a_share_each(server: brokers.Server) -> None:
    url = f"amqp://{server.address}/?queue=t{uuid4().hex}&shards=6"
    logs = [open_log(url) for _ in range(3)]
    counts, stop = [0, 0, 0], threading.Event()

    def work(worker: int) -> None:
        while not stop.is_set():
            delivered = logs[worker].poll(50, 0.1)
            counts[worker] += len(delivered)
            logs[worker].ack(delivered)

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work, worker) for worker in range(3)]
        deadline, sent = time.monotonic() + 60, 0
        while min(counts) < 50 and time.monotonic() < deadline:
            logs[0].append(events(40)).result(30)
            sent += 40
            time.sleep(0.05)
        while sum(counts) < sent and time.monotonic() < deadline:
            time.sleep(0.05)
        stop.set()
        for future in working:
            future.result()
    assert min(counts) >= 50
    assert sum(counts) == sent
    for log in logs:
        log.close()
