"""OULAD's way in: small tables of the dataset's shape, from file to feature rows."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import domains
from feature_repo.contract.events import Event, parse
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import in_force
from feature_repo.lake.lake import Lake
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY

KEYS = {"code_module": "AAA", "code_presentation": "2014J"}
START = round(datetime(2014, 10, 1, tzinfo=UTC).timestamp()) * 1_000_000
INFO = {
    "gender": "F", "region": "Wales", "highest_education": "HE Qualification", "age_band": "0-35",
    "num_of_prev_attempts": 0, "studied_credits": 60, "disability": "N",
}  # fmt: skip
TABLES = {
    "courses": [KEYS | {"module_presentation_length": 269}],
    "vle": [KEYS | {"id_site": s, "activity_type": a} for s, a in ((1, "homepage"), (2, "forumng"))],
    "studentInfo": [KEYS | INFO | {"id_student": s, "imd_band": b} for s, b in ((11, "10-20"), (12, None), (13, None))],
    "studentRegistration": [
        KEYS | {"id_student": 11, "date_registration": -30, "date_unregistration": None},
        KEYS | {"id_student": 12, "date_registration": 5, "date_unregistration": 40},
        KEYS | {"id_student": 13, "date_registration": None, "date_unregistration": None},
    ],
    "studentVle": [
        KEYS | {"id_student": 11, "id_site": site, "date": day, "sum_click": clicks}
        for site, day, clicks in ((1, -3, 2), (1, 10, 4), (1, 10, 4), (2, 12, 1))
    ],
    "assessments": [
        KEYS | {"id_assessment": 7, "assessment_type": "TMA", "date": 12, "weight": 12.5},
        KEYS | {"id_assessment": 8, "assessment_type": "Exam", "date": None, "weight": 100.0},
    ],
    "studentAssessment": [
        {"id_assessment": 7, "id_student": 11, "date_submitted": 11, "is_banked": 0, "score": 80},
        {"id_assessment": 7, "id_student": 12, "date_submitted": 30, "is_banked": 0, "score": None},
        {"id_assessment": 8, "id_student": 11, "date_submitted": 260, "is_banked": 0, "score": 70},
    ],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows in TABLES.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", domain="oulad")


def events(settings: Settings) -> list[dict]:
    found = Lake(settings.lake).events(ibis.duckdb.connect()).to_pyarrow().to_pylist()
    return sorted(found, key=lambda e: e["position"])


def test_every_row_is_an_event_that_the_contract_accepts_as_it_is(data, settings):
    oulad = domains.load("oulad")
    assert oulad.ingest(settings, data).accepted == 2 + 2 + 3 + 2 + 4
    for row in events(settings):
        when = datetime.fromtimestamp(row["ts_us"] / 1e6, UTC).isoformat().replace("+00:00", "Z")
        raw = {"type": row["type"], "messageId": row["message_id"], "userId": row["user_id"], "timestamp": when}
        raw |= {k: json.loads(row[k]) for k in ("properties", "traits", "context")}
        raw |= {"event": row["name"]} if row["name"] else {}
        event = parse(raw, oulad, row["received_us"])
        assert isinstance(event, Event), event
        assert event.ts_us == row["ts_us"]
        for k in ("properties", "traits", "context"):
            assert json.dumps(getattr(event, k), separators=(",", ":"), sort_keys=True, ensure_ascii=False) == row[k]


def test_equal_rows_are_two_events_and_a_second_ingest_none(data, settings):
    oulad = domains.load("oulad")
    oulad.ingest(settings, data)
    assert len([e for e in events(settings) if e["ts_us"] == START + 10 * DAY and e["name"] == "Viewed"]) == 2
    assert oulad.ingest(settings, None).accepted == 13


def row(settings: Settings, day: int, student: int) -> dict | None:
    rows = {r["user_id"]: r for r in in_force(settings, START + day * DAY).to_pylist()}
    return rows.get(f"AAA/2014J/{student}")


def test_nothing_after_a_day_is_in_its_features(data, settings):
    domains.load("oulad").ingest(settings, data)
    backfill(settings, progress=False)
    assert row(settings, 9, 11)["clicks"] == 2
    assert row(settings, 10, 11)["clicks"] == 10
    assert (row(settings, 18, 11)["scores"], row(settings, 19, 11)["scores"]) == (0, 1)  # seven days after day 12
    assert (row(settings, 275, 11)["scores"], row(settings, 276, 11)["scores"]) == (1, 2)  # 269 + 7
    assert [row(settings, d, 11)["overdue_weight"] for d in (10, 11, 12)] == [0, -125, 0]
    assert [row(settings, d, 12)["overdue"] for d in (11, 12, 30)] == [0, 1, 0]
    assert row(settings, 4, 12) is None
    assert row(settings, 5, 12)["imd_band"] is None
    assert row(settings, 300, 13) is None


def test_withdrawal_is_an_outcome_and_no_event(data, settings):
    oulad = domains.load("oulad")
    oulad.ingest(settings, data)
    outcomes = {r["user_id"]: r for r in oulad.outcomes(settings).to_pylist()}
    assert outcomes["AAA/2014J/12"] == {
        "user_id": "AAA/2014J/12", "anchor_us": START, "outcome_us": START + 40 * DAY,
        "end_us": START + 269 * DAY, "cohort": "2014J",
    }  # fmt: skip
    assert outcomes["AAA/2014J/11"]["outcome_us"] is None
    assert START + 40 * DAY not in {e["ts_us"] for e in events(settings)}


def test_what_is_missing_is_said(tmp_path, settings):
    oulad = domains.load("oulad")
    with pytest.raises(ValueError, match="DATA="):
        oulad.ingest(settings, None)
    with pytest.raises(FileNotFoundError, match="studentVle"):
        oulad.ingest(settings, tmp_path)


def test_other_tables_do_not_go_into_the_same_state_folder(data, settings, tmp_path):
    oulad = domains.load("oulad")
    taken = oulad.ingest(settings, data)
    assert oulad.ingest(settings, data) == oulad.ingest(settings, None) == taken
    others = shutil.copytree(data, tmp_path / "others")
    pq.write_table(pa.Table.from_pylist(TABLES["studentVle"][:1]), others / "studentVle.parquet")
    with pytest.raises(ValueError, match=r"those in .*others are others.*STATE"):
        oulad.ingest(settings, others)
