"""Some of OULAD's students with all that belongs to them: a smaller data set of real people.

python -m tests.oulad_sample ../shared/data/oulad /tmp/some --share 0.4
make run DOMAIN=oulad DATA=/tmp/some
"""

from pathlib import Path

import click
import duckdb

STUDENT = "id_student"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--share", default=0.4, show_default=True, type=click.FloatRange(0, 1, min_open=True))
def main(source: Path, target: Path, share: float) -> None:
    """Write the tables of SOURCE into TARGET, of those with a student the rows of that share of all students.

    Students are chosen by a hash of their id: always the same ones.
    """
    target.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        for table in sorted(source.glob("*.parquet")):
            rows = con.read_parquet(str(table))
            if STUDENT in rows.columns:
                rows = rows.filter(f"('0x' || left(md5({STUDENT}::varchar), 8))::bigint < {round(share * 2**32)}")
            rows.write_parquet(str(target / table.name))
            click.echo(f"{table.stem}: {rows.count('*').fetchone()[0]:,} rows")


if __name__ == "__main__":
    main()
