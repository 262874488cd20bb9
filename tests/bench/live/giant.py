"""Whether somebody with a very long past stalls the others: their freshness while that person gets events all the time.

Beside it stands the same while somebody with a short past gets the same events.
"""

from functools import partial
from statistics import median

from tests.bench.figures import Cell, Table, highest, paired
from tests.bench.live import traffic
from tests.bench.live.one_event import AIM_MS, figures, of
from tests.bench.live.sender import Plan, meanwhile
from tests.bench.live.service import freshness
from tests.bench.live.world import GIANT, ORDINARY, ORDINARY_PAST, Part, Round, World

PER_SECOND = 20.0
"""Events a second of the one."""
OWN = "own"


def measure(world: World) -> Part:
    """Rounds beside the one and beside the other, and of the person's own freshness."""
    world.service.settle([GIANT])
    ways = {which: partial(_round, world, which) for which in (GIANT, ORDINARY, OWN)}
    return _shown(world.in_turn("giant", ways), world.options.giant)


def _round(world: World, which: str, number: int) -> Round:
    service, seconds = world.service, world.options.seconds
    if which == OWN:
        durable, _ = freshness(service, [GIANT], seconds, number)
        return figures(durable)
    path, many = world.file(which), int((seconds * 10 + 60) * PER_SECOND)
    traffic.write_bodies(path, (traffic.click(which, service.message()) for _ in range(many)), 1)
    with meanwhile(Plan(service.port, "/v1/batch", str(path), 2, PER_SECOND)):
        durable, _ = freshness(service, world.people, seconds, number)
    service.settle([which])
    service.rest()
    return figures(durable)


def _shown(rounds: list[Round], giant: int) -> Part:
    beside = {n: of(rounds, GIANT, f"p{n}_ms") for n in (50, 99)}
    without = {n: of(rounds, ORDINARY, f"p{n}_ms") for n in (50, 99)}
    name = f"others, HTTP 200 → online, while one with {giant:,} events gets {PER_SECOND:g}/s"
    checks = [
        highest(f"{name}, p50", beside[50], AIM_MS, "ms"),
        highest(f"{name}, p99", beside[99], None, "ms"),
        *(paired(f"the same, p{n}, against one with {ORDINARY_PAST} events", beside[n], without[n]) for n in (50, 99)),
    ]
    words = {
        ORDINARY: f"others, while one with {ORDINARY_PAST} events gets {PER_SECOND:g}/s",
        GIANT: f"others, while one with {giant:,} events gets {PER_SECOND:g}/s",
        OWN: f"the one with {giant:,} events, alone",
    }
    rows: list[list[Cell]] = [
        [w, *(round(median(of(rounds, which, p)), 2) for p in ("p50_ms", "p99_ms"))] for which, w in words.items()
    ]
    return Part(
        checks, [Table("One with a very long past", ["HTTP 200 → online of", "p50 ms", "p99 ms"], rows)], [], rounds
    )
