"""The event log in a Kinesis stream: `kinesis://stream?region=eu-west-1&shards=4&checkpoints=var/kinesis.db&endpoint=…`.

A user's events are in one shard. Which worker has a shard, and how far it has applied it, is in one SQLite file
(`checkpoints`) that all workers share: so they run on one machine. Credentials are those that boto3 finds.

A stream may be split and merged: a shard is read once its parents, where they are still kept, are applied to the end.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl
from uuid import uuid4

import boto3
from botocore.config import Config

from feature_repo.contract.events import Event
from feature_repo.log.event_log import MOST_WAITING, Appended, Delivered, OnPoison, Progress, decode, report_poison
from feature_repo.log.kinesis_leases import END, Leases
from feature_repo.log.kinesis_writer import Writer

MOST_READ = 10_000
READ_EVERY_S = 0.25
"""Of one shard: Kinesis allows five reads a second, by all who read."""
BALANCE_S = 1.0


class _Shard:
    """A shard that this worker reads."""

    def __init__(self, shard: str, reached: str | None) -> None:
        self.shard, self.read = shard, reached
        self.iterator: str | None = None
        self.read_at = 0.0
        self.ended = False
        self.progress = Progress[str]()

    @property
    def reached(self) -> str | None:
        return END if self.ended and not self.progress else self.progress.reached


def from_url(url: SplitResult, on_poison: OnPoison) -> "KinesisLog":
    """The log at `kinesis://…`."""
    settings = dict(parse_qsl(url.query))
    return KinesisLog(
        url.netloc,
        Path(settings.get("checkpoints", "kinesis.db")),
        settings.get("region"),
        settings.get("endpoint"),
        int(settings.get("shards", 4)),
        float(settings.get("lease_s", 60)),
        on_poison,
    )


def client(region: str | None, endpoint: str | None) -> Any:
    """Boto3's client."""
    config = Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=10)
    return boto3.client("kinesis", region_name=region, endpoint_url=endpoint, config=config)


def ensure_stream(kinesis: Any, stream: str, shards: int) -> None:
    """Make a stream where it is missing, and wait until it is there."""
    try:
        kinesis.describe_stream_summary(StreamName=stream)
    except kinesis.exceptions.ResourceNotFoundException:
        kinesis.create_stream(StreamName=stream, ShardCount=shards)
    kinesis.get_waiter("stream_exists").wait(StreamName=stream)


class KinesisLog:
    """An EventLog (see there) over boto3. The stream is made, with `shards` shards, where it is missing.

    lease_s: a worker that has not polled for so long has lost its shards.
    """

    def __init__(
        self,
        stream: str,
        checkpoints: Path,
        region: str | None = None,
        endpoint: str | None = None,
        shards: int = 4,
        lease_s: float = 60.0,
        on_poison: OnPoison = report_poison,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._kinesis = client(region, endpoint)
        self._stream, self._on_poison = stream, on_poison
        ensure_stream(self._kinesis, stream, shards)
        self._leases = Leases(checkpoints, stream, uuid4().hex, lease_s)
        self._shards: dict[str, _Shard] = {}
        self._balance_at = 0.0
        self._closed = False
        self._writer = Writer(self._kinesis, stream, most_waiting)

    def append(self, events: Sequence[Event]) -> Appended:
        """Write events; the future is done once Kinesis has them all."""
        return self._writer.append(events)

    def poll(self, most: int, timeout_s: float) -> list[Delivered]:
        """Up to `most` events of the shards that this worker has; it takes up to 0.25 s until an event is seen."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._balance()
            delivered: list[Delivered] = []
            for shard in self._shards.values():
                if len(delivered) < most:
                    delivered += self._read(shard, most - len(delivered))
            left = deadline - time.monotonic()
            if delivered or left <= 0 or self._closed:
                return delivered
            time.sleep(min(READ_EVERY_S, left))

    @property
    def joined(self) -> bool:
        """Whether this worker has asked for its share of the shards."""
        return self._balance_at > 0

    def ack(self, delivered: Sequence[Delivered]) -> None:
        """Checkpoint as far as every event of a shard is acked."""
        for shard, sequence in (d.token for d in delivered):
            if shard in self._shards:
                self._shards[shard].progress.acked(sequence)
        self._checkpoint({d.token[0] for d in delivered})

    def lag(self) -> int:
        """Events of the whole stream after the checkpoints; of a shard where 10,000 or more wait, at least so many."""
        reached, behind = self._leases.reached(), 0
        for shard in self._listed():
            if reached.get(shard) != END:
                answer = self._kinesis.get_records(
                    ShardIterator=self._iterator(shard, reached.get(shard)), Limit=MOST_READ
                )
                behind += len(answer["Records"]) or int(answer["MillisBehindLatest"] > 0)
        return behind

    def close(self) -> None:
        """Write what waits, give the shards to others."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self._leases.close()

    def _listed(self) -> dict[str, set[str]]:
        """The shards of the stream with their parents."""
        pages = self._kinesis.get_paginator("list_shards").paginate(StreamName=self._stream)
        return {
            s["ShardId"]: {s.get("ParentShardId"), s.get("AdjacentParentShardId")} - {None}
            for page in pages
            for s in page["Shards"]
        }

    def _balance(self) -> None:
        """From time to time see to it that this worker has its share of the shards that can be read now."""
        if time.monotonic() < self._balance_at:
            return
        self._balance_at = time.monotonic() + BALANCE_S
        listed, reached = self._listed(), self._leases.reached()
        ended = {shard for shard in listed if reached.get(shard) == END}
        readable = [
            shard for shard, parents in listed.items() if shard not in ended and parents & listed.keys() <= ended
        ]
        held = self._leases.hold(readable)
        reached = self._leases.reached()
        self._shards = {shard: self._shards.get(shard) or _Shard(shard, reached.get(shard)) for shard in sorted(held)}

    def _iterator(self, shard: str, after: str | None) -> str:
        start = {"ShardIteratorType": "TRIM_HORIZON"}
        if after:
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        found: str = self._kinesis.get_shard_iterator(StreamName=self._stream, ShardId=shard, **start)["ShardIterator"]
        return found

    def _read(self, shard: _Shard, most: int) -> list[Delivered]:
        if shard.ended or time.monotonic() < shard.read_at:
            return []
        shard.read_at = time.monotonic() + READ_EVERY_S
        known = self._kinesis.exceptions
        try:
            shard.iterator = shard.iterator or self._iterator(shard.shard, shard.read)
            answer = self._kinesis.get_records(ShardIterator=shard.iterator, Limit=min(most, MOST_READ))
        except known.ExpiredIteratorException:
            shard.iterator = None
            return []
        except known.ProvisionedThroughputExceededException:
            return []
        delivered = [d for record in answer["Records"] if (d := self._take(shard, record))]
        shard.iterator = answer.get("NextShardIterator")
        shard.ended = shard.iterator is None
        if len(delivered) < len(answer["Records"]) or shard.ended:
            self._checkpoint({shard.shard})
        return delivered

    def _take(self, shard: _Shard, record: dict[str, Any]) -> Delivered | None:
        shard.read = record["SequenceNumber"]
        shard.progress.delivered(shard.read)
        if event := decode(record["Data"], self._on_poison):
            return Delivered(event, None, (shard.shard, shard.read))
        shard.progress.acked(shard.read)
        return None

    def _checkpoint(self, shards: set[str]) -> None:
        reached = {s: self._shards[s].reached for s in shards if s in self._shards}
        self._leases.reach({shard: sequence for shard, sequence in reached.items() if sequence})
