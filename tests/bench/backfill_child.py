"""One backfill in a process of its own: `python -m tests.bench.backfill_child ours|direct`, FIRSTMILE_HOME says where.

Prints JSON: seconds of the work, its rows, and the process's peak memory.
"""

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable

from feature_repo.settings import Settings

MEMORY = "3GB"
"""What DuckDB may take, for both; the default of backfill()."""


def ours(settings: Settings) -> Callable[[], int]:
    """The project's backfill, compiling included."""
    from feature_repo.feature_store.backfill import backfill

    shutil.rmtree(settings.features, ignore_errors=True)
    return lambda: backfill(settings, memory=MEMORY, progress=False).rows


def direct(settings: Settings) -> Callable[[], int]:
    """The compiled SQL given straight to DuckDB: no snapshots, no identities, no bookmark, a file a batch."""
    import duckdb
    import ibis

    from feature_repo.feature_store.backfill import EVENT, batches, compiled
    from feature_repo.lake.lake import Lake
    from feature_repo.lake.lake_sql import literal

    program = compiled(settings.domain)
    out = settings.state / "direct"
    shutil.rmtree(out, ignore_errors=True)
    (out / "spill").mkdir(parents=True)
    con = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(out / "spill")})
    con.execute("set preserve_insertion_order = false")
    lake = Lake(settings.lake).snapshot(ibis.duckdb.connect())

    def run() -> int:
        rows = 0
        for number, batch in enumerate(batches(lake, list(range(len(lake.rows))))):
            con.execute(f"create or replace temp table ev as select {EVENT} from ({lake.query(batch)})")
            result = program.run(con.execute)
            query = f"""select user_id, make_timestamptz(ts_us) as event_timestamp,
                make_timestamptz(position) as created, valid_until_us, position as applied_position,
                * exclude (user_id, ts_us, position, valid_until_us, person)
                from ({result}) order by person, event_timestamp"""
            target = literal(str(out / f"{number:04d}.parquet"))
            copied = con.execute(f"copy ({query}) to {target} (format parquet, row_group_size 32768)").fetchone()
            rows += int(copied[0]) if copied else 0
        return rows

    return run


def main(which: str) -> None:
    """Do it and say how it went."""
    run = {"ours": ours, "direct": direct}[which](Settings())
    began = time.perf_counter()
    rows = run()
    seconds = time.perf_counter() - began
    scale = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9
    print(json.dumps({"seconds": seconds, "rows": rows, "peak_gb": peak}))


if __name__ == "__main__":
    main(sys.argv[1])
