"""From OULAD's tables to events and outcomes, in SQL: 11.3 million events do not pass through Python one by one.

A test parses a sample of what this writes with the event contract, so the two ways in stay the same.
"""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.domain import Ingested
from feature_repo.lake.lake import Lake
from feature_repo.progress import Bars
from feature_repo.settings import Settings

TABLES = ("assessments", "courses", "studentAssessment", "studentInfo", "studentRegistration", "studentVle", "vle")

SOURCE_FILE = "source.json"
"""Which tables the state folder was filled from, and how many events came of them."""
BATCH = 1_000_000
"""Events in one append to the lake."""

# The first day of a presentation: B starts in February, J in October. `day` counts from it.
STARTS = """
create view presentations as
select *, code_module || '/' || code_presentation || '/' as prefix,
    epoch_us(make_timestamp(left(code_presentation, 4)::bigint,
        case right(code_presentation, 1) when 'B' then 2 else 10 end, 1, 0, 0, 0.0)) as start_us
from courses
"""

DAY = 86_400_000_000

# From the lowest to the highest: levels and bands are numbers, so that a model can ask for "at least".
EDUCATION = [
    "No Formal quals",
    "Lower Than A Level",
    "A Level or Equivalent",
    "HE Qualification",
    "Post Graduate Qualification",
]

# Every query gives: message_id, type, name, user_id, ts_us, properties, traits. Keys of JSON objects are in order.
EVENTS = {
    "registrations": f"""
select 'studentRegistration:' || r.file_row_number as message_id, 'identify' as type, null as name,
    prefix || id_student as user_id, start_us + date_registration::bigint * {DAY} as ts_us, '{{}}' as properties,
    to_json(struct_pack(age_band, credits := studied_credits, disability,
        education := list_position({EDUCATION}, highest_education) - 1, gender,
        imd_band := try_cast(regexp_extract(imd_band, '^[0-9]+') as bigint), module := code_module,
        previous_attempts := num_of_prev_attempts, region))::varchar as traits
from studentRegistration r join studentInfo using (code_module, code_presentation, id_student)
    join presentations using (code_module, code_presentation)
where date_registration is not null""",
    # A deadline is known beforehand: everybody enrolled by then has it, whatever they do later.
    "deadlines": f"""
select 'assessments:' || a.file_row_number || ':' || id_student as message_id, 'track' as type, 'Due' as name,
    prefix || id_student as user_id, start_us + date::bigint * {DAY} as ts_us,
    to_json(struct_pack(assessment := id_assessment::varchar, kind := assessment_type,
        weight := round(weight * 10)::bigint))::varchar as properties, '{{}}' as traits
from assessments a join studentRegistration using (code_module, code_presentation)
    join presentations using (code_module, code_presentation)
where date is not null and date_registration <= date""",
    "submissions": f"""
select 'studentAssessment:' || s.file_row_number as message_id, 'track' as type, 'Submitted' as name,
    prefix || id_student as user_id, start_us + date_submitted::bigint * {DAY} as ts_us,
    to_json(struct_pack(assessment := id_assessment::varchar, banked := is_banked,
        days_early := coalesce(date, module_presentation_length) - date_submitted,
        kind := assessment_type, weight := round(weight * 10)::bigint))::varchar as properties, '{{}}' as traits
from studentAssessment s join assessments using (id_assessment)
    join presentations using (code_module, code_presentation)""",
    "scores": f"""
select 'studentAssessment.score:' || s.file_row_number as message_id, 'track' as type, 'Scored' as name,
    prefix || id_student as user_id,
    start_us + greatest(coalesce(date, module_presentation_length)::bigint + 7, date_submitted) * {DAY} as ts_us,
    to_json(struct_pack(assessment := id_assessment::varchar, score))::varchar as properties, '{{}}' as traits
from studentAssessment s join assessments using (id_assessment)
    join presentations using (code_module, code_presentation)
where score is not null""",
    "clicks": f"""
select 'studentVle:' || c.file_row_number as message_id, 'track' as type, 'Viewed' as name,
    prefix || id_student as user_id, start_us + date::bigint * {DAY} as ts_us,
    '{{"activity":"' || activity_type || '","clicks":' || sum_click || ',"site":"' || id_site || '"}}' as properties,
    '{{}}' as traits
from studentVle c join vle using (id_site, code_module, code_presentation)
    join presentations using (code_module, code_presentation)""",
}


