"""A person's own past out of the history: the trail is that of the definition, and news add up to the whole."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.history.history_store import Row, row_of
from feature_repo.history.sqlite_history import SqliteHistory
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_sql import INCOMING
from feature_repo.settings import Settings
from feature_repo.stream import personal as personal_module
from feature_repo.stream.personal import Heavy, Personal
from tests.feature_repo import histories, oracle
from tests.feature_repo.compute import Computer
from tests.feature_repo.test_backfill import event as lake_row
from tests.feature_repo.test_stream import ENTITIES, event

SAAS = domains.load("saas")
FILES = itertools.count()


@pytest.fixture(scope="module")
def compute() -> Computer:
    return Computer(SAAS)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), domain="saas")


@pytest.fixture
def steps(monkeypatch):
    """Sets up to how many rows a trail is found row by row."""
    return lambda most: monkeypatch.setattr(personal_module, "STEPS", most)


def kept(rows: list[histories.Row]) -> list[Row]:
    return [row_of(position, event(row)) for position, row in enumerate(rows, 1)]


def mine(rows: list[histories.Row], person: str, t: int) -> set[str]:
    """The message ids of somebody's events at t, by the definition."""
    counted = oracle.canonical(rows)
    return {e["message_id"] for e in counted if e["ts_us"] <= t and oracle.owner(e, counted, t) == person}


@given(data=st.data())
def test_a_trail_is_the_change_points_of_the_definition(settings, compute, tmp_path_factory, steps, data):
    steps(data.draw(st.sampled_from([1, 40, 1000])))  # one query, the shipped limit, row by row
    rows = data.draw(histories.events(SAAS, 15))
    history = SqliteHistory(tmp_path_factory.mktemp("history") / f"{next(FILES)}.db")
    history.add(kept(data.draw(st.permutations(rows))))
    compute.load(rows)
    personal, points = Personal(settings, history), compute.change_points()
    t = data.draw(st.sampled_from(sorted(r["ts_us"] for r in points))) + data.draw(st.integers(-1, 1))
    for person in ENTITIES:
        wanted = [{n: v for n, v in r.items() if n != "position"} for r in points if r["user_id"] == person]
        assert list(personal.trail(person, t)) == [r for r in wanted if r["ts_us"] <= t]
        since = data.draw(st.sampled_from([r["ts_us"] for r in points]))
        lately = [r for r in wanted if r["ts_us"] <= t and (r["valid_until_us"] or t + 1) > since]
        found = [r for r in personal.trail(person, t, since) if (r["valid_until_us"] or t + 1) > since]
        assert since > t or found == lately
    personal.close()
    history.close()


@given(data=st.data())
def test_news_after_news_are_all_of_the_persons_events(settings, tmp_path_factory, data):
    rows = data.draw(histories.events(SAAS, 15))
    copies = [row | {"ts_us": row["ts_us"] - 1} for row in data.draw(st.lists(st.sampled_from(rows), max_size=3))]
    arrivals = data.draw(st.permutations(rows + copies))
    history = SqliteHistory(tmp_path_factory.mktemp("history") / f"{next(FILES)}.db")
    personal, t = Personal(settings, history), min(r["ts_us"] for r in rows)
    held, known = {p: set[str]() for p in ENTITIES}, dict.fromkeys(ENTITIES)
    done = 0
    while done < len(arrivals):
        size = data.draw(st.integers(1, len(arrivals)))
        history.add(kept(arrivals)[done : done + size])
        done += size
        t += data.draw(st.sampled_from([0, 1, 60_000_000, 90_000_000_000]))
        for person in data.draw(st.lists(st.sampled_from(ENTITIES), unique=True)):
            news = personal.news(person, known[person], t)
            found = {row.message_id for row in news.events}
            held[person] = found if news.whole else held[person] | found
            known[person] = news.known
            assert held[person] == mine(arrivals[:done], person, t)
    personal.close()
    history.close()


def test_nothing_is_read_again_of_somebody_of_whom_nothing_came(settings, tmp_path):
    history = SqliteHistory(tmp_path / "history.db")
    row = {"type": "track", "name": "Clicked", "user_id": "u1", "anonymous_id": None, "received_us": 1,
           "properties": "{}", "traits": "{}", "context": "{}"}  # fmt: skip
    history.add(kept([row | {"message_id": "a", "ts_us": 10}]))
    personal = Personal(settings, history)
    first = personal.news("u1", None, 100)
    history.add([row_of(2, event(row | {"message_id": "b", "ts_us": 20}))])
    second = personal.news("u1", first.known, 100)
    third = personal.news("u1", second.known, 100)
    assert [(len(n.events), n.whole) for n in (first, second, third)] == [(1, True), (1, False), (0, False)]
    personal.close()
    history.close()


def test_of_somebody_with_too_many_events_none_is_read(tmp_path):
    settings = Settings(home=tmp_path, domain="saas")
    past = [lake_row(user, n, 10 + n) for user, many in (("much", 3), ("little", 2)) for n in range(many)]
    columns = [row | {"position": n, "content_hash": ""} for n, row in enumerate(past, 1)]
    Lake(settings.lake).append_table(pa.Table.from_pylist(columns, INCOMING))
    history = SqliteHistory(tmp_path / "history.db")
    history.leave(["much", "little"])
    personal = Personal(settings, history, most=2)
    assert len(personal.news("little", None, 100).events) == 2 and history.left(["little"]) == set()
    for read in (lambda: personal.news("much", None, 100), lambda: personal.trail("much", 100)):
        with pytest.raises(Heavy, match="much has more than 2 events"):
            read()
    assert history.left(["much"]) == {"much"}
    personal.close()
    history.close()
