"""Segments follow by themselves: with an event, with time alone, after a stop, and away from who opted out."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_repo.settings import Settings, now_us
from feature_repo.stream import slow_lane
from serving import decision_log, wiring
from serving.segments.announcer import BEHIND, GONE, REST, REST_BEHIND
from serving.segments.fill import fill
from serving.segments.journal import Change
from serving.times import rfc3339
from tests.serving.test_users import SAAS, Service

RULES = """
domain: saas
segments:
  here: {why: was here just now, when: since_last_event < 3 seconds}
  clicking: {why: clicks, when: clicks >= 1}
"""
POLICY = """
domain: saas
elements:
  tour: {kind: guided_tour, title: Three steps, for: [default], why: everybody starts with the tour}
  hint: {kind: hint, title: A hint, for: [clicking], why: they click, dismissal: never_again}
order: [rules, engagement, personas]
nothing_for: {at_risk: -, hesitating: -, exploring: -, racing: -, activated: done}
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Starts a service with an announcer on one state folder; the one before is closed."""
    for name, text in (("RULES", RULES), ("POLICY", POLICY)):
        (tmp_path / f"{name}.yaml").write_text(text)
        monkeypatch.setenv(f"FIRSTMILE_{name}", str(tmp_path / f"{name}.yaml"))
    monkeypatch.setenv("FIRSTMILE_EXPERIMENTS", str(tmp_path / "none.yaml"))
    (tmp_path / "none.yaml").write_text("domain: saas\nholdout: 0\nlayers: {}\nexperiments: {}\n")
    running: list[Service] = []

    def make() -> Service:
        stop()
        service = Service(Settings(home=tmp_path, domain="saas"))
        service.announcer = wiring.announcer(service.settings, service.engine, service.live)
        running.append(service)
        return service

    def stop() -> None:
        while running:
            service = running.pop()
            service.announcer.close()
            service.close()

    make.stop = stop
    yield make
    stop()


def click(n: int, at_us: int, user: str = "u1", **more: Any) -> dict[str, Any]:
    named = {"type": "track", "event": "Clicked", "messageId": f"m{n}", "userId": user}
    return named | {"timestamp": rfc3339(at_us), "properties": {"target": "x"}} | more


def changes(service: Service, segment: str, wanted: int, within_s: float = 30.0, user: str = "u1") -> list[Change]:
    """The changes of somebody's membership, once there are so many."""
    deadline = time.monotonic() + within_s
    while True:
        found = [c for c in service.engine.keeper.journal.of([user]) if c.segment == segment]
        if len(found) >= wanted:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_time_alone_moves_people_and_nobody_asks(start):
    service, at = start(), now_us()
    service.send(click(1, at))
    entered, left = changes(service, "here", 2)
    assert [(c.entered, c.at_us) for c in (entered, left)] == [(True, at), (False, at + 3_000_000)]
    assert left.noted_us >= left.at_us


def test_who_is_due_in_the_slow_lane_keeps_nobody_from_being_told(start, monkeypatch):
    service, at = start(), now_us()
    service.send(click(1, at, "much"), click(2, at + 1, "much"), click(1, at, "u1"))
    journal = service.engine.keeper.journal
    for user in ("u1", "much"):
        changes(service, "here", 1, user=user)
    monkeypatch.setattr(slow_lane, "HEAVY", 1)
    monkeypatch.setattr(service.announcer._reader, "ended", lambda row, now: row.values["clicks"] == 2)
    with service.live.processor._lanes.slow.lock:  # the slow lane is at it
        _, left = changes(service, "here", 2)
        assert (left.entered, left.at_us) == (False, at + 3_000_000)
        while now_us() < at + 5_000_000:
            time.sleep(0.05)
        assert [c.entered for c in journal.of(["much"]) if c.segment == "here"] == [True], "their row is not known yet"
    monkeypatch.undo()
    (told,) = (c for c in changes(service, "here", 2, user="much") if not c.entered)
    assert told.at_us == at + 3_000_001


