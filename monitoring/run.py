"""The whole loop once, from events to the weekly page: what `make run` does. It goes on where it stopped.

events ─► features ─► train ─► promote ─► evaluate ─► segments ─► the service starts
       ─► build the Bento ─► experiment ─► decide (asked, acted live) ─► replay ─► parity ─► report ─► run.json

The steps up to the experiment are done again when an input changed; the others always.
"""

import json
import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from feature_repo.storage import flock
from monitoring import data_steps, failures, hints, live_steps, model_steps
from monitoring.live import in_use
from monitoring.record import FILE, Record
from monitoring.steps import LOG, Figures, Run


def run(
    settings: Settings, data: Path | None = None, users: int = 5000, port: int | None = None, fresh: bool = False
) -> Figures:
    """Do everything that is not done yet, and what is always done, and say what came out.

    Args:
        data: folder of the source tables, for a domain that needs them.
        users: how many people to simulate, for a domain that simulates.
        port: of the service while it runs; default a free one.
        fresh: skip no step.

    Raises:
        click.ClickException: a step failed; the message says why, what to do, and where the log is.
        SystemExit: with 130, after Ctrl-C or SIGTERM.
    """
    began = time.monotonic()
    os.environ.setdefault("BENTOML_HOME", str(settings.home / "bentoml"))  # read when Bento is imported
    console = Console(highlight=False, width=None if Console().is_terminal else 160)
    domain, log = _checked(settings, port), settings.state / LOG
    with ExitStack() as held:
        with failures.explained("start", log):
            held.enter_context(flock(settings.state / "run.lock", "run", 0))
            run_ = Run(settings, domain, console, _record(settings, fresh, console))
        run_.figures["domain"] = settings.domain
        data_steps.events(run_, data, users)
        data_steps.features(run_, fresh)
        version = model_steps.train_candidates(run_)
        champion = model_steps.ask_the_gate(run_, version)
        model_steps.evaluate(run_, champion)
        model_steps.compare_with_published(run_)
        data_steps.segments(run_, champion)
        with live_steps.service(run_, port) as service:  # it starts meanwhile
            data_steps.build(run_, champion)
            data_steps.experiment(run_)
            live_steps.decide(run_, service)
        live_steps.weekly_report(run_, live_steps.compare(run_))
        run_.figures["seconds"]["total"] = round(time.monotonic() - began, 1)
        with failures.explained("summary", log):
            _finish(run_, port)
    return run_.figures


def _checked(settings: Settings, port: int | None) -> Domain:
    """The domain, once all that can be wrong before anything is started is right.

    Raises:
        click.ClickException: no such domain, its policy, rules or experiments do not fit, or the port cannot be used.
    """
    from serving import wiring

    try:
        domain, _ = wiring.check(settings)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    try:
        taken = port is not None and in_use(port)
    except OSError as error:
        raise click.ClickException(f"port {port} of 127.0.0.1 cannot be used ({error}): choose another PORT") from None
    if taken:
        words = f"port {port} of 127.0.0.1 is in use: stop what listens there, or choose another PORT"
        raise click.ClickException(words)
    return domain


def _record(settings: Settings, fresh: bool, console: Console) -> Record:
    record = Record(settings.state / FILE)
    if record.damaged:
        console.print(f"{settings.state / FILE} could not be read: every step is done again")
    if fresh:
        record.clear()
    return record


def _finish(run_: Run, port: int | None) -> None:
    """The table of what came out, and the same as run.json."""
    figures = run_.figures
    figures["at"] = datetime.fromtimestamp(run_.at_us / 1e6, UTC).isoformat(timespec="seconds")
    figures["uis"] = {"report": f"open {figures['report']}"} | hints.commands(run_.settings, port)
    path = run_.settings.home / "run.json"
    path.write_text(json.dumps(figures, indent=2) + "\n")
    from monitoring.summary import summary

    run_.console.print(summary(figures))
    run_.console.print(f"the same: {path}", soft_wrap=True)
