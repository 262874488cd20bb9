from dataclasses import replace

import pytest

from feature_repo import domains
from feature_repo.contract.declared import declared_types
from feature_repo.contract.events import Event, Reason, Refusal, parse
from feature_repo.contract.feedback import EVENTS
from feature_repo.domain import Domain

NOW = 1_700_000_000_000_000


def sent(event: str, properties: dict[str, object], domain: Domain) -> Event | Refusal:
    wire = {"type": "track", "messageId": "m1", "userId": "u1", "timestamp": "2023-11-14T22:13:20Z", "event": event}
    return parse(wire | {"properties": properties}, domain, NOW)


@pytest.mark.parametrize("name", domains.names())
@pytest.mark.parametrize("event", EVENTS)
def test_every_domain_takes_feedback(name: str, event: str) -> None:
    domain = domains.load(name)
    properties: dict[str, object] = dict.fromkeys(EVENTS[event], "words") | {"position": 3}
    taken = sent(event, properties, domain)
    assert isinstance(taken, Event) and taken.properties == properties
    for key in EVENTS[event]:
        refused = sent(event, properties | {key: 7}, domain)
        assert isinstance(refused, Refusal) and refused.reason == Reason.WRONG_TYPE


def test_what_a_domain_declares_of_a_feedback_event_holds_too(tiny_domain: Domain) -> None:
    stricter = replace(tiny_domain, events={**tiny_domain.events, "Element Shown": {"position": "int64"}})
    assert isinstance(sent("Element Shown", {"element": "tour", "position": 3}, stricter), Event)
    flagged = sent("Element Shown", {"element": "tour", "position": "3"}, stricter)
    assert isinstance(flagged, Event) and flagged.context == {"flags": ["properties.position"]}
    with pytest.raises(ValueError, match=r"properties\.element"):
        declared_types(replace(tiny_domain, events={**tiny_domain.events, "Element Shown": {"element": "int64"}}))
