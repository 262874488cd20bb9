"""A sample of OULAD's students, as the same seven tables: `python -m tests.oulad_sample FROM TO --one-in 5`.

A student is in it with everything of theirs, or not at all; courses, assessments and pages stay whole.
"""

import argparse
from pathlib import Path

import duckdb

from feature_repo.domains.oulad.source import TABLES

OF_STUDENTS = {"studentAssessment", "studentInfo", "studentRegistration", "studentVle"}


def sample(data: Path, to: Path, one_in: int) -> None:
    """Write the tables of one in so many students (by their number, so always the same ones) to a folder."""
    to.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        for table in TABLES:
            rows = con.read_parquet(str(data / f"{table}.parquet"))
            if table in OF_STUDENTS:
                rows = rows.filter(f"id_student::bigint % {one_in} = 0")
            rows.write_parquet(str(to / f"{table}.parquet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("--one-in", type=int, default=5)
    given = parser.parse_args()
    sample(given.data, given.to, given.one_in)


if __name__ == "__main__":
    main()
