"""The contract of every clustering, and what is particular to one."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN, KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from training.clustering import DbscanOf, HdbscanOf, KMeansOf, Method, MixtureOf, methods
from training.shapes import NOISE, Cores, Shape

METHODS: list[Method] = [KMeansOf(3), MixtureOf(3), HdbscanOf(0.1), DbscanOf(0.9)]
CENTRES = np.array([[0.0, 0.0, 0.0], [7.0, 0.0, 1.0], [0.0, 7.0, -1.0]])


def blobs(people: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) points in three groups that do not touch, and the group of each."""
    rng = np.random.default_rng(seed)
    group = rng.choice(3, people, p=[0.5, 0.3, 0.2])
    return CENTRES[group] + rng.normal(size=(people, 3)), group


POINTS, TRUE = blobs()
FITTED = {m.name: m.fit(POINTS, 1) for m in METHODS}


@pytest.fixture(params=METHODS, ids=lambda m: m.name)
def method(request: pytest.FixtureRequest) -> Method:
    found: Method = request.param
    return found


@pytest.fixture
def shape(method: Method) -> Shape:
    return FITTED[method.name]


def test_planted_groups_are_found(shape: Shape) -> None:
    found = shape.nearest(POINTS)
    inside = found > NOISE
    assert shape.groups == 3 and set(found[inside]) == {0, 1, 2}
    assert inside.mean() > 0.9 and adjusted_rand_score(TRUE[inside], found[inside]) > 0.98


def test_people_who_were_not_there_are_assigned(shape: Shape) -> None:
    later, group = blobs(seed=9)
    found = shape.nearest(later)
    inside = found > NOISE
    assert inside.mean() > 0.8 and adjusted_rand_score(group[inside], found[inside]) > 0.98


def test_the_same_seed_gives_the_same_shape(method: Method, shape: Shape) -> None:
    assert pickle.dumps(method.fit(POINTS, 1)) == pickle.dumps(shape)


def test_points_are_not_changed(method: Method) -> None:
    mine = POINTS.copy()
    method.fit(mine, 1).nearest(mine)
    assert np.array_equal(mine, POINTS)


def test_it_pickles(shape: Shape) -> None:
    again = pickle.loads(pickle.dumps(shape))
    assert np.array_equal(again.nearest(POINTS), shape.nearest(POINTS))


NUMBER = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=40))
def test_one_point_is_assigned_as_among_many(points: list[tuple[float, float, float]]) -> None:
    Z = np.array(points)
    for shape in FITTED.values():
        assert shape.nearest(Z).tolist() == [shape.nearest(z[None, :]).item() for z in Z]


def test_kmeans_assigns_as_scikit_learn_does() -> None:
    theirs = KMeans(3, n_init=3, random_state=1).fit(POINTS)
    assert FITTED["kmeans 3"].nearest(POINTS).tolist() == theirs.labels_.tolist()


def test_mixture_assigns_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(2)
    Z = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
    theirs = GaussianMixture(4, reg_covar=1e-3, random_state=1).fit(Z)
    assert MixtureOf(4).fit(Z, 1).nearest(Z).tolist() == theirs.predict(Z).tolist()


def test_dbscan_keeps_the_groups_of_its_core_points() -> None:
    shape = FITTED["dbscan 0.9"]
    assert isinstance(shape, Cores)
    theirs = DBSCAN(eps=float(np.sqrt(shape.reach[0])), min_samples=6).fit(POINTS)
    at = theirs.core_sample_indices_
    assert shape.nearest(POINTS)[at].tolist() == theirs.labels_[at].tolist()
    assert ((shape.nearest(POINTS) == NOISE) == (theirs.labels_ == NOISE)).all()


@pytest.mark.parametrize("name", ["hdbscan 0.1", "dbscan 0.9"])
def test_who_is_far_from_everybody_is_in_no_group(name: str) -> None:
    assert FITTED[name].nearest(np.array([[50.0, 50.0, 50.0], CENTRES[0]])).tolist()[0] == NOISE
    assert FITTED[name].nearest(CENTRES)[0] != NOISE


def test_without_core_points_nobody_is_in_a_group() -> None:
    none = Cores(np.empty((3, 0)), np.empty(0, dtype=np.int64), np.empty(0))
    assert none.groups == 0 and none.nearest(POINTS[:2]).tolist() == [NOISE, NOISE]


def test_methods_have_names_of_their_own() -> None:
    names = [m.name for m in methods()]
    assert len(set(names)) == len(names) == 19
    assert [m.name for m in methods(2)][:2] == ["kmeans 2", "gaussian mixture 2"]
