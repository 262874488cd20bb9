"""The Kafka log: what it promises beyond the contract of all logs (tests/contracts/test_event_log.py)."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from feature_repo.contract.events import Event
from feature_repo.log.event_log import encode, open_log
from feature_repo.log.kafka_log import KafkaLog
from tests import brokers


def events(n: int) -> list[Event]:
    return [Event("track", f"{i}", f"user-{i % 20}", None, 1, 2, "opened", {}, {}, {}) for i in range(n)]


def test_a_broker_that_is_down_fails_the_append_and_one_that_forgot_us_is_written_to_again() -> None:
    """Tansu forgets all when it stops: to an idempotent producer the worst case, and a fatal error."""
    port = brokers.free_port()
    with brokers.kafka(port):
        log = open_log(f"kafka://127.0.0.1:{port}/t{uuid4().hex}?shards=2&delivery.timeout.ms=2000")
        for _ in range(3):
            log.append(events(20)).result(30)
    with pytest.raises(KafkaException, match="timed out"):
        log.append(events(20)).result(30)
    with brokers.kafka(port):
        deadline = time.monotonic() + 60
        while True:
            try:
                log.append(events(20)).result(30)
                break
            except KafkaException:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        log.append(events(20)).result(30)
        log.close()


def test_no_broker_at_all_is_said_when_the_log_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_repo.log.kafka_log.TIMEOUT_S", 1.0)
    with pytest.raises(KafkaException):
        open_log(f"kafka://127.0.0.1:{brokers.free_port()}/topic")


def test_a_user_is_in_one_partition_and_the_users_are_in_all() -> None:
    from confluent_kafka import Consumer

    topic = f"t{uuid4().hex}"
    with brokers.kafka() as server:
        log = open_log(f"kafka://{server.address}/{topic}?shards=4")
        log.append(events(200)).result(30)
        consumer = Consumer({"bootstrap.servers": server.address, "group.id": topic})
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
        partitions: dict[bytes, set[int]] = {}
        for message in (m for _ in range(200) if (m := consumer.poll(30))):
            partitions.setdefault(message.key(), set()).add(message.partition())
        consumer.close()
        log.close()
    assert partitions.keys() == {f"user-{i}".encode() for i in range(20)}
    assert all(len(of) == 1 for of in partitions.values())
    assert set.union(*partitions.values()) == {0, 1, 2, 3}


class FakeConsumer:
    """Gives what `script` says: messages, and between them callbacks, as librdkafka calls them within `poll`."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.committed: list[tuple[int, int]] = []
        self.on: dict[str, Callable[..., None]] = {}

    def subscribe(self, topics: list[str], **on: Callable[..., None]) -> None:
        self.on = on
        on["on_assign"](self, partitions(0, 1))

    def poll(self, timeout_s: float) -> Any:
        while self.script:
            step = self.script.pop(0)
            if not isinstance(step, tuple):
                return step
            self.on[step[0]](self, partitions(*step[1:]))
        return None

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.committed += [(at.partition, at.offset) for at in offsets]

    def close(self) -> None:
        self.on["on_revoke"](self, partitions(0, 1))


def partitions(*numbers: int) -> list[TopicPartition]:
    return [TopicPartition("topic", number) for number in numbers]


def message(partition: int, offset: int, raw: bytes = encode(events(1)[0]), error: Any = None) -> Any:
    return SimpleNamespace(partition=lambda: partition, offset=lambda: offset, value=lambda: raw, error=lambda: error)


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> FakeConsumer:
    consumer = FakeConsumer()
    monkeypatch.setattr("feature_repo.log.kafka_log.Consumer", lambda settings: consumer)
    monkeypatch.setattr("feature_repo.log.kafka_log.ensure_topic", lambda *_: None)
    return consumer


def test_what_was_gathered_of_a_partition_that_goes_is_not_given_out(consumer: FakeConsumer) -> None:
    log = KafkaLog("127.0.0.1:1", "topic")
    consumer.script = [message(0, 5), message(1, 3), ("on_revoke", 0), message(1, 4), ("on_lost", 1)]
    assert log.poll(2, 0) and [d.token for d in log.poll(10, 0)] == []
    consumer.script = [("on_assign", 0, 1), message(0, 5), message(1, 3), ("on_revoke", 0), message(1, 4)]
    delivered = log.poll(10, 0)
    assert [d.token for d in delivered] == [(1, 3), (1, 4)]
    log.close()
    assert len(delivered) == 2


def test_a_partition_is_committed_up_to_the_first_event_that_is_not_acked(consumer: FakeConsumer) -> None:
    log = KafkaLog("127.0.0.1:1", "topic", on_poison=lambda raw, why: None)
    consumer.script = [message(0, 5), message(0, 7), message(1, 3), message(0, 8, b"?"), message(1, 9, b"?")]
    five, seven, three = log.poll(10, 0)
    assert consumer.committed == []
    log.ack([seven])
    assert consumer.committed == []
    log.ack([three])
    assert consumer.committed == [(1, 10)]
    log.ack([five])
    assert consumer.committed == [(1, 10), (0, 9)]
    consumer.script = [message(0, 9), ("on_revoke", 0), ("on_assign", 0)]
    (nine,) = log.poll(1, 0)
    log.poll(1, 0)
    assert consumer.committed[2:] == [(0, 9)]
    log.ack([nine])  # somebody else's by now
    assert consumer.committed[3:] == []
    log.close()


def test_a_fatal_error_is_raised_and_others_are_not(consumer: FakeConsumer) -> None:
    log = KafkaLog("127.0.0.1:1", "topic")
    consumer.script = [message(0, 0, error=KafkaError(KafkaError._TRANSPORT)), message(0, 5)]
    assert len(log.poll(10, 0)) == 1
    consumer.script = [message(0, 0, error=KafkaError(KafkaError._FATAL, "fenced", fatal=True))]
    with pytest.raises(KafkaException, match="fenced"):
        log.poll(10, 0)
    log.close()
