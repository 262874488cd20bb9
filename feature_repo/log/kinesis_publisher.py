"""Publishes to a Kinesis stream beside the event log's (see publisher.py)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl

from feature_repo.log.kinesis_log import client, ensure_stream
from feature_repo.log.kinesis_writer import MOST_AT_ONCE
from feature_repo.log.publisher import Message


def from_url(url: SplitResult, suffix: str, retention_days: int) -> "KinesisPublisher":
    """The publisher beside the log at `kinesis://…`; how long the stream keeps a message is the account's to say."""
    settings = dict(parse_qsl(url.query))
    kinesis = client(settings.get("region"), settings.get("endpoint"))
    return KinesisPublisher(kinesis, f"{url.netloc}{suffix}", int(settings.get("shards", 4)))


class KinesisPublisher:
    """A Publisher (see there). kinesis: boto3's client."""

    def __init__(self, kinesis: Any, stream: str, shards: int) -> None:
        self._kinesis, self._stream = kinesis, stream
        ensure_stream(kinesis, stream, shards)

    def publish(self, messages: Sequence[Message]) -> None:
        """As `Publisher.publish`: in rounds with one message a key, as Kinesis may refuse one and take the next."""
        for turn in _rounds(messages):
            for start in range(0, len(turn), MOST_AT_ONCE):
                self._put(turn[start : start + MOST_AT_ONCE])

    def close(self) -> None:
        """Let go of the connections."""
        self._kinesis.close()

    def _put(self, messages: Sequence[Message]) -> None:
        records = [{"PartitionKey": key, "Data": body} for key, body in messages]
        answer = self._kinesis.put_records(StreamName=self._stream, Records=records)
        if refused := [r["ErrorMessage"] for r in answer["Records"] if "ErrorCode" in r]:
            raise RuntimeError(f"{self._stream}: {len(refused)} of {len(records)} records refused: {refused[0]}")


def _rounds(messages: Sequence[Message]) -> list[list[Message]]:
    """The first message of each key, then the second of each, and so on.

    >>> _rounds([("a", b"1"), ("b", b"2"), ("a", b"3")])
    [[('a', b'1'), ('b', b'2')], [('a', b'3')]]
    """
    rounds, seen = list[list[Message]](), Counter[str]()
    for message in messages:
        turn = seen[message[0]]
        seen[message[0]] += 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(message)
    return rounds
