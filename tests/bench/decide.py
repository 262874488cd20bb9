"""A decision over HTTP, against what one would use instead: same machine, same run, same model, same features."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from statistics import median

import msgspec

from feature_repo import domains
from feature_repo.settings import SOURCE, Settings
from tests.bench import states
from tests.bench.contenders import Contender, started
from tests.bench.figures import Cell, Check, Result, Table, alternated, paired, quantile
from tests.bench.load import Load, Plan
from tests.bench.options import Options, Step, steps

TITLE = "Decide"
ROUNDS = 5
CONNECTIONS = (1, 8)
PEOPLE = 500
TARGETS = {"plain": 3.0, "bare": 3.0, "fast": None, "feast": 1.0, "mlflow": 1.0, "empty_api": None, "empty_asgi": None}
"""Least requests/s of /v1/decide in times of the contender's; None: shown only."""
SCORES_ALIKE = 0.9
"""Share of people for whom everybody must give the same score: elapsed time goes on between two answers."""
Round = dict[str, Cell]


def measure(options: Options) -> Result:
    """Requests/s, p50 and p99 of all contenders, in rounds."""
    from training import registry

    settings = states.served(options)
    model = registry.load(settings)
    people = known(settings)
    many = options.rounds or ROUNDS
    with options.bar() as progress:
        step = steps(progress, "decide", many * len(CONNECTIONS) * (len(TARGETS) + 1) + 5)
        with started(settings, model, people, step) as contenders:
            alike = agree(contenders, range(0, len(people), max(1, len(people) // 20)))
            rounds = [row for number in range(many) for row in _round(contenders, number, options.seconds, step)]
    kind = type(model.candidate).__name__
    notes = [
        f"Champion: {kind}, {len(model.features)} features; {len(people)} people in turn; {options.seconds:g} s a "
        f"load; scores equal for {alike:.0%} of a sample.",
        f"The load generator was busy at most {max(float(r['busy'] or 0) for r in rounds):.0%} of a core.",
    ]
    return Result(TITLE, checks(rounds), [table(rounds, contenders)], notes, rounds)


def _round(contenders: Sequence[Contender], number: int, seconds: float, step: Step) -> Iterator[Round]:
    """Every contender once at each number of connections."""
    by_key = {c.key: c for c in contenders}
    for connections in CONNECTIONS:
        for key in alternated(list(by_key), number):
            step(f"{key}, {connections} connections, round {number + 1}")
            load = asked(Plan(by_key[key].port, connections, seconds, by_key[key].requests()))
            yield {"round": number + 1, "which": key, "connections": connections, **figures(load)}


def known(settings: Settings) -> list[str]:
    """The newest people of whom the online store has a row, and who are still scored; at most so many."""
    from feature_repo.feature_store.store import feature_store, read_online

    domain = domains.load(settings.domain)
    people = domain.outcomes(settings).to_pandas().sort_values(["anchor_us", "user_id"], ascending=False)
    newest = list(people["user_id"].head(4 * PEOPLE))
    done = domain.label.done or domain.features[0].name
    rows = read_online(feature_store(settings, lineage=False), domain, newest, [done])
    scored = [u for u, row in zip(newest, rows, strict=True) if row and not (domain.label.done and row[done])]
    return scored[:PEOPLE]


def agree(contenders: Sequence[Contender], sample: Sequence[int]) -> float:
    """Share of the sampled people to whom all that score give the same score.

    Raises:
        RuntimeError: too few for the same model with the same features.
    """
    equal = []
    for number in sample:
        answers = [c.answer(number) for c in contenders]
        scores = [c.score(a) for c, a in zip(contenders, answers, strict=True) if c.score]
        equal.append(max(scores) - min(scores) < 1e-6)
    share = sum(equal) / len(equal)
    if share < SCORES_ALIKE:
        raise RuntimeError(f"the contenders score alike for {share:.0%} of the people, expected {SCORES_ALIKE:.0%}")
    return share


def asked(plan: Plan) -> Load:
    """One load in a process of its own.

    Raises:
        RuntimeError: an answer was no 200; the message ends with it.
    """
    command = [sys.executable, "-m", "tests.bench.load"]
    done = subprocess.run(command, input=msgspec.json.encode(plan), cwd=SOURCE, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"the load on port {plan.port} failed:\n{done.stderr.decode()[-2000:]}")
    return msgspec.json.decode(done.stdout, type=Load)


def figures(load: Load) -> Round:
    answers = load.latencies_ms
    return {
        "requests": len(answers),
        "rps": len(answers) / load.seconds,
        "p50_ms": quantile(answers, 0.50),
        "p99_ms": quantile(answers, 0.99),
        "busy": load.busy,
    }


def of(rounds: Sequence[Round], key: str, connections: int, what: str) -> list[float]:
    """A figure of one contender, a value a round."""
    return [float(r[what] or 0) for r in rounds if r["which"] == key and r["connections"] == connections]


def checks(rounds: Sequence[Round]) -> list[Check]:
    """Requests/s of /v1/decide in times of each contender's, at every number of connections."""
    words = {
        "plain": "(a) plain Bento, pyfunc",
        "bare": "(a) plain Bento, no pyfunc",
        "fast": "(a) plain Bento, our fast path",
        "feast": "(b) `feast serve`",
        "mlflow": "(c) `mlflow models serve`",
        "empty_api": "(d) empty `@bentoml.api`",
        "empty_asgi": "(d) empty mounted ASGI",
    }
    found = []
    for key, target in TARGETS.items():
        for n in CONNECTIONS:
            name = f"requests/s against {words[key]}, {n} connection{'s' * (n > 1)}"
            found.append(paired(name, of(rounds, "decide", n, "rps"), of(rounds, key, n, "rps"), target, at_most=False))
    return found


def table(rounds: Sequence[Round], contenders: Sequence[Contender]) -> Table:
    """Medians over the rounds."""
    rows: list[list[Cell]] = []
    for n in CONNECTIONS:
        for c in contenders:
            p50, p99, rps = (median(of(rounds, c.key, n, w)) for w in ("p50_ms", "p99_ms", "rps"))
            rows.append([c.words, n, round(rps), round(p50, 2), round(p99, 2)])
    return Table("Medians of the rounds", ["service", "connections", "requests/s", "p50 ms", "p99 ms"], rows)
