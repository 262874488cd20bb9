"""A run under way, and how it does a step: not at all where nothing has changed since it was done."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from feature_repo.domain import Domain
from feature_repo.settings import Settings, now_us
from monitoring import failures
from monitoring.record import Record

Figures = dict[str, Any]
LOG = "run.log"
"""File in the state folder with the tracebacks of failed steps."""


@dataclass
class Run:
    """A run under way.

    record: the steps that are done. source: what the lake holds, without the users of earlier runs' live parts.
    at_us: the time (µs) as of which features, training and segments are made: when this source was first seen.
    """

    settings: Settings
    domain: Domain
    console: Console
    record: Record
    source: Mapping[str, int] = field(default_factory=dict)
    at_us: int = 0
    figures: Figures = field(default_factory=dict)

    @property
    def data(self) -> Figures:
        """The inputs of all steps that read what has been ingested."""
        return {"source": self.source, "as of": self.at_us}

    def step(
        self,
        title: str,
        do: Callable[[], Figures],
        made_from: Callable[[], Mapping[str, Any]] | None = None,
        there: Callable[[Figures], bool] = lambda result: True,
    ) -> Figures:
        """Do a step, unless it is done; gives its result, plain JSON values.

        Args:
            made_from: its inputs; None: it is always done.
            there: whether the outputs of a step with this result are still there.

        Raises:
            click.ClickException: it failed.
        """
        self.console.rule(f"[bold]{title}", align="left", style="dim")
        began = time.monotonic()
        with failures.explained(title, self.settings.state / LOG):
            if made_from is None:
                result = do()
            else:
                now = made_from()
                done = self.record.unchanged(title, now)
                if done is not None and there(done.result):
                    self.console.print(f"{title}: unchanged since {done.at}, skipped")
                    self.figures.setdefault("skipped", []).append(title)
                    return done.result
                if other := self.record.changed(title, now):
                    self.console.print(f"{title}: done again, as {', '.join(other)} changed")
                elif done is not None:
                    self.console.print(f"{title}: done again, as its output of {done.at} is gone")
                result = self.record.write(title, now, do(), time.monotonic() - began).result
        self.figures.setdefault("seconds", {})[title] = round(time.monotonic() - began, 1)
        return result


def now_of(run_: Run) -> int:
    """The clock while anybody is in their onboarding; for a past that is replayed, its newest time of observation."""
    people = run_.domain.outcomes(run_.settings).to_pandas()
    if people.empty:
        raise ValueError(f"{run_.settings.lake}: no event of it begins the onboarding of anybody ({run_.domain.title})")
    now = now_us()
    if ((people["anchor_us"] <= now) & (now < people["end_us"])).any():
        return now
    return int(people["anchor_us"].max()) + max(run_.domain.observations)


def labels_known_us(run_: Run) -> int:
    """The time by which labels count: the run's now, or, where a past is replayed, all of it."""
    people = run_.domain.outcomes(run_.settings).to_pandas()
    return max(run_.at_us, int(people["end_us"].max())) if run_.domain.needs_data else run_.at_us
