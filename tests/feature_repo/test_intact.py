"""Damaged files are named with a remedy before anything works on them, and what the lake can give is made anew."""

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from feature_repo import domains, intact, rebuild
from feature_repo.__main__ import main
from feature_repo.contract.events import Event
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import materialize
from feature_repo.feature_store.store import feature_store, read_online
from feature_repo.settings import Settings, now_us
from feature_repo.storage import DamagedFile
from feature_repo.stream.embedded import Embedded

USERS = ["u0", "u1", "u2"]
DATABASES = ["log.db", "history.db", "online.db", "erased.db"]
DAMAGE = ["truncated", "garbage", "half a page", "a torn page"]


def settings_at(home: Path) -> Settings:
    return Settings(home=home, domain="saas", log="sqlite", history="sqlite", online="sqlite")


def events(first: int, last: int) -> list[Event]:
    """Of three users."""
    t = now_us() - 1_000_000
    return [Event("track", f"m{n}", USERS[n % 3], None, t + n, t, "Clicked", {}, {}, {}) for n in range(first, last)]


def send(settings: Settings, sent: list[Event]) -> None:
    live = Embedded(settings).start()
    live.append(sent).result(30)
    until_s = time.monotonic() + 60
    while live.pending.of(USERS) or live.pending.history.waiting(now_us()):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    live.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a state folder that has one of each file."""
    home = tmp_path_factory.mktemp("whole")
    settings = settings_at(home)
    send(settings, events(0, 60))
    Tombstones(settings.state).begin("somebody else", 1)
    Tombstones(settings.state).finish("somebody else", 2)
    backfill(settings, progress=False)
    materialize(settings, now_us(), progress=False)
    send(settings, events(60, 66))  # these are in the log's file and the lake's log
    return home


@pytest.fixture
def settings(whole: Path, tmp_path: Path) -> Iterator[Settings]:
    mask = os.umask(0o022)  # a command changes it for its process
    yield settings_at(Path(shutil.copytree(whole, tmp_path / "var")))
    os.umask(mask)


def command(settings: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"FIRSTMILE_HOME": str(settings.home)})


def damage(file: Path, how: str) -> None:
    for journal in file.parent.glob(f"{file.name}-*"):
        journal.unlink()
    content = file.read_bytes()
    page = b"\xff" * 4096
    changed = {
        "truncated": content[: max(4096, len(content) // 2 // 4096 * 4096)],
        "garbage": b"no database " * 1_000,
        "half a page": content[:50],
        "a torn page": content[:4096] + page * ((len(content) - 4096) // 4096),
        "empty": b"",
    }
    file.write_bytes(changed[how])


def clicks(settings: Settings) -> list[int | None]:
    found = read_online(feature_store(settings, lineage=False), domains.load("saas"), USERS, ["clicks"])
    return [None if row is None else row["clicks"] for row in found]


def test_a_whole_state_is_whole(settings: Settings) -> None:
    intact.check(settings)
    assert command(settings, "check").output == "no file is damaged\n"
    assert clicks(settings) == [22, 22, 22]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", DATABASES)
def test_a_damaged_database_is_named_with_a_remedy(name: str, how: str, settings: Settings) -> None:
    file = settings.state / name
    if how == "truncated" and file.stat().st_size <= 4096:
        pytest.fail("a file of one page cannot be truncated to whole pages")
    damage(file, how)
    shown = command(settings, "check")
    assert shown.exit_code == 1 and f"Error: {file}: expected a" in shown.output
    assert ("from a backup" in shown.output) == (name in ("log.db", "erased.db"))
    assert ("rebuild" in shown.output) == (name != "erased.db")


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_log_that_lost_events_is_noticed(how: str, settings: Settings) -> None:
    shutil.rmtree(settings.lake)  # then the log alone has the last events
    for file in settings.state.glob("log.db*"):
        file.write_bytes(b"") if how == "empty" and file.suffix == ".db" else file.unlink()
    with pytest.raises(
        DamagedFile, match=r"log\.db: expected the events up to position 66, .* it ends at 0, and the lake"
    ):
        intact.check(settings)


@pytest.mark.parametrize("name", ["lake/log", "features"])
@pytest.mark.parametrize("how", ["truncated", "garbage", "empty"])
def test_a_damaged_parquet_file_is_named(name: str, how: str, settings: Settings) -> None:
    file = sorted((settings.state / name).glob("*.parquet"))[0]
    content = file.read_bytes()
    file.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"x" * 500, "empty": b""}[how])
    with pytest.raises(DamagedFile, match=rf"{file}: expected a (whole )?Parquet file; .*(backup|rebuild features)"):
        intact.check(settings)


@pytest.mark.parametrize("part", ["history", "online", "features"])
@pytest.mark.parametrize("how", ["missing", "garbage", "empty"])
def test_what_the_lake_can_give_is_made_anew(part: str, how: str, settings: Settings) -> None:
    file = settings.state / f"{part}.db" if part != "features" else sorted(settings.features.glob("*.parquet"))[0]
    for journal in file.parent.glob(f"{file.name}-*"):
        journal.unlink()
    file.unlink() if how == "missing" else file.write_bytes(b"x" * 5_000 if how == "garbage" else b"")
    if part != "history" or how == "garbage":
        assert f"rebuild {part} --domain saas" in command(settings, "check").output
    assert command(settings, "rebuild", part).exit_code == 0
    intact.check(settings)
    assert clicks(settings) == [22, 22, 22]
    send(settings, events(60, 72))  # six of them once more
    assert clicks(settings) == [24, 24, 24]


def test_a_log_begins_anew_after_the_lake_and_the_old_one_stays_until_an_erasure(settings: Settings) -> None:
    damage(settings.state / "log.db", "garbage")
    assert command(settings, "rebuild", "log").exit_code == 0
    assert (settings.state / "log.db.damaged").exists()
    send(settings, events(66, 69))
    assert clicks(settings) == [23, 23, 23]


def test_nothing_is_made_anew_beside_a_service(settings: Settings) -> None:
    live = Embedded(settings)
    shown = command(settings, "rebuild", "history")
    assert shown.exit_code == 1 and "another process holds log.db.lock" in shown.output
    live.close()
    with pytest.raises(ValueError, match="redis://h: mend it there"):
        rebuild.rebuild(Settings(home=settings.home, domain="saas", history="redis://h"), "history")


def test_a_damaged_registry_is_made_anew_by_itself(settings: Settings) -> None:
    (settings.state / "registry.db").write_bytes(b"no registry" * 99)
    send(settings, events(66, 69))
    assert clicks(settings) == [23, 23, 23]


def test_any_command_names_the_damaged_file(settings: Settings) -> None:
    damage(settings.state / "history.db", "garbage")
    shown = command(settings, "lag")
    assert (
        shown.exit_code == 1 and f"Error: {settings.state / 'history.db'}: expected a SQLite database" in shown.output
    )


def test_what_the_commands_write_is_private(tmp_path: Path) -> None:
    mask, settings = os.umask(0o022), settings_at(tmp_path / "var")
    try:
        for arguments in (["simulate", "--users", "30"], ["apply"], ["backfill"], ["compact"], ["quarantine"]):
            assert command(settings, *arguments).exit_code == 0
    finally:
        os.umask(mask)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (settings.home, *settings.home.rglob("*"))}
    assert len(found) > 20
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}


def test_a_large_database_is_checked_by_its_header_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_repo import sqlite

    monkeypatch.setattr(sqlite, "CHECKED_WHOLE", 0)
    file = tmp_path / "large.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [("x" * 1_000,)] * 100)
        db.commit()
    assert sqlite.fault(file) is None
    os.truncate(file, 4096 * 5)
    assert str(sqlite.fault(file)).endswith("malformed")
