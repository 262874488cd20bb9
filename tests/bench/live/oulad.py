"""OULAD's busiest day once more, as fast as it goes, with everything before that day in the lake."""

import json
import shutil
import time
from datetime import UTC, datetime
from typing import Any

import ibis

from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from serving.times import rfc3339
from tests.bench import states
from tests.bench.figures import Cell, Table
from tests.bench.live import traffic
from tests.bench.live.sender import Plan, send
from tests.bench.live.service import Service, running
from tests.bench.live.world import CONNECTIONS, Part, Round, World
from tests.bench.options import Options, steps

DAY_US = traffic.DAY_US
SAMPLE = 10
"""People whose features are compared with the definition."""
FIRST = 40
"""People whose first click is sent before the clock starts."""
SMALL = 500
"""Clicks of the day that count with --small."""


def measure(world: World) -> Part:
    """One replay: there is but one busiest day."""
    if world.options.data is None:
        return Part(notes=["OULAD's busiest day: not measured, it needs OULAD's tables: make bench DATA=<folder>."])
    with world.options.bar() as progress:
        step = steps(progress, "oulad", 5)
        step("the lake before the busiest day")
        full = states.whole(world.options)
        day = busiest(full)
        settings = states.copied(world.options, before(world.options, full, day), "live/oulad")
        step("the day's clicks")
        clicks = clicks_of(full, day, SMALL if world.options.small else None)
        people = sorted({row["user_id"] for row in clicks})
        some = set(people[:: max(1, len(people) // FIRST)])
        early = {row["user_id"]: row for row in reversed(clicks) if row["user_id"] in some}
        rest = [row for row in clicks if early.get(row["user_id"]) is not row]
        traffic.write_bodies(world.file("day"), (wire(row) for row in rest))
        with running(settings, world.served.tracking_uri, day * DAY_US + DAY_US // 2) as service:
            step("waiting for the rows of the past")
            ready = _ready(service, list(early.values()))
            step("replaying")
            sent = send(Plan(service.port, "/v1/batch", str(world.file("day")), CONNECTIONS))
            service.settle([row["user_id"] for row in rest[:: -traffic.EACH][: 2 * CONNECTIONS]])
            seconds = time.time() - sent.began
            step("comparing")
            sample = people[:: max(1, len(people) // SAMPLE)]
            service.exact(sample, {user: [user] for user in sample})
    if sent.accepted != len(rest):
        raise RuntimeError(f"expected {len(rest)} accepted events; came {sent.accepted}")
    return _shown(rest, day, Lake(settings.lake).last_position() - len(clicks), ready, seconds)


def _ready(service: Service, first: list[dict[str, Any]]) -> float:
    """Seconds until the first clicks of some people are known: what changes by itself is caught up by then."""
    began = time.time()
    for row in first:
        service.send(wire(row))
    service.settle([row["user_id"] for row in first])
    return time.time() - began


def busiest(full: Settings) -> int:
    """The day with the most clicks, in days since 1970."""
    day = f"select ts_us // {DAY_US} as day from ({{lake}}) where name = '{states.CLICK}'"
    return int(_rows(full, f"{day} group by 1 order by count(*) desc, 1 limit 1")[0]["day"])


def clicks_of(full: Settings, day: int, most: int | None) -> list[dict[str, Any]]:
    """The clicks of a day, in the order of their positions; at most so many."""
    of_day = f"name = '{states.CLICK}' and ts_us // {DAY_US} = {day}"
    return _rows(full, f"select * from ({{lake}}) where {of_day} order by position limit {most or 'null'}")


def wire(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the lake as an SDK would send it."""
    ids = {"messageId": row["message_id"], "userId": row["user_id"], "timestamp": rfc3339(row["ts_us"])}
    return ids | {"type": "track", "event": row["name"], "properties": json.loads(row["properties"])}


def _rows(full: Settings, query: str) -> list[dict[str, Any]]:
    """The rows of a query, in which {lake} is the lake."""
    con = ibis.duckdb.connect()
    found = con.raw_sql(query.format(lake=Lake(full.lake).snapshot(con).every())).to_arrow_table()
    con.disconnect()
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def before(options: Options, full: Settings, day: int) -> Settings:
    """A state whose lake ends with the day before; made once."""
    settings = full.replace(home=(options.folder / f"oulad-until-{day}").resolve())
    if (settings.state / "outcomes.parquet").exists():
        return settings
    shutil.rmtree(settings.home, ignore_errors=True)
    con = ibis.duckdb.connect()
    every, lake = Lake(full.lake).snapshot(con).every(), Lake(settings.lake)
    rows = f"select * exclude (position, content_hash) from ({every}) where ts_us < {day * DAY_US}"
    lake.append_table(con.con.sql(rows))
    lake.compact()
    con.disconnect()
    shutil.copy(full.state / "outcomes.parquet", settings.state / "outcomes.parquet")  # last: it says done
    return settings


def _shown(clicks: list[dict[str, Any]], day: int, before: int, ready: float, seconds: float) -> Part:
    rate, people = len(clicks) / seconds, len({row["user_id"] for row in clicks})
    name = f"{datetime.fromtimestamp(day * DAY_US / 1e6, UTC):%-d %B %Y}"
    row: list[Cell] = [name, len(clicks), people, before, round(seconds, 1), round(rate)]
    columns = ["day", "clicks", "people", "events before it, in the lake", "s", "events/s"]
    note = (
        f"Before that it took {ready:.0f} s until the service, just started, knew the first clicks of some of "
        f"these people. The features of {SAMPLE} people were compared with the definition, all equal."
    )
    rounds: list[Round] = [{"part": "oulad", "round": 1, "which": "day", "seconds": seconds, "events_s": rate}]
    return Part([], [Table("Replay of OULAD's busiest day", columns, [row])], [note], rounds)
