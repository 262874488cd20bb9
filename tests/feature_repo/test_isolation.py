"""A user whose row cannot be computed is set aside: nobody else waits, and the user is tried again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.__main__ import main
from feature_repo.erasing import erasure
from feature_repo.feature_store.store import apply
from feature_repo.history.history_store import open_history
from feature_repo.lake.log_to_lake import log_file
from feature_repo.log.event_log import Delivered
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.settings import Settings
from feature_repo.stream import isolation
from feature_repo.stream.embedded import Embedded
from feature_repo.stream.lag import lag
from tests.feature_repo import oracle
from tests.feature_repo.histories import BASE
from tests.feature_repo.test_backfill import event
from tests.feature_repo.test_embedded import clicks, settled
from tests.feature_repo.test_stream import Clock, opened, settle
from tests.feature_repo.test_stream import event as parsed

LIMIT = 2**63 - 1


@given(st.lists(st.integers(0, 60), max_size=60, unique=True), st.sets(st.integers(0, 60)))
def test_of_any_users_those_who_fail_are_found_and_all_others_are_done(persons: list[int], failing: set[int]) -> None:
    done = set[str]()

    def act(some: list[str]) -> None:
        if bad := failing.intersection(map(int, some)):
            raise ValueError(f"{bad}")
        done.update(some)

    found = isolation.failures([str(p) for p in persons], act)
    assert found.keys() == {str(p) for p in persons if p in failing}
    assert done == {str(p) for p in persons if p not in failing}


@pytest.mark.parametrize("error", [OSError("disk"), sqlite3.OperationalError("locked"), MemoryError()])
def test_an_error_of_a_store_is_about_no_user(error: Exception) -> None:
    def act(some: list[str]) -> None:
        raise error

    with pytest.raises(type(error)):
        isolation.failures(["u1", "u2"], act)


def damage(settings: Settings, user: str, properties: str = "{not json") -> None:
    """Damage a user's events in the history, as a bad disk or an earlier fault of the program can."""
    with closing(sqlite3.connect(settings.state / "history.db")) as db, db:
        db.execute("UPDATE events SET properties = ? WHERE sender = ?", (properties, user))


def test_the_others_go_on_and_the_user_is_tried_again_with_an_event_and_after_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, clock = Settings(home=tmp_path, domain="saas"), Clock(BASE)
    live = Embedded(settings, clock).start()
    users = ["bad", *(f"u{n}" for n in range(20))]
    live.append([parsed(event(u, 0, BASE - 1)) for u in users]).result()
    settled(live, users)
    live.close()
    damage(settings, "bad")
    live = Embedded(settings, clock).start()
    live.append([parsed(event(u, 1, BASE)) for u in users]).result()
    settled(live, users)
    assert clicks(settings, users) == [1] + [2] * 20
    assert set(live.set_aside) == {"bad"} and "DecodeError" in live.set_aside["bad"]
    assert live.lag() == 0 and lag(settings).set_aside == live.set_aside
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    shown = CliRunner().invoke(main, ["lag"]).output
    assert "1  users set aside" in shown and " bad: DecodeError" in shown
    (aside,) = json.loads(CliRunner().invoke(main, ["lag", "--json"]).output)["set_aside"]
    assert (aside["user_id"], aside["anonymous_id"]) == ("bad", None)
    live.close()
    damage(settings, "bad", "{}")  # mended
    live = Embedded(settings, clock).start()
    settled(live, users)
    assert (clicks(settings, ["bad"]), live.set_aside) == ([2], {})
    live.close()
    damage(settings, "bad")
    live = Embedded(settings, clock).start()
    live.append([parsed(event("bad", 2, BASE))]).result()
    settled(live, users)
    assert live.set_aside.keys() == {"bad"}
    damage(settings, "bad", "{}")
    live.append([parsed(event("bad", 3, BASE))]).result()
    settled(live, users)
    assert (clicks(settings, ["bad"]), live.set_aside) == ([4], {})
    live.close()


