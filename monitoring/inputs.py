"""What the steps of a run are made from, as short values: when one of them changes, a step is done again."""

import hashlib
import json
from pathlib import Path

from feature_repo.lake.lake import Lake
from feature_repo.settings import SOURCE, Settings

ROOMS = ("feature_repo", "training", "serving", "monitoring")
"""In the order of their imports: a room uses those before it."""
CODE = {".py", ".yaml", ".csv", ".parquet", ".js", ".html", ".css"}
LIVE_USER = "live-[0-9]+-[0-9]+"
"""The ids of the users whom a run lets act live (see relive): they are no part of the source."""


def code(room: str) -> str:
    """Changes with the code that a step of a room runs: the files of the room and of those before it, and the lock."""
    rooms = ROOMS[: ROOMS.index(room) + 1]
    files = [f for r in rooms for f in (SOURCE / r).rglob("*") if f.suffix in CODE and f.is_file()]
    files += [f for f in (SOURCE / "pyproject.toml", SOURCE / "requirements.lock") if f.is_file()]
    found = hashlib.sha256()
    for file in sorted(files):
        content = file.read_bytes()
        found.update(f"{file.relative_to(SOURCE)} {len(content)}\0".encode() + content)
    return found.hexdigest()[:16]


def source(settings: Settings) -> dict[str, int]:
    """Changes with the lake's events, except for those of the users whom runs let act live: how many, and the newest
    position."""
    import ibis

    con = ibis.duckdb.connect()
    try:
        con.create_view("lake", Lake(settings.lake).events(con))
        (found,) = con.raw_sql(f"""select count(*), coalesce(max(position), 0) from lake
            where user_id is null or not regexp_full_match(user_id, '{LIVE_USER}')""").fetchall()
    finally:
        con.disconnect()
    return {"events": found[0], "position": found[1]}


def rows_of(settings: Settings) -> dict[str, int]:
    """The offline feature rows: how many, in how many files, and the log position that they hold."""
    import pyarrow.parquet as pq

    from feature_repo.feature_store import backfill

    files = list(settings.features.glob("*.parquet"))
    position = json.loads((settings.features / backfill.BOOKMARK).read_text())["position"]
    return {"rows": sum(pq.read_metadata(f).num_rows for f in files), "files": len(files), "position": position}


def offline_rows_lost(settings: Settings, files: int) -> bool:
    """Whether any of so many files of offline rows is missing."""
    from feature_repo.feature_store import backfill

    there = (settings.features / backfill.BOOKMARK).exists()
    return not there or len(list(settings.features.glob("*.parquet"))) < files


def online_rows_lost(settings: Settings) -> bool:
    """Whether the online rows are missing, as far as that can be seen from here."""
    from feature_repo.feature_store import materialize

    there = settings.online != "sqlite" or (settings.state / "online.db").exists()
    return not there or not (settings.state / materialize.BOOKMARK).exists()


def forget_rows(settings: Settings, offline: bool) -> None:
    """Have the next materialisation write everybody's row; offline: and the next backfill compute all rows."""
    from feature_repo.feature_store import backfill, materialize

    (settings.state / materialize.BOOKMARK).unlink(missing_ok=True)
    if offline:
        (settings.features / backfill.BOOKMARK).unlink(missing_ok=True)


def bento_there(store: Path, tag: str) -> bool:
    """Whether the Bento of a tag (`name:version`) is in BentoML's store."""
    return (store / "bentos" / tag.replace(":", "/") / "bento.yaml").is_file()
