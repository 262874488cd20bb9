"""monitoring.recompute: a row by what was known at a position is what the definition gives for those events."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.lake.lake import Lake
from monitoring import recompute
from monitoring.recompute import Known, Question, Recomputed
from tests.feature_repo import histories, oracle
from tests.feature_repo.everything import EVERYTHING
from tests.feature_repo.test_stream import ENTITIES, event

NUMBER = itertools.count()


def replay(data: st.DataObject, domain: Domain) -> tuple[list[histories.Row], list[Question]]:
    """Events in an order of arrival, some with copies of another timestamp, and questions on the windows' edges.

    The questions are about known and anonymous users, before, at and after the moments at which they become known.
    """
    rows = data.draw(histories.events(domain, 12))
    copies = [row | {"ts_us": row["ts_us"] + data.draw(st.sampled_from([0, 1, -1, 3_600_000_000]))}
              for row in data.draw(st.lists(st.sampled_from(rows), max_size=4))]  # fmt: skip
    arrived = data.draw(st.permutations(rows + copies))
    edges = sorted({r["ts_us"] + w for r in arrived for w in [0, *domain.windows]})
    moment = st.builds(lambda t, beside: t + beside, st.sampled_from(edges), st.sampled_from([-1, 0, 1]))
    question = st.tuples(st.sampled_from(ENTITIES), st.integers(1, len(arrived)), moment)
    return arrived, [Question(*q) for q in data.draw(st.lists(question, min_size=1))]


def wanted(domain: Domain, arrived: list[histories.Row], question: Question) -> oracle.Row | None:
    known = oracle.canonical(arrived[: question.reached])
    return oracle.row(known, domain, question.person, question.at_us)


def features(domain: Domain, row: dict[str, Any] | None) -> dict[str, Any] | None:
    return row and {name: row[name] for name in domain.feature_types}


@pytest.mark.parametrize("domain", [EVERYTHING, domains.load("saas")], ids=lambda d: d.name)
@given(data=st.data())
def test_it_is_what_the_definition_gives_of_the_events_known_by_then(
    domain: Domain, data: st.DataObject, tmp_path: Path
) -> None:
    arrived, asked = replay(data, domain)
    lake = Lake(tmp_path / str(next(NUMBER)))
    lake.append([event(row) for row in arrived])
    with Recomputed(lake, domain, ENTITIES) as recomputed:
        found = dict(recomputed.rows(asked))
    for n, question in enumerate(asked):
        assert features(domain, found[n]) == wanted(domain, arrived, question), question


@given(data=st.data())
def test_after_a_compaction_it_is_still_that_or_it_may_be_forgotten(data: st.DataObject, tmp_path: Path) -> None:
    arrived, asked = replay(data, EVERYTHING)
    lake, compacted = Lake(tmp_path / str(next(NUMBER))), data.draw(st.integers(1, len(arrived)))
    lake.append([event(row) for row in arrived[:compacted]])
    lake.compact(progress=False)
    lake.append([event(row) for row in arrived[compacted:]])
    with Recomputed(lake, EVERYTHING, ENTITIES) as recomputed:
        found, forgotten = dict(recomputed.rows(asked)), recomputed.forgotten(asked)
    for n, question in enumerate(asked):
        assert n in forgotten or features(EVERYTHING, found[n]) == wanted(EVERYTHING, arrived, question), question
    assert not any(asked[n].reached >= compacted for n in forgotten)


@given(data=st.data())
def test_an_event_can_be_left_out_or_counted_twice(data: st.DataObject, tmp_path: Path) -> None:
    rows = data.draw(histories.events(EVERYTHING, 8))
    lake = Lake(tmp_path / str(next(NUMBER)))
    lake.append([event(row) for row in rows])
    last, t = len(rows), max(row["ts_us"] for row in rows)
    with Recomputed(lake, EVERYTHING, ["u1"]) as recomputed:
        events = recomputed.events("u1", last, last)
        less = [Question("u1", last, t, without=e.position) for e in events]
        more = [Question("u1", last, t, twice=e.position) for e in events]
        found = dict(recomputed.rows(less + more))
    for n, known in enumerate(events):
        row = rows[known.position - 1]
        less_one = oracle.row([r for r in rows if r is not row], EVERYTHING, "u1", t)
        one_more = oracle.row([*rows, row | {"message_id": f"{row['message_id']} again"}], EVERYTHING, "u1", t)
        for number, right in ((n, less_one), (n + len(events), one_more)):
            assert features(EVERYTHING, found[number]) == right


def lake_of(folder: Path, rows: list[tuple[str, int]]) -> Lake:
    """Events of u1: (message id, time)."""
    lake = Lake(folder)
    empty = {"name": None, "anonymous_id": None, "properties": "{}", "traits": "{}", "context": "{}"}
    lake.append([event({"type": "page", "message_id": m, "user_id": "u1", "ts_us": t, "received_us": t} | empty)
                 for m, t in rows])  # fmt: skip
    return lake


def test_the_events_that_came_last_come_first(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("a", 10), ("b", 5), ("a", 3), ("c", 7)])
    with Recomputed(lake, EVERYTHING, ["u1"]) as recomputed:
        assert recomputed.events("u1", 2, 9) == [Known(2, "b", 5), Known(1, "a", 10)]
        assert recomputed.events("u1", 3, 9) == [Known(3, "a", 3), Known(2, "b", 5)]
        assert recomputed.events("u1", 4, 1) == [Known(4, "c", 7)]
        assert recomputed.events("u2", 4, 9) == []


def test_many_questions_are_answered_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = lake_of(tmp_path, [(f"m{n}", n) for n in range(20)])
    asked = [Question("u1", 1 + n % 20, t) for n in range(60) for t in (5, 15)] + [Question("nobody", 20, 5)]
    with Recomputed(lake, EVERYTHING, ["u1", "nobody"]) as recomputed:
        at_once = dict(recomputed.rows(asked))
        monkeypatch.setattr(recompute, "EVENTS_AT_ONCE", 7)
        assert dict(recomputed.rows(asked)) == at_once
        assert list(recomputed.rows([])) == []
    assert at_once[120] is None and len(at_once) == 121
    for n, (_, reached, t, *_rest) in enumerate(asked[:-1]):
        row = at_once[n]
        assert row is not None and row["events"] == min(reached, t + 1)


def test_only_what_a_compaction_may_have_forgotten_is_called_so(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [("a", 10), ("b", 20), ("a", 3)])
    asked = [Question("u1", 1, 5), Question("u1", 2, 5), Question("u1", 3, 5), Question("u1", 2, 2)]
    with Recomputed(lake, EVERYTHING, ["u1"]) as recomputed:
        assert recomputed.forgotten(asked) == set()
    lake.compact(progress=False)
    with Recomputed(lake, EVERYTHING, ["u1"]) as recomputed:
        assert recomputed.forgotten(asked) == {0, 1}
        assert recomputed.forgotten([]) == set()
