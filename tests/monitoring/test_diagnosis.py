"""monitoring.diagnosis: which suspect it is, and what is said where none or several fit."""

from typing import Any

from monitoring.diagnosis import ENDED, LOST, MICROSECOND, NOBODY, OLDER, TWICE, UNEXPLAINED, diagnose, suspects
from monitoring.recompute import Known, Question

AT = 1_700_000_000_000_000
EVENTS = [Known(9, "c", AT - 10), Known(5, "b", AT - 30), Known(2, "a", AT - 20)]
ASKED = Question("u1", 11, AT)


def row(clicks: int | None, until: int | None = None) -> dict[str, Any]:
    return {"clicks": clicks, "pages": 4, "valid_until_us": until}


def named(served: dict[str, Any], known: dict[str, Any] | None, answers: dict[Question, dict[str, Any]]) -> str:
    found = suspects(ASKED, AT - 30, EVENTS, [7])
    return str(diagnose(served, known, [(s, answers.get(s.question)) for s in found]))


def test_every_kind_of_fault_is_suspected() -> None:
    found = suspects(ASKED, AT - 30, EVENTS, [7])
    asked = {(s.fault, s.question) for s in found}
    assert (f"{OLDER} or {LOST}", ASKED._replace(reached=5)) in asked
    assert (OLDER, ASKED._replace(reached=2)) in asked
    assert (f"{OLDER}, {ENDED}", ASKED._replace(reached=2, at_us=AT - 30)) in asked
    assert {q.at_us - AT for fault, q in asked if fault == MICROSECOND} == {-1, 1}
    assert [s.question.at_us - AT for s in found if s.fault == ENDED] == [-30, -3, -10, -13, -20, -23]
    assert {q.without for fault, q in asked if fault == LOST} == {9, 5, 2}
    assert {q.twice for fault, q in asked if fault == TWICE} == {9, 5, 2}
    assert all(q != ASKED for _, q in asked)


def test_a_microsecond_is_not_suspected_where_an_event_makes_the_difference() -> None:
    for at_us, left in ((AT, {1}), (AT + 1, {-1})):
        found = suspects(ASKED, None, [Known(9, "c", at_us)], [])
        assert {s.question.at_us - AT for s in found if s.fault == MICROSECOND} == left


def test_nobody_s_events_give_no_suspects_but_the_clock() -> None:
    assert {s.fault for s in suspects(ASKED, None, [], [7])} == {MICROSECOND}


def test_the_first_that_is_equal_is_named() -> None:
    answers = {ASKED._replace(reached=2): row(1), ASKED._replace(without=5): row(1)}
    assert named({"clicks": 1, "pages": 4}, row(3), answers) == (
        "an older row: equals the row as of position 2, 2 events ago"
    )


def test_a_row_that_was_served_after_its_end_says_when_that_was() -> None:
    answers = {ASKED._replace(at_us=AT - 30): row(1, AT - 3)}
    assert named({"clicks": 1, "pages": 4}, row(3), answers) == (
        "a row served after its end: equals the row as it was at 2023-11-14T22:13:19.999970Z, "
        "which ended at 2023-11-14T22:13:19.999997Z"
    )


def test_events_that_would_do_as_well_are_counted() -> None:
    answers = {ASKED._replace(twice=p): row(4) for p in (9, 5, 2)}
    assert named({"clicks": 4, "pages": 4}, row(3), answers) == (
        "an event counted twice: equals the row with event c (position 9) twice; 2 other events would do as well"
    )


def test_part_of_it_or_another_type_is_no_explanation() -> None:
    answers = {ASKED._replace(reached=2): row(1)}
    assert named({"clicks": 1, "pages": 3}, row(3), answers).startswith(UNEXPLAINED)
    assert named({"clicks": 1.0, "pages": 4}, row(3), answers).startswith(UNEXPLAINED)


def test_what_is_right_of_all_that_is_stored_is_no_fault_of_the_row() -> None:
    """The elapsed time alone is wrong: the row of an earlier moment with the same values explains nothing."""
    known = row(3) | {"since": 2.5}
    answers = {ASKED._replace(at_us=AT - 1): row(3)}
    assert named({"clicks": 3, "pages": 4, "since": 2.0}, known, answers) == (
        "unexplained: since is 2.0, the lake gives 2.5"
    )


def test_what_is_unexplained_is_told_in_figures() -> None:
    assert named({"clicks": 1, "pages": None}, row(3), {}) == (
        "unexplained: clicks is 2 less than the lake gives; pages is None, the lake gives 4"
    )
    assert named({"clicks": 1, "pages": 4}, None, {}) == f"{NOBODY}: the lake knew nobody of this name"
