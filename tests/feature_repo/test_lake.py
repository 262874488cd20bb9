"""The lake: order, repetition, batches, compaction and kills at any moment change nothing."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import duckdb
import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.contract.events import Event, canonical_json
from feature_repo.lake.lake import SCHEMA, Lake, Snapshot, Stats
from feature_repo.lake.lake_sql import INCOMING, sender_bucket
from feature_repo.storage import BusyError, DamagedFile, Folder

Row = dict[str, Any]


def event(message: str = "m", user: str | None = "u", ts: int = 0, **more: Any) -> Event:
    fields: Row = {"type": "track", "anonymous_id": None, "received_us": 9, "name": "Uploaded"}
    objects: Row = {"properties": {}, "traits": {}, "context": {}}
    return Event(message_id=message, user_id=user, ts_us=ts, **(fields | objects | more))


def anonymous(message: str, device: str, ts: int = 0) -> Event:
    return event(message, None, ts, anonymous_id=device, type="page", name=None)


def many(n: int, users: int = 7, offset: int = 0) -> list[Event]:
    """Events of some people, every third of them anonymous."""
    made = [event(f"m{i}", f"u{i % users}", i, properties={"b": i, "a": "é"}) for i in range(offset, offset + n)]
    return [anonymous(e.message_id, f"d{e.ts_us % 5}", e.ts_us) if e.ts_us % 3 == 0 else e for e in made]


@pytest.fixture(scope="module")
def con() -> Iterator[Any]:
    backend = ibis.duckdb.connect()
    backend.con.execute("SET TimeZone = 'UTC'")
    yield backend
    backend.disconnect()


def rows(lake: Lake, con: Any, senders: Sequence[str] | None = None) -> list[Row]:
    """The canonical rows by sender and message."""
    table = lake.events(con, senders).to_pyarrow()
    assert table.schema.names == SCHEMA.names and table.schema.types == SCHEMA.types
    return sorted(table.to_pylist(), key=lambda r: (sender(r), r["message_id"]))


def test_a_result_is_not_held_up_by_who_fetches_it(tmp_path: Path) -> None:
    """At DuckDB's own limit, 1 MB, some queries over compact and log files wait for themselves."""
    own = ibis.duckdb.connect()
    Lake(tmp_path).events(own)
    (limit,) = own.con.sql("SELECT current_setting('streaming_buffer_size')").fetchone()
    assert limit.endswith("GiB") and float(limit.split()[0]) > 50


def without_positions(found: list[Row]) -> list[Row]:
    return [{k: v for k, v in r.items() if k != "position"} for r in found]


def contents(lake: Lake, con: Any) -> list[Row]:
    """The same without the positions."""
    return without_positions(rows(lake, con))


def sender(row: Row) -> str:
    return str(row["user_id"] or "anon:" + row["anonymous_id"])


def content_hash(e: Event) -> str:
    """In Python what the lake computes in SQL."""
    optional = ["" if v is None else "=" + v for v in (e.name, e.user_id, e.anonymous_id)]
    objects = [canonical_json(v).decode() for v in (e.properties, e.traits, e.context)]
    return md5("\0".join([e.type, *optional, *objects]).encode()).hexdigest()[:16]


def oracle(events: Sequence[Event]) -> list[Row]:
    """The canonical contents of the lake, by brute force."""
    best: dict[tuple[str, str], tuple[tuple[int, str, int], Event]] = {}
    for e in events:
        key = (e.user_id or f"anon:{e.anonymous_id}", e.message_id)
        rank = (e.ts_us, content_hash(e), e.received_us)
        best[key] = min(best.get(key, (rank, e)), (rank, e), key=lambda pair: pair[0])
    objects = ("properties", "traits", "context")
    return [
        {f.name: getattr(e, f.name) for f in INCOMING}
        | {name: canonical_json(getattr(e, name)).decode() for name in objects}
        | {"content_hash": rank[1]}
        for _, (rank, e) in sorted(best.items(), key=lambda item: item[0])
    ]


def table_of(events: Sequence[Event]) -> pa.Table:
    made = oracle(events)
    return pa.table({f.name: [r[f.name] for r in made] for f in INCOMING}, schema=INCOMING)


