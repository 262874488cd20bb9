"""`python -m tests.bench`: measure, print, and write bench.json and BENCHMARKS.md."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from feature_repo.settings import SOURCE, Settings
from tests.bench import document
from tests.bench.figures import Result
from tests.bench.machine import machine
from tests.bench.options import PARTS, Options

SECTIONS = document.ORDER
OWN = [
    *("FIRSTMILE_LAKE", "FIRSTMILE_ONLINE", "FIRSTMILE_NOW", "FIRSTMILE_SERVER_KEYS", "FIRSTMILE_POLICY"),
    *("FIRSTMILE_RULES", "FIRSTMILE_EXPERIMENTS"),
    *("MLFLOW_TRACKING_URI", "FIRSTMILE_WORKERS", "FIRSTMILE_MODE", "FIRSTMILE_WRITE_KEYS", "FIRSTMILE_RATE"),
]
"""What the bench does not take from the environment: it has stores of its own, a clock that is right, and no keys."""
SMALL: dict[str, Any] = {
    **{"rounds": 2, "sizes": (0.1, 0.2), "rows": 5_000, "users": 300, "seconds": 0.5},
    **{"events": 500, "histories": (10, 100), "crowds": (300, 600), "waiting": (100, 1_000), "giant": 2_000},
}
FULL: dict[str, Any] = {"crowds": (1_000, 10_000, 100_000, 1_000_000), "giant": 1_000_000}


def _named(value: str, there: Sequence[str], what: str) -> list[str]:
    """Those of a list with commas, in the order in which they are there."""
    asked = [name.strip() for name in value.split(",") if name.strip()]
    if unknown := [a for a in asked if a not in there]:
        raise click.BadParameter(f"no {what} {', '.join(unknown)}: there are {', '.join(there)}")
    return [name for name in there if name in asked]


def _sections(context: click.Context, option: click.Parameter, value: str) -> list[str]:
    return _named(value, SECTIONS, "section")


def _parts(context: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(_named(value, PARTS, "part"))


def _sizes(context: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return tuple(sorted(float(part) for part in value.split(","))) if value else None
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected millions of clicks, such as 1,2,5") from None


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--only", "sections", default=",".join(SECTIONS), show_default=True, callback=_sections, help="Sections.")
@click.option("--data", type=FOLDER, default=None, help="Folder of OULAD's tables as Parquet; backfill needs it.")
@click.option("--state", type=FOLDER, default=None, help="State folder with a saas champion.  [default: simulate one]")
@click.option("--small", is_flag=True, help="Sizes of a few seconds, which show that it runs; BENCHMARKS.md stays.")
@click.option("--rounds", type=click.IntRange(1), default=None, help="Rounds.  [default: backfill 3, the others 5]")
@click.option("--sizes", default=None, callback=_sizes, help="Lakes, in millions of clicks.  [default: 1,2,5,10]")
@click.option("--rows", type=click.IntRange(100), default=None, help="Rows of the training set.  [default: 100000]")
@click.option("--users", type=click.IntRange(100), default=None, help="People to simulate.  [default: 1500]")
@click.option("--seconds", type=click.FloatRange(0.1), default=None, help="Seconds of one load.  [default: 3]")
@click.option("--parts", default=",".join(PARTS), show_default=True, callback=_parts, help="Of live.")
@click.option("--events", type=click.IntRange(100), default=None, help="Events of one ingest.  [default: 20000]")
@click.option("--full", is_flag=True, help="Live with a million people, and a million events of one: half an hour.")
@click.option(
    "--document", "page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
    help="Document to write between its markers.  [default: BENCHMARKS.md; with --small none]",
)  # fmt: skip
def main(
    sections: list[str],
    data: Path | None,
    state: Path | None,
    small: bool,
    full: bool,
    page: Path | None,
    **sizes: object,
) -> None:
    """Measure ratios against what one would do instead, all contenders in turn in one run.

    \b
    python -m tests.bench --data ~/oulad
    python -m tests.bench --only decide --state var
    python -m tests.bench --small --only training_set,decide
    python -m tests.bench --only live --parts ingest,giant
    """
    for name in OWN:
        os.environ.pop(name, None)
    console = Console(highlight=False)
    given = {name: value for name, value in sizes.items() if value is not None}
    home = Settings().home
    options = Options(home, console, data, state, small, **((FULL if full else {}) | (SMALL if small else {}) | given))
    path = home / "bench.json"
    for section in sections:
        console.rule(f"[bold]{section}", align="left", style="dim")
        result = _stamped(import_module(f"tests.bench.{section}").measure(options))
        _show(console, result)
        bench = document.merged(document.read(path), {section: result}, small)
        document.write(path, bench)
    page = page or (None if small else SOURCE / "BENCHMARKS.md")
    if page:
        page.write_text(document.replaced(page.read_text(), document.markdown(bench)))
    console.print(f"the same: {path}{f' and {page}' if page else ''}", soft_wrap=True)


def _stamped(result: Result) -> Result:
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return result if result.skipped else msgspec.structs.replace(result, at=at, machine=machine())


def _show(console: Console, result: Result) -> None:
    if result.skipped:
        console.print(f"{result.title}: not measured: {result.skipped}")
        return
    for found in document.tables(result):
        shown = Table(title=found.title, title_justify="left")
        for name in found.columns:
            shown.add_column(name)
        for row in found.rows:
            shown.add_row(*("" if c is None else f"{c:,}" if isinstance(c, int | float) else c for c in row))
        console.print(shown)
    for note in result.notes:
        console.print(note)


if __name__ == "__main__":
    main(prog_name="python -m tests.bench")
