"""Erasing a person: nothing of theirs is left, and of everybody else nothing is lost."""

import itertools
import sqlite3
import stat
from pathlib import Path
from typing import Any

import ibis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.contract.refusals import Reason, Refusal
from feature_repo.erasing import erasure
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.store import delete_online, feature_store
from feature_repo.lake import lake_sql
from feature_repo.lake.intake import take_in
from feature_repo.lake.lake import Lake
from feature_repo.lake.quarantine import Quarantine
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.settings import Settings
from feature_repo.sqlite import purge
from feature_repo.storage import Folder
from feature_repo.stream.embedded import Embedded
from tests import searching
from tests.feature_repo import histories, oracle
from tests.feature_repo.test_embedded import settled
from tests.feature_repo.test_stream import ENTITIES, event, online, wanted

SAAS = domains.load("saas")
HOMES = itertools.count()
END = 2**61


def of(person: str, rows: list[histories.Row]) -> list[histories.Row]:
    """The rows that are a person's in the end."""
    return [r for r in rows if r["user_id"] == person or (not r["user_id"] and oracle.owner(r, rows, END) == person)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homes")


@given(data=st.data())
def test_the_others_are_as_if_the_person_had_never_been(home: Path, data: st.DataObject) -> None:
    settings = Settings(home=home / str(next(HOMES)), domain="saas")
    settings.home.mkdir()
    rows = data.draw(histories.events(SAAS, 15))
    copies = [r | {"ts_us": r["ts_us"] + 1} for r in data.draw(st.lists(st.sampled_from(rows), max_size=3))]
    now_us = max(r["ts_us"] for r in [*rows, *copies]) + data.draw(st.sampled_from([0, 1, 90_000_000_000]))
    live = Embedded(settings, lambda: now_us).start()
    try:
        for r in data.draw(st.permutations([*rows, *copies])):
            live.append([event(r)]).result()
        settled(live, ENTITIES)
        erasure.settle(live)
        if data.draw(st.booleans()):
            Lake(settings.lake).compact(buckets=2, progress=False)
        live.erase(found := erasure.plan(settings, "u1"))
        erasure.erase_online(settings, found)
        settled(live, ENTITIES)
        theirs = of("u1", oracle.canonical([*rows, *copies]))
        left = [r for r in oracle.canonical([*rows, *copies]) if r not in theirs]
        assert online(settings) == wanted(settings, left, now_us)
        kept = Lake(settings.lake).events(ibis.duckdb.connect()).message_id.to_pyarrow().to_pylist()
        assert sorted(kept) == sorted(r["message_id"] for r in left)
        assert not {d for d in found.aliases if any(r["anonymous_id"] == d for r in left)}
        later = rows[0] | {"message_id": "later", "user_id": "u2", "type": "page", "name": None, "ts_us": now_us}
        live.append([event(later)]).result()
        settled(live, ENTITIES)
        assert online(settings) == wanted(settings, [*left, later], now_us)
    finally:
        live.close()
    (settings.state / "history.db").unlink()  # all of it anew from the lake
    delete_online(feature_store(settings, lineage=False), SAAS, ENTITIES)
    live = Embedded(settings, lambda: now_us).start()
    settled(live, ENTITIES)
    again = {p: row for p, row in online(settings).items() if row}
    assert again == {p: row for p, row in wanted(settings, [*left, later], now_us).items() if row and p in again}
    assert "u2" in again
    live.close()


def rows_of(lake: Lake, message_ids: bool = False) -> list[Any]:
    table = lake.new_since(ibis.duckdb.connect(), 0)
    return sorted((table.message_id if message_ids else table.position).to_pyarrow().to_pylist())


def plain(n: int, user: str | None, device: str | None = None) -> Event:
    at = histories.BASE + n
    return Event("page", f"m{n}", user, device, at, at, None, {"of": f"canary of {user or device}"}, {}, {})


def filled(uri: str | Path) -> Lake:
    """Positions 1 to 12: 1 to 6 compacted; files of the log hold 7 to 9 (all of `gone`) and 10 to 12."""
    lake = Lake(uri)
    senders = [("gone", None), ("stays", None), (None, "d-gone"), (None, "d-stays")]
    lake.append([plain(n, *senders[n % 4]) for n in range(1, 7)])
    lake.compact(buckets=2, progress=False)
    lake.append([plain(n, "gone") for n in range(7, 10)])
    lake.append([plain(n, *senders[n % 4]) for n in range(10, 13)])
    return lake


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_a_lake_keeps_its_positions_when_rows_are_erased(tmp_path: Path, where: str) -> None:
    lake = filled(tmp_path / "a*[b]?" if where == "folder" else f"memory://{tmp_path}/lake")
    before = lake.folder.sizes("compact")
    assert lake.erase(["gone", "anon:d-gone"], [("anon:d-stays", "m11")]) == 9
    assert (rows_of(lake), lake.last_position()) == ([1, 3, 5], 12)
    assert lake.erase(["gone", "anon:d-gone"]) == 0
    assert lake.append([plain(13, "stays")]) == 13
    assert (lake.stats().rows, lake.stats().last_position) == (len(rows_of(lake)), 13)
    assert before.keys() & lake.folder.sizes("compact").keys() == {"compact/0000-000001.parquet"}  # d-stays alone
    kept = rows_of(lake, message_ids=True)
    lake.compact(progress=False)
    assert rows_of(lake, message_ids=True) == kept and lake.last_position() == 13
    if where == "folder":
        assert searching.found(tmp_path, ["canary of gone", "canary of d-gone"]) == []
        assert searching.found(tmp_path, ["canary of stays"])


@pytest.mark.parametrize("stop", range(4))
def test_an_erasure_in_the_lake_that_stops_half_way_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    lake, published, publish = filled(tmp_path), itertools.count(), Folder.publish

    def failing(self: Folder, staged: Path, name: str) -> None:
        if next(published) == stop:
            raise KeyboardInterrupt
        publish(self, staged, name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Folder, "publish", failing)
        lake.erase(["gone"])
    (tmp_path / ".append").mkdir(exist_ok=True)  # what an append had staged when it was killed
    (tmp_path / ".append" / "log.parquet").write_text("canary of gone")
    again = Lake(tmp_path)
    assert again.last_position() == 12 and {"m1", "m2", "m3", "m5"} <= set(rows_of(again, message_ids=True))
    again.erase(["gone"])
    assert rows_of(again) == [1, 2, 3, 5, 6, 10, 11]
    assert searching.found(tmp_path, ["canary of gone"]) == []


def test_a_log_goes_on_where_events_were_erased(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    users = ["gone", "stays", "gone", "stays", "gone"]
    log.append([plain(n, user) for n, user in enumerate(users, 1)]).result()
    log.ack(first := log.poll(4, 1))
    assert [d.position for d in first] == [1, 2, 3, 4]
    assert log.erase(lambda e: e.user_id == "gone") == 3  # the fifth too, although it was not polled yet
    assert [position for position, _ in log.read(0, 10)] == [2, 4]
    assert (log.poll(10, 0), log.lag(), log.last, log.polled) == ([], 0, 5, 5)
    assert searching.found(tmp_path, ["canary of gone"]) == [] and searching.found(tmp_path, ["canary of stays"])
    assert log.append([plain(6, "stays")]).result() == [6]
    assert [d.position for d in log.poll(10, 1)] == [6]
    log.close()
    again = SqliteLog(tmp_path / "log.db", start=5)
    assert again.append([plain(7, "stays")]).result() == [7]
    again.close()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_purged_file_holds_nothing_that_was_deleted_however_sqlite_was_built(tmp_path: Path, mode: str) -> None:
    db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    for setting in (f"journal_mode = {mode}", "secure_delete = OFF"):
        db.execute(f"PRAGMA {setting}")
    db.execute("CREATE TABLE t (text TEXT)")
    db.executemany("INSERT INTO t VALUES (?)", [("deleted" * 300,), ("kept" * 300,)] * 20)
    db.execute("DELETE FROM t WHERE text LIKE 'deleted%'")
    assert searching.found(tmp_path, ["deleted"])
    purge(tmp_path / "a.db")
    assert searching.found(tmp_path, ["deleted"]) == [] and searching.found(tmp_path, ["keptkept"])
    assert db.execute("SELECT count(*) FROM t").fetchone() == (20,)
    purge(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()


def test_a_purge_that_a_reader_prevents_is_no_purge(tmp_path: Path) -> None:
    writer, reader = (sqlite3.connect(tmp_path / "a.db", isolation_level=None) for _ in range(2))
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (text TEXT)")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()
    writer.execute("INSERT INTO t VALUES ('deleted')")
    writer.execute("DELETE FROM t")
    with pytest.raises(sqlite3.OperationalError, match="cannot be emptied"):
        purge(tmp_path / "a.db", wait_s=0.1)
    reader.execute("COMMIT")
    purge(tmp_path / "a.db", wait_s=0.1)
    assert searching.found(tmp_path, ["deleted"]) == []


def test_a_tombstone_knows_a_person_and_tells_nobody(tmp_path: Path) -> None:
    stones = Tombstones(tmp_path)
    assert not stones.covers("person-1") and list(tmp_path.iterdir()) == []
    assert stones.begin("person-1", 7) == {"person": "person-1"}
    plan = {"person": "person-1", "aliases": ["device-1"]}
    stones.planned("person-1", plan, ["person-1", "anon:device-1"])
    assert Tombstones(tmp_path).unfinished() == [plan] == [stones.begin("person-1", 9)]
    stones.finish("person-1", 8)
    assert stones.unfinished() == [] and searching.found(tmp_path, ["person-1", "device-1"]) == []
    mode = stat.S_IMODE((tmp_path / "erased.key").stat().st_mode)
    assert (mode, (tmp_path / "erased.key").stat().st_size) == (0o600, 32)
    again = Tombstones(tmp_path)
    assert again.erasure("person-1") == (7, 8) and again.erasure("person-2") is None
    refused = {
        ("page", "person-1", None): True, ("page", None, "device-1"): True, ("identify", "other", "device-1"): True,
        ("alias", "other", "device-1"): True, ("page", "other", "device-1"): False, ("page", "other", None): False,
        ("page", None, "person-1"): False, ("identify", "other", "device-2"): False,
    }  # fmt: skip
    found = {(kind, *ids): again.refuses(Event(kind, "m", *ids, 1, 1, None, {}, {}, {})) for kind, *ids in refused}
    assert found == refused
    other = Tombstones(tmp_path / "other")
    other.begin("person-1", 7)
    kept = [(folder / "erased.db").read_bytes() for folder in (tmp_path, tmp_path / "other")]
    assert kept[0] != kept[1]  # another key, another hash
    (tmp_path / "erased.key").unlink()
    with pytest.raises(RuntimeError, match="expected the 32 bytes of the key"):
        Tombstones(tmp_path)


REFUSED: list[tuple[object, bool]] = [
    (b'{"userId":"u-1"', True),
    (b'{"userId":"u-10"', False),
    (b'{"userId":"u-1 2"', True),  # broken JSON: any word may be an id
    (b'{"userId":"\\u0075-1"}', True),
    (b'{"userId": "x", "traits": {"id": "u-1"}}', True),
    (b"userId=u-1&event=x", True),
    (b"\xff\xfe u-1 \xff", True),
    ({"userId": "x", "properties": ["about u-1 and others"]}, True),
    ({"userId": 77}, True),
    ({"userId": "x", "price": 77}, False),
    ("text of anon:d 1", True),
    ("text of d 12", False),
    ({"u-1"}, True),
]


def test_refused_events_that_name_a_person_go_and_no_others(tmp_path: Path) -> None:
    with Quarantine(tmp_path) as quarantine:
        for n, (raw, _) in enumerate(REFUSED):
            quarantine.add(raw, Refusal(Reason.NOT_JSON, f"number {n}"), n * 86_400_000_000)
        quarantine.add(b"{", Refusal(Reason.WRONG_TYPE, "userId: came the string 'u-1'"), 0)
    gone = sum(named for _, named in REFUSED) + 1
    assert quarantine.erase(frozenset(["u-1", "77", "d 1", "anon:d 1"])) == gone
    kept = [int(q.detail.split()[-1]) for q in quarantine.read()]
    assert sorted(kept) == [n for n, (_, named) in enumerate(REFUSED) if not named]
    assert quarantine.erase(frozenset(["u-1"])) == 0
    quarantine.add(b"{", Refusal(Reason.NOT_JSON, "another"), 0)
    assert quarantine.counts() == {"not_json": len(kept) + 1}


def test_a_source_that_is_ingested_does_not_bring_a_person_back(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    Tombstones(settings.state).begin("person-1", 1)
    Tombstones(settings.state).finish("person-1", 1)
    sent = {"type": "page", "messageId": "m", "timestamp": "2024-01-01T00:00:00Z"}
    raws = [sent | {"userId": u} for u in ("person-1", "person-2")] + [{"userId": "person-1"}]
    done = take_in(settings, SAAS, [(raw, histories.BASE * 2) for raw in raws], progress=False)
    assert (done.accepted, done.refused) == (1, {"erased": 2})
    assert searching.found(tmp_path, ["person-1"]) == []
    assert rows_of(Lake(settings.lake), message_ids=True) == ["m"]


def test_a_condition_in_sql_names_senders_and_messages() -> None:
    con = ibis.duckdb.connect().con
    rows = [("u", "a", "m1"), (None, "a", "m1"), (None, "b", "m2"), ("b", None, "m2"), (None, "b", "m3")]
    con.execute("create table t (user_id varchar, anonymous_id varchar, message_id varchar)")
    con.executemany("insert into t values (?, ?, ?)", rows)
    where = lake_sql.theirs(con, ["u"], [("anon:b", "m2")])
    assert con.execute(f"select * from t where {where}").fetchall() == [rows[0], rows[2]]
    assert con.execute(f"select * from t where {lake_sql.theirs(con, [], [])}").fetchall() == []


def test_whoever_is_touched_by_one_erasure_and_then_erased_is_in_no_file(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    users = ["the first", "the second", "the third"]
    Lake(settings.lake).append([plain(n, users[n % 3], "their device") for n in range(9)])
    backfill(settings, progress=False)
    erasure.erase_offline(settings, erasure.Plan(users[0], shared=("their device",), touched=tuple(users[1:])))
    assert searching.found(settings.features, users) != []
    erasure.erase_offline(settings, erasure.Plan(users[1]))
    assert searching.found(settings.features, users[:2]) == []
    assert backfill(settings, progress=False).rows > 0
    assert searching.found(settings.features, users[2:]) != []
