"""What is held of one user, over HTTP, beside lakes of several sizes: uncompacted and compacted."""

import random
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.lake import lake_index
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_index import LakeIndex
from feature_repo.settings import Settings, now_us
from tests.bench.figures import Cell, Check, Result, Table, quantile
from tests.bench.live.service import Service, running
from tests.bench.options import Options, steps

TITLE = "Look-up of a user"
ROUNDS = 5
EACH, SHARED = 50, 50
"""Events of a user; of how many users one uses the device of another."""
BATCH = 50_000
"""Events of one file of the log, as a source's ingest writes them."""
SPAN_US, ACTIVE_US = 180 * 86_400_000_000, 14 * 86_400_000_000
ASKED = 60
"""Users who are asked for in a round."""
P50_MS, P99_MS = 50.0, 250.0
ROUTES = {"user": "", "why": "/why"}
KINDS = ["page", "track", "track", "track"]
NAMES = [None, "Clicked", "Feature Used", "File Uploaded"]
PROPERTIES = ['{"path":"/app"}', '{"target":"save"}', '{"feature":"editor"}', '{"bytes":12345}']
CONTEXT = (
    '{"device":{"type":"phone"},"locale":"en-GB","userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}'
)


def measure(options: Options) -> Result:
    """p50 and p99 of both routes for users drawn by chance, for each size and layout."""
    many, rounds = options.rounds or ROUNDS, list[dict[str, Cell]]()
    with options.bar() as progress:
        step = steps(progress, "lookup", len(options.sizes) * (2 * many + 3))
        for millions in options.sizes:
            step(f"{millions:g} million events are written")
            settings = lake_of(options, millions)
            step(f"{millions:g} million: the service starts")
            with running(settings, settings.tracking_uri) as service:
                for layout in ("uncompacted", "compacted"):
                    if layout == "compacted":
                        step(f"{millions:g} million: compaction")
                        lake_index.compact(settings, progress=False)
                    for number in range(many):
                        step(f"{millions:g} million, {layout}, round {number + 1}")
                        found = asked(service, drawn(millions, seed=number))
                        rounds.append({"events": int(millions * 1e6), "layout": layout, "round": number + 1, **found})
            shutil.rmtree(settings.home)
    return Result(TITLE, checks(rounds), [table(rounds)], NOTES, rounds)


NOTES = [
    f"{EACH} events a user, every {SHARED}th of whom uses another's device; {BATCH:,} a file of the log, as an ingest "
    f"writes them. Each round asks for {ASKED} users by chance, one after the other over one connection, after a "
    "decision for each. Times from sending a request to its whole answer, with the service's other work going on.",
]


def lake_of(options: Options, millions: float) -> Settings:
    """A new state whose lake holds so many million events, in the order of time, and nothing else."""
    settings = Settings(home=options.folder / f"lookup-{millions:g}M", domain="saas", online="sqlite")
    shutil.rmtree(settings.home, ignore_errors=True)
    lake = Lake(settings.lake)
    for rows in batches(int(millions * 1e6)):
        lake.append_table(rows)
    LakeIndex(settings).refresh()
    return settings


