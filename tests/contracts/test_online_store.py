"""What every online store promises: the newest row wins, whatever the order of the writes, and nothing is lost."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from feast import Entity, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64, Int64, String
from hypothesis import given
from hypothesis import strategies as st

T0 = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
US = timedelta(microseconds=1)
VIEW = FeatureView(
    name="probe_user",
    entities=[Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)],
    ttl=timedelta(0),
    schema=[
        Field(name="user_id", dtype=String),
        Field(name="n", dtype=Int64),
        Field(name="share", dtype=Float64),
        Field(name="plan", dtype=String),
    ],
    source=FileSource(path="nowhere", timestamp_field="event_timestamp"),
)
FIELDS = {"n": "int64_val", "share": "double_val", "plan": "string_val"}


def key(user: str) -> EntityKey:
    return EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)])


def row(user: str, event: datetime, created: datetime | None, **values: Any) -> tuple[Any, ...]:
    """A row as Feast writes it; a value of None is null."""
    protos = {name: Value() if v is None else Value(**{FIELDS[name]: v}) for name, v in values.items()}
    return key(user), protos, event, created


@dataclass
class Probe:
    """A store and its configuration; `again` makes another instance on the same state."""

    config: RepoConfig

    def __post_init__(self) -> None:
        self.store: Any = get_online_store_from_config(self.config.online_store)
        self.store.update(self.config, [], [VIEW], [], [], False)

    def again(self) -> "Probe":
        return Probe(self.config)

    def write(self, *rows: tuple[Any, ...]) -> None:
        self.store.online_write_batch(self.config, VIEW, list(rows), None)

    def read(self, *users: str, names: list[str] | None = None) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        found = self.store.online_read(self.config, VIEW, [key(u) for u in users], names)
        return [
            (event, None if values is None else {n: plain(v) for n, v in values.items()}) for event, values in found
        ]


def plain(value: Value) -> Any:
    kind = value.WhichOneof("val")
    return getattr(value, kind) if kind else None


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def new_probe(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Probe]]:
    """Makes an empty store: a file or a project of its own, gone in the end."""
    made: list[Probe] = []
    redis = request.getfixturevalue("redis_address") if request.param == "redis" else None

    def make() -> Probe:
        folder = tmp_path_factory.mktemp("online")
        online = {
            "type": "feature_repo.feature_store.online.RowSqliteOnlineStore",
            "path": str(folder / "deep" / "online.db"),
        }
        if redis:
            online = {"type": "feature_repo.feature_store.online.OrderedRedisOnlineStore", "connection_string": redis}
        project = f"probe_{uuid.uuid4().hex[:12]}"
        registry = str(folder / "registry.db")
        made.append(Probe(RepoConfig(project=project, provider="local", registry=registry, online_store=online)))
        return made[-1]

    yield make
    for probe in made:
        probe.store.teardown(probe.config, [VIEW], [])


@pytest.fixture
def probe(new_probe: Callable[[], Probe]) -> Probe:
    return new_probe()


def test_a_newer_event_replaces_an_older_one_and_never_the_other_way(probe: Probe) -> None:
    probe.write(row("u", T0, T0, n=1))
    probe.write(row("u", T0 + US, T0 - US, n=2))
    assert probe.read("u")[0] == (T0 + US, {"n": 2, "share": None, "plan": None})
    probe.write(row("u", T0, T0 + timedelta(days=1), n=3))
    assert probe.read("u")[0][1] == {"n": 2, "share": None, "plan": None}


@pytest.mark.parametrize(("created", "kept"), [(T0 - US, 1), (T0, 2), (T0 + US, 2), (None, 1)])
def test_at_an_equal_event_timestamp_the_applied_position_decides(
    probe: Probe, created: datetime | None, kept: int
) -> None:
    probe.write(row("u", T0, T0, n=1))
    probe.write(row("u", T0, created, n=2))
    assert probe.read("u", names=["n"])[0][1] == {"n": kept}


def test_a_row_without_an_applied_position_is_before_all_others(probe: Probe) -> None:
    probe.write(row("u", T0, None, n=1))
    probe.write(row("u", T0, datetime(1970, 1, 1, tzinfo=UTC), n=2))
    assert probe.read("u", names=["n"])[0][1] == {"n": 2}


@cache
def shared(new_probe: Callable[[], Probe]) -> Probe:
    """One store for all examples of a property."""
    return new_probe()


ORDERS = st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2)), min_size=1, max_size=6, unique=True)


@given(orders=ORDERS, data=st.data())
def test_any_order_in_any_batches_leaves_the_newest_row(
    new_probe: Callable[[], Probe], orders: list[tuple[int, int]], data: st.DataObject
) -> None:
    probe = shared(new_probe)
    user = uuid.uuid4().hex
    rows = [row(user, T0 + e * US, T0 + c * US, n=i, plan=f"{e},{c}") for i, (e, c) in enumerate(orders)]
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    probe.write(*shuffled[:cut])
    probe.write(*shuffled[cut:])
    event, created = max(orders)
    assert probe.read(user)[0] == (T0 + event * US, {"n": orders.index((event, created)), "share": None,
                                                    "plan": f"{event},{created}"})  # fmt: skip


def test_values_come_back_as_they_went_in(probe: Probe) -> None:
    values = {"n": 1_709_251_199_999_999, "share": 0.1 + 0.2, "plan": "żółć\n\0 'pro'"}
    extremes = {"n": -(2**63), "share": 5e-324, "plan": ""}
    zeros = {"n": 0, "share": 0.0, "plan": "0"}
    nulls = {"n": None, "share": None, "plan": None}
    users: dict[str, dict[str, Any]] = {"a": values, "b": extremes, "c": zeros, "d": nulls}
    probe.write(*(row(u, T0, T0, **v) for u, v in users.items()))
    assert probe.again().read(*users) == [(T0, v) for v in users.values()]


def test_reading_leaves_the_list_of_names_as_it_was(probe: Probe) -> None:
    names = ["n", "plan"]
    for n in range(3):
        assert probe.read("u", names=names)[0] == ((None, None) if n == 0 else (T0, {"n": n - 1, "plan": None}))
        probe.write(row("u", T0, None, n=n))
    assert names == ["n", "plan"]


def test_a_row_is_written_as_a_whole(probe: Probe) -> None:
    probe.write(row("u", T0, T0, n=1, plan="pro"))
    probe.write(row("u", T0 + US, T0, n=2))
    assert probe.read("u", names=["plan", "n"])[0][1] == {"plan": None, "n": 2}


def test_somebody_unknown_is_told_from_a_row_of_nulls(probe: Probe) -> None:
    probe.write(row("u", T0, T0, n=None))
    assert probe.read("nobody", "u", "nobody", names=["n"]) == [(None, None), (T0, {"n": None}), (None, None)]


def test_a_row_older_than_anything_is_still_served(probe: Probe) -> None:
    long_ago = datetime(1971, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    probe.write(row("u", long_ago, long_ago, n=1))
    assert probe.again().read("u", names=["n"]) == [(long_ago, {"n": 1})]


def test_thousands_of_rows_in_one_batch(probe: Probe) -> None:
    users = [f"user-{i}" for i in range(5_000)]
    probe.write(*(row(u, T0 + i * US, T0, n=i) for i, u in enumerate(users)))
    found = probe.read(*reversed(users), names=["n"])
    assert found == [(T0 + i * US, {"n": i}) for i in reversed(range(len(users)))]


def test_whoever_is_deleted_starts_anew_and_the_others_stay(probe: Probe) -> None:
    probe.write(row("u", T0, T0, n=1), row("v", T0, T0, n=1))
    probe.store.delete(probe.config, VIEW, [key("u")])
    assert probe.read("u", "v", names=["n"]) == [(None, None), (T0, {"n": 1})]
    probe.write(row("u", T0 - US, T0, n=2))
    assert probe.read("u", names=["n"]) == [(T0 - US, {"n": 2})]


def test_a_view_that_was_removed_starts_anew(probe: Probe) -> None:
    probe.write(row("u", T0, T0, n=1))
    probe.store.update(probe.config, [VIEW], [], [], [], False)
    probe.write(row("u", T0 - US, T0, n=2))
    assert probe.read("u", names=["n"]) == [(T0 - US, {"n": 2})]


def test_writers_in_other_processes_cannot_put_an_older_row_back(probe: Probe) -> None:
    """Two stores on one state, as two processes have: both compare in the store, not in memory."""
    other = probe.again()
    probe.write(row("u", T0 + US, T0, n=2))
    other.write(row("u", T0, T0, n=1))
    probe.write(row("v", T0, T0, n=3))
    assert other.read("u", "v", names=["n"]) == [(T0 + US, {"n": 2}), (T0, {"n": 3})]


def test_racing_threads_leave_the_newest_row(probe: Probe) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def write(i: int) -> None:
        probe.write(row("u", T0 + i * US, T0, n=i))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100, 0, -1)))
    assert probe.read("u", names=["n"]) == [(T0 + 100 * US, {"n": 100})]


def test_redis_refuses_to_expire_values() -> None:
    from feature_repo.feature_store.online import OrderedRedisOnlineStoreConfig

    with pytest.raises(ValueError, match="key_ttl_seconds"):
        OrderedRedisOnlineStoreConfig(key_ttl_seconds=60)  # type: ignore[arg-type]
