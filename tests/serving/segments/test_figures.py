"""The guard's figures of a journal: what stands counts, once, of who is followed."""

from pathlib import Path

import msgspec
import pytest

from feature_repo.vocabulary import DAY, HOUR
from serving.rules import Rules, Segment
from serving.rules.conditions import Compare
from serving.rules.guard import Figures
from serving.segments import figures
from serving.segments.journal import Change, Entry, Journal

AT = 100 * DAY
RULES = Rules("tiny", [Segment(name, name, Compare("x", ">", 1)) for name in ("a", "b")])


def change(person: str, told: str, ago_us: int, source: str = "rules") -> Change:
    return Change(person, source, told[1:], told[0] == "+", AT - ago_us, "because", "v1", AT)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    folder = tmp_path / "50% of it? #1"
    folder.mkdir()
    found = Journal(folder / "segments.db")
    found.write({p: Entry(b"", None) for p in ("u", "v", "w")}, [])
    return found


def read(journal: Journal, *changes: Change, at_us: int = AT) -> Figures:
    journal.write({}, changes)
    assert journal.file is not None
    return figures.read(journal.file, RULES, at_us)


def test_shares_times_and_flips(journal: Journal) -> None:
    lives = [change("u", "+a", 10 * DAY), change("u", "+b", 6 * DAY), change("u", "-a", 5 * DAY)]
    found = read(journal, *lives, change("v", "+a", 4 * DAY))
    a, b = found.segments["a"], found.segments["b"]
    assert (found.people, a.now, a.ever, a.flips, b.now, b.ever, b.flips) == (3, 1, 2, 3, 1, 1, 1)
    assert (a.held_us, b.held_us, a.flips_per_day) == (9 * DAY, 6 * DAY, 3 / 14)
    assert found.overlap("a", "b") == 1 / 14


def test_who_came_an_hour_ago_counts_for_a_day(journal: Journal) -> None:
    assert read(journal, change("u", "+a", HOUR)).segments["a"].flips_per_day == 1


@pytest.mark.parametrize(("wrong_us", "right_us"), [(3 * DAY, 2 * DAY), (2 * DAY, 3 * DAY)])
def test_what_was_taken_back_never_was(journal: Journal, wrong_us: int, right_us: int) -> None:
    (wrong,) = journal.write({}, [change("u", "+a", wrong_us)])
    back = msgspec.structs.replace(wrong, entered=False, corrects=wrong.seq, seq=0)
    found = read(journal, back, change("u", "+a", right_us)).segments["a"]
    assert (found.now, found.flips, found.held_us) == (1, 1, right_us)


def test_what_is_not_of_these_rules_and_people_is_left_out(journal: Journal) -> None:
    others = [change("u", "+slow", 9 * DAY, "engagement"), change("u", "+gone", 9 * DAY), change("left", "+a", DAY)]
    found = read(journal, *others)
    assert (found.people, found.observed_us, found.segments["a"].ever, set(found.segments)) == (3, 0, 0, {"a", "b"})


def test_entered_twice_is_entered_once(journal: Journal) -> None:
    found = read(journal, change("u", "+a", 3 * DAY), change("u", "+a", 2 * DAY), change("v", "-a", DAY))
    assert (found.segments["a"].flips, found.segments["a"].held_us) == (1, 3 * DAY)


def test_as_of_a_time(journal: Journal) -> None:
    found = read(journal, change("u", "+a", 3 * DAY), change("u", "-a", DAY), at_us=AT - 2 * DAY)
    assert (found.segments["a"].now, found.segments["a"].held_us) == (1, DAY)
