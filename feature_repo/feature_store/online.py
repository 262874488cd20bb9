"""Online stores in which an older row never replaces a newer one.

Rows are ordered by (event timestamp, created), both in microseconds; `created` is the log position up to which events
were applied, so that a late event can change the values at an equal event timestamp. A row replaces the stored one only
if its order is the same or higher; the store itself compares, so any number of writers may race. A row is written as
a whole: a feature that is not in it is null. Nothing ever expires.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureView, RepoConfig
from feast.infra.infra_object import InfraObject
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key, compute_table_id, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Map, Value
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import StrictStr

from feature_repo.sqlite import Transaction

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
"""What Feast writes: entity key, values by feature name, event timestamp, created timestamp."""

Found = tuple[datetime | None, dict[str, Value] | None]
"""What Feast reads: event timestamp and values by feature name, or (None, None) where nobody is known by that key."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NULL = Value()
NEVER = -1
"""Order of a row that has no created timestamp: before every log position."""


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 UTC, exact; a naive datetime is UTC.

    >>> microseconds(datetime(1970, 1, 1, 0, 0, 1, 5))
    1000005
    """
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND


def order(row: Row) -> tuple[int, int]:
    """(event timestamp, created) of a row, both in microseconds."""
    _, _, event, created = row
    return microseconds(event), NEVER if created is None else microseconds(created)


class RowSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """`type: feature_repo.feature_store.online.RowSqliteOnlineStore` in feature_store.yaml."""

    type: Any = "feature_repo.feature_store.online.RowSqliteOnlineStore"
    path: StrictStr = "online.db"
    busy_timeout_s: float = 30.0
    """How long a writer waits for another one."""


class RowSqliteOnlineStore(SqliteOnlineStore):
    """One SQL row an entity, its values as one serialised `Map`: about a fiftieth of the statements of Feast's store.

    A connection a thread, WAL: readers never wait for the writer, in this process or in another.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        conn: sqlite3.Connection | None = getattr(self._local, "conn", None)
        if conn is None:
            path = Path(self._get_db_path(config))
            path.parent.mkdir(parents=True, exist_ok=True)
            timeout = config.online_store.busy_timeout_s
            conn = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
            conn.execute("PRAGMA journal_mode = WAL")
            conn.execute("PRAGMA synchronous = NORMAL")
            self._local.conn, self._local.tables = conn, set()
        return conn

    def _table(self, config: RepoConfig, view: FeatureView) -> str:
        """Quoted name of a view's table, which exists from here on (also where a deleted file was applied before)."""
        versioning = config.registry.enable_online_feature_view_versioning
        table = '"' + compute_table_id(config.project, view, versioning).replace('"', '""') + '"'
        conn = self._get_conn(config)
        if table not in self._local.tables:
            conn.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB PRIMARY KEY, row BLOB NOT NULL, "
                "event_ts INTEGER NOT NULL, created_ts INTEGER NOT NULL) WITHOUT ROWID"
            )
            self._local.tables.add(table)
        return table

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows that are not older than the stored ones, in one transaction."""
        name, version = self._table(config, table), config.entity_key_serialization_version
        encode = Encoder()
        encoded = [(serialize_entity_key(row[0], version), encode.row(row[1]), *order(row)) for row in data]
        conn = self._get_conn(config)
        with Transaction(conn):
            conn.executemany(
                f"INSERT INTO {name} AS kept VALUES (?, ?, ?, ?) ON CONFLICT (entity_key) DO UPDATE SET "
                "row = excluded.row, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
                "WHERE (excluded.event_ts, excluded.created_ts) >= (kept.event_ts, kept.created_ts)",
                encoded,
            )
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Found]:
        """The rows of the entities, in their order; (None, None) where there is none."""
        version = config.entity_key_serialization_version
        keys = [serialize_entity_key(key, version) for key in entity_keys]
        names = requested_features or [f.name for f in table.features]
        stored = {key: (row, event) for key, row, event in self._select(config, table, keys)}
        return [decode(*stored[key], names) if key in stored else (None, None) for key in keys]

    def _select(self, config: RepoConfig, view: FeatureView, keys: list[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
        name, conn = self._table(config, view), self._get_conn(config)
        for start in range(0, len(keys), 10_000):
            some = keys[start : start + 10_000]
            marks = ",".join("?" * len(some))
            yield from conn.execute(f"SELECT entity_key, row, event_ts FROM {name} WHERE entity_key IN ({marks})", some)

    def delete(self, config: RepoConfig, table: FeatureView, entity_keys: Iterable[EntityKey]) -> None:
        """Forget the rows of these entities; whatever is written afterwards counts as the first."""
        name, version = self._table(config, table), config.entity_key_serialization_version
        conn = self._get_conn(config)
        with Transaction(conn):
            keys = [(serialize_entity_key(key, version),) for key in entity_keys]
            conn.executemany(f"DELETE FROM {name} WHERE entity_key = ?", keys)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Create the tables that are missing, drop those of deleted views."""
        for view in tables_to_keep:
            self._table(config, view)
        for view in tables_to_delete:
            name = self._table(config, view)
            self._get_conn(config).execute(f"DROP TABLE {name}")
            self._local.tables.discard(name)

    def plan(self, config: RepoConfig, desired_registry_proto: Registry) -> list[InfraObject]:
        """Nothing: `update` does it all."""
        return []

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete the file."""
        conn = getattr(self._local, "conn", None)
        if conn is not None:
            conn.close()
            del self._local.conn
        for suffix in ("", "-wal", "-shm"):
            Path(self._get_db_path(config) + suffix).unlink(missing_ok=True)


class Encoder:
    """Serialises the values of one batch of rows, in which many rows share a Value: each of those once.

    The batch has to be kept meanwhile, for a Value is known again by its identity.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int], bytes] = {}
        self._values: dict[int, bytes] = {}

    def row(self, values: dict[str, Value]) -> bytes:
        """A row's values as one `Map`, the same for the same values in any order: one message for each, by name.

        Serialised messages one after the other are the serialised merged message.
        """
        return b"".join([self._entry(name, values[name]) for name in sorted(values)])

    def values(self, values: Iterable[Value | None]) -> list[bytes]:
        """Single values; b"" for none."""
        known = self._values
        return [known[id(v)] if id(v) in known else self._value(v) for v in values]

    def _value(self, value: Value | None) -> bytes:
        found = self._values[id(value)] = b"" if value is None else value.SerializeToString()
        return found

    def _entry(self, name: str, value: Value) -> bytes:
        found = self._entries.get((name, id(value)))
        if found is None:
            found = self._entries[name, id(value)] = Map(val={name: value}).SerializeToString()
        return found


