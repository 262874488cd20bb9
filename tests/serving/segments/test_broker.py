"""The broker's channel around a publisher; real brokers: tests/contracts/test_publisher.py."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from feature_repo.log.publisher import Message
from feature_repo.settings import Settings
from serving.segments.channels.broker import Broker
from serving.segments.channels.channel import Channel
from serving.segments.journal import Change, Journal


class Flaky:
    """A broker. plan: what becomes of each connection and each publication."""

    def __init__(self, *plan: str) -> None:
        self.plan, self.held, self.opened, self.closed = list(plan), list[Message](), list[tuple[str, str, int]](), 0

    def connect(self, url: str, suffix: str, days: int) -> "Flaky":
        self._next()
        self.opened.append((url, suffix, days))
        return self

    def publish(self, messages: Sequence[Message]) -> None:
        self._next()
        self.held += messages

    def close(self) -> None:
        self.closed += 1

    def _next(self) -> None:
        if self.plan and self.plan.pop(0) == "down":
            raise OSError("no broker answers")


def test_it_connects_anew_after_a_fault_and_never_gives_a_change_up(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas", log="kafka://k:9092/events", retention_days=5)
    there = Flaky("down", "ok", "down", "down", *["down"] * 30)
    journal, to = Journal(), Broker(settings, draw=lambda: 0.0, connect=there.connect)
    channel = Channel(journal, to)
    journal.write({}, [Change(f"u-{n}", "rules", "keen", True, n, "why", "v1", n) for n in range(5)])
    waits = [channel.step() for _ in range(33)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0] and waits[-1] == 300.0 and journal.cursor("broker") == 0
    assert (len(there.opened), there.closed) == (1, 1)
    assert channel.step() == 0.0 and channel.step() is None and journal.cursor("broker") == 5
    assert [(key, msgspec.json.decode(body)["seq"]) for key, body in there.held] == [
        (f"u-{n}", n + 1) for n in range(5)
    ]
    assert there.opened == [("kafka://k:9092/events", ".segments", 5)] * 2
    to.close()
    assert there.closed == 2


def test_what_is_keyed_by_an_anonymous_id_says_so(tmp_path: Path) -> None:
    there, journal = Flaky(), Journal()
    channel = Channel(journal, Broker(Settings(home=tmp_path, domain="saas"), connect=there.connect))
    journal.write({}, [Change("anon:d-1", "rules", "keen", True, 1, "why", "v1", 1)])
    channel.step()
    ((key, body),) = there.held
    document = msgspec.json.decode(body)
    assert (key, document["userId"], document["anonymousId"]) == ("d-1", None, "d-1") and b"anon:" not in body
