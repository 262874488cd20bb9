"""What people cost who wait for a time: a look at whose rows and whose segments are due by now, while nobody's are."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median

from feature_repo.history.history_store import Written
from feature_repo.history.sqlite_history import SqliteHistory
from feature_repo.settings import now_us
from feature_repo.stream.processor import MOST_PERSONS
from feature_repo.stream.stream import TICK_S
from serving.segments.announcer import AT_ONCE
from serving.segments.journal import Entry, Journal
from tests.bench.figures import Cell, Table, paired
from tests.bench.live.one_event import of
from tests.bench.live.world import Part, Round, World
from tests.bench.options import Step, steps

LOOKS = 200
PIECE = 10_000
HOUR = 3_600_000_000
Look = Callable[[], list[str]]


def measure(world: World) -> Part:
    """Rounds over all numbers of people, in turn."""
    crowds = {f"{many} waiting": many for many in world.options.waiting}
    with ExitStack() as stack:
        with world.options.bar() as progress:
            step = steps(progress, "waiting", len(crowds))
            looks = {name: _prepared(world, name, many, stack, step) for name, many in crowds.items()}
        rounds = world.in_turn("waiting", {name: partial(_timed, look) for name, look in looks.items()})
    small, *_, big = crowds
    check = paired(f"a look at who is due, {big} against {small}", of(rounds, big, "us"), of(rounds, small, "us"))
    columns = {"whose rows, µs": "rows_us", "whose segments, µs": "segments_us"}
    rows: list[list[Cell]] = [
        [many, *(round(median(of(rounds, name, what)), 1) for what in columns.values())]
        for name, many in crowds.items()
    ]
    table = Table("A look at who is due by time, while nobody is", ["people who wait", *columns], rows)
    return Part([check], [table], [f"Who is due is looked at every {TICK_S:g} s; files on this machine."], rounds)


def _prepared(world: World, name: str, many: int, stack: ExitStack, step: Step) -> tuple[Look, Look]:
    """What looks, over a history and a journal in which so many people are due in the hours after the next."""
    step(name)
    folder, begin = world.empty(name.replace(" ", "-")).state, now_us() + 2 * HOUR
    history = stack.enter_context(SqliteHistory(folder / "history.db"))
    journal = Journal(folder / "segments.db")
    stack.callback(journal.close)
    for start in range(0, many, PIECE):
        due = {f"person-{n}": begin + n * 1_000 for n in range(start, min(many, start + PIECE))}
        history.note({person: Written(begin - HOUR, at) for person, at in due.items()}, 1)
        journal.write({person: Entry(b"", at) for person, at in due.items()}, [])
    return lambda: history.claim(now_us(), MOST_PERSONS), lambda: journal.due(now_us(), AT_ONCE)


def _timed(looks: tuple[Look, Look], number: int) -> Round:
    rows_us, segments_us = (_each_us(look) for look in looks)
    return {"rows_us": rows_us, "segments_us": segments_us, "us": rows_us + segments_us}


def _each_us(look: Look) -> float:
    began = time.perf_counter()
    for _ in range(LOOKS):
        if found := look():
            raise RuntimeError(f"expected nobody who is due; came {found[:3]}")
    return (time.perf_counter() - began) / LOOKS * 1e6
