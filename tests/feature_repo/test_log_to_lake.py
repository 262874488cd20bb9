"""From the log to the lake: each event once, at its own position; what the lake lost is an error, never a loop."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import ibis
import pytest
from click.testing import CliRunner

from feature_repo.__main__ import main
from feature_repo.contract.events import Event
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import drain, log_file
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.settings import Settings
from feature_repo.storage import DamagedFile
from feature_repo.stream.embedded import Embedded


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path, domain="saas", log="sqlite", history="sqlite", online="sqlite")
    found.state.mkdir()
    return found


def append(settings: Settings, first: int, last: int) -> None:
    """Events whose message ids are their positions."""
    with closing(SqliteLog(log_file(settings))) as log:
        events = [Event("track", f"m{n}", "u", None, n, n, "Clicked", {}, {}, {}) for n in range(first, last + 1)]
        assert log.append(events).result(10) == list(range(first, last + 1))


def trim(settings: Settings, through: int) -> None:
    """As the service does once the lake has them."""
    with closing(SqliteLog(log_file(settings))) as log:
        log.ack(log.poll(through, 1))
        log.trim(through)


def damage(settings: Settings, *positions: int) -> None:
    """These messages are no events any more."""
    with closing(sqlite3.connect(log_file(settings))) as db:
        db.executemany("UPDATE log SET event = x'00' WHERE position = ?", [(p,) for p in positions])
        db.commit()


def in_lake(settings: Settings) -> dict[str, int]:
    table = Lake(settings.lake).events(ibis.duckdb.connect()).to_pyarrow()
    return dict(sorted(zip(table["message_id"].to_pylist(), table["position"].to_pylist(), strict=True)))


@pytest.mark.parametrize(
    "lost", [("manifest.json",), ("manifest.json", "compact"), ("manifest.json", "compact", "log")]
)
@pytest.mark.parametrize("left", [0, 3])
def test_a_lake_that_lost_events_is_named_and_a_service_on_it_ends(
    settings: Settings, lost: tuple[str, ...], left: int
) -> None:
    append(settings, 1, 7)
    drain(settings)
    Lake(settings.lake).compact(progress=False)
    trim(settings, 7)
    if left:
        append(settings, 8, 7 + left)
    for name in lost:
        path = Path(settings.lake) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shown = CliRunner().invoke(main, ["compact"], env={"FIRSTMILE_HOME": str(settings.home)})
    if lost == ("manifest.json",):
        assert shown.exit_code == 1 and re.match(f"Error: {settings.lake}/manifest.json: .* missing", shown.output)
    for use in (drain, Embedded):
        with pytest.raises(DamagedFile, match=f"{settings.lake}.*expected the .*from a backup"):
            use(settings)


@pytest.mark.parametrize("poison", [(1,), (4,), (2, 3), (7,), (1, 4, 7), tuple(range(1, 8))])
def test_poison_in_the_log_moves_no_position_and_stops_nothing(settings: Settings, poison: tuple[int, ...]) -> None:
    append(settings, 1, 7)
    damage(settings, *poison)
    expected = {f"m{n}": n for n in range(1, 8) if n not in poison}
    assert drain(settings) == len(expected)
    assert in_lake(settings) == expected
    append(settings, 8, 9)
    assert (drain(settings), drain(settings)) == (2, 0)
    assert in_lake(settings) == expected | {"m8": 8, "m9": 9}
