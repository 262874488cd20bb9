"""The journal: append-only, one step for documents and changes, cursors, counts, nothing left of whom it forgot."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.storage import BusyError
from serving.segments.journal import Change, Entry, Journal


def change(person: str = "u-1", segment: str = "keen", entered: bool = True, at_us: int = 1) -> Change:
    return Change(person, "rules", segment, entered, at_us, "because", "v1", at_us)


def raw(file: Path) -> bytes:
    return b"".join(f.read_bytes() for f in sorted(file.parent.glob(f"{file.name}*")))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "segments.db")


def test_what_is_written_comes_out_with_its_place(journal: Journal) -> None:
    written = journal.write({"u-1": Entry(b"doc", 7)}, [change(), change(entered=False, at_us=2)])
    back = msgspec.structs.replace(change(at_us=1, entered=False), corrects=1)
    written += journal.write({}, [back])
    assert [c.seq for c in written] == [1, 2, 3]
    assert journal.after(0, 10) == written and journal.after(1, 1) == written[1:2]
    assert journal.newest(2) == written[:0:-1] and journal.of(["u-1", "nobody"]) == written
    assert journal.document("u-1") == b"doc" and journal.document("u-2") is None and journal.last() == 3


def test_changes_are_never_rewritten(journal: Journal) -> None:
    journal.write({}, [change()])
    with (
        closing(sqlite3.connect(journal.file or "")) as db,
        pytest.raises(sqlite3.IntegrityError, match="appended, never rewritten"),
    ):
        db.execute("UPDATE changes SET segment = 'other'")
    assert journal.after(0, 9)[0].segment == "keen"


def test_documents_and_changes_are_one_step(journal: Journal) -> None:
    journal.write({"u-1": Entry(b"before", None)}, [])
    broken = msgspec.structs.replace(change(), cause=None)  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        journal.write({"u-1": Entry(b"after", None)}, [change(), broken])
    assert journal.document("u-1") == b"before" and journal.last() == 0


def test_who_is_due(journal: Journal) -> None:
    journal.write(
        {"late": Entry(b"", 30), "soon": Entry(b"", 10), "never": Entry(b"", None), "then": Entry(b"", 20)}, []
    )
    assert journal.due(9, 5) == [] and journal.due(20, 5) == ["soon", "then"] and journal.due(99, 1) == ["soon"]


def test_cursors_survive(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "segments.db")
    assert journal.cursor("webhook:a") is None
    journal.advance("webhook:a", 3)
    journal.advance("webhook:a", 5)
    journal.close()
    again = Journal(tmp_path / "segments.db")
    assert again.cursor("webhook:a") == 5 and again.cursor("webhook:b") is None


def test_one_process_writes_it(journal: Journal) -> None:
    with pytest.raises(BusyError, match="expected to be alone"):
        Journal(journal.file)


MOVES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y"]), st.booleans()), max_size=30)


@given(moves=MOVES, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_counts_since_add_up_to_counts(moves: list[tuple[str, str, bool]], cuts: list[int]) -> None:
    journal, total, seq = Journal(), Counter[tuple[str, str]](), 0
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(moves)], strict=True):
        journal.write({}, [change(person, segment, entered) for person, segment, entered in moves[start:end]])
        more, seq = journal.counts(seq)
        total.update(more)
    expected = Counter[tuple[str, str]]()
    for _, segment, entered in moves:
        expected["rules", segment] += 1 if entered else -1
    assert seq == journal.last() == len(moves)
    assert {k: n for k, n in total.items() if n} == {k: n for k, n in expected.items() if n}


def test_no_byte_of_an_erased_person_is_left(journal: Journal) -> None:
    file, person = journal.file, "anna.example@mail"
    assert file is not None
    for n in range(50):
        journal.write({person: Entry(person.encode(), n)}, [change(person, at_us=n), change("kept", at_us=n)])
    assert person.encode() in raw(file)
    assert journal.erase([person]) == 50
    assert person.encode() not in raw(file)
    assert {c.person for c in journal.after(0, 999)} == {"kept"} and journal.document(person) is None
    assert journal.write({}, [change()])[0].seq == 101  # the place of an erased change is nobody else's


def test_forgetting_keeps_what_was_told(journal: Journal) -> None:
    journal.write({"u-1": Entry(b"doc", 1)}, [change()])
    journal.forget(["u-1"])
    assert journal.document("u-1") is None and journal.due(9, 9) == [] and len(journal.of(["u-1"])) == 1


def test_eras_begin_when_the_rules_change(journal: Journal) -> None:
    assert journal.begin_era("one", 10) == [(0, "one")]
    assert journal.begin_era("one", 20) == [(0, "one")]
    assert journal.begin_era("two", 30) == [(0, "one"), (30, "two")]
