"""One more act: the values are those that the definitions give with one more event."""

import json
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.domain import Act, Carried, Domain
from feature_repo.features.elapsed import elapsed_seconds
from serving.why.further import Further
from tests.feature_repo import histories, oracle

WHO = "u1"
HOUR = 3_600_000_000
LATER = [0, 1_000_000, HOUR // 2, HOUR // 2 + 1, HOUR, 24 * HOUR, 9 * 24 * HOUR]
"""How long after the newest event the act comes, µs: at the session's gap and just after it, too."""


def rows_of(events: list[dict[str, Any]], t: int) -> list[dict[str, Any]]:
    return [e for e in oracle.canonical(events) if e["ts_us"] <= t]


def the_event(domain: Domain, act: Act, events: list[dict[str, Any]], at_us: int, draw: Any, n: int) -> dict[str, Any]:
    """An event as the act describes it, and nothing in it that the act does not say."""
    documents: dict[str, dict[str, Any]] = {"properties": {}, "traits": {}, "context": {}}
    fixed = {"type": "track", **act.columns}
    for column in domain.columns:
        value = fixed.get(column.name)
        if value is None:
            continue
        if value is Carried.NEW:
            value = f"never had {n}"
        if value is Carried.SOME:
            value = draw(st.integers(-5, 5) if column.type == "int64" else st.just("whatever"))
        if value is Carried.AGAIN:
            had = last_value(domain, column.name, fixed, events, at_us)
            value = f"first {n}" if had is None else had
        root, *keys = column.path.split(".")
        assert len(keys) == 1
        documents[root][keys[0]] = value
    return {
        "position": 10_000 + n, "message_id": f"z{n:04}", "type": fixed["type"], "name": fixed.get("name"),
        "user_id": WHO, "anonymous_id": None, "ts_us": at_us, "received_us": at_us,
        **{k: json.dumps(v) for k, v in documents.items()},
    }  # fmt: skip


def last_value(domain: Domain, column: str, fixed: dict[str, Any], events: list[dict[str, Any]], t: int) -> Any:
    mine = [oracle._typed(e, domain) for e in rows_of(events, t) if oracle.owner(e, events, t) == WHO]
    mine = [e for e in mine if e["name"] == fixed.get("name") and e[column] is not None]
    return max(mine, key=lambda e: (e["ts_us"], e["message_id"]))[column] if mine else None


@pytest.mark.parametrize("name", ["saas", "oulad"])
@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(data=st.data())
def test_an_act_gives_the_values_of_the_definitions(name: str, data: st.DataObject) -> None:
    domain = domains.load(name)
    events = data.draw(histories.events(domain))
    newest = max(e["ts_us"] for e in events)
    now = newest + data.draw(st.sampled_from(LATER))
    values = oracle.row(rows_of(events, now), domain, WHO, now)
    if values is None:
        return
    for e in domain.elapsed:
        values[e.name] = elapsed_seconds(now, values[e.of])
    further, alone = Further(domain), set[str]()
    for n in range(data.draw(st.integers(1, 3))):
        act = data.draw(st.sampled_from(domain.acts))
        events.append(the_event(domain, act, events, now, data.draw, n))
        done = further.after(values, act, now)
        values, alone = done.values, alone | done.alone
    real = oracle.row(rows_of(events, now), domain, WHO, now)
    assert real is not None
    for e in domain.elapsed:
        real[e.name] = elapsed_seconds(now, real[e.of])
    assert {f: (v, real[f]) for f, v in values.items() if f not in alone and v != real[f]} == {}


def test_little_is_left_alone() -> None:
    """Of `saas` everything can be told where the values are those of somebody ordinary."""
    domain = domains.load("saas")
    now = 1_700_000_000_000_000
    values: dict[str, Any] = {f: 3 for f, kind in domain.feature_types.items() if kind == "int64"}
    values |= {f: None for f, kind in domain.feature_types.items() if kind != "int64"}
    values |= {"signed_up_us": now - 10**9, "last_event_us": now - 10**8, "last_interaction_us": now - 10**8}
    values |= {"session_time_avg": 1.0, "click_to_signup": 1 / 3, "upload_bytes_avg": 1.0}
    for act in domain.acts:
        assert not Further(domain).after(values, act, now).alone, act


def test_what_nobody_knows_beforehand_is_left_alone() -> None:
    domain = domains.load("oulad")
    now = 1_700_000_000_000_000
    values: dict[str, Any] = dict.fromkeys(domain.feature_types)
    values |= {"submissions": 2, "overdue_weight": 100, "mean_days_early": 2.0, "overdue": 1}
    (hands_in,) = [a for a in domain.acts if a.one == "assessment handed in"]
    done = Further(domain).after(values, hands_in, now)
    assert {"overdue_weight", "mean_days_early"} <= done.alone
    assert (done.values["overdue_weight"], done.values["submissions"], done.values["overdue"]) == (100, 3, 0)


def test_values_given_are_not_changed() -> None:
    domain = domains.load("saas")
    values: dict[str, Any] = {"pages": 1}
    assert Further(domain).after(values, domain.acts[0], 5).values["pages"] == 2
    assert values == {"pages": 1}


@pytest.mark.parametrize(("later", "sessions", "time_ms"), [(HOUR // 2, 1, 1_800_000), (HOUR // 2 + 1, 2, 0)])
def test_a_session_ends_after_its_gap(later: int, sessions: int, time_ms: int) -> None:
    domain = domains.load("saas")
    values: dict[str, Any] = {"sessions": 1, "session_time": 0, "last_event_us": 9 * HOUR}
    done = Further(domain).after(values, domain.acts[0], 9 * HOUR + later).values
    assert (done["sessions"], done["session_time"], done["last_event_us"]) == (sessions, time_ms, 9 * HOUR + later)
