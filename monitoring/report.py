"""The weekly report, from the state of the other rooms to one page.

outcomes ─► observations (at the domain's ages) ─┐
         └► snapshots (at week ends) ────────────┴► features (Feast, as of then) ─► champion ─► score, segment
observations ─► training reference | newest week ─► Evidently ─► drift, missing values
             └► matured since training ─► AUC, calibration, outcome by segment
snapshots ─► shares by week, PSI, moves              decision log ─► what was served
decision log ─► the week's served vectors, recomputed from the lake ─► served as defined?
journal of segments ─► segments by rule: shares, moves, limits
                      all of it ─► verdicts ─► index.html, report.json
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo import domains
from feature_repo.settings import Settings
from monitoring import compose, decisions, drift, page, parity, parts, replay, rule_segments, snapshots
from monitoring.words import moment

WEEKS = 8
Step = Callable[[str], None]
STEPS = 7
"""How often `step` is called, at most."""


@dataclass(frozen=True)
class Written:
    """The report on disk: its page, and its figures as plain JSON values (those of report.json)."""

    page: Path
    figures: dict[str, Any]


def report(
    settings: Settings,
    at_us: int | None = None,
    weeks: int = WEEKS,
    step: Step = lambda _: None,
    compared: parity.Parity | None = None,
) -> Written:
    """Write the report of the seven days up to `at_us` (default: the newest event or decision) into settings.report.

    weeks: how many week ends are replayed. step: is told what begins. compared: the parity of all decisions, where it
    was just measured; it counts if they are all of the week.

    Raises:
        NoModelError: there is no champion (training.registry).
        ValueError: there is no event, or nobody could be scored by then. BusyError: another backfill runs.
    """
    from feature_repo.feature_store.backfill import backfill
    from training import dataset, registry

    step("people and labels")
    domain, model = domains.load(settings.domain), registry.load(settings)
    at_us = newest(settings) if at_us is None else at_us
    people = domain.outcomes(settings).to_pandas()
    observed = dataset.observations(settings, at_us)
    if observed.empty:
        raise ValueError(
            f"{settings.state}: nobody could be scored by {moment(at_us)}: ingest events or give a later time"
        )
    done_stays = domain.label.done is not None
    taken = snapshots.at_week_ends(people, parts.week_end(observed, at_us), weeks, done_stays)

    step("features as they were, and scores")
    rows = backfill(settings, progress=False)  # users of whom only live events have come would have no features
    observed, replayed = replay.scored(settings, model, domain.label, [observed, taken.rows])
    champion = parts.Champion.of(model.name, model.version, registry.tags(settings, model.version))
    reference = registry.reference(settings, model.version)
    divided = parts.divide(observed, reference, at_us, champion.train_end_us)

    settings.report.mkdir(parents=True, exist_ok=True)
    types = compose.measured_types(domain, model.features)
    ages = divided.current["offset_us"].nunique()
    found = drift.measure(divided.reference, divided.current, types, settings.report, ages, step)

    step("what was served, against the lake")
    ends = [at_us, divided.week_end_us]  # of a past that is replayed, decisions are in the week of its observations
    log = decisions.first_week_with_any(settings.decisions, ends, compose.segment_names(domain))
    receipts = parity.receipts(settings.decisions, log.from_us, log.to_us)
    all_of_them = compared is not None and compared.vectors + compared.not_comparable == len(receipts)
    served = compared if compared is not None and all_of_them else parity.compare(settings, receipts)

    step("page")
    by_rule = rule_segments.measured(settings, domain, at_us)
    week = compose.compose(
        domain, champion, at_us, divided, found, taken, replayed, log, served, by_rule, rows.at_limit
    )
    return Written(page.write(week, settings.report), page.figures(week))


def newest(settings: Settings) -> int:
    """Time of the newest event or decision, µs; an event whose clock was ahead counts from when it was received.

    Raises:
        ValueError: the lake is empty.
    """
    import ibis

    from feature_repo.lake.lake import Lake

    events = Lake(settings.lake).events(ibis.duckdb.connect())
    last = events.aggregate(ts=events.ts_us.max(), received=events.received_us.max()).to_pyarrow().to_pylist()[0]
    if last["ts"] is None:
        raise ValueError(f"{settings.lake}: no events yet: ingest some first (make backfill)")
    return max(min(last["ts"], last["received"]), decisions.newest(settings.decisions) or 0)
