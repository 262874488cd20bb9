"""Refused events are kept as they came, whatever they are, and survive a writer that is stopped."""

import json
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.events import Reason, Refusal, parse
from feature_repo.domain import Domain
from feature_repo.lake.quarantine import MAX_KEPT, TORN, Quarantine

DAY = 86_400_000_000
NOW = 19_675 * DAY  # 2023-11-14
BAD = Refusal(Reason.NOT_JSON, "expected JSON; came 'é'")


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def kept(raw: object, folder: Path) -> Any:
    with Quarantine(folder) as quarantine:
        quarantine.add(raw, BAD, NOW)
    (refused,) = quarantine.read()
    assert (refused.received_us, refused.reason, refused.detail) == (NOW, BAD.reason, BAD.detail)
    assert quarantine.counts() == {"not_json": 1}
    return refused


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"a": 1}', "bytes"),
        (b"\xff\x00\n", "bytes"),
        ("line\nbreak \ud800 é \u2028", "text"),
        ({"a": [1, None, {"b": "é\0"}], "big": 2**80}, "json"),
        ({"a": "x" * 40_000}, "json"),
        ([1.5, True], "json"),
    ],
)
def test_what_came_comes_back(raw: object, kind: str, tmp_path: Path) -> None:
    refused = kept(raw, tmp_path)
    assert (refused.raw, refused.kind, refused.cut) == (raw, kind, None)


CYCLE: list[Any] = [1]
CYCLE.append(CYCLE)
BOMB: Any = "x"
for _ in range(40):
    BOMB = [BOMB] * 40


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({1: 2}, "{1: 2}"),
        ({"a": {3}}, "{'a': {3}}"),
        (OrderedDict(a=1), "OrderedDict"),
        ({"a": float("nan")}, "{'a': nan}"),
        (CYCLE, "[1, [1, [1"),
        (BOMB, "[[[[[...]"),
        ({"a": "\ud800"}, r"{'a': '\ud800'}"),
        ({"a": Hostile()}, "{'a': <Hostile instance"),
        ({"a": 10**5_000}, "{'a': 0x"),
    ],
)
def test_what_is_no_json_is_described(raw: object, words: str, tmp_path: Path) -> None:
    refused = kept(raw, tmp_path)
    assert refused.kind == "python"
    assert refused.raw.startswith(words), refused.raw[:100]


def test_of_what_is_too_long_the_beginning_is_kept(tmp_path: Path) -> None:
    refused = kept(b"x" * (MAX_KEPT + 1), tmp_path)
    assert (refused.raw, refused.cut) == (b"x" * MAX_KEPT, MAX_KEPT + 1)


def test_counts_and_reading_by_day_and_reason(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "new")
    assert quarantine.counts() == {} and list(quarantine.read()) == []
    for day, reason in [(1, Reason.NOT_JSON), (0, Reason.EMPTY_ID), (0, Reason.NOT_JSON), (1, Reason.EMPTY_ID)]:
        quarantine.add(b"%d" % day, Refusal(reason, "x"), NOW + day * DAY)
    assert quarantine.counts() == {"empty_id": 2, "not_json": 2}
    assert sorted(f.name for f in (tmp_path / "new").iterdir()) == ["2023-11-14.jsonl", "2023-11-15.jsonl"]
    assert [r.raw for r in quarantine.read()] == [b"0", b"0", b"1", b"1"]
    assert [r.raw for r in quarantine.read(limit=1, reason="not_json")] == [b"0"]
    assert [r.raw for r in Quarantine(tmp_path / "new").read(reason="empty_id")] == [b"0", b"1"]
    assert list(quarantine.read(limit=0)) == []


