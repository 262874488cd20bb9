"""Publishes to a RabbitMQ exchange beside the event log's queues (see publisher.py).

fanout exchange `<queue><suffix>` ─► durable quorum queue `<queue><suffix>`, whose messages end with the retention
                                 └─► whatever else is bound to it

The key is the routing key (its first 255 bytes, as AMQP allows no more) and the header `key`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractRobustConnection

from feature_repo.log.publisher import Message
from feature_repo.log.rabbitmq_loop import TIMEOUT_S, Loop, connect
from feature_repo.vocabulary import DAY

MS, LONGEST_KEY = 1_000, 255


def from_url(url: SplitResult, suffix: str, retention_days: int) -> "RabbitmqPublisher":
    """The publisher beside the log at `amqp://…` or `amqps://…`."""
    queue = dict(parse_qsl(url.query)).get("queue", "firstmile")
    return RabbitmqPublisher(url._replace(query="").geturl(), f"{queue}{suffix}", retention_days)


class RabbitmqPublisher:
    """A Publisher (see there)."""

    def __init__(self, url: str, name: str, retention_days: int) -> None:
        self._name, self._loop = name, Loop(f"rabbitmq {name}")
        self._connection: AbstractRobustConnection | None = None
        try:
            self._exchange = self._loop.run(self._open(url, retention_days))
        except BaseException:
            self.close()
            raise

    def publish(self, messages: Sequence[Message]) -> None:
        """As `Publisher.publish`: a quorum of the brokers has confirmed them."""
        self._loop.run(self._publish(messages))

    def close(self) -> None:
        """Let go of the connection."""
        if self._loop.closed:
            return
        try:
            if self._connection is not None:
                self._loop.run(self._connection.close())
        finally:
            self._loop.close()

    async def _open(self, url: str, retention_days: int) -> AbstractExchange:
        self._connection = await connect(url)
        channel = await self._connection.channel()
        exchange = await channel.declare_exchange(self._name, aio_pika.ExchangeType.FANOUT, durable=True)
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-message-ttl": retention_days * DAY // MS}
        queue = await channel.declare_queue(self._name, durable=True, arguments=arguments)
        await queue.bind(exchange)
        return exchange

    async def _publish(self, messages: Sequence[Message]) -> None:
        """One channel sends in order, so they arrive in order; the confirmations may come in any."""
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*(self._exchange.publish(_message(*m), _routing_key(m[0])) for m in messages))


def _message(key: str, body: bytes) -> aio_pika.Message:
    kept = aio_pika.DeliveryMode.PERSISTENT
    return aio_pika.Message(body, content_type="application/json", headers={"key": key}, delivery_mode=kept)


def _routing_key(key: str) -> str:
    return key.encode()[:LONGEST_KEY].decode(errors="ignore")
