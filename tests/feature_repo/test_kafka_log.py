"""The Kafka log: what it promises beyond the contract of all logs (tests/contracts/test_event_log.py)."""

import time
from uuid import uuid4

import pytest

pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")

from confluent_kafka import KafkaException

from feature_repo.event_log import open_log
from feature_repo.events import Event
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
    monkeypatch.setattr("feature_repo.kafka_log.TIMEOUT_S", 1.0)
    with pytest.raises(KafkaException):
        open_log(f"kafka://127.0.0.1:{brokers.free_port()}/topic")


def test_a_user_is_in_one_partition_and_the_users_are_in_all() -> None:
    from confluent_kafka import Consumer, TopicPartition

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
