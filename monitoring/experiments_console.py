"""`python -m monitoring experiments`: a table, a picture each, the figures as JSON, and what had to pause."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from feature_repo import domains
from feature_repo.settings import Settings
from monitoring import experiments
from monitoring.comparison import MISMATCH_LEVEL, Curve
from monitoring.experiments import Result, sentence
from monitoring.words import moment
from serving.experiments import listing
from serving.experiments.parsing import location
from serving.experiments.paused import FILE, Paused


def show(settings: Settings, at_us: int, console: Console) -> list[Result]:
    """Analyse every experiment up to a time, pause what has to pause, and say so.

    Raises:
        ValueError: the file of experiments does not fit.
    """
    declared = listing.of(settings)
    if not declared.experiments:
        console.print(
            f"{settings.domain} has no experiments: {location(domains.load(settings.domain))}", soft_wrap=True
        )
        return []
    found = experiments.experiments(settings, declared, at_us)
    held = experiments.pause(settings, found)
    console.print(table(found))
    folder = settings.report / "experiments"
    for result in found:
        draw(settings, result)
    (folder / "experiments.json").write_text(json.dumps([r.figures() for r in found], indent=2) + "\n")
    console.print(f"intervals over days: {folder}", soft_wrap=True)
    tell(settings, held, console)
    return found


def draw(settings: Settings, result: Result, truth: float | None = None) -> str:
    """Draw an experiment's picture; returns where it is."""
    from monitoring.experiments_plot import plot

    path = settings.report / "experiments" / f"{result.experiment.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    plot(result, truth).savefig(path)
    return str(path)


def tell(settings: Settings, held: Mapping[str, Paused], console: Console) -> None:
    """What is paused, and how to go on."""
    for name, one in held.items():
        console.print(f"[red]PAUSED[/] {escape(name)} since {moment(one.since_us)}: {escape(one.reason)}")
    if held:
        console.print(f"serving obeys {settings.state / FILE}; python -m monitoring experiments --resume NAME goes on")


def table(results: Sequence[Result]) -> Table:
    """A row for each comparison: overall, by segment, and of the guardrails."""
    found = Table(title="Experiments: treatment less control, 95 % intervals valid at all times")
    for column in ("experiment", "who", "treatment", "metric", "people", "effect, in percentage points", "check"):
        found.add_column(column)
    for r in results:
        for curve in r.overall:
            found.add_row(escape(r.experiment.name), "everybody", *_cells(curve), _checked(r))
        for curve in r.segments:
            found.add_row("", escape(curve.segment or ""), *_cells(curve), "")
        for g in r.guarded:
            allowed = f"at most {100 * g.guardrail.worse_than:g} points worse"
            broken = g.broken_us is not None
            found.add_row("", "guardrail", *_cells(g.curve), f"[red]BROKEN[/] {allowed}" if broken else allowed)
    return found


def _cells(curve: Curve) -> tuple[str, str, str, str]:
    people = int(curve.people[-1]) if len(curve.people) else 0
    return escape(curve.treatment), escape(curve.metric), f"{people:,}", sentence(curve)


def _checked(result: Result) -> str:
    """The shares of the variants, and who could not be counted."""
    said = [f"shares p = {result.mismatch:.2g}" + (" [red]MISMATCH[/]" if result.mismatch <= MISMATCH_LEVEL else "")]
    if result.unknown:
        said.append(f"{result.unknown:,} never known")
    if result.crossed:
        said.append(f"{result.crossed:,} saw two variants")
    return ", ".join(said)
