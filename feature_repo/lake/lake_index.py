"""Which row groups of the lake hold a user's events, so that they are read without the rest.

    lake files ─► (user id, anonymous id) of every row group ─► lake_index.db (a cache, see key_index.py)

The index is brought up to date by whoever has written to the lake. Files that it does not know yet are searched as a
whole, so it decides how long a look-up takes, and never what it gives.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.key_index import KeyIndex
from feature_repo.lake.lake import RESTORE, Lake
from feature_repo.lake.lake_sql import STORED
from feature_repo.settings import Settings
from feature_repo.storage import DamagedFile

FILE = "lake_index.db"
KEYS = ("user_id", "anonymous_id")
TRIES = 5
READERS = 2
"""Files that are read at the same time: decompressing leaves other threads of Python alone."""


class LakeIndex:
    """Reads the lake of a state folder by user id and by anonymous id, for one look-up or one writer at a time.

    What it has read it keeps: the events of a user and those of the user's anonymous ids mostly share row groups.
    """

    def __init__(self, settings: Settings) -> None:
        self.lake = Lake(settings.lake)
        self._index = KeyIndex(settings.state / FILE)
        self._read: dict[tuple[str, str, int], pa.Table] = {}

    def refresh(self) -> int:
        """Index the files that are new, and forget those that are gone; returns how many were new."""
        return self._index.update(self.lake.files().versions, self._entries)

    def add(self, files: Mapping[str, str]) -> None:
        """Index files, version by name, before they count: for `Lake.compact`."""
        self._index.update(files, self._entries, forget=False)

    def rows(self, users: Collection[str], anonymous_ids: Collection[str]) -> tuple[pa.Table, int]:
        """Every row, copies too, with one of these user ids or anonymous ids; and the position up to which it is all.

        Columns as STORED. Raises RuntimeError where the files are replaced faster than they can be read.
        """
        found = self._looked_up(users, anonymous_ids, None)
        assert found is not None, "there is no limit"
        return found

    def few_rows(self, users: Collection[str], anonymous_ids: Collection[str], groups: int) -> pa.Table | None:
        """The same rows; None where more row groups than `groups` would be read for them, or unknown files."""
        found = self._looked_up(users, anonymous_ids, groups)
        return None if found is None else found[0]

    def _looked_up(
        self, users: Collection[str], anonymous_ids: Collection[str], most: int | None
    ) -> tuple[pa.Table, int] | None:
        keys = [
            _key(*pair) for pair in (*(("user_id", u) for u in users), *(("anonymous_id", a) for a in anonymous_ids))
        ]
        values = {name: pa.array(ids, pa.string()) for name, ids in zip(KEYS, (users, anonymous_ids), strict=True)}
        for _ in range(TRIES):
            live = self.lake.files()
            found = self._index.find(live.versions, keys)
            if most is not None and (found.unknown or sum(map(len, found.places.values())) > most):
                return None
            groups: dict[str, list[int] | None] = {**found.places, **dict.fromkeys(found.unknown)}
            wanted = {name: live.versions[name] for name in groups}

            def read(name: str) -> list[pa.Table]:
                return list(self._rows(name, wanted[name], groups[name], values))  # noqa: B023 (used in this turn only)

            try:
                with ThreadPoolExecutor(READERS) as pool:
                    parts = [rows for of_file in pool.map(read, groups) for rows in of_file]
            except FileNotFoundError:  # a compaction has removed it
                continue
            except pa.ArrowInvalid as error:
                raise DamagedFile(f"{self.lake.folder.uri}: a file cannot be read; {error}. {RESTORE}") from error
            if self.lake.folder.unchanged(wanted):
                return pa.concat_tables([STORED.empty_table(), *parts]), live.last_position
        raise RuntimeError(f"{self.lake.folder.uri}: its files were replaced {TRIES} times while they were read")

    def _rows(
        self, name: str, version: str, groups: Sequence[int] | None, values: Mapping[str, pa.Array]
    ) -> Iterator[pa.Table]:
        """The rows of one file with one of these values. groups: where to look; None: everywhere."""
        if groups is None or any((name, version, group) not in self._read for group in groups):
            with self.lake.folder.open(name) as source, pq.ParquetFile(source) as file:
                for group in range(file.num_row_groups) if groups is None else groups:
                    if groups is None and not pc.any(_matches(_read(file, group, KEYS), values)).as_py():
                        continue
                    if (name, version, group) not in self._read:
                        self._read[name, version, group] = _read(file, group, STORED.names)
                groups = groups or range(file.num_row_groups)
        for rows in (self._read[name, version, group] for group in groups if (name, version, group) in self._read):
            if (theirs := rows.filter(_matches(rows, values))).num_rows:
                yield theirs.cast(STORED)

    def _entries(self, name: str) -> Iterator[tuple[int, Iterable[str]]]:
        with self.lake.folder.open(name) as source, pq.ParquetFile(source) as file:
            for group in range(file.num_row_groups):
                rows = _read(file, group, KEYS)
                yield group, [_key(k, v) for k in KEYS for v in pc.unique(rows[k]).to_pylist() if v is not None]


def compact(settings: Settings, progress: bool = True) -> Lake:
    """Compact the lake and keep its index up to date; gives the lake. Raises BusyError: another process compacts."""
    index = LakeIndex(settings)
    index.lake.compact(progress=progress, ready=index.add)
    index.refresh()
    return index.lake


def _key(column: str, value: str) -> str:
    return f"{column}:{value}"


def _read(file: pq.ParquetFile, group: int, columns: Collection[str]) -> pa.Table:
    return file.read_row_group(group, columns=list(columns), use_threads=False)


def _matches(rows: pa.Table, values: Mapping[str, pa.Array]) -> Any:
    by_user, by_anonymous_id = (pc.is_in(rows[name].cast(pa.string()), values[name]) for name in KEYS)
    return pc.or_(by_user, by_anonymous_id)
