"""The bench's own arithmetic and document; that it runs is a soak test."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.settings import SOURCE
from tests.bench import decide, document, training_set
from tests.bench.__main__ import main
from tests.bench.figures import Check, Result, Table, alternated, highest, paired, quantile
from tests.bench.load import Asked

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


@given(VALUES, st.floats(0.001, 1))
def test_a_quantile_is_the_smallest_value_that_covers_its_share(values, q):
    found = quantile(values, q)
    assert sum(v <= found for v in values) >= q * len(values)
    assert sum(v < found for v in values) < q * len(values)


def test_quantiles_by_hand():
    values = [float(v) for v in range(100, 0, -1)]
    assert [quantile(values, q) for q in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    with pytest.raises(ValueError, match="0 values"):
        quantile([], 0.5)


def test_ratios_are_of_one_round_each():
    check = paired("times", [2.0, 9.0, 40.0], [1.0, 3.0, 10.0], 3.5)
    assert (check.low, check.value, check.high) == (2.0, 3.0, 4.0)
    assert check.met is True
    with pytest.raises(ValueError, match="came 1 and 2"):
        paired("times", [1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "target", "at_most", "met"),
    [
        (1.3, 1.3, True, True),
        (1.31, 1.3, True, False),
        (3, 3, False, True),
        (2.9, 3, False, False),
        (9, None, True, None),
    ],
)
def test_a_target_is_a_ceiling_or_a_floor(value, target, at_most, met):
    assert Check("c", value, target, at_most).met is met


def test_a_ceiling_holds_the_median():
    assert highest("s", [100.0, 80.0, 85.0], 90, "s").met is True


@given(st.integers(1, 7), st.integers(0, 20))
def test_every_contender_is_in_every_round(many, number):
    names = [str(i) for i in range(many)]
    assert sorted(alternated(names, number)) == names


def test_nobody_is_always_first_or_always_after_the_same_one():
    orders = [alternated(["a", "b"], r) for r in range(4)]
    assert [o[0] for o in orders].count("a") == 2
    orders = [alternated(list("abcdefg"), r) for r in range(5)]
    assert len({o[0] for o in orders}) == 5
    assert len({o[o.index("a") - 1] for o in orders}) > 1


def result(value: float = 1.5) -> Result:
    checks = [Check("time, against DuckDB", value, 1.3, True, "x", 1.0, 2.0), Check("shown", 12.34, unit="s")]
    return Result(
        "Backfill", checks, [Table("Sizes", ["size", "s"], [["a|b", 1234], [None, 0.5]])], ["A note."], at="today"
    )


def test_the_tables_say_what_was_measured_and_whether_it_is_enough():
    text = document.markdown(document.Bench({"backfill": result()}))
    assert "| time, against DuckDB | 1.50 x | 1 – 2 | ≤ 1.30 x | **no** |" in text
    assert "| shown | 12.3 s |  |  |  |" in text
    assert "| a\\|b | 1,234 |" in text
    assert "|  | 0.5 |" in text
    assert "A note." in text
    assert "| yes |" in document.markdown(document.Bench({"backfill": result(1.2)}))


def test_only_what_is_between_the_markers_is_replaced():
    before = f"# Prose\n\n{document.BEGIN}\nold\n{document.END}\n\nmore prose\n"
    once = document.replaced(before, "new")
    assert once == f"# Prose\n\n{document.BEGIN}\n\nnew\n\n{document.END}\n\nmore prose\n"
    assert document.replaced(once, "new") == once


@pytest.mark.parametrize(
    "text", ["", document.BEGIN, document.END + document.BEGIN, (document.BEGIN + document.END) * 2]
)
def test_a_document_without_one_pair_of_markers_is_refused(text):
    with pytest.raises(ValueError, match="expected one <!-- bench:begin -->"):
        document.replaced(text, "new")


def test_the_projects_document_has_the_markers():
    document.replaced((SOURCE / "BENCHMARKS.md").read_text(), "new")


def test_what_was_not_measured_this_time_stays():
    earlier = document.Bench({"decide": result(1.0), "backfill": result(1.0)})
    found = {"backfill": Result("Backfill", skipped="no data"), "decide": result(2.0)}
    both = document.merged(earlier, found, small=False)
    assert list(both.sections) == ["backfill", "decide"]
    assert both.sections["backfill"].checks[0].value == 1.0
    assert both.sections["decide"].checks[0].value == 2.0


def test_small_and_full_results_do_not_mix():
    both = document.merged(document.Bench({"decide": result()}), {"training_set": result()}, small=True)
    assert list(both.sections) == ["training_set"]


def test_bench_json_comes_back_and_says_what_is_met(tmp_path):
    bench = document.Bench({"backfill": result()})
    document.write(tmp_path / "new" / "bench.json", bench)
    assert document.read(tmp_path / "new" / "bench.json") == bench
    plain = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert [c["met"] for c in plain["sections"]["backfill"]["checks"]] == [False, None]
    assert document.read(tmp_path / "absent.json") == document.Bench()


def test_only_answers_to_what_was_asked_after_the_warm_up_count():
    asked = Asked([b"1", b"2"], counted_from=10.0, until=12.0)
    assert asked.answered(9.9, 10.1)
    assert asked.answered(10.5, 11.0)
    assert not asked.answered(11.5, 12.5)
    assert asked.latencies_ms == [500.0, 1000.0]
    assert asked.last == 12.5
    assert {asked.next() for _ in range(4)} == {b"1", b"2"}


def test_decide_is_held_against_the_targets_of_the_issue():
    rounds: list[decide.Round] = [
        {"which": key, "connections": n, "rps": 300.0 if key == "decide" else 100.0 * n}
        for key in ("decide", *decide.TARGETS)
        for n in decide.CONNECTIONS
    ]
    met = {c.name.split("against ")[1]: c.met for c in decide.checks(rounds)}
    assert met["(a) plain Bento, pyfunc, 1 connection"] is True
    assert met["(a) plain Bento, pyfunc, 8 connections"] is False
    assert met["(b) `feast serve`, 1 connection"] is True
    assert met["(d) empty mounted ASGI, 1 connection"] is None


def test_both_joins_give_the_row_in_force():
    import duckdb
    import pandas as pd

    times = pd.to_datetime([10, 20, 30], unit="us", utc=True)
    f = pd.DataFrame({"user_id": ["a", "a", "b"], "event_timestamp": times, "x": [1, 2, 3]})  # noqa: F841
    asked = pd.DataFrame(
        {"user_id": ["a", "a", "b"], "event_timestamp": pd.to_datetime([19, 20, 29], unit="us", utc=True)}
    )
    with duckdb.connect() as con:
        con.execute("create table rows as select * from f; create table e as select * from asked")
        for sql in (training_set.asof_sql, training_set.keys_first_sql):
            found = con.execute(f"select x from ({sql('f.x', 'rows')}) order by event_timestamp").fetchall()
            assert found == [(1,), (2,), (None,)]
    assert len(asked) == 3


def test_a_section_that_is_not_there_is_named():
    done = CliRunner().invoke(main, ["--only", "decide,speed"])
    assert done.exit_code == 2
    assert "no section speed: there are backfill, training_set, decide" in done.output


def test_without_data_the_backfill_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["--small", "--only", "backfill"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "make bench DATA=<folder>" in done.output
    assert document.read(tmp_path / "bench.json").sections["backfill"].skipped


@pytest.mark.soak
def test_the_small_bench_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    command = [sys.executable, "-m", "tests.bench", "--small", "--only", "training_set,decide"]
    subprocess.run(command, cwd=SOURCE, check=True, timeout=600)
    bench = document.read(tmp_path / "bench.json")
    assert list(bench.sections) == ["training_set", "decide"]
    assert all(r.checks and not r.skipped for r in bench.sections.values())
