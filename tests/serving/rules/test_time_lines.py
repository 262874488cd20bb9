"""Literal time lines: what happens in -> who moves when, and why. Times are hours since the first event."""

from pathlib import Path

import pytest

from feature_repo import domains
from feature_repo.vocabulary import HOUR
from serving.rules import Facts, Membership, MissingFeature, Move, Rules, Segment, State, advance, fold, load, step
from serving.rules.conditions import Compare

SAAS = domains.load("saas")
T0 = 1_767_225_600_000_000
Line = list[tuple[float, dict[str, object]]]


def made(folder: Path, segments: str) -> Rules:
    """Rules of these segments."""
    file = folder / "rules.yaml"
    file.write_text(f"domain: saas\nsegments:\n{segments}")
    return load(file, SAAS)


def lived(rules: Rules, line: Line, until: float) -> list[str]:
    """Moves as `hour +segment` and `hour -segment`, to the microsecond."""
    return [f"{(m.at_us - T0) / HOUR:g} {'+' if m.entered else '-'}{m.segment}" for m in moves(rules, line, until)]


def moves(rules: Rules, line: Line, until: float) -> tuple[Move, ...]:
    """The moves of somebody with these values from these hours on. Values ending in _us are hours too."""
    rows = []
    for at, values in line:
        whole: dict[str, object] = dict.fromkeys(SAAS.feature_types) | values
        for name in ("last_event_us", "signed_up_us"):
            if values.get(name) is not None:
                whole[name] = T0 + round(float(values[name]) * HOUR)  # type: ignore[arg-type]
        rows.append((T0 + round(at * HOUR), whole))
    ends = [at for at, _ in rows[1:]] + [None]
    timed = [(at, values, end) for (at, values), end in zip(rows, ends, strict=True)]
    return fold(rules, timed, T0 + round(until * HOUR)).moves  # type: ignore[arg-type]


def test_one_line_is_enough(tmp_path: Path) -> None:
    rules = made(tmp_path, "  active_learner: {why: came back, when: sessions > 5}\n")
    found = moves(rules, [(0, {"sessions": 5}), (1, {"sessions": 6})], 9)
    assert found == (Move("active_learner", True, T0 + HOUR, "sessions > 5 (is 6)"),)
    assert rules.why("active_learner") == "came back"


def test_between_two_thresholds_nothing_moves(tmp_path: Path) -> None:
    rules = made(tmp_path, "  busy: {why: w, enter: interactions_24h >= 10, exit: interactions_24h < 4}\n")
    counts = [3, 10, 9, 4, 3, 9, 10]
    line: Line = [(hour, {"interactions_24h": n}) for hour, n in enumerate(counts)]
    assert lived(rules, line, 9) == ["1 +busy", "4 -busy", "6 +busy"]
    assert moves(rules, line, 9)[1].cause == "interactions_24h < 4 (is 3)"


def test_a_minimum_stay_ends_by_itself(tmp_path: Path) -> None:
    rules = made(tmp_path, "  busy: {why: w, when: interactions_24h >= 10, stay_at_least: 3 hours}\n")
    assert lived(rules, [(0, {"interactions_24h": 10}), (1, {"interactions_24h": 0})], 9) == ["0 +busy", "3 -busy"]
    again: Line = [(0, {"interactions_24h": 10}), (1, {"interactions_24h": 0}), (2, {"interactions_24h": 10})]
    assert lived(rules, again, 9) == ["0 +busy"]
    late: Line = [(0, {"interactions_24h": 10}), (5, {"interactions_24h": 0})]
    assert lived(rules, late, 9) == ["0 +busy", "5 -busy"]


def test_expiry_ends_by_itself_and_waits_for_a_fresh_start(tmp_path: Path) -> None:
    rules = made(tmp_path, "  offer: {why: w, when: uploads > 3, expires_after: 2 hours}\n")
    assert lived(rules, [(0, {"uploads": 4})], 99) == ["0 +offer", "2 -offer"]
    more: Line = [(0, {"uploads": 4}), (5, {"uploads": 9}), (6, {"uploads": 0}), (7, {"uploads": 4})]
    assert lived(rules, more, 99) == ["0 +offer", "2 -offer", "7 +offer", "9 -offer"]
    assert moves(rules, more, 99)[1].cause == "expires after 2 hours"


