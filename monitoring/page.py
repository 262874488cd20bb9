"""The front page and its figures: what was found out about the week, as HTML and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from feature_repo.contract.events import key_of, spoken
from monitoring import charts, words
from monitoring.decisions import Decisions
from monitoring.drift import Drift
from monitoring.outcomes import Quality, Rate
from monitoring.parity import Parity
from monitoring.psi import DRIFTED, FLOOR, WATCH
from monitoring.segments import Moves, WeekShares
from monitoring.snapshots import LIMIT
from monitoring.verdicts import Verdict
from serving.times import rfc3339

MARKS = {"good": "● Good", "look": "▲ Look", "act": "■ Act", "unknown": "○ Not known"}
TOP = 12


@dataclass(frozen=True)
class Week:
    """Everything that the front page says. Times are µs since 1970 UTC; None: not known.

    at_us: when labels were known as they are here, and end of the decisions; week_end_us: end of the newest week.

    in_training: for each of `weeks`, whether it lay inside the training period. people: people in onboarding by week
    end, before sampling. ages: quality by age at scoring. docs: what each feature is.
    """

    title: str
    domain: str
    at_us: int
    week_end_us: int
    model_name: str
    model_version: int
    train_end_us: int | None
    outcome: str
    label_doc: str
    good: bool
    verdicts: list[Verdict]
    drift: Drift
    scores_reference: list[float]
    scores_now: list[float]
    reference_words: str
    timestamps: list[str]
    docs: dict[str, str]
    segments: list[str]
    done_segment: str | None
    weeks: list[WeekShares]
    in_training: list[bool | None]
    people: dict[int, int]
    sampled: bool
    moves: list[Moves]
    ages_scored: str
    rates: list[Rate]
    quality: Quality | None
    ages: list[tuple[str, Quality]]
    labels_words: str
    decisions: Decisions
    served: Parity

    @property
    def weeks_in_training(self) -> int:
        """How many of the weeks lay inside the training period."""
        return sum(bool(inside) for inside in self.in_training)

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each segment."""
        return charts.colours(self.segments, self.done_segment)


def write(week: Week, folder: Path) -> Path:
    """Write index.html and report.json into `folder`; gives the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(figures(week), indent=1), encoding="utf-8")
    page = folder / "index.html"
    page.write_text(render(week), encoding="utf-8")
    return page


def render(week: Week) -> str:
    """The front page as HTML; whatever stands in the figures or names is escaped."""
    environment = Environment(
        loader=PackageLoader("monitoring"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(date=words.date, rfc3339=rfc3339, moment=words.moment, percent=words.percent)
    environment.filters["who"] = lambda example: spoken(key_of(example["user_id"], example["anonymous_id"]))
    environment.globals.update(
        charts=charts, marks=MARKS, watch=f"{WATCH:g}", drifted=f"{DRIFTED:g}", floor=f"{100 * FLOOR:g} %", limit=LIMIT
    )
    return environment.get_template("index.html").render(r=week, top=_top(week.drift))


def figures(week: Week) -> dict[str, Any]:
    """The week as plain JSON values; the long lists of scores are left out."""
    plain = asdict(week)
    del plain["scores_reference"], plain["scores_now"], plain["decisions"]["scores"]
    plain["served"] = week.served.figures()
    return plain


def _top(drift: Drift) -> Sequence[tuple[str, float]]:
    """The features that moved most, and their PSI."""
    return [(f.name, f.psi) for f in drift.features if f.psi is not None][:TOP]
