"""Point-in-time rows through the feature service, against DuckDB's own ASOF join over the same Parquet."""

import time
from collections.abc import Callable
from statistics import median

import duckdb
import numpy as np
import pandas as pd

from feature_repo import domains
from feature_repo.lake.lake_sql import literal
from feature_repo.settings import Settings
from tests.bench import states
from tests.bench.figures import Cell, Result, Table, alternated, paired
from tests.bench.options import Options, steps

TITLE = "Training set"
ROUNDS = 5
SERVICE, DATASET, ASOF, KEYS_FIRST = "service", "dataset", "asof", "keys_first"
WORDS = {
    SERVICE: "`get_historical_features(...).to_df()` of the feature service",
    DATASET: "`training.dataset.with_features`: the same, merged with the observations and typed",
    ASOF: "DuckDB's ASOF join over the wide rows",
    KEYS_FIRST: "DuckDB by hand: ASOF over the keys alone, then a hash join of the wide rows",
}
Way = Callable[[], pd.DataFrame]


def measure(options: Options) -> Result:
    """The same rows in four ways, in turn."""
    settings = _state(options)
    asked = entities(settings, options.rows)
    ways = _ways(settings, asked)
    _same(settings, {name: way() for name, way in ways.items()})
    rounds: list[dict[str, Cell]] = []
    many = options.rounds or ROUNDS
    with options.bar() as progress:
        step = steps(progress, "training set", many * len(ways))
        for number in range(many):
            for name in alternated(list(ways), number):
                step(f"{name}, round {number + 1}")
                began = time.perf_counter()
                ways[name]()
                rounds.append({"round": number + 1, "which": name, "seconds": time.perf_counter() - began})
    return _shown(rounds, settings, len(asked))


def _state(options: Options) -> Settings:
    """OULAD where its tables were given, else simulated sign-ups."""
    if options.data is None:
        return states.served(options)
    full = states.whole(options)
    return states.filled(states.of_size(options, full, options.sizes[-1]) if options.small else full)


def entities(settings: Settings, rows: int, seed: int = 7) -> pd.DataFrame:
    """user_id, event_timestamp, now_us: people drawn at random, each at a random time of their onboarding; no twice."""
    people = domains.load(settings.domain).outcomes(settings).to_pandas()
    random = np.random.default_rng(seed)
    drawn = people.iloc[random.integers(0, len(people), rows)].reset_index(drop=True)
    span = (drawn["end_us"] - drawn["anchor_us"]).clip(lower=1)
    at = (drawn["anchor_us"] + (random.random(rows) * span).astype("int64")).astype("int64")
    when = pd.to_datetime(at, unit="us", utc=True).astype("datetime64[us, UTC]")
    found = pd.DataFrame({"user_id": drawn["user_id"], "event_timestamp": when, "now_us": at})
    return found.drop_duplicates(["user_id", "now_us"], ignore_index=True)


def _ways(settings: Settings, asked: pd.DataFrame) -> dict[str, Way]:
    from feature_repo.feature_store.definitions import service_name
    from feature_repo.feature_store.store import feature_store
    from training import dataset

    domain = domains.load(settings.domain)
    store = feature_store(settings, lineage=False)
    service = store.get_feature_service(service_name(domain))
    names = ", ".join(f'f."{name}"' for name in domain.service()[0])
    rows = f"read_parquet({literal(str(settings.features / '*.parquet'))})"
    return {
        SERVICE: lambda: store.get_historical_features(entity_df=asked, features=service).to_df(),
        DATASET: lambda: dataset.with_features(settings, asked),
        ASOF: lambda: _duckdb(settings, asked, asof_sql(names, rows)),
        KEYS_FIRST: lambda: _duckdb(settings, asked, keys_first_sql(names, rows)),
    }


def asof_sql(names: str, rows: str) -> str:
    """The join as DuckDB's documentation writes it."""
    return f"""select e.*, {names} from e asof left join {rows} f
        on e.user_id = f.user_id and e.event_timestamp >= f.event_timestamp"""


def keys_first_sql(names: str, rows: str) -> str:
    """The same rows by a join that sorts narrow rows only."""
    return f"""with k as (select e.*, t.event_timestamp as matched from e asof left join
            (select user_id, event_timestamp from {rows}) t
            on e.user_id = t.user_id and e.event_timestamp >= t.event_timestamp)
        select k.* exclude (matched), {names} from k left join {rows} f
            on k.user_id = f.user_id and k.matched = f.event_timestamp"""


def _duckdb(settings: Settings, asked: pd.DataFrame, sql: str) -> pd.DataFrame:
    """Run one of them in a fresh DuckDB, to a data frame; `asked` becomes a table first, or the plan is a bad one."""
    with duckdb.connect(config={"temp_directory": str(settings.state / "tmp")}) as con:
        con.execute("set TimeZone = 'UTC'; set preserve_insertion_order = false")
        con.execute("create temp table e as select * from asked")
        return con.execute(sql).df()


def _same(settings: Settings, found: dict[str, pd.DataFrame]) -> None:
    """All ways must give the same rows and the same values, as far as sums and counts of nulls can tell.

    Raises:
        RuntimeError: they do not.
    """
    stored = domains.load(settings.domain).service()[0]
    expected = _summary(found[ASOF], stored)
    for name, frame in found.items():
        wrong = [c for c, (a, b) in _beside(_summary(frame, stored), expected) if not np.allclose(a, b, rtol=1e-9)]
        if wrong:
            raise RuntimeError(f"{WORDS[name]}: expected the values of the ASOF join; {', '.join(wrong)} differ")


def _summary(frame: pd.DataFrame, columns: list[str]) -> dict[str, tuple[float, float, float]]:
    """Rows, nulls and sum (of texts: of their lengths) by column."""
    summed = {}
    for column in columns:
        values = frame[column]
        text = pd.api.types.infer_dtype(values, skipna=True) == "string"
        numbers = values.dropna().map(len) if text else pd.to_numeric(values)
        summed[column] = (float(len(values)), float(values.isna().sum()), float(numbers.astype("float64").sum()))
    return summed


def _beside(a: dict, b: dict) -> list[tuple[str, tuple]]:
    return [(name, (a[name], b[name])) for name in b]


def _shown(rounds: list[dict[str, Cell]], settings: Settings, rows: int) -> Result:
    seconds = {w: [float(r["seconds"] or 0) for r in rounds if r["which"] == w] for w in WORDS}
    stored = duckdb.sql(
        f"select count(*) from read_parquet({literal(str(settings.features / '*.parquet'))})"
    ).fetchone()
    checks = [
        paired("time of the feature service, against DuckDB's ASOF join", seconds[SERVICE], seconds[ASOF], 4),
        paired("time of the whole of `with_features`, against the same", seconds[DATASET], seconds[ASOF], 4),
        paired("time of the feature service, against the two joins by hand", seconds[SERVICE], seconds[KEYS_FIRST]),
    ]
    table: list[list[Cell]] = [[WORDS[w], round(median(s), 3), round(rows / median(s))] for w, s in seconds.items()]
    note = f"{rows:,} rows over {stored[0] if stored else 0:,} feature rows of `{settings.domain}`."
    return Result(TITLE, checks, [Table("Median times", ["way", "s", "rows/s"], table)], [note], rounds)
