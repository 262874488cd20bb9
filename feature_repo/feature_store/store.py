"""The feature store of a product: its configuration, `apply`, and the bulk ways in and out of its online side.

feature_repo/feature_store.yaml is the base of every configuration; here it gets the paths and the online store of the
settings. `apply` leaves the result in the state folder, for `feast -f <state>/feature_store.yaml` and other programs.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import pyarrow as pa
import yaml

from feature_repo.domain import Domain
from feature_repo.domains import load
from feature_repo.feature_store.ownership import claim, claim_if_there
from feature_repo.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

    from feature_repo.feature_store.definitions import Object
    from feature_repo.feature_store.online import Row

_log = logging.getLogger(__name__)
FOLDER = Path(__file__).resolve().parent.parent
BASE = FOLDER / "feature_store.yaml"
FEW = 20
"""Rows of which it costs more to find equal values than to write each."""
VALUE_FIELDS = {"int64": "int64_val", "float64": "double_val", "string": "string_val"}


def repo_config(settings: Settings, lineage: bool = True) -> dict[str, Any]:
    """The content of feature_store.yaml for these settings, with absolute paths.

    lineage: whether Feast tells MLflow which features a run retrieved. It imports MLflow at the first retrieval
    (seconds) and looks for an active run at every one: not for a service.
    """
    config: dict[str, Any] = yaml.safe_load(BASE.read_text())
    config["project"] = settings.domain
    config["registry"] = str(settings.state / "registry.db")
    config["offline_store"]["temp_directory"] = str(settings.state / "tmp")
    config["online_store"] = online_store(settings)
    config["mlflow"] = {"enabled": lineage, "tracking_uri": settings.tracking_uri}
    return config


def online_store(settings: Settings) -> dict[str, Any]:
    """The online store that `settings.online` names.

    Raises:
        ValueError: it is neither `sqlite` nor a Redis URL.
    """
    if settings.online == "sqlite":
        return {
            "type": "feature_repo.feature_store.online.RowSqliteOnlineStore",
            "path": str(settings.state / "online.db"),
        }
    url = urlsplit(settings.online)
    if url.scheme not in ("redis", "rediss") or not url.hostname:
        raise ValueError(f"FIRSTMILE_ONLINE={settings.online!r}: expected `sqlite` or redis://host:port/db")
    options = {
        "db": url.path.strip("/") or "0",
        "username": url.username,
        "password": url.password,
        "ssl": "true" if url.scheme == "rediss" else None,
    }
    given = [f"{name}={value}" for name, value in options.items() if value]
    connection = ",".join([f"{url.hostname}:{url.port or 6379}", *given])
    return {"type": "feature_repo.feature_store.online.OrderedRedisOnlineStore", "connection_string": connection}


def settings_in_effect() -> Settings:
    """The settings that the running `feast` command's feature_store.yaml stands for.

    Raises:
        ValueError: it is this folder's own, but the environment names another product or state folder.
    """
    path = _yaml_in_effect()
    config = yaml.safe_load(path.read_text())
    state = (FOLDER / config["registry"]).resolve().parent
    found = Settings().replace(home=state.parent, domain=config["project"])
    if path.resolve() == BASE and found.state != Settings().state:
        raise ValueError(
            f"{BASE} is for {found.state}, but FIRSTMILE_HOME and FIRSTMILE_DOMAIN (or where Firstmile is installed) "
            f"say {Settings().state}: run `python -m feature_repo apply`, then "
            f"`feast -f {Settings().state / 'feature_store.yaml'} ...`"
        )
    return found


def _yaml_in_effect() -> Path:
    import click
    from feast.utils import get_default_yaml_file_path

    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.obj, dict) and "FS_YAML_FILE" in context.obj:
        return Path(context.obj["FS_YAML_FILE"])
    return Path(get_default_yaml_file_path(FOLDER))


def feature_store(settings: Settings, lineage: bool = True) -> "FeatureStore":
    """Feast's FeatureStore for these settings; nothing is read or created before it is used. `lineage`: repo_config."""
    from feast import FeatureStore, RepoConfig

    _quiet()
    config = RepoConfig(**repo_config(settings, lineage))
    config.repo_path = FOLDER
    return FeatureStore(config=config)


