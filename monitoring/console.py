"""The report on the terminal: a bar while it is made, then its verdicts and where it is."""

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

from feature_repo.progress import Bars
from feature_repo.settings import Settings
from feature_repo.storage import BusyError
from monitoring.page import MARKS

STYLES = {"good": "green", "look": "yellow", "act": "red", "unknown": "dim"}


def report_with_progress(settings: Settings, at_us: int | None, weeks: int) -> None:
    """Write the report and say what came out.

    Raises:
        click.ClickException: the report cannot be made; the message says why.
    """
    from monitoring.report import STEPS, report
    from training.registry import NoModelError

    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=STEPS)
        try:
            written = report(settings, at_us, weeks, lambda what: progress.update(task, advance=1, description=what))
        except (ValueError, NoModelError, BusyError) as error:
            raise click.ClickException(str(error)) from error
    console = Console(highlight=False)
    for verdict in written.figures["verdicts"]:
        level = verdict["level"]
        console.print(f"[{STYLES[level]}]{MARKS[level]:<12}[/] {escape(verdict['title'])}")
    console.print(f"report: {written.page}", soft_wrap=True)
