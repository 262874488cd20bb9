"""Each step on an event, and what comes of it: pairs in golden/, and properties that hold for whatever is sent."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feature_repo import domains
from feature_repo.contract.declared import declared_types
from feature_repo.contract.events import Event, parse
from feature_repo.enrichment import Channel, LocalTime, Step, TableJoin, UserAgent
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.enrichment.local_time import _zone
from feature_repo.vocabulary import Column

NOW = 1_780_000_000_000_000
FOLDER = Path(__file__).with_name("golden")
PLANS = TableJoin(
    FOLDER / "plans.csv",
    on="traits.plan",
    key="plan",
    columns=(
        Column("tier", "context.account.tier"),
        Column("seats", "context.account.seats", "int64"),
        Column("sso", "context.account.sso", "boolean"),
    ),
)
STEPS: dict[str, tuple[Step, ...]] = {
    "user_agent": (UserAgent(),),
    "channel": (Channel(own=("example.com", "checkout.stripe.com")),),
    "local_time": (LocalTime(),),
    "table_join": (PLANS,),
}
PAIRS = [(f.stem, pair) for f in sorted(FOLDER.glob("*.json")) for pair in json.loads(f.read_text())]
SAAS = domains.load("saas")
BARE = replace(SAAS, columns=(), events={}, features=(), elapsed=(), slices=(), acts=(), said={}, sensitive=())
"""A domain that declares no types."""


def enriching(*steps: Step) -> Enrichment:
    return Enrichment(replace(SAAS, enrich=steps))


def event_of(**fields: Any) -> Event:
    raw = {"type": "page", "messageId": "m", "userId": "u", "timestamp": "2026-05-04T09:00:00Z"} | fields
    event = parse(json.dumps(raw).encode(), BARE, NOW)
    assert isinstance(event, Event), event
    return event


def merged(given: Any, more: Any) -> Any:
    """`more` in the empty places of `given`; lists are `more`'s."""
    if isinstance(given, dict) and isinstance(more, dict):
        return given | {k: merged(given.get(k), v) for k, v in more.items()}
    return more


@pytest.mark.parametrize(("steps", "pair"), PAIRS, ids=[f"{s}: {p['name']}" for s, p in PAIRS])
def test_golden(steps: str, pair: dict[str, Any]) -> None:
    event = event_of(**{k: v for k, v in pair.items() if k not in ("name", "added")})
    before = copy.deepcopy(event)
    enrichment = enriching(*STEPS[steps])
    found = enrichment.pure(event)
    assert found.context == merged(before.context, pair["added"])
    assert (found is event) == (not pair["added"])
    assert event == before and not enrichment.failed
    assert enrichment.pure(found) is found


# Whatever is sent -------------------------------------------------------------------------------------------------

AGENT = "Mozilla/5.0 (Linux; Android 14; {}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537"
texts = st.text(max_size=30)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
anything = st.recursive(
    scalars, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3)
)
hosts = st.sampled_from(
    ["app.example.com", "google.com", "mail.google.com", "l.facebook.com", "t.co", "", "[::", "a.b"]
)
queries = st.lists(
    st.tuples(st.sampled_from(["utm_source", "utm_medium", "utm_campaign", "gclid", "fbclid", "x"]), texts)
)
urls = (
    st.builds(lambda h, q: f"https://{h}/?{'&'.join(f'{k}={v}' for k, v in q)}", hosts, queries) | texts | st.just("")
)
campaigns = st.fixed_dictionaries({}, optional=dict.fromkeys(("source", "medium", "name", "channel"), scalars | hosts))
contexts = st.fixed_dictionaries(
    {},
    optional={
        "userAgent": st.builds(AGENT.format, texts) | texts | anything,
        "timezone": st.sampled_from(sorted(available_timezones())) | texts | anything,
        "page": st.fixed_dictionaries({}, optional={"url": urls, "search": urls, "referrer": urls}) | anything,
        "campaign": campaigns | anything,
        "device": anything,
        "browser": anything,
        "os": anything,
        "local": anything,
        "flags": anything,
        "account": anything,
    },
)
ALL = enriching(*(step for steps in STEPS.values() for step in steps))
EVENTS = st.builds(
    lambda context, traits, properties, ts: Event("page", "m", "u", None, ts, NOW, None, properties, traits, context),
    contexts,
    st.fixed_dictionaries({}, optional={"plan": st.sampled_from(["team", "pro"]) | anything}),
    st.fixed_dictionaries({}, optional={"bytes": scalars, "ratio": anything}),
    st.integers(946_684_800_000_000, NOW + 86_400_000_000),
)


