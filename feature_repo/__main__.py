"""`python -m feature_repo`: from events to features, online and offline."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from feature_repo import domains
from feature_repo.command import Room, domain_option
from feature_repo.settings import Settings, now_us
from feature_repo.storage import BusyError

SHOWN_ASIDE = 10
"""Users who are set aside that `lag` names; with --json it names all."""


def _explained(run: Callable[[], Any]) -> Any:
    """Run, and show what a person can do something about as one line in place of a traceback."""
    try:
        return run()
    except (ValueError, FileNotFoundError, ModuleNotFoundError, BusyError) as error:
        raise click.ClickException(str(error)) from error


@click.group(cls=Room, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Events, lake, features and Feast: the room where a feature is declared once."""


@main.command()
@click.option("--users", default=5000, show_default=True, type=click.IntRange(min=1), help="People who sign up.")
@click.option("--seed", default=7, show_default=True, help="The same seed gives the same people.")
@click.option("--experiment/--no-experiment", default=True, show_default=True, help="Show half of them an element.")
def simulate(users: int, seed: int, experiment: bool) -> None:
    """Simulate sign-ups of the saas product into the lake. A second time it does nothing.

    Example: python -m feature_repo simulate --users 1000
    """
    from feature_repo.domains.saas.experiment import TEMPLATES
    from feature_repo.lake.log_to_lake import ingest as fill_lake

    settings, tried = Settings(domain="saas"), TEMPLATES if experiment else None
    _show_ingested(_explained(lambda: fill_lake(settings, users=users, seed=seed, experiment=tried)))


@main.command()
@domain_option
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of source tables.")
@click.option(
    "--changed",
    type=click.Choice(["refuse", "reread"]),
    default="refuse",
    show_default=True,
    help="What to do about a *.jsonl file that was written anew under the same name.",
)
def ingest(domain: str, data: Path | None, changed: str) -> None:
    """Fill the lake from a domain's source. A second time it takes in what is new.

    Example: python -m feature_repo ingest --domain oulad --data ~/oulad
    """
    from feature_repo.lake.log_to_lake import ingest as fill_lake

    settings, options = Settings(domain=domain), {"changed": changed} if changed == "reread" else {}
    if options and not (data and any(data.glob("*.jsonl"))):
        raise click.UsageError("--changed is for folders with *.jsonl files")
    _show_ingested(_explained(lambda: fill_lake(settings, data, **options)))


def _show_ingested(ingested: Any) -> None:
    refused = ", ".join(f"{reason} {n:,}" for reason, n in sorted(ingested.refused.items()))
    click.echo(f"events: {ingested.accepted:,} accepted, {sum(ingested.refused.values()):,} refused {refused}".strip())
    if ingested.flagged:
        flagged = ", ".join(f"{path} {n:,}" for path, n in sorted(ingested.flagged.items()))
        click.echo(f"values of another type or out of bounds, kept and flagged: {flagged}")


@main.command()
@domain_option
def backfill(domain: str) -> None:
    """Compute the feature rows of everybody whom new events touch, offline and online.

    Example: python -m feature_repo backfill --domain saas
    """
    from feature_repo.feature_store.backfill import backfill as run
    from feature_repo.feature_store.materialize import materialize

    settings = Settings(domain=domain)
    done = _explained(lambda: run(settings))
    if done.buckets:
        click.echo(f"offline: {done.rows:,} rows of {done.events:,} events in {done.seconds:.1f} s")
    else:
        click.echo(f"offline: nothing to do, the rows hold all events up to position {done.position:,}")
    click.echo(f"online: {materialize(settings, now_us()).rows:,} rows written")
    for found in done.at_limit:
        click.echo(found)


@main.command()
@domain_option
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Processes.")
def stream(domain: str, workers: int) -> None:
    """Apply the events that a broker holds, until Ctrl-C or SIGTERM. Without a broker the service does it by itself.

    \b
    FIRSTMILE_LOG      kafka://host:9092/topic, amqp://user:password@host:5672/?queue=name, kinesis://stream?region=…
    FIRSTMILE_HISTORY  redis://host:6379/0, FIRSTMILE_ONLINE the same: for more than one worker
    Example: python -m feature_repo stream --workers 4
    """
    import signal
    import threading

    from feature_repo.stream.workers import run

    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    _explained(lambda: run(Settings(domain=domain), workers, stop, click.echo))


