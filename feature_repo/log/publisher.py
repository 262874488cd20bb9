"""Messages for others, in the broker that holds the event log: published beside it, under its name and a suffix.

publish([(key, body)]) ─► acknowledged          what has one key stays in order; nothing is read back from here

Kafka: topic `<topic><suffix>`. RabbitMQ: exchange `<queue><suffix>`, and a queue of that name. Kinesis: stream
`<stream><suffix>`. They are made where they are missing.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol
from urllib.parse import urlsplit

from feature_repo.log.event_log import BROKERS

Message = tuple[str, bytes]
"""Key and body."""


class Publisher(Protocol):
    """Open; one thread at a time. After an error from `publish` close it and open another."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Write these; returns once the broker has acknowledged them all.

        Raises:
            Exception: the client's own; any of them may be there, so publish them all again.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def open_publisher(url: str, suffix: str, retention_days: int) -> Publisher:
    """The publisher beside the log at an address, as `open_log` takes it.

    retention_days: how long what it makes keeps a message.

    Raises:
        ValueError: the log at that address is no broker.
    """
    parts = urlsplit(url)
    if parts.scheme not in BROKERS:
        raise ValueError(f"publisher: expected {', '.join(f'{s}://…' for s in BROKERS)}; came {url!r}")
    module = import_module(f"feature_repo.log.{BROKERS[parts.scheme]}_publisher")
    publisher: Publisher = module.from_url(parts, suffix, retention_days)
    return publisher