def connect(data: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB with the seven tables as views.

    Raises:
        FileNotFoundError: a table is missing in the folder.
    """
    missing = [t for t in TABLES if not (data / f"{t}.parquet").exists()]
    if missing:
        raise FileNotFoundError(f"{data}: expected OULAD's tables as Parquet, missing {', '.join(missing)}")
    con = duckdb.connect()
    for table in TABLES:
        path = str(data / f"{table}.parquet").replace("'", "''")
        con.execute(f"create view {table} as select * from read_parquet('{path}', file_row_number = true)")
    con.execute(STARTS)
    return con


def ingest(settings: Settings, data: Path | None = None, **_: object) -> Ingested:
    """Write OULAD's events to the lake and its outcomes beside it; a second time it does nothing.

    Returns the counts of the first time.

    Raises:
        ValueError: no folder was given, or this state folder was filled from other tables.
    """
    marker, source = settings.state / "outcomes.parquet", settings.state / SOURCE_FILE
    if marker.exists():
        return _same(source, data)
    if data is None:
        raise ValueError("oulad needs the folder of its tables: DATA=<folder>, or --data <folder>")
    con = connect(data)
    lake = Lake(settings.lake)
    lake.clear()
    with Bars() as progress:
        for what, query in EVENTS.items():
            task = progress.add_task(f"ingest {what}", total=len(con.sql(query)))
            for batch in con.sql(_as_lake(query)).to_arrow_reader(BATCH):
                lake.append_table(pa.Table.from_batches([batch]))
                progress.advance(task, batch.num_rows)
    accepted = lake.last_position()
    source.write_text(json.dumps({"accepted": accepted, "bytes": _sizes(data)}))
    outcomes_of(con, marker)
    return Ingested(accepted, {})


def _sizes(data: Path) -> dict[str, int]:
    return {table: (data / f"{table}.parquet").stat().st_size for table in TABLES}


def _same(source: Path, data: Path | None) -> Ingested:
    """The counts of the ingest that filled this state folder, if it was from these tables."""
    held = json.loads(source.read_text())
    if data is not None:
        connect(data).close()
        if held["bytes"] != _sizes(data):
            raise ValueError(
                f"{source}: expected the tables that this state folder was filled from; those in {data} are others. "
                "Choose another STATE folder, or `make clean` to begin again"
            )
    return Ingested(held["accepted"], {})


def _as_lake(query: str) -> str:
    return f"""select message_id, type, name, user_id, null::varchar as anonymous_id, ts_us, ts_us as received_us,
        properties, traits, '{{}}' as context from ({query})"""


def outcomes_of(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write when each enrolment began, withdrew (null: did not) and ended; never a feature."""
    table = con.sql(f"""
        select prefix || id_student as user_id, start_us as anchor_us,
            start_us + date_unregistration::bigint * {DAY} as outcome_us,
            start_us + module_presentation_length::bigint * {DAY} as end_us, code_presentation as cohort
        from studentRegistration join presentations using (code_module, code_presentation) order by user_id
    """).to_arrow_table()
    part = path.with_suffix(".part")
    pq.write_table(table, part)
    part.rename(path)


def outcomes(settings: Settings) -> pa.Table:
    """See domain.Domain.

    Raises:
        FileNotFoundError: nothing was ingested yet.
    """
    path = settings.state / "outcomes.parquet"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no outcomes yet, run `make backfill DOMAIN=oulad DATA=<folder>` first")
    return pq.read_table(path)
