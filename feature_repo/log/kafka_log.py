"""The event log in a Kafka topic: `kafka://host:port,host:port/topic?group=firstmile&shards=12`.

A user's events are in one partition, and a partition is one worker's at a time (a consumer group). The topic is made,
with `shards` partitions, where it is missing. Durable is what all in-sync replicas have: give the topic
min.insync.replicas=2 or more. Everything else in the address is librdkafka's: `&security.protocol=SASL_SSL&…`.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qsl

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from feature_repo.contract.events import Event
from feature_repo.log.event_log import (
    MOST_WAITING,
    Appended,
    Backlog,
    Delivered,
    OnPoison,
    Progress,
    decode,
    encode,
    report_poison,
    shard_key,
)

TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


def from_url(url: SplitResult, on_poison: OnPoison) -> "KafkaLog":
    """The log at `kafka://…`."""
    settings = dict(parse_qsl(url.query))
    group, shards = settings.pop("group", "firstmile"), int(settings.pop("shards", 12))
    return KafkaLog(url.netloc, url.path.strip("/") or "firstmile", group, shards, settings, on_poison)


def common(servers: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """What librdkafka's clients are told, all of them. settings: out of the address."""
    return {"bootstrap.servers": servers, "logger": _log, **settings}


def producing(common: Mapping[str, Any]) -> dict[str, Any]:
    """What a producer is told besides."""
    return {"delivery.timeout.ms": 30_000, "partitioner": "murmur2_random", **common} | {
        "acks": "all",
        "enable.idempotence": True,
    }


class _Append:
    """One append: done when the last of its messages is reported."""

    def __init__(self, messages: int) -> None:
        self.future: Appended = Future()
        self.future.set_running_or_notify_cancel()
        self._left, self._lock = messages, threading.Lock()
        self._error: Exception | None = None
        if not messages:
            self.future.set_result(None)

    def report(self, error: Exception | None) -> None:
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            last = not self._left
        if last and self._error:
            self.future.set_exception(self._error)
        elif last:
            self.future.set_result(None)


