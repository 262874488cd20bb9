"""Idea 1, 2 and 3 as properties, over every term of the vocabulary and over both products' feature sets."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from tests.feature_repo import histories, oracle
from tests.feature_repo.compute import Computer, in_force
from tests.feature_repo.everything import EVERYTHING

COMPUTERS: dict[str, Computer] = {}
DOMAINS = ["everything", "saas", "oulad"]


def computer(name: str) -> Computer:
    """Compiled once for all tests."""
    if name not in COMPUTERS:
        COMPUTERS[name] = Computer(EVERYTHING if name == "everything" else domains.load(name))
    return COMPUTERS[name]


def moments(draw: st.DataObject, domain, events, most: int) -> list[int]:
    """Times to ask at: on windows' edges, a microsecond before and after, and between."""
    edges = sorted({e["ts_us"] + w for e in events for w in [0, *domain.windows]})
    edge = st.sampled_from(edges)
    beside = st.builds(lambda t, d: t + d, edge, st.sampled_from([-1, 0, 1]))
    between = st.integers(edges[0] - 2, edges[-1] + 2)
    return draw.draw(st.lists(beside | between, min_size=1, max_size=most, unique=True))


@pytest.mark.parametrize("name", DOMAINS)
@given(data=st.data())
def test_row_in_force_is_the_same_by_change_points_as_of_plain_and_oracle(name, data):
    compute = computer(name)
    events = data.draw(histories.events(compute.domain))
    compute.load(events)
    rows = compute.change_points()
    for t in moments(data, compute.domain, events, 4):
        then = compute.as_of(t)
        for entity in oracle.entities(events):
            wanted = oracle.row(events, compute.domain, entity, t)
            assert features(compute, in_force(rows, entity, t)) == wanted, f"change points at {t} of {entity}"
            assert features(compute, then.get(entity)) == wanted, f"as of {t} of {entity}"
            assert features(compute, compute.plain(entity, t)) == wanted, f"plain at {t} of {entity}"


@pytest.mark.parametrize("name", DOMAINS)
@given(data=st.data())
def test_a_row_is_valid_until_the_next_change_point(name, data):
    compute = computer(name)
    events = data.draw(histories.events(compute.domain))
    compute.load(events)
    rows = compute.change_points()
    for row, following in pairwise(rows):
        if row["user_id"] == following["user_id"]:
            assert row["ts_us"] < row["valid_until_us"] == following["ts_us"]
    for t in moments(data, compute.domain, events, 2):
        for entity, row in compute.as_of(t).items():
            times = ("ts_us", "valid_until_us")
            by_change_points, plain = in_force(rows, entity, t), compute.plain(entity, t)
            assert [row[n] for n in times] == [by_change_points[n] for n in times] == [plain[n] for n in times]


@pytest.mark.parametrize("name", DOMAINS)
@given(data=st.data())
def test_order_of_arrival_does_not_matter(name, data):
    compute = computer(name)
    events = data.draw(histories.events(compute.domain))
    shuffled = data.draw(st.permutations(events))
    compute.load(events)
    rows = compute.change_points()
    compute.load([e | {"position": i + 1} for i, e in enumerate(shuffled)])
    assert [r | {"position": 0} for r in compute.change_points()] == [r | {"position": 0} for r in rows]


def features(compute: Computer, row):
    """The features of a row, without its times."""
    return row and {name: row[name] for name in compute.domain.feature_types}
