"""A join with a table: what a CSV or Parquet file says about a value of the event."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from feature_repo.enrichment.step import Added, added, adding, key_of, reader, within_context
from feature_repo.vocabulary import Column

if TYPE_CHECKING:
    from feature_repo.contract.events import Event

ARROW = {"string": pa.string(), "int64": pa.int64(), "boolean": pa.bool_()}
PLAIN = (
    pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean, pa.types.is_dictionary,
    pa.types.is_null,
)  # fmt: skip


@dataclass(frozen=True)
class TableJoin:
    """Adds columns of the row whose `key` is what the event has at path `on`; an event without a row stays as it is.

    table: a CSV file with a line of names, or a Parquet file: a path, or a URI that fsspec opens.
    on: a path, `userId` or `anonymousId`. key: the table's column of texts or integers, each at most once.
    columns: name: the table's; path: where it goes, in context. Nulls and empty fields are not added.

    Raises:
        ValueError: a path or type that there can't be.
    """

    table: str | Path
    on: str
    key: str
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        reader(self.on)
        adding(self.columns)

    @property
    def adds(self) -> Mapping[str, str]:
        """Type by path."""
        return adding(self.columns)

    def compiled(self) -> Callable[["Event"], "Event"]:
        """The step itself, with the table in memory.

        Raises:
            ValueError: the table can't be read, lacks a column, has one of another type, or a key twice.
        """
        rows, read = _rows(str(self.table), _stamp(self.table), self.key, self.columns), reader(self.on)

        def apply(event: "Event") -> "Event":
            key = key_of(read(event))
            values = rows.get(key) if key is not None else None
            return added(event, values) if values else event

        return apply


def _stamp(table: str | Path) -> tuple[int, int] | None:
    """What changes with a local file."""
    path = Path(table)
    if not path.is_file():
        return None
    held = path.stat()
    return held.st_mtime_ns, held.st_size


@lru_cache(16)
def _rows(table: str, stamp: object, key: str, columns: tuple[Column, ...]) -> Mapping[str, Added]:
    """What each key adds; read again where the file has changed."""
    found = _read(table, key, columns)
    keys = _typed(table, found, key, "string").to_pylist()
    twice = [k for k, n in Counter(keys).items() if n > 1 and k is not None]
    if twice:
        raise ValueError(f"{table}: column {key!r}: expected each key once; {twice[0]!r} is there again")
    paths = [within_context(c.path) for c in columns]
    values = zip(*(_typed(table, found, c.name, c.type).to_pylist() for c in columns), strict=True)
    return {k: dict(zip(paths, row, strict=True)) for k, row in zip(keys, values, strict=True) if k is not None}


def _read(table: str, key: str, columns: tuple[Column, ...]) -> pa.Table:
    """The columns that are asked for."""
    import fsspec

    names = list(dict.fromkeys([key, *(c.name for c in columns)]))
    types = {c.name: ARROW[c.type] for c in columns} | {key: pa.string()}
    try:
        with fsspec.open(table, "rb") as file:
            found = pq.ParquetFile(file).read() if table.endswith(".parquet") else _csv(file, types)
    except (OSError, ImportError, pa.ArrowException) as e:
        raise ValueError(f"{table}: expected a CSV or Parquet file with columns {', '.join(names)}; {e}") from None
    if missing := [name for name in names if name not in found.column_names]:
        raise ValueError(f"{table}: expected a column {missing[0]!r}; there are {', '.join(found.column_names)}")
    return found.select(names)


def _csv(file: Any, types: Mapping[str, pa.DataType]) -> pa.Table:
    """Texts stay as they are written, with their leading zeros; only an empty field is null."""
    options = csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    return csv.read_csv(file, convert_options=options)


def _typed(table: str, found: pa.Table, name: str, kind: str) -> Any:
    """A column in the declared type. Keys may be integers; integers with nulls come as floats from pandas."""
    column = found[name]
    whole = pa.types.is_floating(column.type) and kind == "int64"
    try:
        if not whole and not any(test(column.type) for test in PLAIN):
            raise pa.ArrowInvalid(f"came {column.type}")
        return column.cast(ARROW[kind])
    except pa.ArrowException as e:
        raise ValueError(f"{table}: column {name!r}: expected {kind}; {e}") from None
