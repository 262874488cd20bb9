"""The Kinesis log: what it promises beyond the contract of all logs (tests/contracts/test_event_log.py)."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("boto3", reason="boto3 is not installed")

from feature_repo.contract.events import Event
from feature_repo.log.event_log import Delivered
from feature_repo.log.kinesis_leases import END, Leases
from feature_repo.log.kinesis_log import KinesisLog


def events(n: int, user: str | None = None, **properties: Any) -> list[Event]:
    return [Event("track", f"{i}", user or f"u{i % 9}", None, 1, 2, "opened", properties, {}, {}) for i in range(n)]


class Expired(Exception):
    pass


class Throttled(Exception):
    pass


class NotFound(Exception):
    pass


class FakeKinesis:
    """What moto does not do: it refuses, throttles, lets iterators expire, and ends shards that were split."""

    exceptions = SimpleNamespace(
        ExpiredIteratorException=Expired,
        ProvisionedThroughputExceededException=Throttled,
        ResourceNotFoundException=NotFound,
    )

    def __init__(self) -> None:
        self.shards: dict[str, list[bytes]] = {"a": []}
        self.parents: dict[str, str] = {}
        self.closed: set[str] = set()
        self.refuse = 0
        self.fail: Exception | None = None
        self.read_fails: list[Exception] = []
        self.calls: list[int] = []

    def describe_stream_summary(self, StreamName: str) -> None: ...

    def get_waiter(self, name: str) -> Any:
        return SimpleNamespace(wait=lambda StreamName: None)

    def get_paginator(self, name: str) -> Any:
        listed = [{"ShardId": s, **({"ParentShardId": p} if (p := self.parents.get(s)) else {})} for s in self.shards]
        return SimpleNamespace(paginate=lambda StreamName: [{"Shards": [shard]} for shard in listed])

    def put_records(self, StreamName: str, Records: list[dict[str, Any]]) -> Any:
        self.calls.append(len(Records))
        assert len(Records) <= 500
        assert sum(len(r["Data"]) + len(r["PartitionKey"]) for r in Records) < 5 * 2**20
        if self.fail:
            raise self.fail
        answers: list[dict[str, str]] = []
        for i, record in enumerate(Records):
            if i % 3 == 0 and self.refuse > 0:
                self.refuse -= 1
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"})
            else:
                self.shards[next(s for s in self.shards if s not in self.closed)].append(record["Data"])
                answers.append({"SequenceNumber": "1", "ShardId": "a"})
        return {"Records": answers}

    def get_shard_iterator(self, StreamName: str, ShardId: str, ShardIteratorType: str, **start: str) -> Any:
        at = int(start["StartingSequenceNumber"]) if ShardIteratorType == "AFTER_SEQUENCE_NUMBER" else 0
        return {"ShardIterator": f"{ShardId}:{at}"}

    def get_records(self, ShardIterator: str, Limit: int) -> Any:
        if self.read_fails:
            raise self.read_fails.pop()
        shard, at = ShardIterator.split(":")
        found = self.shards[shard][int(at) :][:Limit]
        records = [{"SequenceNumber": f"{int(at) + i + 1}", "Data": data} for i, data in enumerate(found)]
        through = int(at) + len(found)
        answer = {"Records": records, "MillisBehindLatest": 0}
        ended = shard in self.closed and through == len(self.shards[shard])
        return answer if ended else answer | {"NextShardIterator": f"{shard}:{through}"}


@pytest.fixture
def kinesis(monkeypatch: pytest.MonkeyPatch) -> FakeKinesis:
    kinesis = FakeKinesis()
    monkeypatch.setattr("feature_repo.log.kinesis_log.boto3", SimpleNamespace(client=lambda *_, **__: kinesis))
    monkeypatch.setattr("feature_repo.log.kinesis_log.READ_EVERY_S", 0.0)
    monkeypatch.setattr("feature_repo.log.kinesis_log.BALANCE_S", 0.0)
    return kinesis


@pytest.fixture
def log(kinesis: FakeKinesis, tmp_path: Path) -> Iterator[KinesisLog]:
    log = KinesisLog("stream", tmp_path / "kinesis.db")
    yield log
    log.close()


def ids(delivered: list[Delivered]) -> list[int]:
    return sorted(int(d.event.message_id) for d in delivered)


def test_refused_records_are_put_again(log: KinesisLog, kinesis: FakeKinesis) -> None:
    kinesis.refuse = 40
    log.append(events(100)).result(10)
    assert kinesis.calls[0] == 100
    assert len(kinesis.calls) > 2
    assert ids(log.poll(1_000, 1)) == list(range(100))


def test_records_that_are_always_refused_fail_the_append(
    log: KinesisLog, kinesis: FakeKinesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.log.kinesis_writer.TIMEOUT_S", 0.2)
    kinesis.refuse = 1_000
    with pytest.raises(TimeoutError, match=r"stream: 1 records not put within 0.2 s: \{'slow down'\}"):
        log.append(events(3)).result(10)
    kinesis.refuse = 0
    log.append(events(3)).result(10)


def test_an_error_fails_the_append_and_the_log_goes_on(log: KinesisLog, kinesis: FakeKinesis) -> None:
    kinesis.fail = OSError("no network")
    with pytest.raises(OSError, match="no network"):
        log.append(events(3)).result(10)
    kinesis.fail = None
    log.append(events(3)).result(10)
    assert ids(log.poll(10, 1)) == [0, 1, 2]


def test_calls_stay_within_what_kinesis_takes(log: KinesisLog, kinesis: FakeKinesis) -> None:
    log.append(events(1_200)).result(10)
    assert kinesis.calls == [500, 500, 200]
    log.append(events(400, long="x" * 30_000)).result(10)
    assert len(kinesis.calls) > 5


def test_a_shard_that_was_split_is_applied_before_what_follows_it(
    log: KinesisLog, kinesis: FakeKinesis, tmp_path: Path
) -> None:
    """Else two workers could have the same user."""
    log.append(events(10)).result(10)
    kinesis.closed.add("a")
    kinesis.shards |= {"b": [], "c": []}
    kinesis.parents |= {"b": "a", "c": "a"}
    log.append(events(20)[10:]).result(10)
    first = log.poll(4, 1)
    assert ids(first) == [0, 1, 2, 3]
    second = log.poll(100, 1)
    assert ids(second) == [4, 5, 6, 7, 8, 9]
    assert log.poll(100, 0.1) == []
    log.ack(second)
    assert log.poll(100, 0.1) == []
    assert log.lag() == 20
    log.ack(first)
    assert ids(log.poll(100, 1)) == list(range(10, 20))
    log.close()
    again = KinesisLog("stream", tmp_path / "kinesis.db")
    assert ids(again.poll(100, 1)) == list(range(10, 20))
    again.close()


def test_iterators_that_expire_and_reads_that_are_throttled_lose_nothing(log: KinesisLog, kinesis: FakeKinesis) -> None:
    log.append(events(10)).result(10)
    assert ids(log.poll(3, 1)) == [0, 1, 2]
    kinesis.read_fails = [Throttled(), Expired(), Throttled(), Expired()]
    assert ids(log.poll(100, 5)) == list(range(3, 10))
    assert kinesis.read_fails == []


def test_a_shard_is_read_at_most_four_times_a_second(
    log: KinesisLog, kinesis: FakeKinesis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.log.kinesis_log.READ_EVERY_S", 0.25)
    reads: list[float] = []
    read = kinesis.get_records
    monkeypatch.setattr(kinesis, "get_records", lambda **given: reads.append(time.monotonic()) or read(**given))
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        log.poll(10, 0.01)
    assert 2 <= len(reads) <= 1 + (time.monotonic() - began) / 0.25


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


SHARDS = ["s0", "s1", "s2", "s3", "s4"]


def test_a_late_worker_loses_its_shards_and_its_reports_change_nothing(tmp_path: Path) -> None:
    clock = Clock()
    late, other = (Leases(tmp_path / "leases.db", "stream", name, 10, clock) for name in ("late", "other"))
    assert late.hold(SHARDS) == set(SHARDS)
    late.reach({"s0": "5"})
    clock.now_s += 9.9
    assert other.hold(SHARDS) == set()  # nobody's is taken away before its time
    clock.now_s += 0.2
    assert other.hold(SHARDS) == set(SHARDS)
    other.reach({"s0": "7", "s1": END})
    late.reach({"s0": "6", "s1": "1"})
    assert other.reached() == {"s0": "7", "s1": END}
    assert late.hold(SHARDS) == set()


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["hold", "close", "wait"])), max_size=40))
def test_a_shard_is_one_workers_and_nobody_has_more_than_a_share(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    path, clock = tmp_path_factory.mktemp("leases") / "leases.db", Clock()
    workers: dict[str, Leases] = {}
    held: dict[str, tuple[float, set[str]]] = {}  # until when, what

    def hold(name: str) -> set[str]:
        if name not in workers:
            workers[name] = Leases(path, "stream", name, 10, clock)
        held[name] = (clock.now_s + 10, workers[name].hold(SHARDS))
        return held[name][1]

    def live() -> dict[str, set[str]]:
        return {name: shards for name, (until_s, shards) in held.items() if until_s > clock.now_s}

    for name, step in steps:
        if step == "hold":
            mine = hold(name)
            assert len(mine) <= -(-len(SHARDS) // len(live()))
        elif step == "close" and name in workers:
            workers.pop(name).close()
            held.pop(name)
        else:
            clock.now_s += 4
        everybodys = [shard for shards in live().values() for shard in shards]
        assert len(everybodys) == len(set(everybodys))
    for _ in range(2):
        for name in "ab":
            hold(name)
        clock.now_s += 6
    for name in "ab":
        hold(name)
    if set(live()) == {"a", "b"}:
        assert sorted(len(shards) for shards in live().values()) == [2, 3]
        assert set.union(*live().values()) == set(SHARDS)
    for leases in workers.values():
        leases.close()
