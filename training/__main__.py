"""`python -m training`: train, promote, evaluate, personas, compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from feature_repo.command import Room, domain_option
from feature_repo.settings import Settings, now_us


@contextmanager
def _words() -> Iterator[None]:
    """What a person can do something about, as one line in place of a traceback."""
    try:
        yield
    except (ValueError, LookupError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error


@click.group(cls=Room, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Labels, point-in-time data, candidates, evaluation and the promotion gate."""


@main.command()
@domain_option
@click.option("--now", type=click.DateTime(), help="Train on what is known at this time (UTC); default: the clock.")
@click.option("--trials", default=9, show_default=True, help="Trials of LightGBM; the others get fewer.")
@click.option(
    "--timeout", type=float, help="At most so many seconds for tuning each candidate; the default tries all of them."
)
@click.option("--seed", default=7, show_default=True)
@click.option("--personas/--no-personas", default=True, show_default=True, help="Look for groups who behave alike.")
def train(domain: str, now: datetime | None, trials: int, timeout: float | None, seed: int, personas: bool) -> None:
    """Train every candidate and register the best as a new version. @champion stays where it is.

    Example: python -m training train --domain saas --trials 20
    """
    from training.plan import Plan
    from training.progress import Bar
    from training.tables import candidates
    from training.train import train as run

    with _words(), Bar("training") as bar:
        plan = Plan(trials=trials, timeout=timeout, seed=seed, personas=personas)
        trained = run(Settings(domain=domain), _known_at(now), plan, bar)
    candidates(trained)


@main.command()
@domain_option
@click.option("--version", type=int, help="Move @champion to this version without the gate (roll back).")
@click.option("--reason", default="", help="Why, with --version.")
def promote(domain: str, version: int | None, reason: str) -> None:
    """Let the newest version through the gate, or roll back to a version.

    Exit code 0 also when the gate refuses: the champion that stands goes on serving.

    Example: python -m training promote --version 3 --reason "version 4 scores tablets badly"
    """
    from training.progress import Bar
    from training.promote import promote as run
    from training.tables import verdict

    with _words(), Bar("gate") as bar:
        bar.say("both models on the newest holdout")
        found = run(Settings(domain=domain), version, reason=reason)
    verdict(found)


@main.command()
@domain_option
@click.option("--version", type=int, help="Default: the champion.")
def evaluate(domain: str, version: int | None) -> None:
    """Score a version on the newest holdout: figures with intervals, slices, segments.

    Example: python -m training evaluate --version 2
    """
    from training.examine import examine
    from training.progress import Bar
    from training.tables import examined

    with _words(), Bar("evaluating") as bar:
        bar.say("point-in-time rows of the newest holdout")
        found = examine(Settings(domain=domain), now_us(), version)
    examined(found)


@main.command()
@domain_option
@click.option("--version", type=int, help="Default: the champion.")
def personas(domain: str, version: int | None) -> None:
    """Print the personas of a version: their share, what sets them apart, how often the outcome follows.

    Example: python -m training personas --version 2
    """
    from training.membership import membership
    from training.progress import Bar
    from training.tables import membership as table

    with _words(), Bar("personas") as bar:
        bar.say("everybody at their latest observation")
        found = membership(Settings(domain=domain), now_us(), version)
    table(found)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def compare(as_json: bool) -> None:
    """Domain oulad beside the published out-of-time figures, and the honest as-of split.

    Example: FIRSTMILE_DOMAIN=oulad python -m training compare
    """
    import json

    from training.oulad import compare as run
    from training.progress import Bar
    from training.tables import published

    with _words(), Bar("comparing") as bar:
        found = run(Settings(domain="oulad"), bar)
    click.echo(json.dumps(found, indent=2)) if as_json else published(found)


def _known_at(given: datetime | None) -> int:
    """The given time, taken as UTC, or the clock, in µs."""
    return now_us() if given is None else round(given.replace(tzinfo=UTC).timestamp() * 1_000_000)


if __name__ == "__main__":
    main()
