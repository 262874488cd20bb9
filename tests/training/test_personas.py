import math
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.vocabulary import DAY, WEEK, Count, Feature, Linear, Ratio, where
from tests.training.test_model import FEATURES, model
from tests.training.test_shapes import METHODS
from tests.training.world import no_ingest, shop
from training import dataset
from training.clustering import KMeansOf, Method
from training.describe import described
from training.discovery import Discovered, Limits, discover, latest
from training.membership import members
from training.personas import Personas, Scale, behaviour, matrix
from training.progress import Progress

NAMES = ["reads", "writes", "asks", "invites"]
QUICK = Limits(splits=3, draws=4, most=400)


def product() -> Domain:
    """A product whose people read, write, ask and invite."""
    counts = tuple(Feature(n, Count(where(name=n)), f"times that somebody {n}") for n in NAMES)
    base = shop(lambda _: None)  # type: ignore[arg-type, return-value]
    events = {**base.events, **{name: {} for name in (*NAMES, "writes", "seen", "later")}}
    return replace(base, events=events, features=(*base.features[4:], *counts), slices=())


DOMAIN = product()
GROUPS = np.array([[40.0, 2, 2, 2], [2.0, 40, 2, 2], [2.0, 2, 40, 2]])


def rows_of(values: np.ndarray) -> pd.DataFrame:
    """One row a person with the four counts."""
    at = np.arange(len(values))
    frame = pd.DataFrame({"user_id": [f"u{i:04d}" for i in at], "now_us": 1_700_000_000_000_000 + at})
    return frame.assign(**dict(zip(NAMES, values.T, strict=True)))


