"""The lake's SQL: the content hash, the bucket of a sender, the canonical copy. DuckDB; the same on every machine."""

from collections.abc import Iterable, Sequence
from hashlib import md5
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa

from feature_repo.contract.origin import FIRST_RECEIVED

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("message_id", pa.string()),
        ("type", pa.string()),
        ("name", pa.string()),
        ("user_id", pa.string()),
        ("anonymous_id", pa.string()),
        ("ts_us", pa.int64()),
        ("received_us", pa.int64()),
        ("properties", pa.string()),
        ("traits", pa.string()),
        ("context", pa.string()),
        ("content_hash", pa.string()),
    ]
)
"""A row of the lake: times in µs since 1970 UTC; name, user_id, anonymous_id are null where absent; properties,
traits, context are canonical JSON; content_hash is the first 16 hexadecimal digits of an MD5."""

STORED = pa.schema([f for f in SCHEMA if f.name != "content_hash"])
"""A row in a file: the content hash is computed where it is read, which is seldom."""

INCOMING = pa.schema([f for f in STORED if f.name != "position"])

RANK = f"{FIRST_RECEIVED}, ts_us, content_hash, received_us, position"
"""Of several copies of a message the one counts that is smallest in these: see origin.first_received."""

SENDER = "coalesce(user_id, 'anon:' || anonymous_id)"

_STORED = ", ".join(STORED.names)
_CONTENT = " || chr(0) || ".join(
    [
        "type",
        *(f"coalesce('=' || {c}, '')" for c in ("name", "user_id", "anonymous_id")),
        *("properties", "traits", "context"),
    ]
)
COLUMNS = f"{_STORED}, left(md5({_CONTENT}), 16) AS content_hash"
"""A row of SCHEMA from a row in a file."""

_REQUIRED = ("message_id", "type", "ts_us", "received_us")
_CONSTANT = 100
ROW_GROUP = 2_048
"""Rows that are read together at least: small, because a user's rows are looked up one row group at a time."""


def literal(text: str) -> str:
    """A path in SQL, where no value can be bound. Nothing that comes from outside is written so."""
    return "'" + text.replace("'", "''") + "'"


def escape(path: str) -> str:
    """A path that DuckDB takes as it is, not as a pattern."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def sender_bucket(sender: str, buckets: int) -> int:
    """The bucket of a sender key: the first 32 bits of its MD5, modulo the number of buckets.

    >>> sender_bucket("user-1", 64)
    19
    """
    return int(md5(sender.encode(), usedforsecurity=False).hexdigest()[:8], 16) % buckets


def bucket_of(sender: str, buckets: int) -> str:
    """The same in SQL, of an expression that gives a sender key."""
    return f"CAST(('0x' || left(md5({sender}), 8))::UBIGINT % {buckets} AS INTEGER)"


def copy(con: duckdb.DuckDBPyConnection, query: str, target: Path, row_group: int = ROW_GROUP) -> int:
    """Write a query's rows to a Parquet file; returns their number."""
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {row_group}"
    row = con.execute(f"COPY ({query}) TO {literal(str(target))} ({options})").fetchone()
    return int(row[0]) if row else 0


def _incoming() -> str:
    checked = {f.name: f"CAST({f.name} AS {'BIGINT' if f.type == pa.int64() else 'VARCHAR'})" for f in INCOMING}
    for name in _REQUIRED:
        checked[name] = f"CASE WHEN {name} IS NULL THEN error('expected {name}; came null') ELSE {checked[name]} END"
    for name in ("properties", "traits", "context"):
        checked[name] = f"coalesce({checked[name]}, '{{}}')"
    checked["user_id"] = f"""CASE
        WHEN user_id IS NULL AND anonymous_id IS NULL THEN error('expected user_id or anonymous_id; came neither')
        WHEN starts_with(user_id, 'anon:') THEN error('expected no user_id that begins with anon:; came ' || user_id)
        ELSE {checked["user_id"]} END"""
    return (
        f"SELECT position, {', '.join(f'{expression} AS {name}' for name, expression in checked.items())} FROM incoming"
    )


INCOMING_ROWS = _incoming()
"""The rows of the table `incoming`, which has their positions; an error of DuckDB's names what is wrong with one."""


def _files(urls: Sequence[str]) -> str:
    """The rows of some files, none where there are none."""
    if not urls:
        return f"(SELECT {', '.join(f'CAST(NULL AS {_type(f)}) AS {f.name}' for f in STORED)} WHERE false)"
    return f"read_parquet([{', '.join(map(literal, urls))}], hive_partitioning = false)"


def _type(column: pa.Field) -> str:
    return "BIGINT" if column.type == pa.int64() else "VARCHAR"


def spread(con: duckdb.DuckDBPyConnection, urls: Sequence[str], buckets: int, folder: Path) -> dict[int, str]:
    """Sort rows into a folder a bucket; returns a pattern for the files of each bucket that has any."""
    folder.mkdir()
    rows = f"SELECT {_STORED}, {bucket_of(SENDER, buckets)} AS bucket FROM {_files(urls)}"
    con.execute(f"COPY ({rows}) TO {literal(str(folder))} (FORMAT parquet, PARTITION_BY (bucket), COMPRESSION lz4)")
    found = {int(f.name.removeprefix("bucket=")): f for f in folder.iterdir()}
    return {number: f"{escape(str(inside))}/*.parquet" for number, inside in found.items()}


