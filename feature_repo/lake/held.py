"""What the lake holds of one person, for an export: their events, their traits as last known."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from feature_repo.erasing.erasure import Plan, canonical
from feature_repo.lake.lake_sql import theirs
from feature_repo.settings import Settings

COLUMNS = "position, message_id, type, name, user_id, anonymous_id, ts_us, received_us, properties, traits, context"


def events(settings: Settings, of: Plan, after: int, most: int) -> list[dict[str, Any]]:
    """Up to `most` of a person's events after a position, in the order of positions: canonical copies, COLUMNS."""
    with _theirs(settings, of) as con:
        query = f"SELECT {COLUMNS} FROM theirs WHERE position > {int(after)} ORDER BY position LIMIT {int(most)}"
        rows: list[dict[str, Any]] = con.execute(query).to_arrow_table().to_pylist()
        return rows


def traits(settings: Settings, of: Plan) -> dict[str, Any]:
    """The last value of each trait, in the order of time."""
    found: dict[str, Any] = {}
    with _theirs(settings, of) as con:
        for (document,) in con.execute(
            "SELECT traits FROM theirs WHERE traits <> '{}' ORDER BY ts_us, message_id"
        ).fetchall():
            found |= json.loads(document)
    return found


@contextmanager
def _theirs(settings: Settings, of: Plan) -> Iterator[duckdb.DuckDBPyConnection]:
    """A view `theirs` of a person's canonical events."""
    senders = [*of.senders, *{sender for sender, _ in of.messages}]
    with canonical(settings, senders) as con:
        con.execute(f"CREATE TEMP VIEW theirs AS SELECT * FROM lake WHERE {theirs(con, of.senders, of.messages)}")
        yield con