def test_positions_are_consecutive_from_1(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    assert (lake.last_position(), lake.append([]), lake.stats()) == (0, 0, Stats(0, 0, 0, 0))
    assert rows(lake, con) == [] and lake.new_since(con, 0).to_pyarrow().schema.names == SCHEMA.names
    batches = [many(3), many(1, offset=3), many(4, offset=4)]
    assert [lake.append(b) for b in batches] == [3, 4, 8]
    at = {r["message_id"]: r["position"] for r in rows(lake, con)}
    assert at == {f"m{i}": i + 1 for i in range(8)}
    assert Lake(tmp_path).last_position() == 8
    stats = lake.stats()
    assert (stats.files, stats.rows, stats.last_position) == (3, 8, 8) and stats.bytes > 0
    lake.compact(buckets=2, progress=False)
    assert lake.append(many(1, offset=8)) == 9


def test_rows_come_back_as_they_went_in(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path / "k=v" / "it's [1]*?")  # nothing of a path is a pattern, a partition or SQL
    more: Row = {"name": None, "type": "group", "anonymous_id": "a", "traits": {"z": [1.5, None], "a": "\0"}}
    tricky = event("m'1", "u\n'\"é\U0001f600", -5, **more)
    lake.append([tricky, *many(20)])
    expected = oracle([tricky, *many(20)])
    assert contents(lake, con) == expected
    lake.compact(buckets=3, progress=False)
    assert contents(lake, con) == expected


def test_a_table_a_reader_and_a_relation_give_the_same_rows(tmp_path: Path, con: Any) -> None:
    table = table_of(many(50))
    forms = [table, table.to_reader(7), duckdb.connect().from_arrow(table), table.select(reversed(table.schema.names))]
    made = []
    for number, form in enumerate(forms):
        lake = Lake(tmp_path / str(number))
        assert lake.append_table(form) == 50
        made.append(rows(lake, con))
    assert made[0] == made[1] == made[2] == made[3]
    assert contents(lake, con) == oracle(many(50))


def test_null_json_is_an_empty_object_and_an_empty_table_is_nothing(tmp_path: Path, con: Any) -> None:
    table = table_of([event()]).drop(["traits"]).append_column("traits", pa.nulls(1))
    lake = Lake(tmp_path)
    assert lake.append_table(table.slice(0, 0)) == 0 and lake.stats().files == 0
    lake.append_table(table)
    assert contents(lake, con) == oracle([event()])


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("message_id", None, "message_id; came null"),
        ("ts_us", None, "ts_us; came null"),
        ("type", None, "type; came null"),
        ("user_id", None, "came neither"),
        ("user_id", "anon:x", "came anon:x"),
        ("traits", ..., "missing .'traits'."),
    ],
)
def test_bad_rows_are_refused_as_a_whole(column: str, value: Any, words: str, tmp_path: Path) -> None:
    table = table_of([event("m1"), event("m2")])
    changed = table.drop([column])
    if value is not ...:
        values = pa.array([table[column][0].as_py(), value], table.schema.field(column).type)
        changed = changed.append_column(column, values)
    lake = Lake(tmp_path)
    with pytest.raises(ValueError, match=words):
        lake.append_table(changed)
    assert lake.last_position() == 0 and lake.append([event()]) == 1


COPIES = st.builds(
    event,
    message=st.sampled_from(["m1", "m2"]),
    user=st.sampled_from(["u1", "u2"]),
    ts=st.integers(0, 2),
    received_us=st.integers(0, 1),
    properties=st.sampled_from([{}, {"a": 1}, {"a": 2}]),
) | st.builds(anonymous, st.sampled_from(["m1", "m2"]), st.sampled_from(["u1", "a"]), st.integers(0, 1))