def test_of_a_group_the_first_in_priority_holds(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  low: {why: w, when: clicks > 1, group: stage, priority: 1}\n"
        "  high: {why: w, when: errors > 1, group: stage, priority: 2}\n",
    )
    line: Line = [
        (0, {"clicks": 2, "errors": 0}),
        (1, {"clicks": 2, "errors": 2}),
        (2, {"clicks": 2, "errors": 0}),
        (3, {"clicks": 0, "errors": 2}),
    ]
    assert lived(rules, line, 9) == ["0 +low", "1 -low", "1 +high", "2 -high", "2 +low", "3 -low", "3 +high"]
    assert [m.cause for m in moves(rules, line, 9)][1:5] == [
        "high comes first",
        "errors > 1 (is 2)",
        "not errors > 1 (is 0)",
        "nothing that comes first holds any more; clicks > 1 (is 2)",
    ]
    assert rules.segments == ("high", "low")


def test_who_comes_first_does_not_wait_for_a_minimum_stay_and_the_clock_begins_anew(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  low: {why: w, enter: clicks > 1, exit: clicks == 0, stay_at_least: 4 hours, expires_after: 6 hours}\n"
        "  high: {why: w, when: errors > 1, excludes: low}\n",
    )
    line: Line = [
        (0, {"clicks": 2, "errors": 0}),
        (1, {"clicks": 2, "errors": 2}),
        (9, {"clicks": 1, "errors": 0}),
        (10, {"clicks": 0, "errors": 0}),
    ]
    assert lived(rules, line, 99) == ["0 +low", "1 -low", "1 +high", "9 -high", "9 +low", "13 -low"]
    gone: Line = [*line[:2], (5, {"clicks": 0, "errors": 2}), (9, {"clicks": 1, "errors": 0})]
    assert lived(rules, gone, 99) == ["0 +low", "1 -low", "1 +high", "9 -high"]
    stays: Line = [*line[:2], (9, {"clicks": 2, "errors": 0})]
    assert lived(rules, stays, 99)[-1] == "15 -low"


def test_who_gives_way_while_only_the_minimum_stay_kept_it_is_out(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  low: {why: w, enter: clicks > 1, exit: clicks == 0, stay_at_least: 4 hours}\n"
        "  high: {why: w, when: errors > 1, excludes: low}\n",
    )
    line: Line = [
        (0, {"clicks": 2, "errors": 0}),
        (1, {"clicks": 0, "errors": 0}),
        (2, {"clicks": 0, "errors": 2}),
        (3, {"clicks": 1, "errors": 2}),
        (5, {"clicks": 1, "errors": 0}),
    ]
    assert lived(rules, line, 99) == ["0 +low", "2 -low", "2 +high", "5 -high"]


def test_people_leave_and_enter_by_the_passing_of_time(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  newcomer: {why: w, when: since_signup < 1 day}\n  dormant: {why: w, when: since_last_event > 3 days}\n",
    )
    found = moves(rules, [(2, {"signed_up_us": 1, "last_event_us": 2})], 999)
    assert found == (
        Move("newcomer", True, T0 + 2 * HOUR, "since_signup < 1 day (is 1 hour)"),
        Move("newcomer", False, T0 + 25 * HOUR, "not since_signup < 1 day (is 1 day)"),
        Move("dormant", True, T0 + 74 * HOUR + 1, "since_last_event > 3 days (is 3 days)"),
    )


def test_of_several_times_the_one_that_decides_is_awaited(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  both: {why: w, when: {all: [since_signup < 9 hours, since_last_event < 2 hours]}}\n"
        "  either: {why: w, when: {any: [since_signup < 9 hours, since_last_event < 2 hours]}}\n"
        "  long: {why: w, when: {all: [since_signup >= 5 hours, since_last_event >= 4 hours]}}\n"
        "  soon: {why: w, when: {any: [since_signup >= 5 hours, since_last_event >= 4 hours]}}\n",
    )
    assert lived(rules, [(0, {"signed_up_us": 0, "last_event_us": 0})], 99) == [
        *("0 +both", "0 +either", "2 -both", "4 +soon", "5 +long", "9 -either")
    ]


def test_time_in_another_segment_counts(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  stuck: {why: w, when: errors > 2}\n"
        "  lost: {why: w, when: time in stuck >= 2 hours}\n"
        "  fine: {why: w, when: {not: {segment: stuck}}}\n",
    )
    line: Line = [(0, {"errors": 0}), (1, {"errors": 3}), (2, {"errors": 0}), (3, {"errors": 3}), (7, {"errors": 0})]
    assert lived(rules, line, 9) == [
        "0 +fine",
        *("1 -fine", "1 +stuck", "2 -stuck", "2 +fine"),
        *("3 -fine", "3 +stuck", "5 +lost", "7 -stuck", "7 -lost", "7 +fine"),
    ]


