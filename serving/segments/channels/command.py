"""`python -m serving webhooks`: how far each channel has got, and what was given up."""

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import click

from feature_repo.command import domain_option
from feature_repo.settings import Settings
from serving.segments.journal import FILE

if TYPE_CHECKING:
    from serving.segments.channels.dead_letters import DeadLetters
    from serving.segments.channels.endpoints import Endpoint


@click.command()
@domain_option
@click.option("--redeliver", is_flag=True, help="Send the dead letters again; those that are taken are removed.")
@click.option("--enable", metavar="CHANNEL", help="Send to an endpoint again that answered 410 Gone.")
def webhooks(domain: str, redeliver: bool, enable: str | None) -> None:
    """Show the channels of segment changes and their dead letters; a service may run meanwhile.

    \b
    python -m serving webhooks
    python -m serving webhooks --redeliver
    python -m serving webhooks --enable webhook:crm
    """
    from serving.segments.channels.dead_letters import DeadLetters, folder
    from serving.segments.channels.disabled import Disabled
    from serving.segments.channels.endpoints import WebhooksError, declared

    settings = Settings(domain=domain)
    try:
        endpoints = declared(settings)
    except WebhooksError as e:
        raise click.ClickException(str(e)) from None
    letters, disabled = DeadLetters(folder(settings)), Disabled(folder(settings))
    if enable and not disabled.enable(enable):
        raise click.ClickException(f"{enable} is not disabled; disabled are: {', '.join(disabled.all()) or 'none'}")
    if redeliver:
        _redeliver(endpoints, letters)
    _show(settings, endpoints, disabled.all(), letters)


def _redeliver(endpoints: "list[Endpoint]", letters: "DeadLetters") -> None:
    from serving.segments.channels import webhook

    with webhook.client() as http:
        for letter, told in webhook.redeliver(endpoints, letters, http):
            click.echo(f"{letter.channel} {letter.event.id}: {told or 'taken'}")


def _show(settings: Settings, endpoints: "list[Endpoint]", disabled: dict[str, str], letters: "DeadLetters") -> None:
    from serving.segments.channels.broker import NAME
    from serving.segments.channels.running import EMBEDDED
    from serving.segments.channels.webhook import channel_name

    cursors, last = reached(settings)
    configured = [channel_name(e) for e in endpoints] + ([NAME] if settings.log != EMBEDDED else [])
    for name in [*configured, *sorted(cursors.keys() - set(configured))]:
        state = "not configured" if name not in configured else "open"
        if name in disabled:
            state = f"answered 410 Gone, disabled since {disabled[name]}"
        at = f"change {cursors[name]} of {last}" if name in cursors else "not begun"
        click.echo(f"{name}: {at}, {state}")
    if not configured and not cursors:
        click.echo("no channel: set FIRSTMILE_WEBHOOKS, or a broker in FIRSTMILE_LOG")
    dead = letters.all()
    click.echo(f"dead letters: {len(dead)}")
    for letter in dead:
        event = letter.event
        click.echo(f"  {letter.dead_at} {letter.channel} {event.id} change {event.seq}: {letter.reason}")


def reached(settings: Settings) -> tuple[dict[str, int], int]:
    """How far each channel has got, by name, and the last change; nothing is written, and a service may run."""
    file = settings.state / FILE
    if not file.exists():
        return {}, 0
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM changes").fetchone()
        return dict(db.execute("SELECT channel, seq FROM cursors")), last
