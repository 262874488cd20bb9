"""Publishes to a Kafka topic beside the event log's (see publisher.py), with the log's own settings."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from feature_repo.log.kafka_log import TIMEOUT_S, common, ensure_topic, producing
from feature_repo.log.publisher import Message
from feature_repo.vocabulary import DAY

MS = 1_000


def from_url(url: SplitResult, suffix: str, retention_days: int) -> "KafkaPublisher":
    """The publisher beside the log at `kafka://…`."""
    settings = dict(parse_qsl(url.query))
    settings.pop("group", None)
    shards, topic = int(settings.pop("shards", 12)), url.path.strip("/") or "firstmile"
    return KafkaPublisher(common(url.netloc, settings), f"{topic}{suffix}", shards, retention_days)


class KafkaPublisher:
    """A Publisher (see there). settings: librdkafka's, of client and connection."""

    def __init__(self, settings: dict[str, Any], topic: str, shards: int, retention_days: int) -> None:
        kept = {"retention.ms": str(retention_days * DAY // MS)}
        ensure_topic(AdminClient(settings), topic, shards, kept)
        self._topic, self._producer = topic, Producer(producing(settings))

    def publish(self, messages: Sequence[Message]) -> None:
        """As `Publisher.publish`: all in-sync replicas have them."""
        errors = list[Any]()

        def report(error: Any, _: Any) -> None:
            if error is not None:
                errors.append(error)

        for key, body in messages:
            self._producer.produce(self._topic, body, key, on_delivery=report)
        left = self._producer.flush(2 * TIMEOUT_S)
        if errors:
            raise KafkaException(errors[0])
        if left:
            raise TimeoutError(f"{self._topic}: {left} messages not acknowledged within {2 * TIMEOUT_S:g} s")

    def close(self) -> None:
        """What waits is given up: it comes again."""
        self._producer.purge()
        self._producer.flush(1.0)
