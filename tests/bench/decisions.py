"""The whole decision against the plain one of the loop: same people, same model, same features, in turn.

plain: features, score, the elements of the engagement segment, receipt. whole: with rules and what they remember,
policy with its boundaries, feedback, experiments. Both in this process, and as services over HTTP, which is what a
caller feels.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from feature_repo import domains
from feature_repo.contract.feedback import CLICKED, COMPLETED, DISMISSED, SHOWN, VIEWED
from feature_repo.settings import Settings, now_us
from feature_repo.vocabulary import HOUR, MINUTE
from serving import wiring
from serving.engine import Engine
from serving.times import rfc3339
from tests.bench import books, states
from tests.bench.contenders import Contender
from tests.bench.decide import asked, figures, known, of
from tests.bench.figures import Cell, Check, Result, Table, alternated, paired
from tests.bench.live.service import running
from tests.bench.load import Plan
from tests.bench.options import Options, Step, steps

TITLE = "Decisions"
ROUNDS = 15
PEOPLE = 60
"""Few, because what is remembered of each is made from the whole past before anything is measured."""
SIZES = (10, 100, 1_000)
PLAIN, WHOLE, EXPLAIN = "plain", "whole", "explain"
TARGETS: dict[str, float | None] = {WHOLE: 1.3, **{f"rules_{n}": None for n in SIZES}, EXPLAIN: None}
"""At most so many times the plain decision; None: shown only."""
WORDS = {
    PLAIN: "plain: score, journey, receipt",
    WHOLE: "whole, as it ships",
    **{f"rules_{n}": f"whole, {n:,} rules" for n in SIZES},
    EXPLAIN: "whole, with `explain`",
}
INSIDE, HTTP = "in process", "over HTTP"
Round = dict[str, Cell]


def measure(options: Options) -> Result:
    """Microseconds of a decision in this process, and of one over HTTP with one connection, all ways in turn."""
    served = states.served(options)
    people, many = known(served)[:PEOPLE], options.rounds or ROUNDS
    state = states.copied(options, served, "decisions/state")
    files = options.folder / "decisions"
    environments = _environments(served, files)
    with options.bar() as progress:
        step = steps(progress, "decisions", 2 * many * len(WORDS) + 3)
        step("what people did with what they were shown")
        seed(state, served.tracking_uri, people)
        rounds = over_http(options, served, state, environments, people, many, step)
        rounds += inside(served, state, environments, people, many, step)
    rules = len(books.book(domains.load(served.domain), {}).rules.plans)
    notes = [
        f"{len(people)} people with feedback, in turn; {rules} rules ship. In process: every round decides for all of "
        f"them, each way; over HTTP: {options.seconds:g} s with one connection. The plain service runs beside the "
        "whole one and takes no events in, so nothing is followed there.",
    ]
    return Result(TITLE, checks(rounds), [table(rounds)], notes, rounds)


def _environments(served: Settings, folder: Path) -> dict[str, dict[str, str]]:
    """What each way is started with; `explain` is asked of the whole one."""
    domain = domains.load(served.domain)
    made = {f"rules_{n}": books.ruled(domain, folder, n) for n in SIZES}
    return {PLAIN: books.plain(domain, folder), WHOLE: {}, **made}


def seed(state: Settings, tracking_uri: str, people: Sequence[str]) -> None:
    """Have everybody see and answer some elements, and an experiment, through the service itself."""
    domain = domains.load(state.domain)
    book = books.book(domain, {})
    elements = [e.name for e in book.policy.elements]
    tried = {name: e.control for name, e in book.experiments.experiments.items()}
    with running(state, tracking_uri) as service:
        for number, user in enumerate(people):
            sent = list(feedback(user, number, elements, tried, now_us()))
            service.client.post("/v1/batch", json={"batch": sent}).raise_for_status()
        service.settle(people)


def feedback(
    user: str, number: int, elements: Sequence[str], tried: Mapping[str, str], until_us: int
) -> Iterator[dict[str, Any]]:
    """Events of the last half day: five elements shown, some clicked, dismissed or completed, an experiment seen."""
    shown = [elements[(number + i) % len(elements)] for i in range(5)]
    said = [(SHOWN, e) for e in shown] + [(CLICKED, shown[0]), (DISMISSED, shown[1]), (COMPLETED, shown[2])]
    acts = [(name, {"element": element}) for name, element in said]
    acts += [(VIEWED, {"experiment_id": e, "variation_id": v}) for e, v in tried.items() if number % 2]
    for place, (name, properties) in enumerate(acts):
        at = until_us - 12 * HOUR + place * 10 * MINUTE
        ids = {"userId": user, "messageId": f"bench-{user}-{place}", "timestamp": rfc3339(at)}
        yield ids | {"type": "track", "event": name, "properties": properties}


def over_http(
    options: Options,
    served: Settings,
    state: Settings,
    environments: Mapping[str, dict[str, str]],
    people: Sequence[str],
    many: int,
    step: Step,
) -> list[Round]:
    """One service each way, all there at once, loaded in turn."""
    found = list[Round]()
    with ExitStack() as stack:
        ports = dict[str, int]()
        step("services")
        for which in (WHOLE, *(w for w in environments if w != WHOLE)):  # the plain one finds the whole one's state
            home = state if which in (WHOLE, PLAIN) else states.copied(options, state, f"decisions/{which}")
            service = running(home, served.tracking_uri, more=environments[which])
            ports[which] = stack.enter_context(service).port
        ports[EXPLAIN] = ports[WHOLE]
        services = {
            which: Contender(which, WORDS[which], port, "/v1/decide", _bodies(people, which == EXPLAIN))
            for which, port in ports.items()
        }
        for number in range(-1, many):  # the first round makes what is remembered, and does not count
            for which in alternated(list(services), number + 1):
                step(f"{WORDS[which]} {HTTP}, round {number + 1}")
                load = asked(Plan(ports[which], 1, options.seconds, services[which].requests()))
                found.append({"where": HTTP, "round": number, "which": which, "connections": 1, **figures(load)})
    return [r for r in found if r["round"] != -1]


def _bodies(people: Sequence[str], explain: bool) -> list[dict[str, Any]]:
    return [{"userId": user} | ({"explain": True} if explain else {}) for user in people]


def inside(
    served: Settings,
    state: Settings,
    environments: Mapping[str, dict[str, str]],
    people: Sequence[str],
    many: int,
    step: Step,
) -> list[Round]:
    """One engine each way, over one history."""
    found = list[Round]()
    with engines(served, state, environments) as ways, asyncio.Runner() as runner:
        for which, engine in ways.items():
            step(f"{which} in process, what is remembered")
            runner.run(_all(engine, people, False))
        ways[EXPLAIN] = ways[WHOLE]
        for number in range(many):
            for which in alternated(list(ways), number):
                step(f"{WORDS[which]} {INSIDE}, round {number + 1}")
                took = runner.run(_all(ways[which], people, which == EXPLAIN))
                row: Round = {"where": INSIDE, "round": number, "which": which, "connections": 1}
                found.append(row | {"p50_ms": median(took)})
    return found


@contextmanager
def engines(
    served: Settings, state: Settings, environments: Mapping[str, dict[str, str]]
) -> Iterator[dict[str, Engine]]:
    """Engines as the service makes them; the plain one follows nobody."""
    with mock.patch("feature_repo.environment.TRACKING", served.tracking_uri), ExitStack() as stack:
        live = wiring.live(state)
        if live is None:
            raise RuntimeError(f"{state.home}: expected a state that no other process has")
        stack.callback(live.close)
        ways = dict[str, Engine]()
        for which, given in environments.items():
            with mock.patch.dict(os.environ, given):
                ways[which] = wiring.engine(state, live=live)
            stack.callback(ways[which].close)
        ways[PLAIN].keeper = None
        yield ways


async def _all(engine: Engine, people: Sequence[str], explain: bool) -> list[float]:
    """Milliseconds of a decision for each."""
    took = []
    for user in people:
        began = time.perf_counter()
        await engine.decide(user, explain)
        took.append((time.perf_counter() - began) * 1_000)
    return took


def checks(rounds: Sequence[Round]) -> list[Check]:
    """The median of each way in times of the plain one's; the target is held over HTTP."""
    found = []
    for where in (HTTP, INSIDE):
        rows = [r for r in rounds if r["where"] == where]
        for which, target in TARGETS.items():
            name = f"{WORDS[which]}, against plain, {where}"
            ours, theirs = of(rows, which, 1, "p50_ms"), of(rows, PLAIN, 1, "p50_ms")
            found.append(paired(name, ours, theirs, target if where == HTTP else None))
    return found


def table(rounds: Sequence[Round]) -> Table:
    """Medians over the rounds."""
    rows: list[list[Cell]] = []
    for which, words in WORDS.items():
        here, there = ([r for r in rounds if r["where"] == where] for where in (INSIDE, HTTP))
        took = [of(there, which, 1, "p50_ms"), of(there, which, 1, "p99_ms"), of(here, which, 1, "p50_ms")]
        rows.append([words, *(round(median(t), 3) for t in took)])
    columns = ["decision", f"p50 ms {HTTP}", f"p99 ms {HTTP}", f"p50 ms {INSIDE}"]
    return Table("Medians of the rounds", columns, rows)
