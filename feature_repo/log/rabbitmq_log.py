"""The event log in RabbitMQ's quorum queues: `amqp://user:password@host:5672/vhost?queue=firstmile&shards=8`.

A user's events are in one of `shards` queues, and of the workers that consume a queue the broker makes one active
(single active consumer). It never moves a queue away from a worker that lives, so a worker with more than its share
gives some up between two polls. All processes need the same `shards`; to change it, name another `queue` and let the
old ones run empty first.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import wait
from typing import Any
from urllib.parse import SplitResult, parse_qsl
from uuid import uuid4
from zlib import crc32

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue, AbstractRobustChannel, AbstractRobustConnection
from aiormq.exceptions import ChannelInvalidStateError, ChannelPreconditionFailed

from feature_repo.contract.events import Event
from feature_repo.log.event_log import (
    MOST_WAITING,
    Appended,
    Backlog,
    Delivered,
    OnPoison,
    decode,
    encode,
    report_poison,
    shard_key,
)
from feature_repo.log.rabbitmq_loop import TIMEOUT_S, Loop, connect

PREFETCH = 250
"""Messages of one queue that a worker may hold."""
BALANCE_S = 2.0


def from_url(url: SplitResult, on_poison: OnPoison) -> "RabbitmqLog":
    """The log at `amqp://…` or `amqps://…`."""
    settings = dict(parse_qsl(url.query))
    queue, shards = settings.get("queue", "firstmile"), int(settings.get("shards", 8))
    return RabbitmqLog(url._replace(query="").geturl(), queue, shards, on_poison)


class RabbitmqLog:
    """An EventLog (see there) over aio-pika, in a thread of its own; it reconnects by itself.

    Raises:
        ValueError: the queues were made with another number of shards.
    """

    def __init__(
        self,
        url: str,
        queue: str = "firstmile",
        shards: int = 8,
        on_poison: OnPoison = report_poison,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._url, self._on_poison, self._backlog = url, on_poison, Backlog(most_waiting)
        self._queues = [f"{queue}.{shard}" for shard in range(shards)]
        self._workers = f"{queue}.workers"  # always empty; who consumes it is a worker
        self._connections: list[AbstractRobustConnection] = []
        self._writes: set[Appended] = set()
        self._consumed: dict[str, AbstractQueue] = {}
        self._arrived = threading.Condition()  # guards what follows
        self._inbox: deque[AbstractIncomingMessage] = deque()
        self._unacked: set[AbstractIncomingMessage] = set()
        self._tags: dict[str, str] = {}  # the consumer of each queue
        self._active: set[str] = set()  # queues that something came from since the last balance
        self._balance_at = 0.0
        self._loop = Loop(f"rabbitmq {queue}")
        self._run = self._loop.run
        try:
            self._publishing = self._run(self._open())
        except BaseException:
            self.close()
            raise

    def append(self, events: Sequence[Event]) -> Appended:
        """Write events; the future is done once a quorum of the brokers has confirmed them all."""
        keyed = [(self._queues[crc32(shard_key(e).encode()) % len(self._queues)], encode(e)) for e in events]
        self._backlog.take([raw for _, raw in keyed])
        future = self._loop.submit(self._publish(keyed))
        self._writes.add(future)
        future.add_done_callback(self._writes.discard)
        return future

    def poll(self, most: int, timeout_s: float) -> list[Delivered]:
        """Up to `most` events of the queues that this worker is active on."""
        self._balance()
        with self._arrived:
            self._arrived.wait_for(lambda: self._inbox, timeout_s)
            messages = [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]
            self._unacked.update(messages)
        decoded = [(message, decode(message.body, self._on_poison)) for message in messages]
        self._settle([message for message, event in decoded if event is None])
        return [Delivered(event, None, message) for message, event in decoded if event]

    @property
    def joined(self) -> bool:
        """Whether this worker stands in the line for every queue."""
        return len(self._consumed) == len(self._queues)

    def ack(self, delivered: Sequence[Delivered]) -> None:
        """Let the broker forget these."""
        self._settle([d.token for d in delivered])

    def lag(self) -> int:
        """Events in all queues, without those that other workers hold (at most 250 of a queue)."""
        ready = self._run(self._counts())[0]
        with self._arrived:
            return ready + len(self._inbox) + len(self._unacked)

    def close(self) -> None:
        """Write what waits, then leave; the broker gives others what is not acked."""
        if self._loop.closed:
            return
        wait(self._writes.copy())
        self._run(self._leave())
        self._loop.close()

    async def _open(self) -> AbstractRobustChannel:
        """Make the queues; a channel to publish and ask on: its own connection, so that no full queue holds acks up."""
        channel = await self._channel(on_return_raises=True)
        limit = {"x-max-length": len(self._queues)}  # a queue that is there is never given another one
        try:
            await channel.declare_queue(self._workers, durable=True, arguments=limit)
        except ChannelPreconditionFailed as error:
            raise ValueError(f"expected the number of shards that the queues were made with; {error}") from error
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        transport: Any = self._connections[0].transport
        if int(transport.connection.server_properties["version"].split(".")[0]) >= 4:
            arguments["x-delivery-limit"] = -1  # or, from 4.0 on, what was redelivered 20 times is thrown away
        for name in self._queues:
            await channel.declare_queue(name, durable=True, arguments=arguments)
        return channel

    async def _channel(self, on_return_raises: bool = False) -> AbstractRobustChannel:
        connection = await connect(self._url)
        self._connections.append(connection)
        channel = connection.channel(on_return_raises=on_return_raises)
        await channel.initialize(timeout=TIMEOUT_S)
        return channel

    async def _publish(self, keyed: list[tuple[str, bytes]]) -> list[int] | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                confirmed = (
                    self._publishing.default_exchange.publish(
                        aio_pika.Message(raw, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), name
                    )
                    for name, raw in keyed
                )
                await asyncio.gather(*confirmed)
                return None
        finally:
            self._backlog.drop([raw for _, raw in keyed])

    async def _subscribe(self) -> None:
        channel = await self._channel()
        self._connections[-1].close_callbacks.add(self._forget)
        await channel.set_qos(prefetch_count=PREFETCH)
        await (await channel.get_queue(self._workers)).consume(self._receive)
        for name in self._queues:
            self._consumed[name] = await channel.get_queue(name)
            await self._consume(name)

    async def _consume(self, name: str) -> None:
        self._tags[name] = uuid4().hex
        await self._consumed[name].consume(self._receive, consumer_tag=self._tags[name])

    async def _receive(self, message: AbstractIncomingMessage) -> None:
        if message.consumer_tag != self._tags.get(str(message.routing_key)):  # just given up
            await message.nack()
            return
        with self._arrived:
            self._inbox.append(message)
            self._active.add(str(message.routing_key))
            self._arrived.notify()

    def _forget(self, *_: object) -> None:
        """The connection broke: what was delivered over it comes again, perhaps to another worker."""
        with self._arrived:
            self._inbox.clear()
            self._unacked.clear()

    def _settle(self, messages: list[AbstractIncomingMessage]) -> None:
        with self._arrived:
            known = [message for message in messages if message in self._unacked]
            self._unacked.difference_update(known)
        if known:
            self._run(self._acknowledge(known))

    async def _acknowledge(self, messages: list[AbstractIncomingMessage]) -> None:
        try:
            for message in messages:
                await message.channel.basic_ack(message.delivery_tag or 0, wait=message is messages[-1])
        except ChannelInvalidStateError:  # the connection broke just now
            return

    async def _counts(self) -> tuple[int, int]:
        """Messages that wait in all queues, and how many workers there are."""
        async with asyncio.timeout(TIMEOUT_S):
            channel = await self._publishing.get_underlay_channel()
            queues = [await channel.queue_declare(name, passive=True) for name in self._queues]
            workers = await channel.queue_declare(self._workers, passive=True)
        return sum(queue.message_count or 0 for queue in queues), workers.consumer_count or 0

    def _balance(self) -> None:
        """Subscribe, and from time to time give up queues beyond this worker's share."""
        if not self._consumed:
            self._run(self._subscribe())
        if self._unacked or time.monotonic() < self._balance_at:
            return
        self._balance_at = time.monotonic() + BALANCE_S
        try:
            workers = max(1, self._run(self._counts())[1])
        except (aio_pika.exceptions.AMQPError, OSError, TimeoutError):  # reconnecting
            return
        share = -(-len(self._queues) // workers)
        with self._arrived:
            active, self._active = sorted(self._active), set()
        for name in active[share:]:
            self._run(self._give_up(name))

    async def _give_up(self, name: str) -> None:
        """Stand last in the line for a queue; what came from it and was not polled goes back."""
        queue, tag = self._consumed[name], self._tags.pop(name)
        await queue.cancel(tag)
        with self._arrived:
            mine = [message for message in self._inbox if message.consumer_tag == tag]
            self._inbox = deque(message for message in self._inbox if message.consumer_tag != tag)
        for message in mine:
            await message.nack()
        await self._consume(name)

    async def _leave(self) -> None:
        for connection in self._connections:
            await connection.close()