@main.command()
@domain_option
@click.option(
    "--key", required=True, help="A write key's fingerprint, or - to read the key itself from standard input."
)
def events(domain: str, key: str) -> None:
    """Count the events that came by one write key, by user, with their first and last time (UTC).

    \b
    Example: python -m feature_repo events --key 5e318f8cf9cb
             python -m feature_repo events --key - < leaked-key.txt
    """
    from feature_repo.contract.events import spoken
    from feature_repo.erasing.leaked_key import fingerprint_of, refused_by, sent_by

    key = fingerprint_of(sys.stdin.readline().strip() if key == "-" else key)
    found = _explained(lambda: sent_by(Settings(domain=domain), key))
    click.echo(f"{sum(sent.events for sent in found):,} events of {len(found):,} users by the key {key}")
    for sent in found:
        first, last = (datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds") for us in sent[2:])
        click.echo(f"{sent.events:8,}  {first}  {last}  {spoken(sent.user)}")
    for reason, n in sorted(refused_by(Settings(domain=domain), key).items()):
        click.echo(f"{n:8,}  refused: {reason}")


@main.command()
@domain_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def lag(domain: str, as_json: bool) -> None:
    """Say how far log, online rows and lake are behind: of this state folder, or of a broker and Redis.

    Example: python -m feature_repo lag
    """
    from feature_repo.stream.lag import lag as measure

    found = _explained(lambda: measure(Settings(domain=domain)))
    if as_json:
        from feature_repo.contract.events import ids_of

        aside = [dict(zip(("user_id", "anonymous_id"), ids_of(u), strict=True)) | {"reason": r}
                 for u, r in found.set_aside.items()]  # fmt: skip
        click.echo(json.dumps(asdict(found) | {"set_aside": aside}))
        return
    from feature_repo.contract.events import spoken

    click.echo(f"{found.log:8,}  events accepted and not applied yet")
    click.echo(f"{found.due:8,}  people whose online rows are due")
    click.echo(f"{found.lake:8,}  events that the lake lacks")
    click.echo(f"{len(found.set_aside):8,}  users set aside, because their row cannot be computed")
    for user, reason in list(found.set_aside.items())[:SHOWN_ASIDE]:
        click.echo(f"{'':8}  {spoken(user)}: {reason}")


@main.command()
@domain_option
@click.option("--take-over", is_flag=True, help="Empty a Redis that holds another lake's rows of this domain, first.")
def apply(domain: str, take_over: bool) -> None:
    """Tell Feast what the domain declares, as `feast apply` does, for any domain and state folder.

    Example: python -m feature_repo apply --domain oulad
    """
    from feature_repo.feature_store import store

    settings = Settings(domain=domain)
    if take_over:
        _explained(lambda: store.take_over(settings))
    path = _explained(lambda: store.apply(settings))
    click.echo(f"applied; for Feast's own commands: cd feature_repo && feast -f {path} ...")
    if take_over:
        click.echo("the online store is empty: `make backfill` fills it")


@main.command()
@domain_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def features(domain: str, as_json: bool) -> None:
    """Print the feature catalogue: type, unit, window, what null means.

    Example: python -m feature_repo features --domain oulad
    """
    from rich.console import Console
    from rich.table import Table

    from feature_repo.features.catalogue import catalogue

    rows = catalogue(_explained(lambda: domains.load(domain)))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table(*rows[0], title=f"{len(rows)} features of {domain}")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=None if Console().is_terminal else 180).print(table)


@main.command()
@domain_option
def compact(domain: str) -> None:
    """Rewrite the lake into a file a bucket of users, without copies of messages.

    Example: python -m feature_repo compact
    """
    from feature_repo.lake import lake_index

    stats = lake_index.compact(Settings(domain=domain)).stats()
    click.echo(f"lake: {stats.rows:,} events in {stats.files} files, {stats.bytes / 1e6:.1f} MB")


@main.command()
@click.argument("what", type=click.Choice(["history", "online", "features", "log"]))
@domain_option
def rebuild(what: str, domain: str) -> None:
    """Make a damaged or missing part of the state anew, out of the lake, while no service runs.

    \b
    history   what each user's rows are computed from
    online    the rows that decisions read
    features  the rows that training reads
    log       an empty one, after the lake's last event: events that only the old log had are lost
    Example: python -m feature_repo rebuild history
    """
    from feature_repo.rebuild import rebuild as run

    click.echo(_explained(lambda: run(Settings(domain=domain), what)))


@main.command()
@domain_option
def check(domain: str) -> None:
    """Say which files of the state are damaged, and what to do about each.

    Example: python -m feature_repo check
    """
    from feature_repo.intact import check as run

    run(Settings(domain=domain))
    click.echo("no file is damaged")


@main.command()
@domain_option
@click.option("--reason", help="Only those refused for this reason.")
@click.option("--limit", default=20, show_default=True, help="How many to show.")
def quarantine(domain: str, reason: str | None, limit: int) -> None:
    """Show how many events were refused and why, and the first of them as they came.

    Example: python -m feature_repo quarantine --reason wrong_type --limit 5
    """
    from feature_repo.lake.quarantine import Quarantine

    held = Quarantine(Settings(domain=domain).quarantine)
    for name, n in sorted(held.counts().items()):
        click.echo(f"{n:8,}  {name}")
    if dropped := sum(held.dropped().values()):
        click.echo(f"{dropped:8,}  dropped for want of room")
    for entry in held.read(limit, reason):
        click.echo(f"{entry.reason}: {entry.detail}\n    {str(entry.raw)[:300]}")


@main.command()
def settings() -> None:
    """Print the reference of all settings, docs/settings.md.

    Example: python -m feature_repo settings > docs/settings.md
    """
    from feature_repo.settings_page import page

    click.echo(page(), nl=False)


if __name__ == "__main__":
    main(prog_name="python -m feature_repo")
