"""The loop of a channel: at least once, in order, whatever happens at any point of it."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from serving.segments.channels.channel import Channel, Suspended, backoff_s
from serving.segments.journal import Change, Journal


def change(n: int, person: str = "u-1", segment: str = "keen") -> Change:
    return Change(person, "rules", segment, True, n, "because", "v1", n)


class Kill(BaseException):
    """The process ends here."""


class Journalled(Journal):
    """A journal whose process can be killed before a cursor is kept."""

    kill = False

    def advance(self, channel: str, seq: int) -> None:
        if self.kill:
            raise Kill
        super().advance(channel, seq)


class Receiver:
    """A Destination that keeps what it is told. plan: what becomes of each delivery; `ok` when it is used up."""

    name = "receiver"

    def __init__(self, most: int = 1, tries: int = 3) -> None:
        self.most, self.tries, self.told, self.plan = most, tries, list[Change](), list[str]()
        self.given_up, self.segment, self.closed = list[Change](), None, False

    def wants(self, change: Change) -> bool:
        return self.segment in (None, change.segment)

    def deliver(self, changes: Sequence[Change]) -> None:
        what = self.plan.pop(0) if self.plan else "ok"
        if what == "kill before":
            raise Kill
        if what == "refuse":
            raise OSError("refused")
        if what == "suspend":
            raise Suspended("not now", 30.0)
        self.told += changes
        if what == "answer lost":
            raise OSError("lost")
        if what == "kill after":
            raise Kill

    def failed(self, changes: Sequence[Change], error: Exception, tries: int) -> float | None:
        if tries < self.tries:
            return float(tries)
        self.given_up += changes
        return None

    def close(self) -> None:
        self.closed = True


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def test_a_new_channel_begins_at_the_end_and_an_old_one_where_it_was() -> None:
    journal = Journal()
    journal.write({}, [change(1), change(2)])
    to = Receiver()
    channel = Channel(journal, to)
    assert channel.cursor == journal.cursor("receiver") == 2 and channel.step() is None
    journal.write({}, [change(3)])
    again = Channel(journal, to)
    assert again.step() == 0.0 and again.step() is None and [c.seq for c in to.told] == [3]


def test_what_is_not_wanted_is_passed_over() -> None:
    journal, to = Journal(), Receiver(most=10)
    channel, to.segment = Channel(journal, to), "keen"  # type: ignore[assignment]
    journal.write({}, [change(1, segment="idle"), change(2), change(3, segment="idle")])
    assert channel.step() == 0.0 and [c.seq for c in to.told] == [2] and journal.cursor("receiver") == 3


def test_a_failure_waits_and_a_last_one_is_put_aside() -> None:
    journal, to = Journal(), Receiver(tries=3)
    channel = Channel(journal, to)
    journal.write({}, [change(1), change(2)])
    to.plan = ["refuse", "refuse", "refuse", "refuse", "ok"]
    assert [channel.step() for _ in range(6)] == [1.0, 2.0, 0.0, 1.0, 0.0, None]
    assert [c.seq for c in to.given_up] == [1] and [c.seq for c in to.told] == [2]


def test_a_suspension_counts_as_no_try() -> None:
    journal, to = Journal(), Receiver(tries=2)
    channel = Channel(journal, to)
    journal.write({}, [change(1)])
    to.plan = ["suspend"] * 5 + ["refuse"]
    assert [channel.step() for _ in range(7)] == [30.0] * 5 + [1.0, 0.0]
    assert to.given_up == [] and journal.cursor("receiver") == 1


def test_whoever_is_erased_between_two_tries_is_not_told_of() -> None:
    journal, to = Journal(), Receiver()
    channel = Channel(journal, to)
    journal.write({}, [change(1, "gone"), change(2, "kept")])
    to.plan = ["refuse", "refuse"]
    assert channel.step() == 1.0
    journal.erase(["gone"])
    assert channel.step() == 1.0  # the other one's first failure, not its second
    assert channel.step() == 0.0 and [c.person for c in to.told] == ["kept"]


FAULTS = ["ok", "refuse", "answer lost", "kill before", "kill after", "kill at the cursor", "suspend"]


@given(
    people=st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    plan=st.lists(st.sampled_from(FAULTS), max_size=20),
    most=st.integers(1, 4),
)
def test_at_least_once_and_in_order_wherever_it_is_killed(people: list[str], plan: list[str], most: int) -> None:
    journal, to = Journalled(), Receiver(most, tries=99)
    channel = Channel(journal, to)
    written = journal.write({}, [change(n, person) for n, person in enumerate(people)])
    left = list(plan)
    for _ in range(len(plan) + len(written) + 1):
        what = left.pop(0) if left else "ok"
        journal.kill, to.plan = what == "kill at the cursor", [what]
        try:
            channel.step()
        except Kill:
            journal.kill = False
            channel = Channel(journal, to)
    firsts = list(dict.fromkeys(c.seq for c in to.told))
    assert firsts == [c.seq for c in written]  # each came, and for the first time in its place
    assert journal.cursor("receiver") == written[-1].seq and to.told[-1] == written[-1]


def test_it_sleeps_until_it_is_woken_and_a_slow_one_holds_nobody_up(tmp_path: Path) -> None:
    journal, gate = Journal(tmp_path / "segments.db"), threading.Event()
    slow, quick = Receiver(), Receiver()
    slow.name, deliver = "slow", slow.deliver
    slow.deliver = lambda changes: (gate.wait(10), deliver(changes))[1]  # type: ignore[method-assign]
    channels = [Channel(journal, to).start() for to in (slow, quick)]
    journal.write({}, [change(n) for n in range(20)])
    time.sleep(0.05)
    assert quick.told == []  # nobody has woken it
    for channel in channels:
        channel.wake()
    until(lambda: len(quick.told) == 20)
    assert slow.told == []
    gate.set()
    until(lambda: len(slow.told) == 20)
    for channel in channels:
        channel.close()
    assert slow.closed and quick.closed


def test_it_ends_at_once_while_it_waits_for_another_try() -> None:
    journal, to = Journal(), Receiver(tries=99)
    channel = Channel(journal, to)
    to.plan = ["suspend"]
    journal.write({}, [change(1)])
    channel.start()
    until(lambda: not to.plan)
    began = time.monotonic()
    channel.close()
    assert time.monotonic() - began < 2 and to.told == []


def test_a_delivery_that_the_end_breaks_off_is_no_failure() -> None:
    journal, to = Journal(), Receiver(tries=1)
    channel = Channel(journal, to)
    journal.write({}, [change(1)])
    to.plan = ["refuse"]
    channel.stop()
    assert channel.step() and to.given_up == [] and journal.cursor("receiver") == 0


def test_waits_grow_to_ten_minutes_and_are_spread() -> None:
    assert [backoff_s(n, 0.0) for n in (1, 2, 3, 10, 11, 10_000)] == [0.5, 1.0, 2.0, 256.0, 300.0, 300.0]
    assert all(backoff_s(n, 0.75) == 1.75 * backoff_s(n, 0.0) for n in range(1, 20))
