"""`python -m monitoring`: the weekly report, and the whole loop."""

import signal
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from feature_repo.command import Room, domain_option
from feature_repo.settings import Settings


class Moment(click.ParamType):
    """A point in time in RFC 3339, such as 2026-05-28T00:00:00Z; becomes microseconds since 1970."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Microseconds since 1970 UTC."""
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no RFC 3339 time such as 2026-05-28T00:00:00Z", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} names no time zone: add Z for UTC", param, ctx)
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@click.group(cls=Room, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Watch what the other rooms do: the weekly report, experiments, and the whole loop in one run."""


@main.command()
@domain_option
@click.option(
    "--at",
    "at_us",
    type=Moment(),
    default=None,
    help="End of the week, RFC 3339.  [default: the newest event or decision]",
)
@click.option("--weeks", default=8, show_default=True, type=click.IntRange(2, 52), help="Week ends to replay.")
def report(domain: str, at_us: int | None, weeks: int) -> None:
    """Write the weekly report: one page in words, charts and tables, beside it Evidently's own.

    \b
    Example:
      python -m monitoring report --at 2026-05-28T00:00:00Z
    """
    from monitoring.console import report_with_progress

    report_with_progress(Settings(domain=domain), at_us, weeks)


@main.command()
@domain_option
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    help="Folder of a domain that needs data.",
)
@click.option("--users", default=5_000, show_default=True, type=click.IntRange(min=1), help="People to simulate.")
@click.option("--port", default=None, type=click.IntRange(1, 65535), help="Port of the service.  [default: a free one]")
@click.option("--broker", type=click.Choice(["kafka", "rabbitmq", "kinesis"]), help="Hold live events there.")
@click.option("--online", type=click.Choice(["redis"]), help="Hold the online rows there.")
@click.option("--fresh", is_flag=True, help="Skip no step, although its inputs have not changed.")
def run(
    domain: str,
    data: Path | None,
    users: int,
    port: int | None,
    broker: str | None,
    online: str | None,
    fresh: bool,
) -> None:
    """Run the whole loop once: events, features, model, service, decisions, report.

    It goes on where it stopped: a step whose inputs have not changed is skipped, and it says so. The live part, replay,
    parity and the report are always done.

    A broker and Redis are looked for on this machine, unless FIRSTMILE_LOG and FIRSTMILE_ONLINE say where they are.

    \b
    Examples:
      python -m monitoring run --users 1000
      python -m monitoring run --domain oulad --data ~/oulad
      python -m monitoring run --broker rabbitmq --online redis
    """
    from monitoring.distributed import distributed
    from monitoring.run import run as run_loop

    warnings.simplefilter("ignore", DeprecationWarning)  # what libraries say to each other is not for a user
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the service is stopped too
    try:
        settings = distributed(Settings(domain=domain), broker, online)
    except ValueError as e:
        raise click.ClickException(str(e)) from None
    run_loop(settings, data=data, users=users, port=port, fresh=fresh)


@main.command()
@domain_option
def parity(domain: str) -> None:
    """Recompute every served feature vector from the lake; where one differs, say what it looks like, and fail.

    \b
    Example:
      python -m monitoring parity
    """
    from rich.console import Console

    from feature_repo.contract.events import key_of, spoken
    from monitoring.parity import parity as compare
    from serving.times import rfc3339

    found = compare(Settings(domain=domain))
    Console().print(found.table())
    if not found.wrong:
        click.echo(f"{found.vectors:,} vectors, 0 mismatches")
        return
    for example in found.examples:
        user = spoken(key_of(example["user_id"], example["anonymous_id"]))
        who = f"{user} at {rfc3339(example['at_us'])}, position {example['applied_position']}"
        click.echo(f"{who}: {example['fault']}: {example['evidence']}")
    raise click.ClickException(f"{found.wrong:,} values in {found.wrong_vectors:,} vectors are not what the lake gives")


@main.command()
@domain_option
@click.option("--at", "at_us", type=Moment(), default=None, help="Up to when, RFC 3339.  [default: now]")
@click.option("--resume", default=None, metavar="NAME", help="Let a paused experiment go on, and do nothing else.")
def experiments(domain: str, at_us: int | None, resume: str | None) -> None:
    """Say what each experiment has brought, and pause one whose guardrail is broken or whose shares are wrong.

    \b
    Example:
      python -m monitoring experiments
      python -m monitoring experiments --resume tour_or_checklist
    """
    from rich.console import Console

    from feature_repo.settings import now_us
    from monitoring import experiments_console
    from monitoring.experiments import resume as let_go_on

    settings = Settings(domain=domain)
    console = Console(width=None if Console().is_terminal else 160)
    try:
        if resume:
            console.print(f"{resume} goes on; it was paused: {let_go_on(settings, resume).reason}", markup=False)
        else:
            experiments_console.show(settings, now_us() if at_us is None else at_us, console)
    except ValueError as e:
        raise click.ClickException(str(e)) from None


if __name__ == "__main__":
    main(prog_name="python -m monitoring")
