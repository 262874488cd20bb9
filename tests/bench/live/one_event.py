"""One event, from HTTP 200 to the person's online row, beside Feast's own ways to get one row online."""

import time
from collections.abc import Callable
from functools import partial
from random import Random
from statistics import median
from typing import Any

from tests.bench.figures import Cell, Table, highest, paired, quantile
from tests.bench.live.naive import ByHand, feast_serve
from tests.bench.live.service import freshness
from tests.bench.live.traffic import click
from tests.bench.live.world import Part, Round, World

OURS, FORMER, PUSH, SERVE = "ours", "former", "push", "serve"
WORDS = {
    OURS: "POST /v1/batch begun → features online",
    FORMER: "the same, first event of somebody whose past is in the lake only",
    PUSH: "`store.push` of one row, in process",
    SERVE: "`feast serve`, /push of one row",
}
AIM_MS = 10.0


def measure(world: World) -> Part:
    """Rounds of all ways in turn."""
    pusher = world.enter(feast_serve(world.naive, world.served))
    ways: dict[str, Callable[[int], Round]] = {
        OURS: lambda number: _ours(world, world.people, number),
        FORMER: lambda number: _ours(world, world.former[number :: world.rounds], number),
        PUSH: partial(_theirs, world, lambda row: world.naive.push([row])),
        SERVE: partial(_theirs, world, pusher.push),
    }
    freshness(world.service, world.people, min(1.0, world.options.seconds), 99)  # warm
    return _shown(world.in_turn("one_event", ways))


def _ours(world: World, people: list[str], number: int) -> Round:
    durable, whole = freshness(world.service, people, world.options.seconds, number)
    return {"durable_p50_ms": quantile(durable, 0.5), "durable_p99_ms": quantile(durable, 0.99)} | figures(whole)


def _theirs(world: World, push: Callable[[dict[str, Any]], None], number: int) -> Round:
    """The same clicks, counted by hand, row after row.

    Raises:
        RuntimeError: the last row is not online.
    """
    by_hand, chance, milliseconds = ByHand(world.service.domain), Random(number), list[float]()
    until, row = time.perf_counter() + world.options.seconds, dict[str, Any]()
    while not milliseconds or time.perf_counter() < until:
        event = click(chance.choice(world.people), world.service.message())
        began = time.perf_counter()
        row = by_hand.row(event)
        push(row)
        milliseconds.append((time.perf_counter() - began) * 1000)
    if (found := world.naive.clicks(row["user_id"])) != row["clicks"]:
        raise RuntimeError(f"Feast: expected {row['clicks']} clicks of {row['user_id']} online; came {found}")
    return figures(milliseconds)


def figures(milliseconds: list[float]) -> Round:
    """Of one round."""
    return {
        "events": len(milliseconds),
        "p50_ms": quantile(milliseconds, 0.5),
        "p99_ms": quantile(milliseconds, 0.99),
    }


def of(rounds: list[Round], which: str, what: str) -> list[float]:
    """A figure of one way, a value a round."""
    return [float(r[what] or 0) for r in rounds if r["which"] == which]


def _shown(rounds: list[Round]) -> Part:
    ours = of(rounds, OURS, "p50_ms")
    checks = [
        highest("one event, HTTP 200 → features online, p50", of(rounds, OURS, "durable_p50_ms"), AIM_MS, "ms"),
        highest("one event, HTTP 200 → features online, p99", of(rounds, OURS, "durable_p99_ms"), None, "ms"),
        paired("one event, request begun → online, p50, against `store.push`", ours, of(rounds, PUSH, "p50_ms")),
        paired("one event, request begun → online, p50, against `feast serve`", ours, of(rounds, SERVE, "p50_ms")),
    ]
    rows: list[list[Cell]] = [["HTTP 200 → features online", *_medians(rounds, OURS, "durable_")]]
    rows += [[words, *_medians(rounds, which, "")] for which, words in WORDS.items()]
    return Part(checks, [Table("One event", ["way", "p50 ms", "p99 ms"], rows)], [], rounds)


def _medians(rounds: list[Round], which: str, before: str) -> list[Cell]:
    return [round(median(of(rounds, which, f"{before}{what}")), 2) for what in ("p50_ms", "p99_ms")]