def test_others_are_told_less_often_while_events_wait(start, monkeypatch):
    announcer = start().announcer
    assert (announcer._reader.lag(), announcer._rest_s(2.0)) == (0, REST * 2.0)
    monkeypatch.setattr(announcer._reader, "lag", lambda: BEHIND + 1)
    assert announcer._rest_s(2.0) == REST_BEHIND * 2.0


def test_metrics_say_of_how_many_others_are_to_be_told(start):
    service = start()
    service.announcer.close()  # driven from here
    service.announcer.touch(["u1", "u2"])
    assert "firstmile_segments_waiting 2" in service.engine.metrics.text({}).splitlines()
    service.announcer.look()
    assert "firstmile_segments_waiting 0" in service.engine.metrics.text({}).splitlines()


def test_what_fell_due_during_a_stop_is_caught_up(start):
    service, at = start(), now_us()
    service.send(click(1, at))
    changes(service, "here", 1)
    start.stop()
    time.sleep(3.2)
    _, left = changes(start(), "here", 2)
    assert (left.entered, left.at_us) == (False, at + 3_000_000)


def test_a_late_event_is_told_as_a_correction(start):
    service, at = start(), now_us() - 60_000_000
    service.send(click(1, at))
    changes(service, "clicking", 1)
    service.send(click(2, at - 5_000_000))
    found = changes(service, "clicking", 3)
    assert [(c.entered, c.at_us, c.corrects) for c in found] == [
        (True, at, None), (False, at, found[0].seq), (True, at - 5_000_000, None),
    ]  # fmt: skip


def test_feedback_feeds_the_limits_and_the_next_decision_knows_it(start):
    service = start()
    service.send(click(1, now_us() - 1_000_000))
    assert service.decide("u1")["elements"] == ["hint"]
    seen = {"event": "Element Dismissed", "properties": {"element": "hint"}}
    service.send(click(2, now_us(), **seen))
    again = service.decide("u1")
    assert (again["segments"], again["elements"]) == (["clicking", "here"], [])
    assert [(d["element"], d["boundary"]) for d in again["dropped"]] == [("hint", "dismissal")]


def test_a_receipt_keeps_feedback_of_what_is_declared_only(start):
    service = start()
    for n, element in enumerate(["hint", "made-up"]):
        service.send(click(n, now_us(), event="Element Shown", properties={"element": element}))
    service.decide("u1")
    service.engine.log.close()
    (situation,) = decision_log.read(service.settings.decisions)["situation"].to_pylist()
    assert list(json.loads(situation)["feedback"]["elements"]) == ["hint"]


def test_whoever_opts_out_leaves_every_segment_and_nothing_more_is_taken(start):
    service = start()
    service.send(click(1, now_us()))
    changes(service, "clicking", 1)
    assert service.ask("PUT", "/v1/users/u1/opt-out").status_code == 204
    assert changes(service, "clicking", 2)[-1].cause == "opted out"
    assert service.send(click(2, now_us()))[0]["reason"] == "opted_out"
    decision = service.decide("u1")
    assert (decision["elements"], decision["segments"], decision["known"]) == (["tour"], [], False)
    assert service.ask("DELETE", "/v1/users/u1/opt-out").status_code == 204
    assert service.send(click(3, now_us()))[0]["status"] == "accepted"
    assert service.decide("u1")["segments"][0] == "clicking"


def test_everybody_at_once_is_what_following_each_gives(start, tmp_path):
    from feature_repo.feature_store.backfill import backfill

    service, at = start(), now_us() - 3_600_000_000
    service.send(*(click(n, at + n * 1_000_000, f"u{n % 3}") for n in range(12)))
    for n in range(3):
        service.decide(f"u{n}")
    service.announcer.look()
    followed = service.engine.keeper.journal.of(["u0", "u1", "u2"])
    start.stop()
    backfill(service.settings)
    for file in service.settings.state.glob("segments.db*"):
        file.unlink()
    assert fill(service.settings, SAAS, service.engine.playbook, None, now_us()) == 3
    again = start()
    at_once = again.engine.keeper.journal.of(["u0", "u1", "u2"])
    known = [sorted((c.person, *c.key) for c in some if c.source == "rules") for some in (followed, at_once)]
    assert known[0] == known[1] != []
    before = len(at_once)
    assert again.decide("u1")["segments"] == ["clicking"]
    again.announcer.tell()
    assert len(again.engine.keeper.journal.of(["u0", "u1", "u2"])) == before


