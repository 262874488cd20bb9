import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.feedback import CLICKED, COMPLETED, DISMISSED, SHOWN, VIEWED
from feature_repo.history.history_store import Row
from feature_repo.vocabulary import DAY, HOUR, MINUTE
from serving.policy import ElementFeedback, Feedback, Seen, fold
from tests.serving.policy.lives import GAP, MOMENTS, NOW, histories, row

PAST = [
    row(1, SHOWN, NOW - 3 * DAY, element="tour"),
    row(2, SHOWN, NOW - 20 * HOUR, element="tour"),
    row(3, CLICKED, NOW - 20 * HOUR + 1, element="tour"),
    row(4, None, NOW - 50 * MINUTE, "page"),
    row(5, SHOWN, NOW - 20 * MINUTE, element="tour"),
    row(6, SHOWN, NOW - 19 * MINUTE, element="help"),
    row(7, DISMISSED, NOW - 18 * MINUTE, element="help"),
    row(8, COMPLETED, NOW - 17 * MINUTE, element="checklist"),
    row(9, VIEWED, NOW - 16 * MINUTE, experiment_id="x", variation_id="on"),
    row(10, VIEWED, NOW - 2 * DAY, experiment_id="x", variation_id="off"),
    row(11, SHOWN, NOW + 1, element="later"),
    row(12, SHOWN, NOW - 10 * MINUTE, "page", element="tour"),
    row(13, SHOWN, NOW - 10 * MINUTE, element=7),
]


def test_what_a_past_says() -> None:
    seen = fold(PAST, NOW, GAP)
    assert seen.elements == {
        "tour": ElementFeedback(1, 2, 3, NOW - 20 * MINUTE, NOW - 20 * HOUR + 1),
        "help": ElementFeedback(1, 1, 1, NOW - 19 * MINUTE, None, NOW - 18 * MINUTE),
        "checklist": ElementFeedback(completed_us=NOW - 17 * MINUTE),
    }
    assert (seen.session_us, seen.shown_session, seen.shown_day) == (NOW - 50 * MINUTE, 2, 3)
    first = seen.exposures["x"]
    assert (first.variant, first.first_us) == ("off", NOW - 2 * DAY)
    assert seen.exposures.keys() == {"x"}


@pytest.mark.parametrize(("since_us", "session"), [(GAP, True), (GAP + 1, False)])
def test_a_session_ends_once_the_gap_is_over(since_us: int, session: bool) -> None:
    seen = fold([row(1, SHOWN, NOW - since_us, element="tour")], NOW, GAP)
    assert (seen.session_us, seen.shown_session) == ((NOW - since_us, 1) if session else (None, 0))


def test_a_session_is_no_longer_than_a_day() -> None:
    rows = [row(i, SHOWN, NOW - i * GAP, element="tour") for i in range(100)]
    seen = fold(rows, NOW, GAP)
    assert (seen.session_us, seen.shown_session, seen.elements["tour"].ever) == (NOW - DAY + 1, 48, 100)


def test_nobody_s_past() -> None:
    assert fold([], NOW, GAP) == Seen(GAP).at(NOW) == Feedback()
    assert msgspec.json.encode(Feedback()) == b"{}"


@given(histories(), MOMENTS, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(rows: list[Row], at_us: int, chance: random.Random) -> None:
    mixed = rows + chance.sample(rows, len(rows) // 2)
    chance.shuffle(mixed)
    once, again = fold(rows, at_us, GAP), fold(mixed, at_us, GAP)
    assert msgspec.json.encode(once) == msgspec.json.encode(again)
    assert msgspec.json.decode(msgspec.json.encode(once), type=Feedback) == once


@given(histories(), MOMENTS)
def test_what_comes_later_does_not_matter(rows: list[Row], at_us: int) -> None:
    assert fold(rows, at_us, GAP) == fold([r for r in rows if r.ts_us <= at_us], at_us, GAP)


@given(histories(40), st.lists(st.integers(0, 8), max_size=8), st.integers(0, DAY), st.randoms(use_true_random=False))
def test_kept_up_to_date_it_is_the_same(rows: list[Row], parts: list[int], ago: int, chance: random.Random) -> None:
    """Whatever the order, the repetitions and the parts in which events come, and at any time of the last day."""
    mixed = rows + chance.sample(rows, len(rows) // 2)
    chance.shuffle(mixed)
    seen, came = Seen(GAP), list[Row]()
    for part in [*parts, len(mixed)]:
        seen.add(mixed[len(came) : len(came) + part])
        came += mixed[len(came) : len(came) + part]
        newest = max((r.ts_us for r in came), default=NOW)
        for at_us in {newest + GAP, newest, newest - ago, newest - DAY}:
            assert msgspec.json.encode(seen.at(at_us)) == msgspec.json.encode(fold(came, at_us, GAP))


@given(histories(40), st.lists(st.sampled_from([0, 1, GAP // 2, GAP, GAP + 1, HOUR, DAY, DAY + 1])), st.integers(0, 2))
def test_asked_again_and_again_it_is_the_same(rows: list[Row], steps: list[int], less: int) -> None:
    """While time goes on, from a day before the newest event on."""
    seen = Seen(GAP)
    seen.add(rows)
    at_us = max((r.ts_us for r in rows), default=NOW) - DAY + 2
    for step in steps:
        at_us += max(0, step - less)
        assert seen.at(at_us) == fold(rows, at_us, GAP)


def test_an_answer_is_kept_until_an_event_comes_or_time_changes_it() -> None:
    seen = Seen(GAP)
    seen.add([row(1, SHOWN, NOW, element="tour")])
    first = seen.at(NOW)
    assert seen.at(NOW + GAP) is first
    over = seen.at(NOW + GAP + 1)
    assert (over.session_us, over.shown_day) == (None, 1)
    assert seen.at(NOW + DAY - 1) is over
    assert seen.at(NOW + DAY).shown_day == 0
    seen.add([row(2, SHOWN, NOW + DAY, element="tour")])
    assert seen.at(NOW + DAY).shown_day == 1


def test_a_busy_life_is_kept_in_little_room() -> None:
    seen = Seen(GAP)
    for day in range(200):
        seen.add([row(day * 100 + i, None, NOW + day * DAY + i * 10 * MINUTE, "page") for i in range(50)])
    assert len(seen._starts) == len(seen._ends) <= 3
