"""What the services of `decisions` are started with, and how their figures are held against each other."""

import subprocess
import sys

import pytest

from feature_repo import domains
from feature_repo.contract.feedback import DISMISSED, SHOWN, VIEWED
from feature_repo.settings import SOURCE
from serving.policy.loading import segment_names
from tests.bench import books, decisions, document

SAAS = domains.load("saas")
NOW = 1_767_225_600_000_000


def test_the_plain_decision_has_journeys_and_nothing_else(tmp_path):
    plain, ships = books.book(SAAS, books.plain(SAAS, tmp_path)), books.book(SAAS, {})
    assert set(plain.policy.segments) == {"default", *segment_names(SAAS)} <= set(ships.policy.segments)
    assert (plain.rules.segments, dict(plain.experiments.experiments), plain.experiments.holdout) == ((), {}, 0)
    assert (plain.policy.boundaries.per_session, plain.policy.boundaries.per_day) == (None, None)
    assert all(e.limits.ever is e.limits.cool_down_us is None for e in plain.policy.elements)


@pytest.mark.parametrize("many", [10, 100])
def test_made_up_rules_pass_the_checks_and_are_always_the_same(tmp_path, many):
    found = books.book(SAAS, books.ruled(SAAS, tmp_path, many))
    assert len(found.rules.plans) == many
    assert found.rules.version == books.book(SAAS, books.ruled(SAAS, tmp_path, many)).rules.version
    assert found.policy == books.book(SAAS, {}).policy
    assert set(books.book(SAAS, {}).rules.segments) < set(found.rules.segments)


def test_everybody_has_seen_something_and_every_second_one_an_experiment():
    sent = [list(decisions.feedback("u", n, ["a", "b", "c"], {"x": "control"}, NOW)) for n in (0, 1)]
    names = [[event["event"] for event in events] for events in sent]
    assert [n.count(SHOWN) for n in names] == [5, 5]
    assert [n.count(VIEWED) for n in names] == [0, 1]
    assert all(DISMISSED in n for n in names)
    assert len({event["messageId"] for event in sent[1]}) == len(sent[1])


def test_the_target_is_held_over_http():
    rounds: list[decisions.Round] = [
        {"where": where, "round": 0, "which": which, "connections": 1, "p50_ms": took, "p99_ms": 9.0}
        for where in (decisions.HTTP, decisions.INSIDE)
        for which, took in zip(decisions.WORDS, (1.0, 1.25, 1.3, 1.4, 5.0, 3.0), strict=True)
    ]
    checks = decisions.checks(rounds)
    assert [(c.value, c.met) for c in checks if "as it ships" in c.name] == [(1.25, True), (1.25, None)]
    assert [c.value for c in checks if c.name.endswith(decisions.HTTP)] == [1.25, 1.3, 1.4, 5.0, 3.0]
    assert decisions.table(rounds).rows[0][1:] == [1.0, 9.0, 1.0]


@pytest.mark.soak
def test_the_small_bench_of_decisions_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    command = [sys.executable, "-m", "tests.bench", "--small", "--only", "decisions"]
    subprocess.run(command, cwd=SOURCE, check=True, timeout=600)
    result = document.read(tmp_path / "bench.json").sections["decisions"]
    assert len(result.checks) == 2 * len(decisions.TARGETS)
