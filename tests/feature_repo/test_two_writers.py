"""The stream and a materialization both write online rows: whichever comes last, the row of all events stays."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import materialize
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import INCOMING
from feature_repo.settings import Settings
from feature_repo.stream.embedded import Embedded
from feature_repo.vocabulary import DAY
from tests.feature_repo.histories import BASE
from tests.feature_repo.test_backfill import event
from tests.feature_repo.test_embedded import appended, clicks, settled

VISITOR = event("visitor", 0, BASE - DAY) | {"user_id": None, "anonymous_id": "d"}
LINK = event("u", 1, BASE - 5) | {"type": "identify", "name": None, "anonymous_id": "d"}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Embedded]:
    found = Embedded(Settings(home=tmp_path, domain="saas"), lambda: BASE)
    yield found
    found.close()


def test_a_visitor_who_was_materialized_and_becomes_known_is_nobody(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    Lake(settings.lake).append_table(pa.Table.from_pylist([VISITOR], INCOMING))
    backfill(settings, progress=False)
    materialize(settings, BASE, progress=False)
    assert clicks(settings, ["anon:d"]) == [1]
    live = Embedded(settings, lambda: BASE).start()
    appended(live, LINK)
    settled(live, ["u", "anon:d"])
    assert clicks(settings, ["u", "anon:d"]) == [1, None]
    live.close()


def test_a_visitor_who_becomes_known_during_a_backfill_is_nobody(live: Embedded) -> None:
    live.start()
    appended(live, VISITOR)
    settled(live, ["anon:d"])
    backfill(live.settings, progress=False)
    appended(live, LINK)
    settled(live, ["u", "anon:d"])
    materialize(live.settings, BASE, progress=False)
    settled(live, ["u", "anon:d"])
    assert clicks(live.settings, ["u", "anon:d"]) == [1, None]


def test_a_late_event_after_a_corrected_row_was_materialized_counts(live: Embedded) -> None:
    live.start()
    for n in range(2):
        appended(live, event("u", n, BASE - (40 - n) * DAY))
        settled(live, ["u"])
        backfill(live.settings, progress=False)
        materialize(live.settings, BASE - 2 + n, progress=False)
    appended(live, event("u", 2, BASE - 38 * DAY))
    settled(live, ["u"])
    assert clicks(live.settings, ["u"]) == [3]


def test_a_late_event_during_a_backfill_counts(live: Embedded) -> None:
    live.start()
    for n in range(3):
        appended(live, event("u", n, BASE - (40 - n) * DAY))
        settled(live, ["u"])
        backfill(live.settings, progress=False)
        if n == 2:
            appended(live, event("u", 3, BASE - 37 * DAY))
            settled(live, ["u"])
        materialize(live.settings, BASE - 3 + n, progress=False)
    settled(live, ["u"])
    assert clicks(live.settings, ["u"]) == [4]
