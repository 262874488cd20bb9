"""Who reached the outcome, as the lake tells it, for domains whose sign-up and outcome are events."""

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.settings import Settings
from feature_repo.vocabulary import Where

if TYPE_CHECKING:
    import ibis


def outcomes_of_events(settings: Settings, anchor: Where, outcome: Where, horizon: int) -> pa.Table:
    """One row for each user with an anchor event, ordered by user_id (see domain.Domain).

    user_id | anchor_us: the first anchor event | outcome_us: the first outcome event in (anchor, anchor + horizon],
    null: none so far | end_us: anchor + horizon | cohort: ISO week of the anchor in UTC, as 2025-W07.
    Canonical copies only. horizon in µs.
    """
    import ibis

    from feature_repo.lake.lake import Lake

    events = Lake(settings.lake).events(ibis.duckdb.connect())
    events = events.filter(events.user_id.notnull())
    anchors = _matching(events, anchor).group_by("user_id").agg(anchor_us=lambda t: t.ts_us.min())
    reached = _matching(events, outcome).select(reacher="user_id", reached_us="ts_us")
    soon = [
        anchors.user_id == reached.reacher,
        reached.reached_us > anchors.anchor_us,
        reached.reached_us <= anchors.anchor_us + horizon,
    ]
    rows = (
        anchors.left_join(reached, soon)
        .group_by("user_id", "anchor_us")
        .agg(outcome_us=lambda t: t.reached_us.min())
        .mutate(end_us=lambda t: t.anchor_us + horizon)
        .order_by("user_id")
        .to_pyarrow()
    )
    cohort = pc.strftime(rows["anchor_us"].cast(pa.timestamp("us")), format="%G-W%V")
    return rows.append_column("cohort", cohort.cast(pa.string()))


def _matching(events: "ibis.Table", condition: Where) -> "ibis.Table":
    for column, values in condition:
        events = events.filter(events[column].isin(values))
    return events
