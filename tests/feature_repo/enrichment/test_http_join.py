"""The join over HTTP against a server that is fast, slow, wrong, away and back again."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import circuitbreaker
import pytest

from feature_repo.contract.events import Event
from feature_repo.enrichment import Channel, HttpJoin, UserAgent
from feature_repo.enrichment.compiled import SAID_EVERY_S, Enrichment
from feature_repo.enrichment.http_join import MOST_BYTES, Source
from feature_repo.vocabulary import Column
from tests.feature_repo.enrichment.conftest import Companies
from tests.feature_repo.enrichment.test_steps import SAAS, event_of

COLUMNS = (
    Column("company.name", "context.company.name"),
    Column("company.size", "context.company.size", "int64"),
    Column("active", "context.company.active", "boolean"),
)
STEP = "1 HttpJoin"


def run(companies: Companies, test: Callable[[Enrichment], Awaitable[None]], *more: Any, **options: Any) -> Enrichment:
    """The test with the join and the steps after it, in a loop."""
    join = HttpJoin(companies.url, "traits.company", COLUMNS, **{"timeout_s": 10.0} | options)
    enrich = Enrichment(dataclasses.replace(SAAS, enrich=(join, *more)))
    asyncio.run(test(enrich))  # type: ignore[arg-type]
    return enrich


def of(key: Any, **fields: Any) -> Event:
    return event_of(traits={"company": key}, **fields)


async def company(enrich: Enrichment, key: Any) -> Any:
    (found,) = await enrich([of(key)])
    return found.context.get("company")


def test_what_the_source_says_is_added_and_asked_for_once(companies: Companies) -> None:
    async def test(enrich: Enrichment) -> None:
        for _ in range(3):
            assert await company(enrich, "acme") == {"name": "Company acme", "size": 50, "active": True}
        events = await enrich([of("acme"), of(7), of(7), of("acme")])
        assert [e.context["company"]["name"][-4:] for e in events] == ["acme", "ny 7", "ny 7", "acme"]

    assert not run(companies, test).failed
    assert companies.asked == ["acme", "7"]


def test_what_the_sender_knows_stays_and_is_not_asked_for(companies: Companies) -> None:
    known = {"name": "ACME", "size": None, "active": False}

    async def test(enrich: Enrichment) -> None:
        (found,) = await enrich([of("acme", context={"company": known})])
        assert found.context["company"] == known | {"size": 50}
        assert await enrich([found]) == [found]
        (found,) = await enrich([of("other", context={"company": known | {"size": 1}})])
        assert found.context["company"] == known | {"size": 1}

    run(companies, test)
    assert companies.asked == ["acme"]


def test_keys_cannot_lead_elsewhere(companies: Companies) -> None:
    async def test(enrich: Enrichment) -> None:
        for key in (".", "..", "", "x" * 201, None, ["a"], 1.5, True):
            assert await company(enrich, key) is None
        await company(enrich, "../admin?x=1#é")

    run(companies, test)
    assert companies.asked == ["..%2Fadmin%3Fx%3D1%23%C3%A9"]


@pytest.mark.parametrize("status", [204, 400, 404, 410, 422])
def test_that_nothing_is_known_is_kept_too(companies: Companies, status: int) -> None:
    companies.status = status

    async def test(enrich: Enrichment) -> None:
        for _ in range(20):
            assert await company(enrich, "nobody") is None

    assert not run(companies, test, failures=1).failed
    assert companies.asked == ["nobody"]


def test_answers_are_kept_for_a_time_and_the_latest_only(companies: Companies) -> None:
    now = [0.0]

    async def test(enrich: Enrichment) -> None:
        ask = Source(
            HttpJoin(companies.url, "traits.company", COLUMNS, timeout_s=10.0, ttl_s=60, most=2), lambda: now[0]
        )
        until = asyncio.get_running_loop().time() + 10
        for at, key in ((0, "a"), (59, "a"), (61, "a"), (62, "b"), (63, "c"), (64, "b"), (65, "a")):
            now[0] = at
            await ask(of(key), until)

    run(companies, test)
    assert companies.asked == ["a", "a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, None, "status_500"),
        (301, None, "status_301"),
        (401, None, "status_401"),
        (200, b"<html>", "not_json"),
        (200, b"\xff", "not_json"),
        (200, b"[1]", "no_object"),
        (200, b'{"a":"%s"}' % (b"x" * MOST_BYTES), "too_long"),
    ],
)
def test_a_wrong_answer_leaves_the_event_as_it_was(
    companies: Companies, status: int, body: bytes | None, reason: str
) -> None:
    companies.status, companies.body = status, body

    async def test(enrich: Enrichment) -> None:
        event = of("acme")
        assert await enrich([event]) == [event]

    assert dict(run(companies, test).failed) == {(STEP, reason): 1}


@pytest.mark.parametrize(
    ("said", "added"),
    [
        ('{"company": {"name": 5, "size": "50"}, "active": 1}', None),
        ('{"company": {"name": "A\\u0000", "size": 9223372036854775808}, "active": null}', None),
        ('{"company": {"name": "", "size": 5.0}, "active": false}', {"active": False}),
        ('{"company": "A"}', None),
        ('{"company": {"name": "A", "size": true}}', {"name": "A"}),
        ("{}", None),
    ],
)
def test_only_values_of_the_declared_type_are_added(companies: Companies, said: str, added: Any) -> None:
    companies.body = said.encode()

    async def test(enrich: Enrichment) -> None:
        assert await company(enrich, "acme") == added

    assert not run(companies, test).failed


def test_nobody_waits_longer_than_the_time_out_however_many_wait(companies: Companies) -> None:
    companies.delay_s = 10.0

    async def test(enrich: Enrichment) -> None:
        events = [of(f"c{n}") for n in range(300)]
        assert await enrich(events) == events
        await asyncio.sleep(0.5)

    failed = run(companies, test, failures=1_000, timeout_s=0.2).failed
    assert sum(failed.values()) == 300 and {reason for _, reason in failed} <= {"timeout", "busy"}
    assert len(companies.asked) <= 40  # at_once, and those that came in their places: the others gave up by then


def test_a_large_batch_is_asked_for_a_few_at_once(companies: Companies) -> None:
    companies.delay_s = 0.02

    async def test(enrich: Enrichment) -> None:
        assert all("company" in e.context for e in await enrich([of(f"c{n}") for n in range(30)]))

    run(companies, test, timeout_s=10.0, at_once=3)
    assert companies.most_at_once <= 3


def test_several_joins_wait_as_long_as_the_longest(companies: Companies) -> None:
    companies.delay_s = 60.0
    second = HttpJoin(companies.url, "userId", (Column("a", "context.a"),), timeout_s=2.0)

    async def test(enrich: Enrichment) -> None:
        began = time.monotonic()
        await enrich([of("acme")])
        assert 2.0 <= time.monotonic() - began < 3.9  # not 4

    assert run(companies, test, second, timeout_s=2.0).failed == {(STEP, "timeout"): 1, ("2 HttpJoin", "timeout"): 1}


def test_the_breaker_opens_half_opens_and_closes(companies: Companies, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(circuitbreaker, "monotonic", lambda: now[0])

    async def test(enrich: Enrichment) -> None:
        assert await company(enrich, "first") is not None
        companies.stop()
        for n in range(3):
            assert await company(enrich, f"away{n}") is None
        assert enrich.failed == {(STEP, "connection"): 3}
        companies.start()
        companies.status = 500
        assert await company(enrich, "open") is None  # it is back, and not asked: the breaker is open
        assert await company(enrich, "first") is not None  # what is known is known
        assert companies.asked == ["first"] and enrich.failed[STEP, "open"] == 1

        now[0] += 10.0
        await enrich([of(f"half{n}") for n in range(5)])
        assert len(companies.asked) == 2 and enrich.failed[STEP, "open"] == 5  # one tries, the others do not wait
        assert enrich.failed[STEP, "status_500"] == 1
        assert await company(enrich, "again") is None and len(companies.asked) == 2  # open again

        companies.status = 200
        now[0] += 10.0
        assert await company(enrich, "closed") is not None
        events = await enrich([of(f"well{n}") for n in range(5)])
        assert all("company" in e.context for e in events)

    run(companies, test, failures=3, pause_s=10.0)
    assert len(companies.asked) == 8


def test_a_slow_source_opens_the_breaker_too(companies: Companies) -> None:
    companies.delay_s = 10.0

    async def test(enrich: Enrichment) -> None:
        for n in range(3):
            await company(enrich, f"slow{n}")
            await asyncio.sleep(0.5)  # who waits leaves a moment before the request ends
        await company(enrich, "next")

    assert run(companies, test, failures=3, timeout_s=0.2).failed[STEP, "open"] == 1
    assert len(companies.asked) == 3


def test_one_that_is_not_known_does_not_open_it(companies: Companies) -> None:
    async def test(enrich: Enrichment) -> None:
        for status in (500, 404, 500, 404, 500):
            companies.status = status
            await company(enrich, f"c{len(companies.asked)}")
        companies.status = 200
        assert await company(enrich, "well") is not None

    run(companies, test, failures=2)


def test_waiting_for_one_s_turn_does_not_open_it(companies: Companies) -> None:
    companies.delay_s = 1.0

    async def test(enrich: Enrichment) -> None:
        await enrich([of(f"c{n}") for n in range(20)])
        assert enrich.failed and not enrich.failed[STEP, "open"]
        await asyncio.sleep(1.0)
        companies.delay_s = 0.0
        assert await company(enrich, "well") is not None

    run(companies, test, failures=2, at_once=1, timeout_s=2.5)


def test_a_token_comes_from_the_environment(companies: Companies, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected a token in the environment, as COMPANIES_TOKEN"):
        HttpJoin("http://a.b/{key}", "userId", COLUMNS, token="COMPANIES_TOKEN").compiled()
    monkeypatch.setenv("COMPANIES_TOKEN", "secret")

    async def test(enrich: Enrichment) -> None:
        await company(enrich, "acme")

    run(companies, test, token="COMPANIES_TOKEN")
    assert companies.tokens == ["Bearer secret"]


def test_steps_before_and_after_are_in_declared_order(companies: Companies) -> None:
    async def test(enrich: Enrichment) -> None:
        (found,) = await enrich([of("acme", context={"userAgent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/132.0"})])
        assert found.context["browser"] == "Firefox"
        assert found.context["company"]

    run(companies, test, UserAgent(), Channel())


def test_a_bulk_intake_asks_nobody(companies: Companies) -> None:
    async def test(enrich: Enrichment) -> None:
        found = enrich.pure(of("acme", context={"userAgent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/132.0"}))
        assert found.context["browser"] == "Firefox" and "company" not in found.context

    run(companies, test, UserAgent())
    assert companies.asked == []


class Broken:
    """A step with a fault in it."""

    adds: dict[str, str] = {}  # noqa: RUF012

    def compiled(self) -> Callable[[Event], Event]:
        def fail(event: Event) -> Event:
            raise ZeroDivisionError(event.message_id)

        return fail


def test_a_step_that_fails_is_counted_and_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    steps = (Broken(), UserAgent())
    enrich = Enrichment(dataclasses.replace(SAAS, enrich=steps), lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for now[0] in (0.0, 1.0, SAID_EVERY_S - 1, SAID_EVERY_S):
            sent = {"userAgent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/132.0"}
            (found,) = asyncio.run(enrich([event_of(context=sent)]))
            assert found.context["browser"] == "Firefox"  # the others go on
    assert [r.getMessage() for r in caplog.records] == [
        "step 1 Broken left an event as it was, 1 since the start: ZeroDivisionError('m')",
        "step 1 Broken left an event as it was, 4 since the start: ZeroDivisionError('m')",
    ]
    line = 'firstmile_enrichment_failures_total{step="1 Broken",reason="ZeroDivisionError"} 4'
    assert line in enrich.metrics().splitlines()


@pytest.mark.parametrize(
    ("wrong", "options"),
    [
        ("expected http", {"url": "ftp://a.b/{key}"}),
        ("with {key} in it", {"url": "http://a.b/"}),
        ("above 0", {"timeout_s": 0}),
        ("expected columns", {"columns": ()}),
        ("expected userId", {"on": "company"}),
    ],
)
def test_a_declaration_that_cannot_be_is_an_error(wrong: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=wrong):
        HttpJoin(**{"url": "http://a.b/{key}", "on": "userId", "columns": COLUMNS} | options)