def _quiet() -> None:
    """Silence what Feast and Ibis say at every call about their own insides, and nobody here can act on."""
    for message in ("fetch_arrow_table", "On demand feature view is an experimental"):
        warnings.filterwarnings("ignore", message=message)


def apply(settings: Settings, domain: Domain | None = None) -> Path:
    """Make registry, online tables and state folder what the domain declares; twice is as once.

    What the domain no longer declares is removed. No features need to be there yet. Gives the path of the
    feature_store.yaml that was written into the state folder.

    Raises:
        ValueError: the online store is another lake's.
    """
    from feature_repo.feature_store.definitions import objects

    claim(settings)
    _remove_damaged_registry(settings)
    settings.features.mkdir(parents=True, exist_ok=True)
    declared = objects(domain or load(settings.domain), settings)
    store = feature_store(settings, lineage=False)
    store.apply(declared, objects_to_delete=_stale(store, declared), partial=False)  # type: ignore[arg-type]
    path = settings.state / "feature_store.yaml"
    path.touch(mode=0o600)
    path.write_text("# Written by `python -m feature_repo apply`.\n" + yaml.safe_dump(repo_config(settings)))
    return path


def ensure_applied(settings: Settings) -> None:
    """`apply`, unless registry and online store know the domain's features already.

    Raises:
        ValueError: the online store is another lake's.
    """
    from feast.errors import FeatureViewNotFoundException

    from feature_repo.feature_store.definitions import view_name

    claim_if_there(settings)
    _remove_damaged_registry(settings)
    domain = load(settings.domain)
    try:
        view = feature_store(settings, lineage=False).get_feature_view(view_name(domain))
    except FeatureViewNotFoundException:
        view = None
    if view is None or not set(domain.feature_types) <= {f.name for f in view.features}:
        apply(settings)


def _remove_damaged_registry(settings: Settings) -> None:
    """Remove Feast's registry if it cannot be read: `apply` makes it anew, all of it comes from the domain."""
    from feast.protos.feast.core.Registry_pb2 import Registry
    from google.protobuf.message import DecodeError

    file = settings.state / "registry.db"
    try:
        if file.exists():
            Registry.FromString(file.read_bytes())
    except DecodeError as error:
        file.unlink()
        _log.warning("%s: expected Feast's registry; %s. It is made anew", file, error)


def take_over(settings: Settings) -> None:
    """Empty an online store that was another lake's, and claim it; the next materialization writes every row."""
    from feature_repo.feature_store.materialize import BOOKMARK

    (settings.state / BOOKMARK).unlink(missing_ok=True)
    if settings.online != "sqlite":
        store = feature_store(settings, lineage=False)
        provider: Any = store._get_provider()
        provider.online_store.delete_entity_values(store.config, ["user_id"])
        claim(settings, whosever=True)


def _stale(store: "FeatureStore", declared: "Sequence[Object]") -> list[Any]:
    """What the registry holds and the domain no longer declares."""
    names = {(type(found), found.name) for found in declared}
    known: list[Any] = [
        *store.list_feature_services(),
        *store.list_on_demand_feature_views(),
        *store.list_batch_feature_views(),
        *store.list_data_sources(),
    ]
    return [found for found in known if (type(found), found.name) not in names]


