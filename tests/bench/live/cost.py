"""What one event costs against how long people's pasts are, and against how many people have one; in process."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

from feature_repo.settings import now_us
from feature_repo.stream.embedded import Embedded
from tests.bench.figures import Cell, Check, Table, alternated, paired, quantile
from tests.bench.live import traffic
from tests.bench.live.one_event import of
from tests.bench.live.world import Part, Round, World, remember
from tests.bench.options import Step, steps

EACH = 10
"""Events of a person's past where the number of people is what varies."""
AGAIN = 5
"""Further events of somebody who has just had one."""
FEW, MANY = (4, 4), (20, 100)
"""People who get an event alone, and who get one together: where the pasts are long, and where there are many."""
LOOK_S = 0.0005
PATIENCE_S = 300.0


def measure(world: World) -> Part:
    """Rounds over all lengths and all numbers of people, in turn."""
    rounds: list[Round] = []
    lengths = {f"{n} events": n for n in world.options.histories}
    crowds = {f"{n} people": n for n in world.options.crowds}
    with world.options.bar() as progress:
        step = steps(progress, "cost", (world.rounds + 1) * (len(lengths) + len(crowds)))
        with _opened(world, "lengths") as live:
            for name, many in lengths.items():
                step(f"preparing {name} a person")
                _fill(live, _users(name, FEW, world.rounds), many)
            live.start()
            rounds += _rounds(world, dict.fromkeys(lengths, live), FEW, step)
        with _crowds(world, crowds, step) as lives:
            rounds += _rounds(world, lives, MANY, step)
    return Part(_checks(rounds, list(lengths), list(crowds)), [_table(rounds, lengths, crowds)], [_note()], rounds)


@contextmanager
def _opened(world: World, name: str) -> Iterator[Embedded]:
    settings = world.empty(name)
    live = Embedded(settings)
    try:
        yield live
    finally:
        live.close()
        shutil.rmtree(settings.home)


@contextmanager
def _crowds(world: World, crowds: dict[str, int], step: Step) -> Iterator[dict[str, Embedded]]:
    """A state for each number of people, all running."""
    with ExitStack() as stack:
        lives = {name: stack.enter_context(_opened(world, name.replace(" ", "-"))) for name in crowds}
        for name, live in lives.items():
            step(f"preparing {name}")
            touched = _users(name, MANY, world.rounds)
            _fill(live, touched, EACH)
            _fill(live, traffic.crowd("other", crowds[name] - len(touched)), EACH)
        yield {name: live.start() for name, live in lives.items()}


def _users(name: str, groups: tuple[int, int], rounds: int) -> list[str]:
    """Whoever gets events: other people in every round, so that their pasts are not in memory yet."""
    return [user for number in range(rounds) for group in _groups(name, groups, number) for user in group]


def _groups(name: str, groups: tuple[int, int], number: int) -> list[list[str]]:
    return [traffic.crowd(f"{name}:{number}:{kind}", many) for kind, many in zip("at", groups, strict=True)]


def _fill(live: Embedded, users: Sequence[str], many: int) -> None:
    until = now_us()
    remember(live, (event for user in users for event in traffic.past(user, many, until)))


def _rounds(world: World, lives: dict[str, Embedded], groups: tuple[int, int], step: Step) -> Iterator[Round]:
    for number in range(world.rounds):
        for name in alternated(list(lives), number):
            step(f"{name}, round {number + 1}")
            alone, together = _groups(name, groups, number)
            yield {"part": "cost", "round": number + 1, "which": name, **_costs(lives[name], alone, together, number)}


def _costs(live: Embedded, alone: Sequence[str], together: Sequence[str], number: int) -> Round:
    """ms from appending to the row online: somebody's first event, their next ones, and one of each of many at once."""
    first = [_taken(live, [user], f"{number}:first") for user in alone]
    later = [_taken(live, [user], f"{number}:{n}") for n in range(AGAIN) for user in alone]
    at_once = _taken(live, together, f"{number}:together") / len(together)
    return {
        "first_p50_ms": quantile(first, 0.5),
        "p50_ms": quantile(later, 0.5),
        "p99_ms": quantile(later, 0.99),
        "together_ms": at_once,
    }


def _taken(live: Embedded, users: Sequence[str], message: str) -> float:
    """ms for a click of each of these people, appended at once.

    Raises:
        TimeoutError: they are not online in time.
    """
    clicks = [traffic.clicked(user, message) for user in users]
    began = time.perf_counter()
    live.append(clicks).result()
    while live.pending.of(users):
        if time.perf_counter() > began + PATIENCE_S:
            raise TimeoutError(f"{len(users)} events were not applied after {PATIENCE_S} s: {live.stream.error}")
        time.sleep(LOOK_S)
    return (time.perf_counter() - began) * 1000


def _checks(rounds: list[Round], lengths: list[str], crowds: list[str]) -> list[Check]:
    return [
        paired(f"cost of an event, {big} against {small}", of(rounds, big, what), of(rounds, small, what))
        for small, big, what in ((lengths[0], lengths[-1], "p50_ms"), (crowds[0], crowds[-1], "together_ms"))
    ]


def _table(rounds: list[Round], lengths: dict[str, int], crowds: dict[str, int]) -> Table:
    columns = ["people", "events each", "next event, p50 ms", "p99 ms", "first event, p50 ms", "many at once, ms each"]
    sizes: list[tuple[str, Cell, Cell]] = [(name, "few", many) for name, many in lengths.items()]
    sizes += [(name, many, EACH) for name, many in crowds.items()]
    rows: list[list[Cell]] = []
    for name, people, each in sizes:
        whats = ("p50_ms", "p99_ms", "first_p50_ms", "together_ms")
        rows.append([people, each, *(round(median(of(rounds, name, w)), 2) for w in whats)])
    return Table("Cost of one event, in process, from appending it to the row online", columns, rows)


def _note() -> str:
    return (
        f"First: of somebody whose past is on disk only. At once: an event of each of {FEW[1]} people where pasts are "
        f"long, of {MANY[1]} where there are many people, all for the first time."
    )
