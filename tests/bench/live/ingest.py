"""Sustained ingest: events over HTTP until every feature is up to date, and exact; beside what one would write."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from feature_repo.contract.events import ANONYMOUS
from feature_repo.domain import Domain
from tests.bench.figures import Cell, Table, lowest, paired
from tests.bench.live import traffic
from tests.bench.live.naive import ByHand
from tests.bench.live.one_event import of
from tests.bench.live.sender import Plan, send
from tests.bench.live.service import Service
from tests.bench.live.world import CONNECTIONS, Part, Round, World

EMBEDDED, REDIS, PUSH, WRITE, BATCHES = "embedded", "redis", "push", "write", "batches"
WORDS = {
    EMBEDDED: "Firstmile, embedded: HTTP, durable, exact",
    REDIS: "Firstmile, online store on Redis: HTTP, durable, exact",
    PUSH: "by hand, `store.push` for each event",
    WRITE: "by hand, `write_to_online_store` for each event",
    BATCHES: "by hand, `write_to_online_store` once for 100 events",
}
AIMS = {EMBEDDED: 3_000.0, REDIS: 6_000.0}
EVENTS_EACH = 10
"""Events of a person in one round."""
SAMPLE = 40
"""People whose features are compared with the definition, a round."""
SINGLE, BATCHED = 60, 6
"""Of how many events one goes to the loops by hand, with a write for each and for 100: more would only take longer."""


def measure(world: World) -> Part:
    """Rounds of all ways in turn."""
    many = world.options.events
    ways: dict[str, Callable[[int], Round]] = {EMBEDDED: partial(through, world, world.service, EMBEDDED, many)}
    if world.on_redis is not None:
        ways[REDIS] = partial(through, world, world.on_redis, REDIS, many)
    ways[PUSH] = partial(_by_hand, world.naive.push, world.service.domain, max(20, many // SINGLE), 1)
    ways[WRITE] = partial(_by_hand, world.naive.write, world.service.domain, max(20, many // SINGLE), 1)
    ways[BATCHES] = partial(_by_hand, world.naive.write, world.service.domain, many // BATCHED, traffic.EACH)
    rounds = world.in_turn("ingest", ways)
    world.limit = median(of(rounds, EMBEDDED, "events_s"))
    return _shown(rounds, many)


def through(world: World, service: Service, run: str, many: int, number: int) -> Round:
    """So many events of many people into a service, from the first request to the last row.

    Raises:
        RuntimeError: an event is missing, or a feature is not what its definition says.
    """
    users = traffic.crowd(f"{run}{number}", max(10, many // EVENTS_EACH))
    sent = list(traffic.events(f"{run}{number}", users, many))
    path = world.file("bodies")
    traffic.write_bodies(path, sent)
    found = send(Plan(service.port, "/v1/batch", str(path), CONNECTIONS))
    caught_up(service, sent)
    seconds = time.time() - found.began
    sample = sorted({e["userId"] for e in sent if "userId" in e})
    sample = sample[:: max(1, len(sample) // SAMPLE)]
    service.exact(sample, {u: traffic.senders(u) for u in sample})
    service.rest()
    if found.accepted != many:
        raise RuntimeError(f"expected {many} accepted events; came {found.accepted}")
    if service.settings.online != "sqlite":
        service.forget([sender for user in users for sender in traffic.senders(user)])
    return {
        "events": many,
        "events_s": many / seconds,
        "answered_s": many / (found.ended - found.began),
        "again": found.again,
        "busy": found.busy,
    }


def caught_up(service: Service, sent: list[dict[str, Any]]) -> None:
    """Wait until all is applied, and decisions for those who were sent last say so."""
    last = range(len(sent) - 1, max(-1, len(sent) - 1 - 2 * CONNECTIONS * traffic.EACH), -traffic.EACH)
    service.settle([sent[n].get("userId") or f"{ANONYMOUS}{sent[n]['anonymousId']}" for n in last])


def _by_hand(write: Callable[[list[dict[str, Any]]], None], domain: Domain, many: int, each: int, number: int) -> Round:
    """Counters by hand, and a write for every `each` events."""
    run = f"{each}-{number}"
    sent = list(traffic.events(run, traffic.crowd(run, max(10, many // EVENTS_EACH)), many))
    by_hand, began = ByHand(domain), time.perf_counter()
    for start in range(0, many, each):
        write([by_hand.row(event) for event in sent[start : start + each]])
    return {"events": many, "events_s": many / (time.perf_counter() - began)}


def _shown(rounds: list[Round], many: int) -> Part:
    names = {str(r["which"]) for r in rounds}
    checks = [
        lowest(f"ingest with exact features, {name}", of(rounds, name, "events_s"), aim, "events/s")
        for name, aim in AIMS.items()
        if name in names
    ]
    ours = of(rounds, EMBEDDED, "events_s")
    checks += [
        paired(f"events/s, embedded, against {WORDS[name]}", ours, of(rounds, name, "events_s"), None, at_most=False)
        for name in (PUSH, WRITE, BATCHES)
    ]
    rows: list[list[Cell]] = [[w, round(median(of(rounds, n, "events_s")))] for n, w in WORDS.items() if n in names]
    busy = max(float(r.get("busy") or 0) for r in rounds)
    notes = [
        f"{many:,} events of {max(10, many // EVENTS_EACH):,} new people a round, {traffic.EACH} a request, "
        f"{CONNECTIONS} connections; the features of {SAMPLE} people were compared with the definition in every round, "
        f"all equal. The sender was busy at most {busy:.0%} of a core."
    ]
    if REDIS not in names:
        notes.append("On Redis: not measured, there is no redis-server here.")
    return Part(checks, [Table("Sustained ingest", ["way", "events/s"], rows)], notes, rounds)