def decode(row: bytes, event_us: int, names: Iterable[str]) -> Found:
    """The named values of an encoded row; null where it has none."""
    values = Map.FromString(row).val
    moment = EPOCH + timedelta(microseconds=event_us)
    return moment, {name: values.get(name, NULL) for name in names}


class OrderedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """`type: feature_repo.feature_store.online.OrderedRedisOnlineStore` in feature_store.yaml."""

    type: Any = "feature_repo.feature_store.online.OrderedRedisOnlineStore"
    key_ttl_seconds: None = None
    """Refused: a value that expired online would still be there offline."""


# KEYS: the entity. ARGV: event µs, created µs, name of the order field, then names and values of all fields, _ts first;
# without _ts (Feast's own deletion knows nothing of the order field) there is no row.
# Numbers are doubles in Lua: exact up to 2^53 µs, the year 2255.
COMPARE_AND_SET = """
local stored = redis.call('HGET', KEYS[1], ARGV[3])
if stored and redis.call('HEXISTS', KEYS[1], ARGV[4]) == 1 then
  local event, created = string.match(stored, '^(%-?%d+) (%-?%d+)$')
  event, created = tonumber(event), tonumber(created)
  local new_event, new_created = tonumber(ARGV[1]), tonumber(ARGV[2])
  if new_event < event or (new_event == event and new_created < created) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[1] .. ' ' .. ARGV[2], unpack(ARGV, 4))
return 1
"""


class OrderedRedisOnlineStore(RedisOnlineStore):
    """Feast's Redis layout with one more field a view, `_order:<view>`; a script in Redis compares and sets it."""

    _connecting = threading.Lock()

    def _get_client(self, online_store_config: Any) -> Any:
        """The client: one for threads that ask for the first time at once, of which Feast would drop all but one."""
        with self._connecting:
            return super()._get_client(online_store_config)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the rows that are not older than the stored ones, each atomically, in one round trip."""
        view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        names = [f.name for f in table.features]
        parts = [part for name in names for part in (_mmh3(f"{view}:{name}"), b"")]  # field and value, in turn
        encode = Encoder().values
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for row in data:
                key = _redis_key(config.project, row[0], config.entity_key_serialization_version)
                parts[1::2] = encode(map(row[1].get, names))
                pipe.eval(COMPARE_AND_SET, 1, key, *order(row), f"_order:{view}", f"_ts:{view}", _stamp(row), *parts)
            pipe.execute()
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Found]:
        """As Feast's, which adds to the list of names that it is given."""
        names = None if requested_features is None else list(requested_features)
        return super().online_read(config, table, entity_keys, names)

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same, from a coroutine."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def delete(self, config: RepoConfig, table: FeatureView, entity_keys: Iterable[EntityKey]) -> None:
        """Forget the rows of these entities; whatever is written afterwards counts as the first."""
        view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        fields: list[str | bytes] = [_mmh3(f"{view}:{f.name}") for f in table.features]
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for entity_key in entity_keys:
                key = _redis_key(config.project, entity_key, config.entity_key_serialization_version)
                pipe.hdel(key, f"_ts:{view}", f"_order:{view}", *fields)
            pipe.execute()

    def _get_features_for_entity(
        self, values: Sequence[Any], feature_view: str, requested_features: list[str]
    ) -> Found:
        """As Feast's, but somebody unknown is (None, None), as in every other store, not a row of nulls from 1970."""
        if not values[requested_features.index(f"_ts:{feature_view}")]:
            return None, None
        return super()._get_features_for_entity(values, feature_view, requested_features)


def _stamp(row: Row) -> bytes:
    """The event timestamp as Feast's reader wants it."""
    seconds, rest = divmod(order(row)[0], 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000).SerializeToString()
