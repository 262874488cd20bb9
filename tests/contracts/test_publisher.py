"""What every publisher promises: what it was given is in the broker when `publish` returns, in order for each key."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from feature_repo.log.publisher import Message, Publisher, open_publisher
from feature_repo.settings import Settings
from serving.segments.channels.broker import Broker
from serving.segments.channels.channel import Channel
from serving.segments.channels.event import document, encode
from serving.segments.journal import Change, Journal
from tests import brokers

DAYS = 3


def kafka(address: str, topic: str, n: int) -> list[Message]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader"})
    partitions = consumer.list_topics(topic, 30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    found = list[Message]()
    deadline = time.monotonic() + 30
    while len(found) < n and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            found.append(((message.key() or b"").decode(), message.value() or b""))
    consumer.close()
    return found


def rabbitmq(address: str, queue: str, n: int) -> list[Message]:
    import aio_pika

    async def read() -> list[Message]:
        async with await aio_pika.connect(f"amqp://{address}/") as connection:
            channel = await connection.channel()
            declared = await channel.get_queue(queue)
            messages = [await declared.get(timeout=10) for _ in range(n)]
            return [(str(m.headers["key"]), m.body) for m in messages if m]

    return asyncio.run(read())


def kinesis(address: str, stream: str, n: int) -> list[Message]:
    import boto3

    client = boto3.client("kinesis", region_name="eu-west-1", endpoint_url=f"http://{address}")
    found = list[Message]()
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        at = client.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]  # fmt: skip
        records = client.get_records(ShardIterator=at)["Records"]
        found += [(record["PartitionKey"], record["Data"]) for record in records]
    return found


class Beside(SimpleNamespace):
    """kind, url (of the log), server; read(n): what is there, at least n."""


@pytest.fixture(params=["kafka", "rabbitmq", "kinesis"])
def beside(request: pytest.FixtureRequest, servers: Callable[[str], brokers.Server]) -> Beside:
    kind, name = request.param, f"p{uuid4().hex[:12]}"
    server = servers(kind)
    at = server.address
    url = {
        "kafka": f"kafka://{at}/{name}?shards=4&group={name}",
        "rabbitmq": f"amqp://{at}/?queue={name}&shards=4",
        "kinesis": f"kinesis://{name}?region=eu-west-1&shards=2&endpoint=http://{at}",
    }[kind]
    reader = {"kafka": kafka, "rabbitmq": rabbitmq, "kinesis": kinesis}[kind]
    return Beside(kind=kind, url=url, server=server, read=lambda n: reader(at, f"{name}.told", n))


@pytest.fixture
def publisher(beside: Beside) -> Iterator[Publisher]:
    opened = open_publisher(beside.url, ".told", DAYS)
    yield opened
    opened.close()


def of(messages: list[Message], key: str) -> list[bytes]:
    return [body for k, body in messages if k == key]


def test_what_is_published_is_there_in_order_for_each_key(beside: Beside, publisher: Publisher) -> None:
    messages = [(f"user-{n % 7}é", f"{n}".encode()) for n in range(60)]
    publisher.publish(messages[:40])
    publisher.publish(messages[40:])
    found = beside.read(60)
    assert sorted(found) == sorted(messages)
    for key in {k for k, _ in messages}:
        assert of(found, key) == of(messages, key)


def test_what_is_there_is_used_again(beside: Beside, publisher: Publisher) -> None:
    publisher.publish([("u", b"1")])
    again = open_publisher(beside.url, ".told", DAYS)
    again.publish([("k" * 256, b"2")])
    again.close()
    assert sorted(body for _, body in beside.read(2)) == [b"1", b"2"]


def test_a_channel_tells_the_broker_of_changes(beside: Beside, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas", log=beside.url)
    journal = Journal()
    to = Broker(settings, connect=lambda url, suffix, days: open_publisher(url, ".told", days))
    channel = Channel(journal, to)
    written = journal.write({}, [Change(f"u-{n % 3}", "rules", "keen", True, n, "why", "v1", n) for n in range(9)])
    assert channel.step() == 0.0 and channel.step() is None
    found = beside.read(9)
    for person in ("u-0", "u-1", "u-2"):
        assert of(found, person) == [encode(document(c)) for c in written if c.person == person]
    to.close()


def test_a_log_on_disk_has_none() -> None:
    with pytest.raises(ValueError, match=r"expected kafka://…, amqp://…, amqps://…, kinesis://…; came '/var/log.db'"):
        open_publisher("/var/log.db", ".told", DAYS)