def write_online(
    store: "FeatureStore",
    domain: Domain,
    rows: pa.Table,
    progress: Callable[[int], Any] | None = None,
    batch: int = 2_000,
) -> None:
    """Write rows of the offline schema to the online store; those older than what is stored change nothing.

    progress: called with the number of rows after each batch, a batch being one transaction or round trip.

    Raises:
        ValueError: a column of the offline schema is missing.
    """
    view = _view(store, domain)
    wanted = ["user_id", "event_timestamp", "created", *(f.name for f in view.features)]
    there = rows.column_names  # made anew at every call, 20 µs
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(f"rows for {view.name}: no column {', '.join(missing)}; there are {there}")
    for start in range(0, len(rows), batch):
        part = list(_feast_rows(view, rows.slice(start, batch)))
        store._get_provider().online_write_batch(store.config, view, part, progress)


def _view(store: "FeatureStore", domain: Domain) -> "FeatureView":
    """The view of the stored features; the registry is asked once a store, for it takes 2 ms."""
    from feature_repo.feature_store.definitions import view_name

    known = _VIEWS.setdefault(store, {})
    name = view_name(domain)
    if name not in known:
        known[name] = store.get_feature_view(name, allow_registry_cache=True)
    return known[name]


_VIEWS: "WeakKeyDictionary[FeatureStore, dict[str, FeatureView]]" = WeakKeyDictionary()


def _feast_rows(view: "FeatureView", rows: pa.Table) -> "Iterator[Row]":
    """The rows as Feast writes them. Each distinct value of a column becomes a Value once."""
    names = [f.name for f in view.features]
    columns = [_feast_values(rows[name]) for name in names]
    keys = entity_keys(rows["user_id"].to_pylist())
    times = rows["event_timestamp"].to_pylist(), rows["created"].to_pylist()
    for key, event, created, *values in zip(keys, *times, *columns, strict=True):
        yield key, dict(zip(names, values, strict=True)), event, created


def _feast_values(column: pa.ChunkedArray) -> list[Any]:
    from feast.protos.feast.types.Value_pb2 import Value

    field = VALUE_FIELDS[{"double": "float64"}.get(str(column.type), str(column.type))]
    null = Value()
    if len(column) <= FEW:
        return [null if value is None else Value(**{field: value}) for value in column.to_pylist()]
    encoded = column.combine_chunks().dictionary_encode()
    values = [Value(**{field: value}) for value in encoded.dictionary.to_pylist()]
    return [null if i is None else values[i] for i in encoded.indices.to_pylist()]


def entity_keys(user_ids: Iterable[str]) -> list[Any]:
    """Feast's entity key of each person."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return [EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)]) for user in user_ids]


def read_online(
    store: "FeatureStore", domain: Domain, user_ids: Sequence[str], features: Sequence[str] | None = None
) -> list[dict[str, Any] | None]:
    """The stored values of each person by name, null as None; None for somebody unknown.

    features: names of stored features; default: all, and what is stored beside them.
    """
    from feature_repo.feature_store.definitions import APPLIED, VALID_UNTIL

    view = _view(store, domain)
    types = domain.feature_types | {VALID_UNTIL: "int64", APPLIED: "int64"}
    fields = {name: VALUE_FIELDS[types[name]] for name in (features or types)}
    found = store._get_provider().online_read(store.config, view, entity_keys(user_ids), list(fields))
    return [None if values is None else _plain(values, fields) for _, values in found]


def online_times(store: "FeatureStore", domain: Domain, user_ids: Sequence[str]) -> list[int | None]:
    """The event timestamp (µs) of each person's stored row; None for somebody unknown."""
    from feature_repo.feature_store.online import microseconds

    view, keys, one = _view(store, domain), entity_keys(user_ids), list(domain.feature_types)[:1]
    found = store._get_provider().online_read(store.config, view, keys, one)
    return [None if at is None else microseconds(at) for at, _ in found]


def _plain(values: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    return {n: getattr(values[n], field) if values[n].HasField(field) else None for n, field in fields.items()}


def delete_online(store: "FeatureStore", domain: Domain, user_ids: Iterable[str]) -> None:
    """Forget these people's online rows; whatever is written afterwards counts as the first."""
    view = _view(store, domain)
    provider: Any = store._get_provider()
    provider.online_store.delete(store.config, view, entity_keys(user_ids))
