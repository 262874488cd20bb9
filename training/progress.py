"""What a long command says meanwhile: a bar in a terminal, a line for each step elsewhere, nothing in tests."""

from types import TracebackType
from typing import Self


class Progress:
    """Says nothing. `say`: what is being done now; `expect`: how many steps there will be; `step`: one is done."""

    def say(self, words: str) -> None:
        """What is being done now."""

    def expect(self, steps: int) -> None:
        """So many steps are to come."""

    def step(self, words: str) -> None:
        """One step is done, with this result."""


class Bar(Progress):
    """A bar with the words beside it, by rich; where the output is no terminal, each `say` is a line."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self.title = title
        self.console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = RichProgress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._task = self._bar.add_task(title, total=None)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away."""
        self._bar.stop()

    def say(self, words: str) -> None:
        """What is being done now."""
        self._bar.update(self._task, description=f"{self.title}: {words}")
        if not self.console.is_terminal:
            self.console.print(f"{self.title}: {words}", highlight=False, soft_wrap=True)

    def expect(self, steps: int) -> None:
        """So many steps are to come."""
        self._bar.update(self._task, total=steps, completed=0)

    def step(self, words: str) -> None:
        """One step is done, with this result."""
        self._bar.update(self._task, advance=1, description=f"{self.title}: {words}")