def test_a_late_question_gets_the_moments_at_which_it_happened(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  quiet: {why: w, when: since_last_event > 1 hour, expires_after: 2 hours}\n"
        "  gone: {why: w, when: since_last_event > 9 hours}\n",
    )
    values = dict.fromkeys(SAAS.feature_types) | {"last_event_us": T0}
    asked = advance(rules, State(), Facts(values, T0), T0 + 100 * HOUR)  # type: ignore[arg-type]
    assert [(m.segment, m.entered, m.at_us - T0) for m in asked.moves] == [
        ("quiet", True, HOUR + 1),
        ("quiet", False, 3 * HOUR + 1),
        ("gone", True, 9 * HOUR + 1),
    ]
    assert asked.held == ("gone",)
    assert asked.due_us is None
    assert asked.state.segments["quiet"] == Membership("waiting", T0 + 3 * HOUR + 1)
    with pytest.raises(ValueError, match="came into force after"):
        advance(rules, State(), Facts(values, T0), T0 - 1)  # type: ignore[arg-type]


def test_due_is_the_crossing_itself(tmp_path: Path) -> None:
    rules = made(tmp_path, "  dormant: {why: w, when: since_last_event > 3 days}\n")
    values = {"last_event_us": T0}
    first = step(rules, State(), Facts(values, T0 + 5))
    assert (first.held, first.due_us) == ((), T0 + 72 * HOUR + 1)
    assert step(rules, State(), Facts(values, T0 + 72 * HOUR)).held == ()
    assert step(rules, State(), Facts(values, T0 + 72 * HOUR + 1)).held == ("dormant",)


def test_time_that_cannot_matter_is_not_due(tmp_path: Path) -> None:
    rules = made(tmp_path, "  a: {why: w, when: {all: [clicks > 1, since_last_event > 3 days]}}\n")
    values = {"last_event_us": T0, "clicks": 0}
    assert step(rules, State(), Facts(values, T0)).due_us is None
    assert step(rules, State(), Facts(values | {"clicks": 2}, T0)).due_us == T0 + 72 * HOUR + 1


def test_score_engagement_and_persona(tmp_path: Path) -> None:
    rules = made(
        tmp_path,
        "  sure: {why: w, enter: score >= 0.7, exit: score < 0.5}\n"
        "  fast: {why: w, when: {segment: racing}}\n"
        "  builder: {why: w, when: {persona: builder}}\n",
    )
    assert rules.uses_score
    assert not made(tmp_path, "  a: {why: w, when: clicks > 1}\n").uses_score
    first = step(rules, State(), Facts({}, T0, 0.7, "racing", "builder"))
    assert first.held == ("builder", "fast", "sure")
    assert {m.cause for m in first.moves} == {
        "score >= 0.7 (is 0.7000)",
        "segment racing (is racing)",
        "persona builder (is builder)",
    }
    assert step(rules, first.state, Facts({}, T0 + 1, 0.6)).held == ("sure",)
    assert step(rules, first.state, Facts({}, T0 + 1)).held == ("sure",)
    assert step(rules, first.state, Facts({}, T0 + 1, 0.4)).held == ()


def test_newer_rules_leave_what_they_do_not_declare() -> None:
    rules = Rules("saas", [Segment("a", "w", Compare("clicks", ">", 1))])
    old = State({"b": Membership("in", T0), "c": Membership("waiting", T0)})
    found = step(rules, old, Facts({"clicks": 0}, T0 + 1))
    assert found.moves == (Move("b", False, T0 + 1, f"rules {rules.version} do not declare it"),)
    assert found.state == State()


def test_a_feature_that_the_facts_lack_is_named() -> None:
    rules = Rules("saas", [Segment("a", "w", Compare("clicks", ">", 1))])
    with pytest.raises(MissingFeature, match=r"read feature 'clicks'.*make apply backfill"):
        step(rules, State(), Facts({"sessions": 3}, T0))


def test_rows_after_the_end_are_left_out() -> None:
    rules = Rules("saas", [Segment("a", "w", Compare("clicks", ">", 1))])
    rows = [(0, {"clicks": 0}, 10), (10, {"clicks": 2}, None)]
    assert fold(rules, rows, 9).moves == ()
    assert [m.at_us for m in fold(rules, rows, 10).moves] == [10]
    assert [m.at_us for m in fold(rules, rows).moves] == [10]