def test_who_is_set_aside_can_be_erased(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    live = Embedded(settings, lambda: BASE).start()
    live.append([parsed(event("bad", 0, BASE - 1))]).result()
    settled(live, ["bad"])
    damage(settings, "bad")
    live.processor._lanes.quick.forget(["bad"])
    live.append([parsed(event("bad", 1, BASE - 1))]).result()
    settled(live, ["bad"])
    assert live.set_aside.keys() == {"bad"}
    live.settle()
    assert live.erase(erasure.plan(settings, "bad"))["history"] == 2
    assert live.set_aside == {} == live.history.aside()
    live.close()


def test_erasing_does_not_wait_for_a_stream_that_cannot_go_on(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    live = Embedded(settings, lambda: BASE)  # the stream is not started
    live.append([parsed(event(u, 0, BASE - 1)) for u in ("gone", "stays", "gone2")]).result()
    live.append([parsed(event("gone", 1, BASE))]).result()
    live.settle()
    found = live.erase(erasure.plan(settings, "gone"))
    assert (found["lake"], found["log"], found["history"]) == (2, 2, 0)
    live.start()
    settled(live, ["stays", "gone2", "gone"])
    assert clicks(settings, ["gone", "stays", "gone2"]) == [None, 1, 1]
    assert live.lag() == 0 and live.applied == 4  # beyond the gap at the end of the log
    live.close()


def test_what_the_log_has_delivered_and_was_erased_is_not_applied(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    live = Embedded(settings, lambda: BASE)
    live.append([parsed(event(u, 0, BASE - 1)) for u in ("stays", "gone")]).result()
    live.stream._delivered = live.log.poll(10, 1)  # a step that failed before it applied these
    live.settle()
    live.erase(erasure.plan(settings, "gone"))
    live.start()
    settled(live, ["stays", "gone"])
    assert (clicks(settings, ["gone", "stays"]), live.lag()) == ([None, 1], 0)
    live.close()


def test_a_log_counts_what_was_erased_before_it_was_polled(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.db")
    log.append([parsed(event(u, n, BASE)) for n, u in enumerate(["stays", "gone", "gone"])]).result()
    assert (log.erase(lambda e: e.user_id == "gone"), log.lag(), log.polled) == (2, 1, 0)
    assert ([d.position for d in log.poll(10, 1)], log.polled) == ([1], 3)
    log.close()


def test_sums_of_extreme_values_in_the_stream(tmp_path: Path) -> None:
    settings, domain = Settings(home=tmp_path, domain="oulad"), domains.load("oulad")
    apply(settings)
    live = Embedded(settings, lambda: BASE).start()
    rows = [
        event("poison", n, BASE - n, "Viewed") | {"properties": json.dumps({"clicks": value})}
        for n, value in enumerate([LIMIT, LIMIT, 1])
    ]
    live.append([*map(parsed, rows), parsed(event("fine", 9, BASE, "Viewed"))]).result()
    settled(live, ["poison", "fine"])
    (found,) = live.rows(["poison"], BASE)[0].to_pylist()
    wanted = oracle.row(rows, domain, "poison", BASE)
    assert {name: found[name] for name in wanted} == wanted and LIMIT in wanted.values()
    assert (len(live.rows(["fine"], BASE)[0]), live.set_aside) == (1, {})
    live.close()


def test_nobody_waits_in_the_slow_lane_for_who_fails_there(tmp_path: Path) -> None:
    settings, clock = Settings(home=tmp_path, domain="saas"), Clock(BASE)
    apply(settings)
    processor = opened(settings, settings.state / "history.db", clock)
    rows = [event(u, 0, BASE - 1) for u in ("bad", "good")]
    processor.apply([Delivered(parsed(row), n, None) for n, row in enumerate(rows, 1)])
    damage(settings, "bad")
    processor.history.defer(["bad", "good"])
    settle(processor)
    assert clicks(settings, ["bad", "good"]) == [None, 1]
    assert processor.aside.keys() == {"bad"} and not processor.slow
    processor.history.close()


def test_who_is_set_aside_is_named_by_user_id_or_anonymous_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    history = open_history(settings)
    history.set_aside({"anon:visitor-9": "DecodeError", "u1": "DecodeError"}, 1)
    history.close()
    log_file(settings).touch()
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    shown = CliRunner().invoke(main, ["lag"]).output
    assert " anonymous visitor-9: DecodeError" in shown and " u1: DecodeError" in shown
    assert json.loads(CliRunner().invoke(main, ["lag", "--json"]).output)["set_aside"] == [
        {"user_id": None, "anonymous_id": "visitor-9", "reason": "DecodeError"},
        {"user_id": "u1", "anonymous_id": None, "reason": "DecodeError"},
    ]
