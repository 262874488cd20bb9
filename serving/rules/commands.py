"""`python -m serving rules`: check a rules file, and see whom it would move before it goes live."""

from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from feature_repo.command import domain_option
from feature_repo.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from feature_repo.domain import Domain
    from serving.rules.comparison import Comparison
    from serving.rules.fold import Judge
    from serving.rules.ruleset import Rules

file_type = click.Path(dir_okay=False, path_type=Path)


@click.group()
def rules() -> None:
    """The rule segments of the domain.

    \b
    python -m serving rules check
    python -m serving rules test new.yaml
    """


@rules.command()
@click.argument("file", type=file_type, required=False)
@domain_option
def check(file: Path | None, domain: str) -> None:
    """Check FILE, or the rules in force, and show the segments in order of priority.

    \b
    python -m serving rules check
    python -m serving rules check new.yaml
    """
    from feature_repo import domains
    from serving.rules import location

    product = _domain(domain)
    found = _loaded(file, product)
    where = file or location(domains.load(domain))
    click.echo(f"rules {found.version} of {domain}, {where if where.exists() else 'none: no file yet'}")
    for name in found.segments:
        click.echo(f"  {name:16} {found.why(name)}")


@rules.command()
@click.argument("file", type=file_type)
@domain_option
@click.option("--sample", type=click.IntRange(1), help="That many people only, always the same ones.")
@click.option("--at", help="The moment that counts as now, such as 2026-03-01T09:00:00Z; default: the clock.")
def test(file: Path, domain: str, sample: int | None, at: str | None) -> None:
    """Fold everybody's past under the rules in force and under FILE, and show who would move now.

    Ends with 1 where FILE exceeds a limit of the over-segmentation guard (`limits:` in it), and says which.

    \b
    python -m serving rules test new.yaml
    python -m serving rules test new.yaml --sample 1000 --at 2026-03-01T09:00:00Z
    """
    from rich.console import Console

    from serving.rules.guard import exceeded
    from serving.rules.table import show

    at_us, product = _moment(at), _domain(domain)
    old, new = _loaded(None, product), _loaded(file, product)
    if old.version == new.version:
        click.echo(f"{file} has the content of the rules in force ({old.version})")
    found = _compared(product, old, new, sample, at_us)
    show(found, Console())
    if broken := exceeded(found.new, new.limits):
        for line in broken:
            click.echo(f"limit exceeded: {line}")
        raise click.exceptions.Exit(1)
    click.echo("no limit is exceeded")


def _domain(name: str) -> "Domain":
    from feature_repo import domains

    try:
        return domains.load(name)
    except ValueError as e:
        raise click.ClickException(str(e)) from None


def _loaded(file: Path | None, domain: "Domain") -> "Rules":
    from serving.rules import RulesError, for_domain, load

    try:
        return load(file, domain) if file else for_domain(domain)
    except RulesError as e:
        raise click.ClickException(str(e)) from None


def _moment(at: str | None) -> int:
    from feature_repo.settings import now_us

    if at is None:
        return now_us()
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise click.BadParameter(f"{at!r}: expected a moment such as 2026-03-01T09:00:00Z", param_hint="--at")
    return round(moment.timestamp() * 1_000_000)


def _compared(domain: "Domain", old: "Rules", new: "Rules", sample: int | None, at_us: int) -> "Comparison":
    from serving.rules.comparison import compare
    from serving.rules.history import History, NoHistoryError

    settings = Settings(domain=domain.name)
    judge = _judge(settings, domain) if old.uses_score or new.uses_score else None
    needs = list(domain.feature_types) if judge else sorted({*old.needs, *new.needs})
    history = History(settings.features, needs)
    try:
        only = None if sample is None else history.sample(sample, at_us)
        with _progress() as bar:
            task = bar.add_task("people's past", total=None)
            people = history.people(only, lambda files, of: bar.update(task, completed=files, total=of))
            return compare(old, new, people, at_us, judge) if judge else compare(old, new, people, at_us)
    except NoHistoryError as e:
        raise click.ClickException(str(e)) from None


def _judge(settings: Settings, domain: "Domain") -> "Judge | None":
    """The champion; None, and words, where there is none."""
    from serving.models import from_registry
    from serving.rules.history import judging

    champion = from_registry(settings)
    champion.poll()
    if champion.model is None:
        click.echo(f"conditions on score and engagement segment count as not met: {champion.error}", err=True)
        return None
    return judging(champion.model, domain)


def _progress() -> "AbstractContextManager[Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from feature_repo.progress import Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bars(*columns, console=Console(stderr=True), transient=True)