@settings(deadline=None)
@given(events=st.lists(COPIES, min_size=1, max_size=8), data=st.data())
def test_order_repetition_and_batches_change_nothing(events: list[Event], data: st.DataObject, con: Any) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=3))
    arrived = data.draw(st.permutations(events + again))
    cut = data.draw(st.integers(0, len(arrived)))
    with TemporaryDirectory() as folder:
        lake = Lake(folder)
        lake.append(arrived[:cut])
        if data.draw(st.booleans()):
            lake.compact(buckets=2, progress=False)
        lake.append(arrived[cut:])
        before = rows(lake, con)
        assert without_positions(before) == oracle(arrived)
        lake.compact(buckets=2, progress=False)
        assert rows(lake, con) == before


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_compaction_leaves_sorted_buckets_and_a_second_one_does_nothing(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append(many(60))
    lake.append(many(60))
    before = rows(lake, con)
    lake.compact(buckets=4, progress=False)
    assert rows(lake, con) == before
    assert lake.stats().rows == 60 and lake.last_position() == 120
    parts = sorted((tmp_path / "compact").iterdir())
    assert 1 < len(parts) <= 4 and not list((tmp_path / "log").iterdir())
    for part in parts:
        found = con.read_parquet(str(part)).to_pyarrow().to_pylist()
        assert found == sorted(found, key=lambda r: (sender(r), r["ts_us"], r["message_id"]))
        assert {sender_bucket(sender(r), 4) for r in found} == {int(part.name[:4])}
    state = files(tmp_path)
    Lake(tmp_path).compact(buckets=4, progress=False)
    assert files(tmp_path) == state


def test_only_buckets_with_new_events_are_rewritten(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append(many(60))
    lake.compact(buckets=8, progress=False)
    old = {p.name for p in (tmp_path / "compact").iterdir()}
    lake.append([event("new", "u1", 99)])
    lake.compact(buckets=8, progress=False)
    new = {p.name for p in (tmp_path / "compact").iterdir()}
    assert [int(n[:4]) for n in new - old] == [sender_bucket("u1", 8)] and len(new) == len(old)
    assert contents(lake, con) == oracle([*many(60), event("new", "u1", 99)])


def test_another_number_of_buckets_rewrites_all(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append(many(40))
    before = rows(lake, con)
    for buckets in (5, 2, 3):
        lake.compact(buckets=buckets, progress=False)
        assert rows(lake, con) == before
        assert {int(p.name[:4]) for p in (tmp_path / "compact").iterdir()} <= set(range(buckets))
    with pytest.raises(ValueError, match="at least 1"):
        lake.compact(buckets=0)


def test_some_senders_are_the_full_table_filtered(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append(many(100, users=20))
    for step in range(2):
        everything = rows(lake, con)
        keys = sorted({sender(r) for r in everything})
        for wanted in ([], ["u1"], ["anon:d0"], ["nobody", "o'brien"], keys[::2], keys, ["d0", "anon:u1"]):
            assert rows(lake, con, wanted) == [r for r in everything if sender(r) in wanted]
        assert rows(lake, con, [*keys, *(f"no\"b'ody{i}" for i in range(500))]) == everything
        lake.compact(buckets=4, progress=False)
        lake.append([event("m1", "u1", -step), *many(5, offset=200)])


def test_for_one_sender_only_its_bucket_is_read(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append(many(60))
    lake.compact(buckets=4, progress=False)
    for part in (tmp_path / "compact").iterdir():
        if int(part.name[:4]) != sender_bucket("u1", 4):
            part.write_bytes(b"-" * part.stat().st_size)
    assert {sender(r) for r in rows(lake, con, ["u1"])} == {"u1"}
    with pytest.raises(duckdb.Error):
        rows(lake, con)


def test_a_snapshot_is_what_the_last_compaction_holds(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    assert lake.snapshot(con) == Snapshot(0, [], [])
    lake.append(many(20))
    lake.compact(buckets=16, progress=False)
    expected = rows(lake, con)
    lake.append([event("later")])
    snapshot = lake.snapshot(con)
    found = [con.sql(snapshot.query([b])).to_pyarrow().to_pylist() for b in range(16)]
    assert (snapshot.through, snapshot.rows) == (20, [len(part) for part in found])
    assert con.sql(snapshot.every()).count().execute() == 20
    assert all(sender_bucket(sender(r), 16) == number for number, part in enumerate(found) for r in part)
    assert sorted((r for part in found for r in part), key=lambda r: (sender(r), r["message_id"])) == expected


def test_what_is_new_since_a_position(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append([event("a", ts=5), event("b"), event("a", ts=7)])
    lake.append([event("a", ts=4), event("c")])

    def since(position: int) -> list[int]:
        return sorted(lake.new_since(con, position).position.to_pyarrow().to_pylist())

    assert [since(p) for p in (0, 2, 3, 5)] == [[1, 2, 3, 4, 5], [3, 4, 5], [4, 5], []]
    lake.compact(buckets=2, progress=False)
    assert [since(p) for p in (0, 3, 5)] == [[2, 4, 5], [4, 5], []]
    lake.append([event("d")])
    assert since(4) == [5, 6]


def test_the_hash_and_the_bucket_are_the_same_everywhere(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append([event("m", "u", properties={"b": 1, "a": "é"}), event("n", None, anonymous_id="a", name=None)])
    assert [r["content_hash"] for r in rows(lake, con)] == ["2d255222c66c9845", "c35e0dbee792bd82"]
    assert [sender_bucket(s, 64) for s in ("u", "anon:a", "é")] == [63, 10, 23]


# writers


def test_two_writers_never_take_the_same_positions(tmp_path: Path) -> None:
    first, second = Lake(tmp_path), Lake(tmp_path, wait_s=0)
    first.append([event("a")])
    with first.folder.exclusive("append", 0), pytest.raises(BusyError, match=r"append\.lock"):
        second.append([event("b")])
    assert second.append([event("b")]) == 2 and first.append([event("c")]) == 3
    with first.folder.exclusive("compact", 0):
        with pytest.raises(BusyError, match=r"compact\.lock"):
            second.compact(progress=False)
        assert second.append([event("d")]) == 4  # a compaction stops no append


def test_a_writer_that_passed_the_lock_by_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, con: Any) -> None:
    lake, write = Lake(tmp_path), Lake._write_log

    def slowly(self: Lake, source: Any, staged: Path) -> int:
        other = tmp_path / "log"
        other.mkdir()
        written = write(self, source, staged)
        (other / f"{1:019d}-{written:019d}.parquet").write_bytes(staged.read_bytes())
        return written

    monkeypatch.setattr(Lake, "_write_log", slowly)
    with pytest.raises(RuntimeError, match="took position 1"):
        lake.append([event("a")])
    assert [r["message_id"] for r in rows(lake, con)] == ["a"]


def test_positions_with_a_gap_are_an_error(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    for i in range(3):
        lake.append(many(2, offset=2 * i))
    sorted((tmp_path / "log").iterdir())[1].unlink()
    with pytest.raises(DamagedFile, match="expected log files that follow one another"):
        lake.events(con)


def test_clear_removes_every_event(tmp_path: Path, con: Any) -> None:
    lake = Lake(tmp_path)
    lake.append(many(9))
    lake.compact(buckets=2, progress=False)
    lake.append(many(2, offset=9))
    lake.clear()
    assert (lake.last_position(), rows(lake, con)) == (0, [])
    assert lake.append([event()]) == 1


# damage


def _everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def _damaged(lake: Lake, named: str, con: Any) -> None:
    """Every use of the lake says which file is damaged and what to do, and none changes a file."""
    folder = Path(str(lake.folder.uri))
    before = _everything(folder)
    uses: list[Any] = [
        lambda: lake.compact(progress=False),
        lambda: lake.append([event("late")]),
        lambda: lake.erase(["u1"]),
        lambda: lake.events(con),
        lake.last_position,
        lake.stats,
    ]
    for use in uses:
        with pytest.raises(DamagedFile) as said:
            use()
        assert str(folder / named) in str(said.value) and "from a backup" in str(said.value)
    assert _everything(folder) == before


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("content", [None, b"", b'{"format":', b"\0" * 100, b"[]", b'{"format":99}'])
def test_without_its_manifest_a_lake_is_damaged_and_nothing_is_removed(
    content: bytes | None, log: bool, tmp_path: Path, con: Any
) -> None:
    lake, _ = _full(str(tmp_path))
    if not log:
        lake.compact(buckets=2, progress=False)
    (tmp_path / "manifest.json").unlink()
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    _damaged(lake, "manifest.json", con)


@pytest.mark.parametrize("how", ["missing", "empty", "truncated"])
def test_a_damaged_compact_file_is_named(how: str, tmp_path: Path, con: Any) -> None:
    lake, _ = _full(str(tmp_path))
    file = sorted((tmp_path / "compact").iterdir())[1]
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")
    _damaged(lake, f"compact/{file.name}", con)


# kills


class Killed(BaseException):
    """Stands for the end of the process."""


def _kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """End just before the step-th change of a file, which is just after the one before it."""
    left = [step]

    def fatal(change: Any) -> Any:
        def changed(*args: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            change(*args)

        return changed

    monkeypatch.setattr(Folder, "publish", fatal(Folder.publish))
    monkeypatch.setattr(Folder, "remove", fatal(Folder.remove))


def _full(uri: str) -> tuple[Lake, list[Event]]:
    """A lake with compacted files and newer ones, among them copies of compacted events."""
    lake = Lake(uri)
    lake.append(many(20))
    lake.compact(buckets=2, progress=False)
    fresh = [event("m1", "u1", -1), *many(10, offset=15)]
    lake.append(fresh[:4])
    lake.append(fresh[4:])
    return lake, [*many(20), *fresh]


def test_a_compaction_killed_at_any_step_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, con: Any
) -> None:
    killed = 0
    for step in range(1, 20):
        lake, events = _full(str(tmp_path / str(step)))
        expected = rows(lake, con)
        with monkeypatch.context() as patch:
            _kill_at(patch, step)
            try:
                lake.compact(buckets=2, progress=False)
                break
            except Killed:
                killed += 1
        lake = Lake(tmp_path / str(step))
        assert rows(lake, con) == expected
        assert lake.append([event("after")]) == 32
        lake.compact(buckets=2, progress=False)
        assert contents(lake, con) == oracle([*events, event("after")])
        assert len(list((tmp_path / str(step) / "compact").iterdir())) == 2
        assert not list((tmp_path / str(step) / "log").iterdir())
    assert killed == 7  # two buckets, the manifest, two logs, two old buckets


def test_a_first_compaction_and_a_clearing_killed_at_any_step_leave_a_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, con: Any
) -> None:
    for step in range(1, 30):
        lake = Lake(tmp_path / str(step))
        lake.append(many(20))
        done = 0
        with monkeypatch.context() as patch:
            _kill_at(patch, step)
            with suppress(Killed):
                lake.compact(buckets=2, progress=False)
                done = 1
                lake.clear()
                done = 2
        assert contents(lake, con) in (oracle(many(20)), []) if done else contents(lake, con) == oracle(many(20))
        lake.compact(buckets=2, progress=False)
        lake.clear()
        assert contents(lake, con) == [] and lake.append([event()]) == 1
        if done == 2:
            assert step == 10  # manifest, two buckets, manifest, log; manifest, two buckets, manifest: then all is done
            return
    raise AssertionError("it never came to its end")


def test_an_append_killed_before_its_end_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, con: Any
) -> None:
    lake = Lake(tmp_path)
    lake.append(many(3))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        _kill_at(patch, 1)
        lake.append(many(2, offset=3))
    assert lake.last_position() == len(rows(lake, con)) == 3
    assert lake.append(many(2, offset=3)) == 5


KILL = """
import os, signal, sys
from pathlib import Path
from feature_repo.lake.lake import Lake
from feature_repo.storage import Folder
publish = Folder.publish
def deadly(self, staged, name):
    if name == "manifest.json":
        os.kill(os.getpid(), signal.SIGKILL)
    publish(self, staged, name)
Folder.publish = deadly
Lake(sys.argv[1]).compact(buckets=2, progress=False)
"""


def test_sigkill_in_a_compaction_leaves_no_lock_and_no_litter(tmp_path: Path, con: Any) -> None:
    lake, events = _full(str(tmp_path))
    source = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", KILL, str(tmp_path)], cwd=source, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / ".compact").exists()
    assert contents(lake, con) == oracle(events)
    Lake(tmp_path, wait_s=0).compact(buckets=2, progress=False)
    assert contents(lake, con) == oracle(events)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["append.lock", "compact", "compact.lock", "log", "manifest.json"]


# other filesystems


def test_a_lake_that_is_no_local_folder(con: Any) -> None:
    uri = f"memory://{uuid4().hex}/lake"
    lake, events = _full(uri)
    assert contents(lake, con) == oracle(events)
    lake.compact(buckets=2, progress=False)
    again = Lake(uri, wait_s=0)
    assert contents(again, con) == oracle(events)
    assert rows(again, con, ["u1"]) == [r for r in rows(lake, con) if sender(r) == "u1"]
    assert again.stats().files == 2 and again.last_position() == 31
    with lake.folder.exclusive("append", 0), pytest.raises(BusyError, match=r"append\.lock is held by process \d+"):
        again.append([event("b")])
    assert again.append([event("b")]) == 32
    again.clear()
    assert rows(lake, con) == []