def bucket(con: duckdb.DuckDBPyConnection, compacted: Sequence[str], log: Sequence[str]) -> str:
    """The canonical rows of one bucket, as they are stored, by sender and time."""
    unique = not compacted and not _has_copies(con, log)
    rows = _files(log) if unique else f"({canonical(compacted, log, 'true')})"
    return f"SELECT {_STORED} FROM {rows} ORDER BY {SENDER}, ts_us, message_id"


def _has_copies(con: duckdb.DuckDBPyConnection, urls: Sequence[str]) -> bool:
    keys = f"SELECT {SENDER} AS sender, message_id FROM {_files(urls)} GROUP BY ALL HAVING count(*) > 1 LIMIT 1"
    return con.execute(keys).fetchone() is not None


def largest_position(con: duckdb.DuckDBPyConnection, file: Path) -> int:
    """The largest position in a file of the lake."""
    row = con.execute(f"SELECT max(position) FROM {_files([escape(str(file))])}").fetchone()
    return int(row[0]) if row else 0


def canonical(compacted: Sequence[str], log: Sequence[str], where: str) -> str:
    """The canonical rows of compact files, which hold no copies, and of the log, which may hold copies of any.

    Of several copies the one counts that is smallest in RANK.
    """
    if not log:
        return f"SELECT {COLUMNS} FROM {_files(compacted)} WHERE {where}"
    return f"""
        WITH old AS NOT MATERIALIZED (SELECT {_STORED}, {SENDER} AS sender FROM {_files(compacted)} WHERE {where}),
        fresh AS NOT MATERIALIZED (SELECT {_STORED}, {SENDER} AS sender FROM {_files(log)} WHERE {where}),
        copied AS MATERIALIZED (
            SELECT sender, message_id FROM fresh GROUP BY sender, message_id HAVING count(*) > 1
            UNION SELECT sender, message_id FROM old SEMI JOIN fresh USING (sender, message_id)
        ),
        every AS NOT MATERIALIZED (SELECT * FROM old UNION ALL SELECT * FROM fresh)
        SELECT {COLUMNS} FROM every ANTI JOIN copied USING (sender, message_id)
        UNION ALL
        SELECT * EXCLUDE (sender) FROM (
            SELECT {COLUMNS}, sender FROM every SEMI JOIN copied USING (sender, message_id)
        ) QUALIFY row_number() OVER (
            PARTITION BY sender, message_id ORDER BY {RANK}
        ) = 1"""


def after(urls: Sequence[str], position: int) -> str:
    """The rows with a larger position."""
    return f"SELECT {COLUMNS} FROM {_files(urls)} WHERE position > {int(position)}"


def theirs(con: duckdb.DuckDBPyConnection, senders: Sequence[str], messages: Iterable[tuple[str, str]]) -> str:
    """The condition that a row is one of these senders', or a copy of one of the messages: (sender, message_id)."""
    pairs = sorted(set(messages))
    columns = [pa.array([part[n] for part in pairs], pa.string()) for n in (0, 1)]
    con.register("messages", pa.table(columns, ["sender", "message_id"]))
    single = f"({SENDER}, message_id) IN (SELECT (sender, message_id) FROM messages)" if pairs else "false"
    return f"(coalesce({senders_filter(con, senders)}, false) OR {single})"


def rows_by_file(con: duckdb.DuckDBPyConnection, urls: Sequence[str], where: str) -> dict[str, int]:
    """How many rows of each file meet a condition, by the file's name in the lake; only of files that have any."""
    if not urls:
        return {}
    files = f"read_parquet([{', '.join(map(literal, urls))}], hive_partitioning = false, filename = true)"
    found = con.execute(f"SELECT filename, count(*) FROM {files} WHERE {where} GROUP BY filename").fetchall()
    return {"/".join(name.rsplit("/", 2)[1:]): rows for name, rows in found}


def without(urls: Sequence[str], where: str) -> str:
    """The rows of some files that do not meet a condition, as they are stored and in their order."""
    return f"SELECT {_STORED} FROM {_files(urls)} WHERE NOT {where}"


def senders_filter(con: duckdb.DuckDBPyConnection, senders: Sequence[str] | None) -> str:
    """The condition that a row's sender is one of these; None: any. Ids are bound to variables of this connection."""
    if senders is None:
        return "true"
    users = [s for s in senders if not s.startswith("anon:")]
    anonymous = [s.removeprefix("anon:") for s in senders if s.startswith("anon:")]
    known = f"user_id IN {_bound(con, users)}" if users else "false"
    unknown = f"user_id IS NULL AND anonymous_id IN {_bound(con, anonymous)}" if anonymous else "false"
    return f"(({known}) OR ({unknown}))" if users and anonymous else f"({known if users else unknown})"


def _bound(con: duckdb.DuckDBPyConnection, values: Sequence[str]) -> str:
    """A set of strings; a short one as a constant, by which DuckDB passes over row groups."""
    name = f"ids_{uuid4().hex}"
    con.execute(f"SET VARIABLE {name} = ?", [list(values)])
    given = f"getvariable('{name}')"
    return given if len(values) <= _CONSTANT else f"(SELECT unnest({given}))"