def planted(people: int = 400, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Readers, writers and askers, and which each is."""
    rng = np.random.default_rng(seed)
    group = rng.choice(3, people, p=[0.4, 0.35, 0.25])
    return rows_of(GROUPS[group] * np.exp(0.3 * rng.normal(size=(people, 4)))), group


ROWS, TRUE = planted()
FOUND = discover(DOMAIN, ROWS, limits=QUICK)


def personas(found: Discovered = FOUND) -> Personas:
    assert found.personas is not None, found.why
    return found.personas


def agreement(told: list[str | None], true: np.ndarray) -> float:
    return float(adjusted_rand_score(true, [str(t) for t in told]))


def test_planted_groups_are_found_and_named() -> None:
    assert len(personas().personas) == 3 and agreement(personas().many(ROWS), TRUE) > 0.98
    assert sum(p.share for p in personas().personas) == pytest.approx(1)
    by_name = {p.name: p.doc for p in personas().personas}
    asker = next(doc for name, doc in by_name.items() if name.startswith("more_asks"))
    assert asker.startswith("More: times that somebody asks (4")
    assert all(name.isidentifier() for name in by_name)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_can_find_them(method: Method) -> None:
    found = discover(DOMAIN, ROWS, limits=QUICK, candidates=[method])
    told = personas(found).many(ROWS)
    inside = np.array([t is not None for t in told])
    assert inside.mean() > 0.8
    assert agreement([t for t in told if t], TRUE[inside]) > 0.95


def cloud(kind: str, people: int = 400, seed: int = 1) -> pd.DataFrame:
    """Counts without groups: equally everything, one bell, or one long bell (who does one thing does all)."""
    rng = np.random.default_rng(seed)
    bell = {"bell": 0.0, "long bell": 2.0}
    if kind in bell:
        logs = 3 + 0.4 * rng.normal(size=(people, 4)) + bell[kind] * 0.4 * rng.normal(size=(people, 1))
    else:
        logs = rng.uniform(1, 6, (people, 4))
    return rows_of(np.expm1(np.abs(logs)))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["even", "bell", "long bell"])
def test_nothing_is_found_where_there_are_no_groups(kind: str, seed: int) -> None:
    found = discover(DOMAIN, cloud(kind, seed=seed), limits=QUICK)
    assert found.personas is None and found.why.startswith("no personas")
    assert all(t.refused for t in found.tried) and found.named == [None] * 400


def test_a_long_bell_is_refused_by_what_chance_gives_only() -> None:
    """It is stably cut in two, and silhouette alone would like it."""
    two = discover(DOMAIN, cloud("long bell"), limits=QUICK, candidates=[KMeansOf(2)]).tried[0]
    assert two.stability > 0.8 and two.silhouette > 0.3
    assert two.refused == f"silhouette {two.silhouette:.2f} is not 0.02 above {two.chance:.2f}, that of chance"


def test_order_of_rows_and_repetition_of_a_run_change_nothing() -> None:
    again = discover(DOMAIN, ROWS.sample(frac=1, random_state=3), limits=QUICK)
    assert pickle.dumps(again.personas) == pickle.dumps(FOUND.personas)
    assert [t.silhouette for t in again.tried] == [t.silhouette for t in FOUND.tried]


def test_a_person_counts_once_by_their_latest_row() -> None:
    earlier = ROWS.assign(now_us=ROWS["now_us"] - DAY, **dict.fromkeys(NAMES, 0.0))
    again = discover(DOMAIN, pd.concat([ROWS, earlier]), limits=QUICK)
    assert latest(pd.concat([ROWS, earlier])).equals(ROWS)
    assert again.people == len(ROWS) and pickle.dumps(again.personas) == pickle.dumps(FOUND.personas)


def test_labels_are_not_looked_at() -> None:
    again = discover(DOMAIN, ROWS.assign(label=TRUE % 2), limits=QUICK)
    assert pickle.dumps(again.personas) == pickle.dumps(FOUND.personas)


NUMBER = st.one_of(st.none(), st.floats(), st.integers(-(2**60), 2**60))


@given(st.lists(st.tuples(*[NUMBER] * 4), min_size=1, max_size=20))
def test_one_person_gets_the_persona_that_they_get_among_many(values: list[tuple[float | None, ...]]) -> None:
    rows = pd.DataFrame(values, columns=personas().inputs).astype("float64")
    assert personas().many(rows) == [personas().one(v) for v in values]


@given(st.lists(st.tuples(*[st.floats(-1e9, 1e9)] * 4), min_size=1, max_size=20))
def test_coordinates_of_one_row_have_the_bits_that_they_have_among_many(values: list[tuple[float, ...]]) -> None:
    X = np.array(values)
    alone = np.concatenate([personas().scale.points(x[None, :]) for x in X])
    assert alone.tobytes() == personas().scale.points(X).tobytes()


def test_of_whom_nothing_is_known_has_none() -> None:
    assert personas().one([None] * 4) is None and personas().one([math.nan] * 4) is None
    assert personas().one([40, None, None, 3]) in personas().names
    assert personas().many(ROWS.head(0)) == []


def test_it_pickles() -> None:
    assert pickle.loads(pickle.dumps(personas())).many(ROWS) == personas().many(ROWS)


def test_a_column_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="lack asks"):
        personas().many(ROWS.drop(columns="asks"))


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(stability=1.01, splits=2), "stability"),
        (Limits(smallest=0.45, splits=2), "smallest share"),
        (Limits(margin=2, splits=2, draws=1), "that of chance"),
    ],
)
def test_every_limit_can_refuse(limits: Limits, why: str) -> None:
    found = discover(DOMAIN, ROWS, limits=limits, candidates=[KMeansOf(3)])
    assert found.personas is None and why in found.tried[0].refused


def test_too_few_people_or_features_are_not_looked_at() -> None:
    assert "99 people" in discover(DOMAIN, ROWS.head(99)).why
    same = ROWS.assign(writes=1.0, asks=np.nan, invites=[None] * 390 + [3.0] * 10)
    assert "1 features" in discover(DOMAIN, same).why


def test_progress_counts_the_candidates() -> None:
    told: list[str] = []

    class Told(Progress):
        def expect(self, steps: int) -> None:
            told.append(str(steps))

        def step(self, words: str) -> None:
            told.append(words)

    discover(DOMAIN, ROWS, limits=QUICK, progress=Told(), candidates=[KMeansOf(2), KMeansOf(3)])
    assert told[0] == "2" and len(told) == 3 and told[2].startswith("kmeans 3, silhouette")


@pytest.mark.parametrize("name", ["saas", "oulad"])
def test_behaviour_is_what_people_do(name: str) -> None:
    domain = domains.load(name)
    told = {f.name for f in behaviour(domain)}
    assert len(told) >= 10 and told <= {f.name for f in domain.features}
    attributes = {"gender", "region", "age_band", "disability", "imd_band", "education", "country", "device", "plan"}
    assert not told & {
        *attributes,
        "activations",
        "activated_us",
        "engagement",
        "sessions_7d",
        "clicks_1w",
        "signed_up_us",
    }


@pytest.mark.parametrize("name", ["saas", "oulad"])
def test_models_and_personas_are_made_of_nothing_sensitive(name: str) -> None:
    domain = domains.load(name)
    assert domain.sensitive and set(domain.sensitive) <= set(dataset.feature_names(domain))
    assert not set(domain.sensitive) & {*dataset.inputs(domain), *(f.name for f in behaviour(domain))}
    first = next(f.name for f in behaviour(domain) if f.name not in {a.needs for a in domain.acts})
    stricter = replace(domain, sensitive=(first,))
    assert first in dataset.inputs(domain) and first not in dataset.inputs(stricter)
    assert first not in {f.name for f in behaviour(stricter)}


def test_windows_sums_doubled_ratios_and_the_outcome_are_left_out() -> None:
    reads, bought = Count(where(name="reads")), Count(where(name="Bought"))
    more = (
        Feature("reads_7d", Count(where(name="reads"), window=WEEK), ""),
        Feature("points", Linear(((reads, 2),)), ""),
        Feature("reads_each", Ratio(Count(where(name="writes")), reads), ""),
        Feature("bought_each", Ratio(bought, Count(where(name="seen"))), ""),
        Feature("reads_of_seen", Ratio(reads, Count(where(name="seen"))), ""),
        Feature("later", Count(where(name="later")), "", since=2),
    )
    domain = replace(DOMAIN, features=(*DOMAIN.features, *more), ingest=no_ingest)
    assert [f.name for f in behaviour(domain, 1)] == [*NAMES, "reads_of_seen"]
    assert [f.name for f in behaviour(domain)] == [*NAMES, "reads_of_seen", "later"]


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_names_are_unique_identifiers(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    X, names = rng.poisson(3, (60, 3)).astype(float), ["a b", "a-b", "C"]
    told = described(X, Scale.fit(X), np.arange(60) % groups, names, dict.fromkeys(names, "Doc."))
    assert len({p.name for p in told}) == len(told) == groups
    assert all(p.name.isidentifier() and p.doc.endswith(".") for p in told)


def test_a_group_like_everybody_says_so() -> None:
    X = np.tile(np.array([[1.0, 5.0], [5.0, 1.0]]), (20, 1))
    told = described(X, Scale.fit(X), np.repeat([0, 1], 20), ["a", "b"], {"a": "A", "b": "B"})
    assert [(p.name, p.doc) for p in told] == [
        ("like_everybody", "Much like everybody."),
        ("like_everybody_2", "Much like everybody."),
    ]


def with_personas() -> Personas:
    """Of the rows that the models of test_model take."""
    return replace(personas(), inputs=["clicks", "pages", "age_seconds", "trend"])


def test_the_model_tells_the_persona_beside_the_score() -> None:
    m = replace(model(), discovered=with_personas())
    values = dict.fromkeys(FEATURES) | {"clicks": 40, "pages": 2, "age_seconds": 2.0, "trend": 2.0}
    assert m.personas == personas().names
    assert m.persona_one(list(values.values())) == personas().one([40, 2, 2, 2])
    assert m.score_one(list(values.values())) == model().score_one(list(values.values()))


def test_a_model_without_personas_tells_none() -> None:
    assert model().personas == () and model().persona_one([None] * len(FEATURES)) is None


def test_a_model_from_before_there_were_personas_is_read() -> None:
    old = model()
    for name in ("discovered", "_behaviour"):
        del old.__dict__[name]
    again = pickle.loads(pickle.dumps(old))
    values = [None] * len(FEATURES)
    assert again.personas == () and again.persona_one(values) is None
    assert again.score_one(values) == model().score_one(values)
    assert replace(again, version=3).personas == ()


def test_personas_of_other_features_are_refused() -> None:
    with pytest.raises(ValueError, match="does not have: reads"):
        replace(model(), discovered=personas())


def test_members_have_their_share_and_the_rate_of_the_known_labels() -> None:
    m = replace(model(), features=[*FEATURES, *NAMES], discovered=personas())
    label = pd.array([1] * 400, dtype="Int8")
    label[TRUE == 0] = 0
    label[TRUE == 1] = pd.NA
    told = members(m, ROWS.assign(label=label))
    assert [p.people for p in told] == sorted(np.bincount(TRUE).tolist(), reverse=True)
    assert [p.rate for p in told] == [0.0, None, 1.0]
    assert sum(p.share for p in told) == pytest.approx(1)
    assert members(model(), ROWS) == []


def test_values_are_in_the_order_of_the_inputs() -> None:
    assert matrix(ROWS, ["asks", "reads"])[:, 1].tolist() == ROWS["reads"].tolist()
