"""What a run of the bench was asked for, and how large everything is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Step = Callable[[str], None]
"""Called with what is about to be done; counts one step of the section as begun."""
PARTS = ("one_event", "ingest", "cost", "waiting", "giant", "decisions", "oulad", "profile")
"""Of the live section, in the order in which they run."""


@dataclass(frozen=True)
class Options:
    """home: the state folder, whose `bench/` holds the bench's own states.

    rounds: of each section, None: its own default. sizes: of the backfill's lakes, in millions of clicks.
    rows: of the training set. users: simulated for a state without --state. seconds: of one load on one service.
    parts: of the live section. events: sent in one round of ingest.
    histories: lengths of people's pasts, in events. crowds: how many people have a past. waiting: how many wait for a
    time. giant: the past of the one whose past is long.
    """

    home: Path
    console: Console
    data: Path | None = None
    state: Path | None = None
    small: bool = False
    rounds: int | None = None
    sizes: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    rows: int = 100_000
    users: int = 1_500
    seconds: float = 3.0
    parts: tuple[str, ...] = PARTS
    events: int = 20_000
    histories: tuple[int, ...] = (10, 100, 1_000, 10_000)
    crowds: tuple[int, ...] = (1_000, 10_000, 100_000)
    waiting: tuple[int, ...] = (1_000, 1_000_000)
    giant: int = 200_000

    @property
    def folder(self) -> Path:
        """Where the bench keeps the lakes and models that it makes; safe to delete."""
        return self.home / "bench"

    def bar(self) -> Progress:
        """A progress display for one section."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self.console, transient=True)


def steps(progress: Progress, section: str, total: int) -> Step:
    """Shows each step by name, and how many are done."""
    task = progress.add_task(section, total=total)
    begun = 0

    def step(what: str) -> None:
        nonlocal begun
        progress.update(task, description=f"{section}: {what}", completed=begun)
        begun += 1

    return step
