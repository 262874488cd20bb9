"""What the door promises: durable before the receipt, the refused kept, nothing kept of who opted out."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.events import Event
from feature_repo.contract.origin import fingerprint
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.history.history_store import row_of
from feature_repo.lake.quarantine import Quarantine
from feature_repo.log.event_log import Busy
from feature_repo.stream.live import Held
from serving.collect.door import AT_ONCE, Door
from serving.collect.identity import NOBODY, Sender

NOW = 1_767_261_600_000_000


def raw(**fields: Any) -> bytes:
    event = {
        "type": "track",
        "event": "Clicked",
        "messageId": "m1",
        "userId": "u1",
        "timestamp": "2026-01-01T09:00:00Z",
    }
    return json.dumps(event | fields).encode()


def accept(door: Door, *raws: bytes) -> list[tuple[str, str | None]]:
    return [(r.status, r.reason) for r in asyncio.run(door.accept(raws, NOW))]


def test_accepted_events_are_in_the_log_and_refused_ones_in_the_quarantine(
    make_door: Callable[..., Door], log: Any, quarantine: Quarantine
) -> None:
    raws = [
        raw(),
        raw(messageId="m2", event="Nonsense"),
        b"{",
        raw(messageId="m3", properties={"target": 5}),
        raw(messageId="m4"),
    ]
    door = make_door()
    assert accept(door, *raws) == [
        ("accepted", None),
        ("refused", "unknown_event"),
        ("refused", "not_json"),
        ("accepted", None),
        ("accepted", None),
    ]
    assert [(e.message_id, e.context.get("flags")) for e in log.events] == [
        ("m1", None), ("m3", ["properties.target"]), ("m4", None)
    ]  # fmt: skip
    assert [(q.reason, q.raw, q.received_us) for q in Quarantine(quarantine.folder).read()] == [
        ("unknown_event", raws[1], NOW),
        ("not_json", raws[2], NOW),
    ]

    assert 'firstmile_values_flagged_total{path="properties.target"} 1' in door.metrics()


def test_a_refused_event_keeps_the_fingerprint_of_its_key(
    make_door: Callable[..., Door], quarantine: Quarantine
) -> None:
    door, key = make_door(), "k" * 32
    for sender in (Sender(key), NOBODY):
        asyncio.run(door.accept([raw(event="Nonsense")], NOW, sender))
    assert [q.key for q in Quarantine(quarantine.folder).read()] == [fingerprint(key), None]
    assert key not in "".join(f.read_text() for f in quarantine.folder.glob("*.jsonl"))


def test_a_receipt_says_which_event_and_why(make_door: Callable[..., Door]) -> None:
    door = make_door()
    good, bad, none = asyncio.run(door.accept([raw(), raw(messageId="m2", userId=None), b"7"], NOW))
    assert (good.message_id, good.reason, good.detail) == ("m1", None, None)
    assert (bad.message_id, bad.reason) == ("m2", "missing_id")
    assert bad.detail == "expected of track userId or anonymousId; it is missing"
    assert none.message_id is None


def test_copies_are_told_and_only_exact_ones_left_out(make_door: Callable[..., Door], log: Any) -> None:
    earlier = raw(timestamp="2026-01-01T08:00:00Z")
    raws = [raw(), raw(), earlier, raw(userId="u2"), raw(messageId="m2")]
    assert [s for s, _ in accept(make_door(), *raws)] == ["accepted", "duplicate", "duplicate", "accepted", "accepted"]
    assert len(log.events) == 4  # the earlier copy is the one that counts


def test_the_receipt_says_what_became_of_a_copy(make_door: Callable[..., Door], log: Any) -> None:
    earlier, later = raw(timestamp="2026-01-01T08:00:00Z"), raw(timestamp="2026-01-01T08:30:00Z")
    raws = [raw(), raw(), earlier, raw(), later, earlier]
    in_one_request = asyncio.run(make_door().accept(raws, NOW))
    assert [r.copy for r in in_one_request] == [None, "same", "replaced", "unused", "unused", "same"]
    best = min((row_of(0, event) for event in log.events), key=lambda row: row.rank)
    for held, became in ((best, ["unused", "same"]), (None, [None, None])):
        door = make_door(known=lambda events, held=held: [Held(held)] * len(events))
        receipts = asyncio.run(door.accept([later, earlier], NOW + 1))
        assert [(r.status, r.copy) for r in receipts] == [("duplicate", copy) for copy in became]


def test_what_was_known_before_is_a_duplicate_and_is_kept(make_door: Callable[..., Door], log: Any) -> None:
    asked: list[str] = []

    def known(events: Sequence[Event]) -> list[Held | None]:
        asked.append(threading.current_thread().name)
        return [Held(None) if e.message_id == "m1" else None for e in events]

    door = make_door(known=known)
    assert [s for s, _ in accept(door, raw(), b"{", raw(messageId="m2"))] == ["duplicate", "refused", "accepted"]
    assert len(log.events) == 2
    assert asked[0].startswith("known")


def test_the_receipt_waits_for_the_disk(make_door: Callable[..., Door], log: Any) -> None:
    log.slow_s = 0.2
    began = time.monotonic()
    accept(make_door(), raw())
    assert time.monotonic() - began >= 0.2 and len(log.events) == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("fault", "retry_after_s"), [(Busy("50000 events wait", 2.0), 2.0), (OSError(28, "No space left on device"), 5.0)]
)
def test_a_log_that_cannot_write_is_busy_and_nothing_is_lost(
    make_door: Callable[..., Door], log: Any, quarantine: Quarantine, late: bool, fault: Exception, retry_after_s: float
) -> None:
    door, log.fault, log.late = make_door(), fault, late
    with pytest.raises(Busy) as busy:
        accept(door, raw(), b"{")
    assert busy.value.retry_after_s == retry_after_s
    assert not list(Quarantine(quarantine.folder).read())  # it comes again with the others
    log.fault = None
    assert [s for s, _ in accept(door, raw(), b"{")] == ["accepted", "refused"]


def test_a_quarantine_that_cannot_write_is_busy(make_door: Callable[..., Door], quarantine: Quarantine) -> None:
    quarantine.folder.touch()  # a file where the folder should be
    with pytest.raises(Busy):
        accept(make_door(), b"{")


def test_who_opted_out_leaves_nothing_behind(make_door: Callable[..., Door], log: Any, quarantine: Quarantine) -> None:
    out = {"context": {"optOut": True}}
    door = make_door()
    raws = [
        raw(**out),
        raw(**out, event="Nonsense"),
        raw(**out, properties={"x": float("nan")}),
        raw(context={"optOut": 1}),
    ]
    assert [r for _, r in accept(door, *raws)] == ["opted_out", "opted_out", "opted_out", None]
    assert door.decline([b"{"] * 3, "DNT")[2].reason == "opted_out"
    assert door.counted["refused", "opted_out"] == 6
    assert len(log.events) == 1 and not quarantine.folder.exists()


def test_a_check_keeps_nothing(make_door: Callable[..., Door], log: Any, quarantine: Quarantine) -> None:
    receipts = asyncio.run(make_door().check([raw(), b"{"], NOW))
    assert [r.status for r in receipts] == ["accepted", "refused"]
    assert not log.events and not quarantine.folder.exists()


def test_others_get_their_turn_during_a_large_batch(make_door: Callable[..., Door]) -> None:
    async def run() -> int:
        turns, over = 0, asyncio.Event()

        async def other() -> None:
            nonlocal turns
            while not over.is_set():
                await asyncio.sleep(0)
                turns += 1

        beside = asyncio.create_task(other())
        await make_door().accept([raw(messageId=f"m{n}") for n in range(5_000)], NOW)
        over.set()
        await beside
        return turns

    assert asyncio.run(run()) >= 5_000 // AT_ONCE


def test_metrics_count_by_status_and_reason(make_door: Callable[..., Door]) -> None:
    door = make_door()
    accept(door, raw(), raw(), b"{")
    lines = door.metrics().splitlines()
    assert 'firstmile_events_total{status="accepted",reason=""} 1' in lines
    assert 'firstmile_events_total{status="duplicate",reason=""} 1' in lines
    assert 'firstmile_events_total{status="refused",reason="not_json"} 1' in lines


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([raw(), b'{"messageId": "\\ud800"}', b'{"a":' * 2_000]), max_size=6
    )
)
def test_whatever_comes_gets_a_receipt(make_door: Callable[..., Door], raws: list[bytes]) -> None:
    assert len(accept(make_door(), *raws)) == len(raws)


def test_an_event_of_somebody_erased_while_it_is_on_its_way_is_kept_nowhere(
    make_door: Callable[..., Door], log: Any, quarantine: Quarantine, tmp_path: Path
) -> None:
    stones = Tombstones(tmp_path)

    async def enrich(event: Event) -> Event:
        stones.begin("u1", NOW)
        return event

    door = make_door(enrich=enrich, erased=stones)
    raws = [raw(), raw(messageId="m2", userId="u2"), raw(messageId="m3", event="Nonsense"), b"{broken: u1"]
    assert [status for status, _ in accept(door, *raws)] == ["accepted", "accepted", "refused", "refused"]
    assert [e.message_id for e in log.events] == ["m2"]
    assert list(Quarantine(quarantine.folder).read()) == []
    assert accept(door, *raws)[0] == accept(door, *raws)[3] == ("refused", "erased")
    assert door.counted["refused", "erased"] == 6