def batches(total: int, seed: int = 5) -> Iterator[pa.Table]:
    """So many events in the order of time: each user is active for two weeks of half a year."""
    chance = np.random.default_rng(seed)
    users = np.repeat(np.arange(total // EACH), EACH)
    begins = chance.integers(0, SPAN_US, total // EACH)
    after = np.sort(chance.integers(0, ACTIVE_US, (total // EACH, EACH)), axis=1).ravel()
    at = now_us() - SPAN_US - ACTIVE_US + begins[users] + after
    order = np.argsort(at, kind="stable")
    for first, last in pairwise([*range(0, len(order), BATCH), len(order)]):
        yield _rows(order[first:last], users, at)


def _rows(places: Any, users: Any, at: Any) -> pa.Table:
    user, number, ts_us = users[places], places % EACH, at[places]
    device = np.where(user % SHARED == 1, user - 1, user)
    ids, devices = (
        pc.binary_join_element_wise(p, pa.array(i).cast(pa.string()), "")
        for p, i in (("user-", user), ("device-", device))
    )
    kind = number % len(KINDS)
    anonymous, link = number < 3, number == 3
    chosen = {"name": NAMES, "properties": PROPERTIES, "type": KINDS}
    columns = {name: pa.array(values).take(pa.array(kind)) for name, values in chosen.items()}
    columns["type"] = pc.if_else(pa.array(link), "identify", columns["type"])
    columns["name"] = pc.if_else(pa.array(link), pa.scalar(None, pa.string()), columns["name"])
    columns["user_id"] = pc.if_else(pa.array(anonymous), pa.scalar(None, pa.string()), ids)
    columns["message_id"] = pc.binary_join_element_wise("message-", pa.array(places).cast(pa.string()), "")
    columns["traits"] = pc.if_else(pa.array(link), '{"plan":"free"}', "{}")
    columns["context"] = pa.array([CONTEXT]).take(pa.array(np.zeros(len(places), np.int64)))
    return pa.table(columns | {"anonymous_id": devices, "ts_us": ts_us, "received_us": ts_us})


def drawn(millions: float, seed: int) -> list[str]:
    """Users by chance."""
    return [f"user-{n}" for n in random.Random(seed).sample(range(int(millions * 1e6) // EACH), ASKED)]


def asked(service: Service, users: Sequence[str]) -> dict[str, Cell]:
    """Milliseconds of each route, for users about whom something was decided.

    Raises:
        RuntimeError: an answer lacks events or is no answer.
    """
    service.client.post("/v1/decide/batch", json={"userIds": list(users)}).raise_for_status()
    time.sleep(1.0)  # until the decision log is written
    found: dict[str, Cell] = {}
    for name, path in ROUTES.items():
        took = []
        for user in users:
            began = time.perf_counter()
            answer = service.client.get(f"/v1/users/{user}{path}")
            took.append((time.perf_counter() - began) * 1000)
            if answer.status_code != 200 or (name == "user" and not answer.json()["events"]):
                raise RuntimeError(
                    f"{user}{path}: expected what is held; came {answer.status_code}: {answer.text[:300]}"
                )
        found |= {f"{name}_p50_ms": round(quantile(took, 0.5), 1), f"{name}_p99_ms": round(quantile(took, 0.99), 1)}
    return found


def checks(rounds: Sequence[dict[str, Cell]]) -> list[Check]:
    """The worst round of every size and layout against the targets, and how the time grows with the lake."""

    def worst(name: str) -> float:
        return max(float(r[name] or 0) for r in rounds)

    def of_size(events: int) -> float:
        return quantile([float(r["user_p50_ms"] or 0) for r in rounds if r["events"] == events], 0.5)

    sizes = sorted({int(r["events"] or 0) for r in rounds})
    routes = [
        Check(f"{path or 'what is held'}, {q}, the slowest round", worst(f"{name}_{q}_ms"), target, True, "ms")
        for name, path in ROUTES.items()
        for q, target in (("p50", P50_MS), ("p99", P99_MS))
    ]
    growth = of_size(sizes[-1]) / of_size(sizes[0])
    return [
        *routes,
        Check(f"{sizes[-1] / sizes[0]:g} times the events: p50 in times of the smallest's", growth, None, True, "x"),
    ]


def table(rounds: Sequence[dict[str, Cell]]) -> Table:
    """The curve over size: the median of the rounds."""
    names = [f"{route}_{q}_ms" for route in ROUTES for q in ("p50", "p99")]
    rows: list[list[Cell]] = []
    for events, layout in sorted({(int(r["events"] or 0), str(r["layout"])) for r in rounds}):
        those = [r for r in rounds if (r["events"], r["layout"]) == (events, layout)]
        rows.append([events, layout, *(quantile([float(r[n] or 0) for r in those], 0.5) for n in names)])
    heads = [f"{path or 'held'} {q}, ms" for path in ROUTES.values() for q in ("p50", "p99")]
    return Table("Milliseconds beside lakes of several sizes, medians of the rounds", ["events", "lake", *heads], rows)
