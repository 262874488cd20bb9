"""Progress bars that also suit a file or a pipe: there, plain lines such as "backfill: 40 %" take the bar's place."""

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

EVERY_S = 5.0
"""Seconds between two plain lines: what is done sooner writes none."""
T = TypeVar("T")


class Bars(Progress):
    """rich's Progress, except where the console is no terminal: rich writes blank lines there, this one plain lines."""

    def __init__(
        self,
        *columns: str | ProgressColumn,
        console: Console | None = None,
        transient: bool = False,
        disable: bool = False,
    ) -> None:
        console = console or Console()
        self._plain = not disable and not console.is_terminal
        self._written = time.monotonic()
        super().__init__(*columns, console=console, transient=transient, disable=disable or self._plain)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """So many steps more are done."""
        super().advance(task_id, advance)
        self._write(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """What is known of a task has changed; see rich."""
        super().update(task_id, **changes)
        self._write(task_id)

    def _write(self, task_id: TaskID) -> None:
        if not self._plain or time.monotonic() - self._written < EVERY_S:
            return
        self._written = time.monotonic()
        task = self._tasks[task_id]
        done = f"{task.completed:,.0f}" if task.total is None else f"{task.percentage:.0f} %"
        self.console.print(f"{task.description}: {done}", markup=False, highlight=False, soft_wrap=True)


def track(items: Iterable[T], title: str, console: Console | None = None, disable: bool = False) -> Iterator[T]:
    """The items one after the other, with a bar that vanishes at the end."""
    with Bars(console=console, transient=True, disable=disable) as bars:
        task = bars.add_task(title, total=len(items) if isinstance(items, Sized) else None)
        for item in items:
            yield item
            bars.advance(task)
