"""The states that the bench measures on: made once under <home>/bench, reused by the next run."""

import shutil

import ibis
import pyarrow.parquet as pq

from feature_repo import domains
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings, now_us
from tests.bench.options import Options

CLICK = "Viewed"
"""Name of OULAD's click events."""


def whole(options: Options) -> Settings:
    """OULAD ingested and compacted.

    Raises:
        ValueError: no folder of OULAD's tables was given.
    """
    settings = Settings(home=options.folder / "oulad", domain="oulad", online="sqlite")
    domains.load("oulad").ingest(settings, options.data)
    Lake(settings.lake).compact()
    return settings


def of_size(options: Options, full: Settings, millions: float) -> Settings:
    """About so many million clicks of it: whole people, drawn by a hash that has nothing to do with the buckets."""
    settings = full.replace(home=options.folder / f"oulad-{millions:g}M")
    if (settings.state / "outcomes.parquet").exists():
        return settings
    shutil.rmtree(settings.home, ignore_errors=True)
    con = ibis.duckdb.connect()
    every = Lake(full.lake).snapshot(con).every()
    total = con.raw_sql(f"select count(*) from ({every}) where name = '{CLICK}'").fetchone()[0]
    drawn = f"('0x' || left(md5('size:' || user_id), 8))::ubigint < {min(1.0, millions * 1e6 / total)} * 4294967296"
    lake = Lake(settings.lake)
    lake.append_table(con.con.sql(f"select * exclude (position, content_hash) from ({every}) where {drawn}"))
    lake.compact()
    people = con.con.from_arrow(domains.load("oulad").outcomes(full))
    pq.write_table(people.filter(drawn).to_arrow_table(), settings.state / "outcomes.parquet")  # last: it says done
    con.disconnect()
    return settings


def clicks(settings: Settings) -> tuple[int, int]:
    """(clicks, events) of a compacted lake."""
    con = ibis.duckdb.connect()
    every = Lake(settings.lake).snapshot(con).every()
    row = con.raw_sql(f"select count(*) filter (where name = '{CLICK}'), count(*) from ({every})").fetchone()
    con.disconnect()
    return int(row[0]), int(row[1])


def filled(settings: Settings) -> Settings:
    """The same with offline feature rows, and known to Feast."""
    from feature_repo.feature_store.backfill import backfill
    from feature_repo.feature_store.store import apply

    backfill(settings)
    apply(settings)
    return settings


def served(options: Options) -> Settings:
    """Simulated sign-ups with a champion, online rows in force now and everybody's segments followed until now, or the
    state that --state names.

    Raises:
        NoModelError: that state has no champion.
    """
    from feature_repo.feature_store.materialize import materialize
    from serving import playbook
    from serving.segments.fill import fill
    from training import registry

    given = options.state
    name = "saas-small" if options.small else "saas"
    settings = Settings(home=(given or options.folder / name).resolve(), domain="saas", online="sqlite")
    if given is None and registry.champion_version(settings) is None:
        _train(settings, options)
    model, now, domain = registry.load(settings), now_us(), domains.load(settings.domain)
    materialize(settings, now)
    fill(settings, domain, playbook.for_domain(domain), model, now)
    return settings


def copied(options: Options, settings: Settings, name: str, online: str = "sqlite") -> Settings:
    """A copy of a domain's state in a home of its own, for a service that takes events in; an earlier one is gone.

    Models stay where they are: the service needs the first state's tracking address.
    """
    copy = settings.replace(home=(options.folder / name).resolve(), online=online)
    shutil.rmtree(copy.home, ignore_errors=True)
    shutil.copytree(settings.state, copy.state, ignore=shutil.ignore_patterns("decisions", "report", "tmp", "*.lock"))
    return copy


def _train(settings: Settings, options: Options) -> None:
    """Ingest, backfill, train, and put @champion on what came of it: how good it is does not matter here."""
    from training.plan import Plan
    from training.promote import promote
    from training.train import train

    shutil.rmtree(settings.home, ignore_errors=True)
    domains.load("saas").ingest(settings, None, users=options.users)
    filled(settings)
    trained = train(settings, now_us(), Plan(trials=3, timeout=10.0, draws=50))
    promote(settings, trained.version, reason="for the bench")
