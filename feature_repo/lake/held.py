"""What is held of one user's events, for an export: a page of them, and their traits as last known."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.erasing.erasure import Plan
from feature_repo.lake import user_events


def theirs(around: pa.Table, of: Plan) -> pa.Table:
    """Of the events that `user_events.around` gives those that are the user's, in its order."""
    senders, messages = frozenset(of.senders), frozenset(of.messages)
    keys = zip(user_events.senders(around), around["message_id"].to_pylist(), strict=True)
    return around.filter(pa.array([key[0] in senders or key in messages for key in keys], pa.bool_()))


def page(events: pa.Table, after: int, most: int) -> list[dict[str, Any]]:
    """Up to `most` of some events after a position, in the order of positions."""
    left = events.filter(pc.greater(events["position"], after)).sort_by("position")
    rows: list[dict[str, Any]] = left.slice(0, most).to_pylist()
    return rows


def traits(events: pa.Table) -> dict[str, Any]:
    """The last value of each trait of events in the order of time."""
    found: dict[str, Any] = {}
    for document in events.filter(pc.not_equal(events["traits"], "{}"))["traits"].to_pylist():
        found |= json.loads(document)
    return found
