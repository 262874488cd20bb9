"""The whole loop once, from events to the weekly page: what `make run` does.

ingest ─► backfill ─► train ─► promote ─► build the Bento ─► serve and decide over HTTP ─► experiment
                                                                          ─► report ─► run.json
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from feature_repo.domain import Domain
from feature_repo.domains.saas.experiment import TEMPLATES
from feature_repo.lake.log_to_lake import ingest
from feature_repo.progress import Bars
from feature_repo.settings import Settings, now_us
from monitoring import distributed, failures, hints
from monitoring.live import Live, decide_live, in_use
from monitoring.parity import parity

Figures = dict[str, Any]
LOG = "run.log"
"""File in the state folder with the tracebacks of failed steps."""


@dataclass
class Run:
    """A run under way: its settings, the time that it takes for now (µs), and the figures so far."""

    settings: Settings
    domain: Domain
    console: Console
    at_us: int = 0
    figures: Figures = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and note how long it took.

        Raises:
            click.ClickException: it failed.
        """
        self.console.rule(f"[bold]{title}", align="left", style="dim")
        began = time.monotonic()
        with failures.explained(title, self.settings.state / LOG):
            yield
        self.figures.setdefault("seconds", {})[title] = round(time.monotonic() - began, 1)


def run(settings: Settings, data: Path | None = None, users: int = 5000, port: int | None = None) -> Figures:
    """Do everything once and say what came out; twice gives the same, but for another model version.

    Args:
        data: folder of the source tables, for a domain that needs them.
        users: how many people to simulate, for a domain that simulates.
        port: of the service while it runs; default a free one.

    Raises:
        click.ClickException: a step failed; the message says why, what to do, and where the log is.
        SystemExit: with 130, after Ctrl-C or SIGTERM.
    """
    began = time.monotonic()
    os.environ.setdefault("BENTOML_HOME", str(settings.home / "bentoml"))  # read when Bento is imported
    run_ = Run(settings, _checked(settings, port), Console(highlight=False))
    run_.figures["domain"] = settings.domain
    _ingest(run_, data, users)
    _features(run_)
    _train(run_)
    _promote(run_)
    _published(run_)
    _segments(run_)
    _build(run_)
    _decide(run_, port)
    _experiment(run_)
    _report(run_)
    run_.figures["seconds"]["total"] = round(time.monotonic() - began, 1)
    with failures.explained("summary", settings.state / LOG):
        _finish(run_, port)
    return run_.figures


def _checked(settings: Settings, port: int | None) -> Domain:
    """The domain, once all that can be wrong before anything is started is right.

    Raises:
        click.ClickException: no such domain, its policy, rules or experiments do not fit, or the port is in use.
    """
    from serving import wiring

    try:
        domain, _ = wiring.check(settings)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if port is not None and in_use(port):
        words = f"port {port} of 127.0.0.1 is in use: stop what listens there, or choose another PORT"
        raise click.ClickException(words)
    return domain


def _ingest(run_: Run, data: Path | None, users: int) -> None:
    with run_.step("events"):
        source: dict[str, Any] = {} if run_.domain.needs_data else {"users": users, "experiment": TEMPLATES}
        ingested = ingest(run_.settings, data, **source)
        run_.at_us = _now(run_)
    run_.figures["events"] = {"accepted": ingested.accepted, "refused": dict(sorted(ingested.refused.items()))}


def _now(run_: Run) -> int:
    """The clock while anybody is in their onboarding; for a past that is replayed, its newest time of observation."""
    people = run_.domain.outcomes(run_.settings).to_pandas()
    now = now_us()
    if ((people["anchor_us"] <= now) & (now < people["end_us"])).any():
        return now
    return int(people["anchor_us"].max()) + max(run_.domain.observations)


def _features(run_: Run) -> None:
    from feature_repo.feature_store.backfill import backfill
    from feature_repo.feature_store.materialize import materialize

    with run_.step("features"):
        filled = backfill(run_.settings)
        online = materialize(run_.settings, run_.at_us)
    stored = len(run_.domain.features)
    run_.figures["features"] = {"stored": stored, "elapsed": len(run_.domain.elapsed), "online_rows": online.rows}
    run_.figures["features"] |= {"rows_written": filled.rows, "position": filled.position}


def _train(run_: Run) -> None:
    from training.progress import Bar
    from training.tables import candidates
    from training.train import train

    with run_.step("train"), Bar("training") as bar:
        trained = train(run_.settings, _known(run_), progress=bar)
    candidates(trained)
    run_.figures["candidates"] = {r.kind: r.metrics["roc_auc"] for r in trained.results}


