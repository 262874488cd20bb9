"""Who activated, as the lake tells it."""

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.domains.saas.features import PUBLISHED, SIGNED_UP
from feature_repo.domains.saas.people import HORIZON_DAYS
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY, Where

if TYPE_CHECKING:
    import ibis

HORIZON = HORIZON_DAYS * DAY


def outcomes(settings: Settings) -> pa.Table:
    """One row for each person who has signed up, ordered by user_id.

    user_id | anchor_us: the first "Signed Up" | outcome_us: the first "Project Published" in (anchor, anchor + 14
    days], null: none so far | end_us: anchor + 14 days | cohort: ISO week of the anchor in UTC, as 2025-W07.
    Canonical copies only.
    """
    import ibis

    from feature_repo.lake import Lake

    con = ibis.duckdb.connect()
    events = Lake(settings.lake).events(con)
    events = events.filter(events.user_id.notnull())
    signups = _named(events, SIGNED_UP).group_by("user_id").agg(anchor_us=lambda t: t.ts_us.min())
    published = _named(events, PUBLISHED).select(publisher="user_id", published_us="ts_us")
    soon = [
        signups.user_id == published.publisher,
        published.published_us > signups.anchor_us,
        published.published_us <= signups.anchor_us + HORIZON,
    ]
    rows = (
        signups.left_join(published, soon)
        .group_by("user_id", "anchor_us")
        .agg(outcome_us=lambda t: t.published_us.min())
        .mutate(end_us=lambda t: t.anchor_us + HORIZON)
        .order_by("user_id")
        .to_pyarrow()
    )
    cohort = pc.strftime(rows["anchor_us"].cast(pa.timestamp("us")), format="%G-W%V")
    return rows.append_column("cohort", cohort.cast(pa.string()))


def _named(events: "ibis.Table", condition: Where) -> "ibis.Table":
    """The events that a condition on the name describes."""
    ((column, values),) = condition
    return events.filter(events[column].isin(values))
