"""The two working sets, in DuckDB and in Python, give the same rows, whoever changes the history and however."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.features.fresh import Fresh
from feature_repo.features.quick import Quick
from feature_repo.history.history_store import row_of
from feature_repo.history.sqlite_history import SqliteHistory
from tests.feature_repo import histories
from tests.feature_repo.test_stream import ENTITIES, event

FILES = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the histories."""
    return tmp_path_factory.mktemp("histories")


@pytest.fixture(scope="module", params=["saas", "oulad"])
def fresh(request, folder) -> Fresh:
    """Made once, for that takes long: it gets another history for every example."""
    return Fresh(request.param, SqliteHistory(folder / f"{request.param}.db"))


@given(data=st.data())
def test_rows_are_the_same_in_python_and_in_duckdb(fresh, folder, data):
    name = fresh.domain.name
    rows = data.draw(histories.events(domains.load(name), most=15))
    again = [data.draw(st.sampled_from(rows)) | {"ts_us": data.draw(histories.lattice(domains.load(name)))}]
    with SqliteHistory(folder / f"{next(FILES)}.db") as store, store.reader() as other:
        quick, fresh.store = Quick(name, store), store
        fresh.forget(ENTITIES)
        arriving = [row_of(i + 1, event(row)) for i, row in enumerate([*rows, *again])]
        for n, row in enumerate(arriving):
            if data.draw(st.booleans(), label="by itself"):
                quick.add(store.add([row]))
            else:
                other.add([row])
            if n % 4 == 0 or n >= len(arriving) - 2:
                some = data.draw(st.lists(st.sampled_from(ENTITIES), min_size=1, unique=True))
                at_us = row.ts_us + data.draw(st.sampled_from([-1, 0, 1]))
                (found, by), (wanted, position) = quick.rows(some, at_us), fresh.rows(some, at_us)
                assert found.to_pylist() == wanted.to_pylist()
                assert by == position == row.position
                assert found.schema == wanted.schema
                assert {s: quick.events(s) for s in store.senders_of(some)} == {
                    s: fresh.events(s) for s in store.senders_of(some)
                }
                assert {s: n for s, n in quick.older(some, at_us).items() if n} == fresh.older(some, at_us)