def test_an_anonymous_person_who_became_known_is_followed_no_longer(start):
    """As in bulk: a row that has ended is all that the online store has of the anonymous person."""
    from feature_repo.feature_store.backfill import backfill
    from feature_repo.feature_store.materialize import materialize

    service, at = start(), now_us() - 60_000_000
    anonymous = {
        "messageId": "a",
        "type": "track",
        "event": "Clicked",
        "anonymousId": "d",
        "properties": {"target": "x"},
    }
    known = {"messageId": "b", "type": "identify", "anonymousId": "d", "userId": "u1", "traits": {}}
    service.send(anonymous | {"timestamp": rfc3339(at)}, known | {"timestamp": rfc3339(at + 30_000_000)})
    start.stop()
    backfill(service.settings)
    for file in (*service.settings.state.glob("segments.db*"), *service.settings.state.glob("online.db*")):
        file.unlink()
    materialize(service.settings, now_us())
    book = service.engine.playbook
    assert fill(service.settings, SAAS, book, None, at + 10_000_000) == 1
    again = start()
    journal, deadline = again.engine.keeper.journal, time.monotonic() + 30
    while journal.document("anon:d") is not None or journal.due(now_us(), 9):
        assert time.monotonic() < deadline, journal.due(now_us(), 9)
        time.sleep(0.05)
    left = [c for c in journal.of(["anon:d"]) if not c.entered]
    assert ("clicking", GONE) in {(c.segment, c.cause) for c in left}
    assert not asyncio.run(again.engine.decide("anon:d")).known
    assert again.decide("anon:d")["userId"] == "u1"  # whom the anonymous id stands for by now
    assert again.decide("u1")["segments"] == ["clicking"]
    start.stop()
    for file in service.settings.state.glob("segments.db*"):
        file.unlink()
    assert fill(service.settings, SAAS, book, None, now_us()) == 1, "u1 alone"


EXPERIMENTS = """
domain: saas
holdout: 0
layers: {only: {salt: salt}}
experiments:
  tried:
    layer: only
    question: Does a hint help?
    buckets: [0, 1]
    start: 2020-01-01T00:00:00Z
    share: 1
    metric: activation
    variants: {control: {weight: 1, hide: [hint]}, hinted: {weight: 1, show: [hint]}}
"""


def test_a_variant_comes_along_when_somebody_becomes_known(start, tmp_path):
    (tmp_path / "none.yaml").write_text(EXPERIMENTS)
    service = start()

    def variant(person: str) -> str:
        (tried,) = service.decide(person)["experiments"]
        return str(tried["variant"])

    known = next(f"u{n}" for n in range(99) if variant(f"u{n}") == "control")
    device = next(f"d{n}" for n in range(99) if variant(f"anon:d{n}") == "hinted")
    at = now_us() - 10_000_000
    viewed = {"event": "Experiment Viewed", "properties": {"experiment_id": "tried", "variation_id": "hinted"}}
    anonymous = {"type": "track", "anonymousId": device}
    service.send(
        anonymous | {"messageId": "a", "event": "Clicked", "timestamp": rfc3339(at), "properties": {"target": "x"}},
        anonymous | {"messageId": "b", "timestamp": rfc3339(at + 1)} | viewed,
    )
    assert variant(f"anon:{device}") == "hinted"
    named = {"type": "identify", "messageId": "c", "userId": known, "anonymousId": device, "traits": {}}
    service.send(named | {"timestamp": rfc3339(at + 2)})
    decision = service.decide(known)
    assert [e["variant"] for e in decision["experiments"]] == ["hinted"]
    assert decision["elements"][0] == "hint"
    later = {"event": "Experiment Viewed", "properties": {"experiment_id": "tried", "variation_id": "control"}}
    service.send(click(9, at + 3, known, **later))
    assert variant(known) == "hinted"  # where both had one, the earliest exposure wins
