import pytest

from feature_repo.vocabulary import DAY, HOUR
from serving.rules import Limits, Move
from serving.rules.guard import Figures, Life, add, exceeded, nobody

LOOSE = Limits(0, 99, 1, 99)


def life(user: str, *line: str, days: float = 10) -> Life:
    """A life of so many days from moves such as `2 +a` (hour, in or out, segment)."""
    moves, held = [], list[str]()
    for moved in line:
        hour, name = moved.split()
        moves.append(Move(name[1:], name[0] == "+", round(float(hour) * HOUR), "because"))
        held = [*held, name[1:]] if name[0] == "+" else [n for n in held if n != name[1:]]
    return Life(user, 0, round(days * DAY), moves, held)


def measured(*lives: Life, segments: str = "ab") -> Figures:
    figures = nobody(list(segments))
    for one in lives:
        add(figures, one)
    return figures


def test_shares_times_and_flips() -> None:
    found = measured(life("u", "24 +a", "48 -a", "72 +a"), life("v", "0 +b", days=5), life("w"))
    a, b = found.segments["a"], found.segments["b"]
    assert (found.people, a.now, a.ever, b.now, b.ever) == (3, 1, 1, 1, 1)
    assert (a.held_us, b.held_us) == (8 * DAY, 5 * DAY)
    assert (a.flips, a.flips_per_day) == (3, 3 / 10)
    assert found.flips_per_day == 4 / 25


def test_overlap_is_time_in_both_over_time_in_either() -> None:
    found = measured(life("u", "0 +a", "48 +b", "72 -a"), life("v", "0 +a", "24 -a"))
    assert found.overlap("a", "b") == found.overlap("b", "a") == 1 / (3 + 1 + 8 - 1 + 1 - 1)
    assert found.overlaps == [(found.overlap("a", "b"), "a", "b")]
    assert measured(life("u", "0 +a")).overlap("a", "b") == 0


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (LOOSE, None),
        (Limits(0, 1, 1, 99), "2 segments, and most_segments is 1: merge some"),
        (Limits(0.5, 99, 1, 99), "b: 33.33% of the people were ever in it (1 of 3), and smallest_share is 50.00%"),
        (Limits(0, 99, 0.4, 99), "a and b: 50.0% of their time is in both, and most_overlap is 40.0%: keep one"),
        (Limits(0, 99, 0.5, 99), None),
        (Limits(0, 99, 1, 0.29), "a: 0.30 times in or out a person and day, and most_flips_per_day is 0.29: give it"),
        (Limits(0, 99, 1, 0.3), None),
    ],
)
def test_what_exceeds_a_limit_is_named_with_its_figures(limits: Limits, says: str | None) -> None:
    found = measured(
        life("u", "0 +a", "0 +b", "24 -a", "48 -b", "48 +a", "72 -a"),
        life("v", "0 +a", days=0),
        life("w", "0 +a", days=10),
    )
    found.segments["a"].held_us = found.segments["b"].held_us = 3 * HOUR
    found.together_us["a", "b"] = 2 * HOUR
    found.segments["a"].flips, found.segments["a"].observed_us = 3, 10 * DAY
    said = exceeded(found, limits)
    assert len(said) == (0 if says is None else 1)
    assert says is None or said[0].startswith(says)


def test_nobody_exceeds_nothing_but_the_number() -> None:
    assert exceeded(nobody(["a"]), Limits(0.5, 1, 0, 0)) == ()
    assert len(exceeded(nobody(["a", "b"]), Limits(0.5, 1, 0, 0))) == 1
