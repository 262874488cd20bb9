"""All of OULAD into all features at all change points, against the compiled SQL given straight to DuckDB."""

import json
import os
import subprocess
import sys
from statistics import median

from feature_repo.settings import SOURCE, Settings
from tests.bench import states
from tests.bench.figures import Cell, Result, Table, alternated, highest, paired
from tests.bench.options import Options, Step, steps

TITLE = "Backfill"
ROUNDS = 3
Round = dict[str, Cell]


def measure(options: Options) -> Result:
    """Time, memory, the ratio to plain DuckDB, and the cost against size."""
    if options.data is None:
        return Result(TITLE, skipped="it needs OULAD's tables: make bench DATA=<folder>")
    full = states.whole(options)
    lakes = {f"{m:g} M": states.of_size(options, full, m) for m in options.sizes}
    largest = list(lakes)[-1] if options.small else "all"
    lakes = lakes if options.small else {**lakes, "all": full}
    rounds: list[Round] = []
    many = options.rounds or ROUNDS
    with options.bar() as progress:
        step = steps(progress, "backfill", many * (len(lakes) + 1))
        for number in range(many):
            rounds += _round(lakes, largest, number, step)
    return Result(TITLE, *_shown(rounds, lakes, largest), rounds=rounds)


def _round(lakes: dict[str, Settings], largest: str, number: int, step: Step) -> list[Round]:
    """Both ways over the largest lake, one after the other, then ours over the smaller ones."""
    found = []
    for which in alternated(["ours", "direct"], number):
        step(f"{which}, {largest}, round {number + 1}")
        found.append(_run(which, largest, lakes[largest], number))
    for size in alternated([s for s in lakes if s != largest] or [largest], number):
        step(f"ours, {size}, round {number + 1}")
        found.append(_run("ours", size, lakes[size], number) if size != largest else found[0])
    return found


def _run(which: str, size: str, settings: Settings, number: int) -> Round:
    """One backfill in a fresh process.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    environment = os.environ | {"FIRSTMILE_HOME": str(settings.home), "FIRSTMILE_DOMAIN": settings.domain}
    command = [sys.executable, "-m", "tests.bench.backfill_child", which]
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"backfill ({which}, {size}) failed:\n{done.stderr[-3000:]}")
    return {"round": number + 1, "which": which, "size": size} | json.loads(done.stdout.splitlines()[-1])


def _shown(rounds: list[Round], lakes: dict[str, Settings], largest: str) -> tuple[list, list, list]:
    """Checks, tables and notes."""

    def of(which: str, size: str, what: str) -> list[float]:
        return [float(r[what] or 0) for r in rounds if r["which"] == which and r["size"] == size]

    _same_rows(rounds)
    ours, direct = of("ours", largest, "seconds"), of("direct", largest, "seconds")
    what = "the whole of OULAD" if largest == "all" else f"the lake `{largest}`"
    checks = [
        paired("time, against the compiled SQL straight to DuckDB", ours, direct, 1.3),
        highest(f"time of {what}", ours, 90, "s"),
        highest("peak memory of the process", of("ours", largest, "peak_gb"), 4, "GB"),
    ]
    rows: list[list[Cell]] = []
    for size, settings in lakes.items():
        clicks, events = states.clicks(settings)
        seconds = median(of("ours", size, "seconds"))
        peak, made = median(of("ours", size, "peak_gb")), int(of("ours", size, "rows")[0])
        rows.append(
            [size, clicks, made, round(seconds, 2), round(events / seconds), round(made / seconds), round(peak, 2)]
        )
    columns = ["lake", "click rows", "feature rows", "s", "events/s", "feature rows/s", "peak GB"]
    peak = median(of("direct", largest, "peak_gb"))
    note = f"The compiled SQL straight to DuckDB took {median(direct):.1f} s and {peak:.2f} GB on the lake `{largest}`."
    return checks, [Table("Cost against size", columns, rows)], [note]


def _same_rows(rounds: list[Round]) -> None:
    """Both ways must have written as many rows, else they were not the same work."""
    for size in {r["size"] for r in rounds}:
        counts = {r["rows"] for r in rounds if r["size"] == size}
        if len(counts) > 1:
            raise RuntimeError(
                f"backfill of {size}: expected the same number of rows both ways; came {sorted(map(str, counts))}"
            )
