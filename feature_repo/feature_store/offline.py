"""The offline store: Feast's DuckDB store with a point-in-time join that stays fast and small on millions of rows.

Feast joins every feature row up to the time of asking and keeps the last one. Here an ASOF join over the keys alone
finds the timestamp of the row in force; then the wide rows stream past a hash table of those few keys. So memory goes
with the number of rows asked for, not with the number of rows stored.
"""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import ibis
import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, OnDemandFeatureView, RepoConfig
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.infra.offline_stores import ibis as feast_ibis
from feast.infra.offline_stores.duckdb import (
    DuckDBOfflineStore,
    DuckDBOfflineStoreConfig,
    _read_data_source,
    _write_data_source,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.types import from_feast_to_pyarrow_type
from ibis.backends.duckdb import Backend
from ibis.expr.types import Column, Table
from pydantic import StrictStr

ROW, ASKED, MATCHED, AT, CREATED = "__row", "__asked", "__matched", "__at", "__created"
"""Columns of the join that nobody sees. Of an entity row: its number, its timestamp, that of the feature row in force.
Of a feature row: its timestamp and, to choose between rows of one timestamp, when it was created."""


@dataclass(frozen=True)
class Source:
    """Feature rows: columns __key0.. (which stand for the entity columns `keys`), AT, CREATED, then the features."""

    rows: Table
    keys: tuple[str, ...]
    features: tuple[str, ...]
    ttl: timedelta | None


class AsofDuckDBOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`type: feature_repo.feature_store.offline.AsofDuckDBOfflineStore` in feature_store.yaml."""

    type: StrictStr = "feature_repo.feature_store.offline.AsofDuckDBOfflineStore"
    memory_limit: str | None = None
    """Such as `4GB`; what needs more goes to disk. Default: 80 % of the machine's memory, as DuckDB."""
    temp_directory: str | None = None
    """Where it goes; default: the system's folder for temporary files."""
    threads: int | None = None


class AsofDuckDBOfflineStore(DuckDBOfflineStore):
    """Point-in-time features as an ASOF join. A row of a feature source counts from its timestamp on, inclusive."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """The entity rows in their order, with the features in force at each; null where the entity is unknown.

        Raises:
            TypeError: the entity rows are no data frame.
            FileNotFoundError: a feature source has no files yet.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise TypeError(f"entity_df: expected a pandas DataFrame, got {type(entity_df).__name__}")
        if filter_by_created_timestamp:  # no ASOF join: the row in force need not be the last one
            for view in feature_views:
                require_files(config, view.batch_source)
            return DuckDBOfflineStore.get_historical_features(
                config, feature_views, feature_refs, entity_df, registry, project, full_feature_names, True
            )
        con = connect(config)
        time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        entities = in_microseconds(feast_ibis._to_utc(entity_df.reset_index(drop=True), time))
        sources = [source_of(con, config, view, feature_refs, full_feature_names) for view in feature_views]
        table = as_table(con, entities, time)
        for source in sources:
            table = in_force(table, source)
        table = table.order_by(ROW).select(*entities.columns, *(f for s in sources for f in s.features))
        odfvs = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        keys = [c for c in entities.columns if c != time]
        span = feast_ibis._get_entity_df_event_timestamp_range(entities, time)
        return feast_ibis.IbisRetrievalJob(
            table,
            [NarrowView(view) for view in odfvs],
            full_feature_names,
            metadata=RetrievalMetadata(feature_refs, keys, *span),
            data_source_writer=_write_data_source,
            staging_location=config.offline_store.staging_location,
            staging_location_endpoint_override=config.offline_store.staging_location_endpoint_override,
            repo_path=str(config.repo_path),
        )


class NarrowView:
    """An on-demand view that is given its own inputs, as online, not the whole table, and keeps the declared types."""

    def __init__(self, view: OnDemandFeatureView) -> None:
        self.view, self.name, self.projection = view, view.name, view.projection

    def transform_arrow(self, table: pa.Table, full_feature_names: bool = False) -> pa.Table:
        """The columns of the view; a column of nulls alone has the declared type too."""
        inputs = set(self.view.get_request_data_schema())
        for source in self.view.source_feature_view_projections.values():
            inputs |= {f"{prefix}{f.name}" for f in source.features for prefix in ("", f"{source.name_to_use()}__")}
        computed = self.view.transform_arrow(table.select([c for c in table.column_names if c in inputs]))
        for field in self.view.features:
            at = computed.column_names.index(field.name)
            column = computed[field.name].cast(from_feast_to_pyarrow_type(field.dtype))
            shown = f"{self.projection.name_to_use()}__{field.name}" if full_feature_names else field.name
            computed = computed.set_column(at, shown, column)
        return computed


def in_force(entities: Table, source: Source) -> Table:
    """The entity rows (with ROW and ASKED) and beside each the features of the last row of `source` up to ASKED.

    Of several rows with one timestamp the last created counts. Nothing up to ASKED, or nothing within the ttl: nulls.
    """
    own = [f"__key{i}" for i in range(len(source.keys))]
    times = source.rows.select(*own, **{MATCHED: source.rows[AT]})
    same = [entities[e] == times[k] for e, k in zip(source.keys, own, strict=True)]
    found = entities.asof_join(times, on=entities[ASKED] >= times[MATCHED], predicates=same).drop(*own)
    if source.ttl:
        alive = found[MATCHED] + ibis.literal(source.ttl) >= found[ASKED]
        found = found.mutate(**{MATCHED: ibis.ifelse(alive, found[MATCHED], ibis.null(found[MATCHED].type()))})
    same = [found[e] == source.rows[k] for e, k in zip(source.keys, own, strict=True)]
    wide = found.left_join(source.rows, [*same, found[MATCHED] == source.rows[AT]])
    newest = ibis.row_number().over(group_by=ROW, order_by=ibis.desc(CREATED)) == 0
    return wide.filter(newest).drop(*own, AT, CREATED, MATCHED)


def source_of(con: Backend, config: RepoConfig, view: FeatureView, refs: list[str], full_names: bool) -> Source:
    """What is asked for of a view, under the names that it has in the result."""
    batch = view.batch_source
    if batch is None:
        raise ValueError(f"feature view {view.name}: it has no batch source, so it has no history")
    rows = read(con, config, batch)
    rows = rows.rename({new: old for old, new in batch.field_mapping.items() if old in rows.columns})
    prefix = f"{view.projection.name_to_use()}:"
    names = [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]
    shown = {f"{view.projection.name_alias or view.name}__{n}" if full_names else n: n for n in names}
    keys = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    created = batch.created_timestamp_column or batch.timestamp_field
    return Source(
        rows.select(
            **{f"__key{i}": rows[k] for i, k in enumerate(keys)},
            **{AT: _utc(rows[batch.timestamp_field]), CREATED: _utc(rows[created])},
            **{name: rows[column] for name, column in shown.items()},
        ),
        tuple(keys.values()),
        tuple(shown),
        view.ttl,
    )


def as_table(con: Backend, entities: pd.DataFrame, time: str) -> Table:
    """The entity rows with ROW and ASKED, which is their column `time`, as a table of DuckDB's own.

    Of a data frame DuckDB takes one row for granted, and plans nested loops: minutes instead of seconds.
    """
    frame = entities.copy(deep=False)
    frame[ROW], frame[ASKED] = range(len(frame)), entities[time]
    return con.create_table("__entities", frame, temp=True, overwrite=True)


def read(con: Backend, config: RepoConfig, source: DataSource) -> Table:
    """The rows of a data source: Parquet is scanned, anything else is read into memory by Feast."""
    require_files(config, source)
    if isinstance(source, FileSource) and isinstance(source.file_format or ParquetFormat(), ParquetFormat):
        return con.read_parquet(_path(config, source))
    return ibis.memtable(_read_data_source(source, str(config.repo_path)).to_pyarrow())


def require_files(config: RepoConfig, source: DataSource | None) -> None:
    """Raise FileNotFoundError where a file source is a local folder without Parquet in it, or nothing at all."""
    if not isinstance(source, FileSource) or "://" in source.path:
        return
    path = Path(_path(config, source))
    if not path.exists() or (path.is_dir() and not any(path.glob("*.parquet"))):
        raise FileNotFoundError(f"data source {source.name}: no features yet in {path}: run `make backfill` first")


def connect(config: RepoConfig) -> Backend:
    """An in-memory DuckDB of its own for one retrieval, with the limits of the configuration."""
    store = config.offline_store
    given = {"memory_limit": store.memory_limit, "threads": store.threads}
    return ibis.duckdb.connect(
        temp_directory=store.temp_directory or str(Path(tempfile.gettempdir()) / "duckdb"),
        preserve_insertion_order=False,
        **{name: value for name, value in given.items() if value is not None},
    )


def in_microseconds(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every timestamp column in microseconds: pandas' nanoseconds fail in DuckDB.

    A feature row is stamped in whole microseconds, so which row is in force does not depend on what is cut off.
    """
    times = [c for c in frame.columns if pd.api.types.is_datetime64_any_dtype(frame[c].dtype)]
    return frame.assign(**{c: frame[c].dt.as_unit("us") for c in times})


def _path(config: RepoConfig, source: FileSource) -> str:
    return FileSource.get_uri_for_file_path(config.repo_path, source.path)


def _utc(column: Column) -> Column:
    return column.cast("timestamp('UTC', 6)")
