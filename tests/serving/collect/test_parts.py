"""Times, the limiter, origins: the small parts."""

import doctest
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.asgi import Refused
from serving.collect import dialect, limiter, request, times
from serving.collect.cors import Cors
from serving.collect.limiter import Limiter
from serving.collect.times import behind_us, corrected, microseconds, of_number, rfc3339

NOW = 1_767_261_600_000_000
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize("module", [dialect, limiter, request, times])
def test_examples(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted and not found.failed


@given(st.integers(-(10**15), 4 * 10**15))
def test_times_there_and_back(at_us: int) -> None:
    assert microseconds(rfc3339(at_us)) == at_us


@given(event=MOMENTS, sent=MOMENTS, wrong=st.timedeltas(timedelta(days=-900), timedelta(days=900)))
def test_a_wrong_clock_does_not_matter(event: datetime, sent: datetime, wrong: timedelta) -> None:
    """What counts is how long before it was sent an event happened, whatever the sender's clock says."""
    seen = [
        corrected((event + off).isoformat(), behind_us((sent + off).isoformat(), NOW), NOW)
        for off in (timedelta(), wrong)
    ]
    assert seen[0] == seen[1]
    at_us = microseconds(seen[0])
    assert at_us is not None and NOW - at_us == (sent - event) // timedelta(microseconds=1)


def test_an_event_without_a_time_happened_when_it_came() -> None:
    assert corrected(None, 5, NOW) == of_number(None, NOW) == "2026-01-01T10:00:00+00:00"


@pytest.mark.parametrize("value", ["noon", True, [1], float("nan"), float("inf"), 10**40, -(10**14) * 1.5])
def test_what_is_no_time_stays_as_it_is(value: object) -> None:
    assert of_number(value, NOW) is value


def test_the_rate_holds_whatever_the_size_of_a_batch() -> None:
    now = 0.0
    buckets = Limiter(100, clock=lambda: now)
    passed = 0
    while now < 60:
        if wait_s := buckets.take("k", 250):
            assert buckets.take("other", 1) == 0
            now += wait_s
        else:
            passed += 250
    assert 60 * 100 <= passed <= 61 * 100 + 250


@pytest.mark.parametrize(
    ("declared", "origin", "allowed"),
    [
        ({"https://a.example"}, "https://a.example", True),
        ({"https://a.example"}, "https://A.example", True),
        ({"https://a.example"}, "http://a.example", False),
        ({"https://a.example"}, "https://a.example.evil.example", False),
        ({"https://a.example"}, "null", False),
        ({"*"}, "https://b.example", True),
        (set(), "https://b.example", False),
        (set(), "https://service:3000", True),
        (set(), "http://service:3000", True),
    ],
)
def test_who_may_send_from_a_page(declared: set[str], origin: str, allowed: bool) -> None:
    cors, asked = Cors(frozenset(declared)), {"origin": origin, "host": "service:3000"}
    if allowed:
        found = dict(cors.headers(asked))
        answered = found.get(b"access-control-allow-origin", origin.encode())
        assert answered == (b"*" if "*" in declared else origin.encode())
        assert b"access-control-allow-credentials" not in found or "*" not in declared  # nothing that a browser adds
    else:
        with pytest.raises(Refused) as refused:
            cors.headers(asked)
        assert refused.value.status == 403
    assert cors.headers({"host": "service:3000"}) == ()