def _known(run_: Run) -> int:
    """The time by which labels count: the run's now, or, where a past is replayed, all of it."""
    people = run_.domain.outcomes(run_.settings).to_pandas()
    return max(run_.at_us, int(people["end_us"].max())) if run_.domain.needs_data else run_.at_us


def _promote(run_: Run) -> None:
    from training import dataset, registry, splits
    from training.examine import examine
    from training.plan import Plan
    from training.promote import promote
    from training.tables import verdict

    with run_.step("promote"):
        found = promote(run_.settings)
        verdict(found)
        if not found.promoted and found.standing is None:
            raise ValueError(
                f"the gate refused version {found.version}, and there is no champion to go on with: {found.reason}. "
                f"More people make a better model; `make promote VERSION={found.version}` takes it all the same"
            )
        champion = registry.load(run_.settings)
        examined = examine(run_.settings, _known(run_))
    run_.figures["model"] = {"name": champion.name, "version": champion.version}
    run_.figures |= {name: round(i.value, 4) for name, i in examined.figures.items()}
    run_.figures["attainable_roc_auc"] = None
    if run_.domain.attainable:
        from sklearn.metrics import roc_auc_score

        known = dataset.matured(dataset.observations(run_.settings, _known(run_)))
        held = splits.newest_holdout(known, Plan().holdout, Plan().gap_us).holdout
        truth = run_.domain.attainable(run_.settings, held)
        run_.figures["attainable_roc_auc"] = round(float(roc_auc_score(held["label"].astype(int), truth)), 4)


def _published(run_: Run) -> None:
    """Where a domain has published figures, training has a module of its name that compares with them."""
    if find_spec(f"training.{run_.domain.name}") is None:
        return
    from importlib import import_module

    from training.progress import Bar
    from training.tables import published

    with run_.step("published figures"), Bar("comparing") as bar:
        found = import_module(f"training.{run_.domain.name}").compare(run_.settings, progress=bar)
    published(found)
    run_.figures["out_of_time"] = found


def _segments(run_: Run) -> None:
    from serving.segments.commands import followed

    with run_.step("segments"):
        run_.figures["segments"] = followed(run_.settings, run_.at_us, run_.console)


def _build(run_: Run) -> None:
    from serving import bento

    with run_.step("build the Bento"):
        run_.figures["bento"] = str(bento.build(run_.settings))
        run_.console.print(run_.figures["bento"])


def _decide(run_: Run, port: int | None) -> None:
    with run_.step("decide"):
        live: Live = decide_live(run_.settings, _people(run_), run_.at_us, port, run_.console)
    run_.figures["decisions"] = live.figures()
    run_.figures["live"] = live.relived.figures() | distributed.figures(run_.settings)
    with run_.step("replay"):
        run_.figures["replay"] = _replayed(run_)
    with run_.step("parity"):
        found = parity(run_.settings)
        run_.console.print(found.table())
    run_.figures["parity"] = {"vectors": found.vectors, "not_comparable": found.not_comparable, "wrong": found.wrong}


def _experiment(run_: Run) -> None:
    """The experiment among simulated people, with its interval beside the simulator's truth."""
    if run_.domain.needs_data:
        return
    from monitoring.simulated_experiment import simulated

    with run_.step("experiment"):
        found = simulated(run_.settings, run_.at_us)
        if found is not None:
            run_.console.print(found.table())
            run_.figures["experiment"] = found.figures()


def _replayed(run_: Run) -> Figures:
    """Every decision of the run made again from its receipt."""
    from serving import replay

    with Bars(console=run_.console, transient=True) as progress:
        bar = progress.add_task("making decisions again", total=None)
        done = replay.replayer(run_.settings).all(
            replay.rows(run_.settings.decisions), lambda n: progress.update(bar, advance=n)
        )
    run_.console.print("\n".join(replay.table(done)))
    return {"decisions": done.count, "equal": done.equal, "different": done.different}


def _people(run_: Run, most: int = 500) -> list[str]:
    """Whose onboarding is under way, the newest first, at most so many."""
    people = run_.domain.outcomes(run_.settings).to_pandas()
    now = people[(people["anchor_us"] <= run_.at_us) & (run_.at_us < people["end_us"])]
    return list(now.sort_values(["anchor_us", "user_id"], ascending=False)["user_id"].head(most))


def _report(run_: Run) -> None:
    from monitoring.report import report

    with run_.step("report"):
        written = report(run_.settings)
    for verdict in written.figures["verdicts"]:
        run_.console.print(f"  {verdict['title']}")
    run_.figures["report"] = str(written.page)


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
