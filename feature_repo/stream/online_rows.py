"""The rows of persons, as they are written to the online store."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import domains
from feature_repo.feature_store.store import delete_online, feature_store, online_times, write_online
from feature_repo.history.history_store import NEVER, Written
from feature_repo.settings import Settings


class OnlineRows:
    """Brings the online rows of persons up to date."""

    def __init__(self, settings: Settings) -> None:
        self._domain = domains.load(settings.domain)
        self._store = feature_store(settings, lineage=False)

    def write(self, persons: Sequence[str], found: pa.Table, by: int) -> dict[str, Written | None]:
        """Write the rows found for these persons by what was known at position `by`; returns what to note of each.

        A row's timestamp never goes back, as a correction can move somebody's newest change point; its position is
        that of the last event applied: so the online store's order lets it replace what was believed before. The store
        is asked for the timestamps, because a materialization writes rows too.
        """
        before = dict(zip(persons, online_times(self._store, self._domain, persons), strict=True))
        note: dict[str, Written | None] = dict.fromkeys(persons)
        for person, ts_us, until in zip(
            *(found[c].to_pylist() for c in ("user_id", "ts_us", "valid_until_us")), strict=True
        ):
            if ts_us is not None or until is not None:
                note[person] = Written(NEVER if ts_us is None else max(ts_us, before[person] or ts_us), until)
        rows = found.filter(pc.is_valid(found["ts_us"]))
        there = rows["user_id"].to_pylist()
        if there:
            moments = [w.event_us for p in there if (w := note[p])]
            write_online(self._store, self._domain, _offline(rows, moments, by))
        gone = [p for p in set(persons).difference(there) if before[p] is not None]
        if gone:
            delete_online(self._store, self._domain, gone)
        return note


def _offline(rows: pa.Table, moments: Sequence[int], position: int) -> pa.Table:
    """The rows in the columns of the offline rows, with these event timestamps (µs)."""
    us = pa.timestamp("us", "UTC")
    at = pa.array([position] * len(rows), pa.int64())
    for name, column in (
        ("event_timestamp", pa.array(moments, pa.int64()).cast(us)), ("created", at.cast(us)), ("applied_position", at),
    ):  # fmt: skip
        rows = rows.append_column(name, column)
    return rows