def lost(before: Any, after: Any) -> bool:
    """Whether something of what was sent is not there any more; a null is nothing, and a list may have grown."""
    if isinstance(before, dict):
        return not isinstance(after, dict) or any(lost(v, after.get(k)) for k, v in before.items())
    if isinstance(before, list):
        return not isinstance(after, list) or after[: len(before)] != before
    return before is not None and (type(after) is not type(before) or after != before)


@given(EVENTS)
@example(Event("page", "m", "u", None, NOW, NOW, None, {}, {}, {"page": {"url": "https://a.b/?" + "x=1&" * 101}}))
def test_whatever_is_sent(event: Event) -> None:
    before = copy.deepcopy(event)
    found = ALL.pure(event)
    assert not ALL.failed  # no step raised
    assert event == before  # the one that came is not changed
    assert not lost(before.context, found.context)
    assert ALL.pure(found) == found  # twice is once
    assert ALL.pure(before) == found  # so copies stay copies
    assert (found.properties, found.traits, found.ts_us) == (before.properties, before.traits, before.ts_us)


DECLARED = replace(
    BARE,
    columns=tuple(
        Column(f"c{n}", path, kind)
        for n, (path, kind) in enumerate(a for s in STEPS.values() for step in s for a in step.adds.items())
        if kind != "list"
    ),
)


@given(contexts)
@example({"page": {"url": "https://a.b/?utm_source=%00"}})
def test_declared_types_hold(context: dict[str, Any]) -> None:
    raw = {"type": "page", "messageId": "m", "userId": "u", "timestamp": "2026-05-04T09:00:00Z", "context": context}
    event = parse(raw, DECLARED, NOW)
    if isinstance(event, Event):
        found = ALL.pure(event).context
        assert isinstance(parse(raw | {"context": found}, DECLARED, NOW), Event)
    assert declared_types(DECLARED)[None]["context"]["local"]["hour"].type == "int64"


@pytest.mark.parametrize(("before", "browser"), [(500, "Edge"), (512, None)])
def test_a_long_user_agent_is_looked_at_up_to_512_characters(before: int, browser: str | None) -> None:
    agent = "x" * before + " Edg/131." + "0" * 10_000
    assert enriching(UserAgent()).pure(event_of(context={"userAgent": agent})).context.get("browser") == browser


def test_every_zone_is_known() -> None:
    names = {name for name in available_timezones() if name[0].isupper()}
    assert len(names) > 400 and all(_zone(name) for name in names)


def test_the_steps_of_saas_leave_simulated_events_alone() -> None:
    simulated = {
        "device": {"type": "mobile"},
        "browser": "Chrome",
        "location": {"country": "DE"},
        "campaign": {"source": "search_ad"},
    }
    enrich = Enrichment(SAAS).pure
    for source in ("organic", "search_ad", "social", "partner", "invite", "newsletter"):
        event = event_of(context=simulated | {"campaign": {"source": source}})
        assert enrich(event) is event


# Declarations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        (Column("hour", "context.local.hour", "string"), "reads context.local.hour as string, .* as int64"),
        (Column("browser", "context.browser.name"), r"reads context.browser.name as string, .*adds context.browser as"),
        (Column("local", "context.local"), "reads context.local as string"),
    ],
)
def test_a_column_that_reads_what_a_step_adds_has_its_type(column: Column, wrong: str) -> None:
    columns = (*(c for c in SAAS.columns if c.name != column.name), column)
    with pytest.raises(ValueError, match=f"domain saas: column {column.name} {wrong}"):
        replace(SAAS, columns=columns, enrich=(UserAgent(), LocalTime()))


@pytest.mark.parametrize(
    ("declare", "wrong"),
    [
        (
            lambda: TableJoin("a.csv", "bytes", "k", (Column("a", "context.a"),)),
            "'bytes': expected userId, anonymousId",
        ),
        (lambda: TableJoin("a.csv", "userId", "k", ()), "expected columns to add"),
        (lambda: TableJoin("a.csv", "userId", "k", (Column("a", "traits.a"),)), "'traits.a': expected a path from con"),
        (
            lambda: TableJoin("a.csv", "userId", "k", (Column("a", "context.a", "decimal", 2),)),
            "expected one of string",
        ),
    ],
)
def test_a_declaration_that_cannot_be_is_an_error(declare: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        declare()