class KafkaLog:
    """An EventLog (see there) over librdkafka; what is acked is committed in the background, at the latest by `close`.

    Raises:
        KafkaException: no broker answers, or the topic can be neither found nor made.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        group: str = "firstmile",
        shards: int = 12,
        settings: Mapping[str, str] | None = None,
        on_poison: OnPoison = report_poison,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._topic, self._on_poison, self._backlog = topic, on_poison, Backlog(most_waiting)
        shared = common(servers, settings or {})
        ensure_topic(AdminClient(shared), topic, shards)
        self._producing = producing(shared)
        self._producer = Producer(self._producing)
        self._consumer = Consumer(
            {"auto.offset.reset": "earliest", "partition.assignment.strategy": "cooperative-sticky", **shared}
            | {"group.id": group, "enable.auto.commit": False}
        )
        self._consuming = threading.Lock()  # guards what follows
        self._subscribed = self._joined = False
        self._progress: dict[int, Progress[int]] = {}  # offsets by partition
        self._polled: list[Delivered] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve_reports, name=f"reports {topic}", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> Appended:
        """Write events; the future is done once all in-sync replicas have them."""
        keyed = [(shard_key(event), encode(event)) for event in events]
        self._backlog.take([raw for _, raw in keyed])
        append = _Append(len(keyed))
        for key, raw in keyed:
            report = partial(self._report, append, raw)
            try:
                self._producer.produce(self._topic, raw, key, on_delivery=report)
            except (BufferError, KafkaException) as error:
                report(error, None)
        return append.future

    def poll(self, most: int, timeout_s: float) -> list[Delivered]:
        """Up to `most` events of this worker's partitions."""
        with self._consuming:
            if not self._subscribed:
                self._consumer.subscribe(
                    [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
                )
                self._subscribed = True
            message = self._consumer.poll(timeout_s)
            while message is not None:
                self._take(message)
                message = self._consumer.poll(0) if len(self._polled) < most else None
            polled, self._polled = self._polled, []
            return polled

    @property
    def joined(self) -> bool:
        """Whether the group has given this worker its partitions, be it none."""
        return self._joined

    def ack(self, delivered: Sequence[Delivered]) -> None:
        """Commit as far as every event of a partition is acked."""
        with self._consuming:
            for partition, offset in (d.token for d in delivered):
                if progress := self._progress.get(partition):
                    progress.acked(offset)
            self._commit({d.token[0] for d in delivered}, asynchronous=True)

    def lag(self) -> int:
        """Events of the whole topic that the group has not committed."""
        partitions = self._consumer.list_topics(self._topic, TIMEOUT_S).topics[self._topic].partitions
        behind = 0
        for at in self._consumer.committed([TopicPartition(self._topic, p) for p in partitions], TIMEOUT_S):
            low, high = self._consumer.get_watermark_offsets(at, TIMEOUT_S)
            behind += max(0, high - max(low, at.offset))
        return behind

    def close(self) -> None:
        """Write what waits (at most for librdkafka's delivery.timeout.ms), commit what is acked, leave the group."""
        self._producer.flush()
        self._closed.set()
        self._thread.join()
        with self._consuming:
            self._consumer.close()

    def _serve_reports(self) -> None:
        while not self._closed.is_set():
            try:
                self._producer.poll(0.1)
            except KafkaException as error:  # fatal: an idempotent producer can't go on where the broker forgot it
                _log.error("%s: a new producer, for %s", self._topic, error)
                failed, self._producer = self._producer, Producer(self._producing)
                _fail_all(failed)

    def _report(self, append: _Append, raw: bytes, error: Any, message: Any) -> None:
        self._backlog.drop([raw])
        append.report(KafkaException(error) if isinstance(error, KafkaError) else error)

    def _take(self, message: Any) -> None:
        if error := message.error():
            if error.fatal():
                raise KafkaException(error)
            _log.warning("%s: %s", self._topic, error)
            return
        partition, offset, raw = message.partition(), message.offset(), message.value() or b""
        self._progress[partition].delivered(offset)
        if event := decode(raw, self._on_poison):
            self._polled.append(Delivered(event, None, (partition, offset)))
        else:
            self._progress[partition].acked(offset)
            self._commit({partition}, asynchronous=True)

    def _commit(self, partitions: set[int], asynchronous: bool) -> None:
        reached = {p: self._progress[p].reached for p in partitions if p in self._progress}
        offsets = [TopicPartition(self._topic, p, offset + 1) for p, offset in reached.items() if offset is not None]
        commit: Any = self._consumer.commit
        try:
            if offsets:
                commit(offsets=offsets, asynchronous=asynchronous)
        except KafkaException as error:  # the events come again, to whoever has the partition then
            _log.warning("%s: not committed: %s", self._topic, error)

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._progress.update({p.partition: Progress() for p in partitions})
        self._joined = True

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit({p.partition for p in partitions}, asynchronous=False)
        self._lost(consumer, partitions)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {p.partition for p in partitions}
        self._polled[:] = [d for d in self._polled if d.token[0] not in gone]
        for partition in gone:
            self._progress.pop(partition, None)


def _fail_all(producer: Producer) -> None:
    """Report every message of a producer that has failed."""
    producer.purge()
    deadline = time.monotonic() + TIMEOUT_S
    while len(producer) and time.monotonic() < deadline:
        try:
            producer.poll(0.1)
        except KafkaException:  # the same error, each time
            continue


def ensure_topic(admin: AdminClient, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
    """Make a topic where it is missing. config: of a topic that is made.

    Raises:
        KafkaException: no broker answers, or it cannot be made.
    """
    if topic in admin.list_topics(timeout=TIMEOUT_S).topics:
        return
    try:
        admin.create_topics([NewTopic(topic, partitions, config=dict(config or {}))])[topic].result(TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