def test_it_flushes_by_itself_and_only_then_writes(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    for _ in range(999):
        quarantine.add(b"x", BAD, NOW)
    assert list(quarantine.read()) == []
    quarantine.add(b"x", BAD, NOW)
    assert len(list(quarantine.read())) == 1_000


def test_a_torn_line_is_counted_and_spoils_no_other(tmp_path: Path) -> None:
    with Quarantine(tmp_path) as first:
        first.add(b"one", BAD, NOW)
        first.add(b"two", BAD, NOW)
    file = tmp_path / "2023-11-14.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    with Quarantine(tmp_path) as second:
        second.add(b"three", BAD, NOW)
    assert second.counts() == {"not_json": 2, TORN: 1}
    assert [r.raw for r in second.read(reason="not_json")] == [b"one", b"three"]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(raws=st.lists(st.binary() | st.text(st.characters()) | PLAIN, max_size=4))
def test_any_json_any_bytes_any_text_come_back(raws: list[Any], tiny_domain: Domain) -> None:
    with TemporaryDirectory() as folder:
        quarantine = Quarantine(folder)
        for raw in raws:
            refusal = parse(raw, tiny_domain, NOW)
            assert isinstance(refusal, Refusal)
            quarantine.add(raw, refusal, NOW)
        quarantine.flush()
        assert [r.raw for r in quarantine.read()] == raws
        assert sum(quarantine.counts().values()) == len(raws)


def _flood(quarantine: Quarantine, day: int, n: int) -> None:
    for i in range(n):
        quarantine.add(b"x" * 1_000 + b"%d" % i, Refusal(Reason.NOT_JSON, f"day {day}"), NOW + day * DAY + i)
        quarantine.flush()


def test_a_quarantine_keeps_to_its_bytes_and_days_and_counts_what_it_drops(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, most_bytes=40_000, most_days=5)
    _flood(quarantine, 0, 10)
    _flood(quarantine, 1, 1_000)
    assert sum(f.stat().st_size for f in tmp_path.glob("*.jsonl")) <= 40_000
    kept = quarantine.counts()["not_json"]
    assert {r.detail for r in quarantine.read()} == {"day 0", "day 1"} and kept + quarantine.dropped()[
        "not_json"
    ] == 1_010
    for day in range(2, 30):
        _flood(quarantine, day, 4)
        assert sum(f.stat().st_size for f in tmp_path.glob("*.jsonl")) <= 40_000
    assert sorted({r.detail for r in quarantine.read()}) == [f"day {day}" for day in range(25, 30)]
    assert quarantine.counts() == Quarantine(tmp_path).counts() == {"not_json": 20}
    assert quarantine.dropped() == Quarantine(tmp_path).dropped() == {"not_json": 1_010 + 28 * 4 - 20}


def test_the_newest_are_read_from_the_end_and_within_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = Quarantine(tmp_path)
    for day in (0, 1):
        for i in range(30):
            reason = Reason.NOT_JSON if i % 3 else Reason.NO_EVENT
            quarantine.add(f"{day}-{i}", Refusal(reason, "x" * i), NOW + day * DAY + i)
    quarantine.flush()
    for block in (1, 50, 10_000):
        monkeypatch.setattr("feature_repo.lake.quarantine.BLOCK", block)
        for reason in (None, "not_json", "no_event", "other"):
            every = list(quarantine.read(reason=reason))
            assert quarantine.newest(100, reason) == every
            assert quarantine.newest(7, reason) == every[-7:] and quarantine.newest(0, reason) == []
    few = quarantine.newest(100, most_bytes=1_000)
    assert few == list(quarantine.read())[-len(few) :] and 5 < len(few) < 15


@pytest.mark.parametrize("who", ["u-1", "ü 1", 'a"b/c', "anon:d.9"])
def test_a_users_own_refused_events_are_found_however_their_id_is_written(tmp_path: Path, who: str) -> None:
    kept, refusal = Quarantine(tmp_path), Refusal(Reason.UNKNOWN_EVENT, "why")
    escaped = "".join(f"\\u{ord(c):04x}" for c in who)
    theirs: list[object] = [
        json.dumps({"userId": who}).encode(),
        json.dumps({"anonymousId": who}, ensure_ascii=False).encode(),
        f'{{"userId":"{escaped}"}}'.encode(),
        {"previousId": who},
        f"{{userId: {json.dumps(who, ensure_ascii=False)}, torn ".encode() + b"\xff",
    ]
    others: list[object] = [{"userId": "u-10", "invitedBy": who}, {"userId": f"{who}0"}, b"nothing", b"\xff"]
    for n, raw in enumerate([*others, *theirs, *others, *theirs]):
        kept.add(raw, refusal, n * 50_000_000_000)  # several days
    kept.flush()
    found = kept.of(frozenset([who]))
    assert [r.received_us // 50_000_000_000 for _, r in found] == [4, 5, 6, 7, 8, 13, 14, 15, 16, 17]
    assert kept.of(frozenset([who]), found[2][0], 4) == found[3:7]
    assert Quarantine(tmp_path / "none").of(frozenset([who])) == []


def test_what_came_by_a_key_is_found_and_taken_back_and_nothing_else(tmp_path: Path) -> None:
    kept, refusal, key = Quarantine(tmp_path), Refusal(Reason.UNKNOWN_EVENT, "why"), "5e318f8cf9cb"
    others: list[tuple[object, str | None]] = [({"key": key}, None), (f'"key":"{key}"', "another"), (b"\xff", None)]
    for n, (raw, by) in enumerate([*others, (b"1", key), (b"\xff", key), *others, ({"key": "x"}, key)]):
        kept.add(raw, refusal, n * 50_000_000_000, by)  # several days
    kept.flush()
    assert [q.received_us // 50_000_000_000 for q in kept.by_key(key)] == [3, 4, 8]
    assert kept.take_back(key) == 3 and list(kept.by_key(key)) == []
    assert [(q.raw, q.key) for q in kept.read()] == [*others, *others] and kept.counts() == {"unknown_event": 6}
    assert kept.take_back(key) == 0
