"""Decisions while events come in at half of what the service takes, beside the same with no events."""

from functools import partial
from statistics import median

import msgspec

from tests.bench.figures import Cell, Table, paired
from tests.bench.live import ingest, traffic
from tests.bench.live.one_event import figures, of
from tests.bench.live.sender import Plan, meanwhile, send
from tests.bench.live.world import CONNECTIONS, Part, Round, World

PER_SECOND = 100.0
"""Decisions a second: each at its time, whether the one before it has been answered or not."""
QUIET, OTHERS, SAME = "quiet", "others", "same"
WORDS = {
    QUIET: "no events come in",
    OTHERS: "events at half the limit, decisions for other people",
    SAME: "events at half the limit, decisions for those whose events they are",
}
AHEAD_S = 30.0
"""For how much longer than a load events are ready, so that they do not run out."""


def measure(world: World) -> Part:
    """Rounds of all three in turn."""
    if world.limit is None:
        found = ingest.through(world, world.service, "limit", world.options.events, 0)
        world.limit = float(found["events_s"] or 0)
    rounds = world.in_turn("decisions", {which: partial(_round, world, which) for which in WORDS})
    return _shown(rounds, world.limit / 2)


def _round(world: World, which: str, number: int) -> Round:
    if which == QUIET:
        return _decide(world, world.people)
    service, half = world.service, (world.limit or 0) / 2
    many = int(half * (world.options.seconds + AHEAD_S))
    run = f"{which}{number}"
    users, path = traffic.crowd(run, max(10, int(half))), world.file("half")
    traffic.write_bodies(path, traffic.events(run, users, many))
    with meanwhile(Plan(service.port, "/v1/batch", str(path), CONNECTIONS, half / traffic.EACH)):
        found = _decide(world, users if which == SAME else world.people)
    service.ready()
    service.rest()
    return found


def _decide(world: World, people: list[str]) -> Round:
    many, path = int(PER_SECOND * world.options.seconds), world.file("decide")
    asked = (msgspec.json.encode({"userId": people[n * 7 % len(people)]}) for n in range(many))
    path.write_bytes(b"\n".join(asked) + b"\n")
    return figures(send(Plan(world.service.port, "/v1/decide", str(path), 16, PER_SECOND)).latencies_ms)


def _shown(rounds: list[Round], half: float) -> Part:
    quiet = of(rounds, QUIET, "p99_ms")
    checks = [
        paired(f"decide p99, {WORDS[name]}, against none", of(rounds, name, "p99_ms"), quiet) for name in (OTHERS, SAME)
    ]
    rows: list[list[Cell]] = [
        [words, *(round(median(of(rounds, which, p)), 2) for p in ("p50_ms", "p99_ms"))]
        for which, words in WORDS.items()
    ]
    note = (
        f"Half the limit: {half:,.0f} events/s, {traffic.EACH} a request; {PER_SECOND:g} decisions/s, each "
        "timed from when it was due."
    )
    return Part(checks, [Table("Decisions beside ingest", ["while", "p50 ms", "p99 ms"], rows)], [note], rounds)
