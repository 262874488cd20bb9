"""The event contract: what is accepted, every reason to refuse, and that nothing at all makes it raise."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.contract.declared import declared_types, flagged
from feature_repo.contract.events import MEANING, Event, Reason, Refusal, canonical_json, parse
from feature_repo.domain import Domain
from feature_repo.vocabulary import Column

NOW = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
BASE: dict[str, Any] = {
    "type": "track",
    "messageId": "m1",
    "userId": "u1",
    "timestamp": "2023-11-14T22:13:20Z",
    "event": "Uploaded",
}
NESTED: list[Any] = []
NESTED.append(NESTED)
WIDE: list[Any] = []
WIDE.extend([WIDE] * 100)


def but(**changes: Any) -> dict[str, Any]:
    """A good event with some fields changed; None removes one."""
    return {k: v for k, v in (BASE | changes).items() if v is not None}


def page(**changes: Any) -> dict[str, Any]:
    return but(**({"type": "page", "event": None} | changes))


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


REFUSED: list[tuple[Any, Reason, str]] = [
    (b"", Reason.NOT_JSON, "0 bytes"),
    (b"\xff\xfe", Reason.NOT_JSON, ""),
    (b'{"type":"tr\xffck"}', Reason.NOT_JSON, ""),
    (b'{"type":NaN}', Reason.NOT_JSON, ""),
    (b'{"type":-Infinity}', Reason.NOT_JSON, ""),
    (b'{"userId":"\\ud800"}', Reason.NOT_JSON, ""),
    (b"{} {}", Reason.NOT_JSON, ""),
    ("\ud800", Reason.NOT_JSON, "character 0"),
    (but(properties={"a": "x\udfff"}), Reason.NOT_JSON, "properties.a"),
    (but(properties={"\ud800": 1}), Reason.NOT_JSON, "properties"),
    (b"[]", Reason.NOT_AN_OBJECT, "a list"),
    ("null", Reason.NOT_AN_OBJECT, "null"),
    (None, Reason.NOT_AN_OBJECT, "null"),
    (object(), Reason.NOT_AN_OBJECT, "Python object"),
    (bytearray(b"{}"), Reason.NOT_AN_OBJECT, "Python object"),
    (b" " * 40_000, Reason.TOO_LARGE, "40000"),
    ("é" * 20_000, Reason.TOO_LARGE, "40000"),
    (but(properties={"a": "x" * 33_000}), Reason.TOO_LARGE, "properties.a"),
    (but(properties={"a": "\n" * 20_000}), Reason.TOO_LARGE, "32768"),
    (but(properties={"a": [0] * 40_000}), Reason.TOO_LARGE, "properties.a"),
    (but(properties={"a": NESTED}), Reason.TOO_DEEP, "properties.a[0]"),
    (but(properties={"a": WIDE}), Reason.TOO_DEEP, "properties.a[0]"),
    (but(properties=deep(8)), Reason.TOO_DEEP, "properties.a"),
    (json.dumps(but(properties=deep(8))), Reason.TOO_DEEP, "properties.a"),
    (b"[" * 30_000, Reason.TOO_DEEP, ""),
    (but(context={str(i): i for i in range(513)}), Reason.TOO_MANY_KEYS, "519"),
    (json.dumps(BASE)[:-1] + ',"properties":{"a":1e400}}', Reason.NUMBER_OUT_OF_RANGE, ""),
    (json.dumps(BASE)[:-1] + ',"properties":{"a":1' + "0" * 5_000 + "}}", Reason.NUMBER_OUT_OF_RANGE, ""),
    (but(properties={"a": 10**5_000}), Reason.NUMBER_OUT_OF_RANGE, "properties.a"),
    (but(properties={"a": float("nan")}), Reason.NUMBER_OUT_OF_RANGE, "properties.a"),
    (but(properties={"a": [float("-inf")]}), Reason.NUMBER_OUT_OF_RANGE, "properties.a[0]"),
    (but(schemaVersion=2), Reason.UNSUPPORTED_VERSION, "schemaVersion: expected 1"),
    (but(schemaVersion="1"), Reason.UNSUPPORTED_VERSION, "the string '1'"),
    (but(schemaVersion=True), Reason.UNSUPPORTED_VERSION, "true"),
    (but(sentAt="2023-11-14T22:13:20Z"), Reason.UNKNOWN_FIELD, "sentAt"),
    (but(name="x"), Reason.UNKNOWN_FIELD, "'name'"),
    (but(type="identify"), Reason.UNKNOWN_FIELD, "'event'"),
    (but(**{"\0": 1}), Reason.UNKNOWN_FIELD, "x00"),
    ({}, Reason.MISSING_FIELD, "type"),
    (but(messageId=None), Reason.MISSING_FIELD, "messageId"),
    (but(timestamp=None), Reason.MISSING_FIELD, "timestamp"),
    (but(event=None), Reason.MISSING_FIELD, "event"),
    (but(type=1), Reason.WRONG_TYPE, "type"),
    (but(messageId=7), Reason.WRONG_TYPE, "messageId"),
    (but(userId=7), Reason.WRONG_TYPE, "userId"),
    (but(anonymousId=["a"]), Reason.WRONG_TYPE, "anonymousId"),
    (but(event=7), Reason.WRONG_TYPE, "event"),
    (page(name=7), Reason.WRONG_TYPE, "name"),
    (but(timestamp=1_700_000_000_000), Reason.WRONG_TYPE, "timestamp"),
    (but(properties=[]), Reason.WRONG_TYPE, "properties"),
    (but(traits="x"), Reason.WRONG_TYPE, "traits"),
    (but(context=1), Reason.WRONG_TYPE, "context"),
    (but(properties={1: 1}), Reason.WRONG_TYPE, "keys"),
    (but(properties={"a": (1, 2)}), Reason.WRONG_TYPE, "properties.a"),
    (but(properties={"a": datetime.now(UTC)}), Reason.WRONG_TYPE, "properties.a"),
    (but(type="Track"), Reason.UNKNOWN_TYPE, "'Track'"),
    (but(event="uploaded"), Reason.UNKNOWN_EVENT, "Signed Up, Uploaded"),
    (but(userId=None), Reason.MISSING_ID, "userId or anonymousId"),
    (but(type="identify", event=None, userId=None, anonymousId="a"), Reason.MISSING_ID, "userId"),
    (but(type="alias", event=None), Reason.MISSING_ID, "anonymousId"),
    (but(type="alias", event=None, userId=None, anonymousId="a"), Reason.MISSING_ID, "userId"),
    (but(userId=""), Reason.EMPTY_ID, "userId"),
    (but(anonymousId=""), Reason.EMPTY_ID, "anonymousId"),
    (but(messageId=""), Reason.EMPTY_ID, "messageId"),
    (but(userId="anon:a"), Reason.RESERVED_ID, "anon:"),
    (but(messageId="m" * 101), Reason.TOO_LONG, "101"),
    (but(userId="u" * 201), Reason.TOO_LONG, "201"),
    (page(name="n" * 201), Reason.TOO_LONG, "201"),
    (but(userId="a\0b"), Reason.BAD_CHARACTER, "userId"),
    (page(name="\0"), Reason.BAD_CHARACTER, "name"),
    (but(properties={"title": "a\0"}), Reason.BAD_CHARACTER, "properties.title"),
    (but(timestamp="2023-11-14T22:13:20"), Reason.BAD_TIMESTAMP, "with a zone"),
    (but(timestamp="2023-11-14"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="1700000000"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="0000-01-01T00:00:00Z"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="2023-02-29T00:00:00Z"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="2023-11-14T24:00:00Z"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="2023-11-14T22:13:20+00:60"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="2016-12-31T23:59:60+01:00"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="٢٠٢٣-11-14T22:13:20Z"), Reason.BAD_TIMESTAMP, ""),
    (but(timestamp="2023-11-15T22:13:20.000001Z"), Reason.TIMESTAMP_IN_FUTURE, "24 hours"),
    (but(timestamp="9999-12-31T23:59:59-23:59"), Reason.TIMESTAMP_IN_FUTURE, ""),
    (but(timestamp="1999-12-31T23:59:59.999999Z"), Reason.TIMESTAMP_TOO_OLD, "2000"),
    (but(timestamp="0001-01-01T00:00:00+14:00"), Reason.TIMESTAMP_TOO_OLD, ""),
]


@pytest.mark.parametrize(("raw", "reason", "words"), REFUSED)
def test_refused_by_name_and_in_words(raw: Any, reason: Reason, words: str, tiny_domain: Domain) -> None:
    refused = parse(raw, tiny_domain, NOW)
    assert isinstance(refused, Refusal), refused
    assert (refused.reason, words in refused.detail) == (reason, True), refused
    assert len(refused.detail.encode()) < 1_000


STRICT = [
    (but(properties={"bytes": "12"}), Reason.WRONG_TYPE, "properties.bytes: expected int64; came the string '12'"),
    (but(properties={"bytes": True}), Reason.WRONG_TYPE, "properties.bytes"),
    (but(properties={"bytes": 1.5}), Reason.WRONG_TYPE, "properties.bytes"),
    (but(properties={"file": "x"}), Reason.WRONG_TYPE, "properties.file: expected an object"),
    (but(properties={"file": {"kind": 7}}), Reason.WRONG_TYPE, "properties.file.kind"),
    (page(properties={"bytes": "12"}), Reason.WRONG_TYPE, "properties.bytes"),
    (but(traits={"plan": 1}), Reason.WRONG_TYPE, "traits.plan"),
    (but(context={"country": []}), Reason.WRONG_TYPE, "context.country"),
    (but(properties={"bytes": 2**63}), Reason.NUMBER_OUT_OF_RANGE, "properties.bytes"),
    (but(properties={"bytes": 1e30}), Reason.NUMBER_OUT_OF_RANGE, "properties.bytes"),
]


@pytest.mark.parametrize(("raw", "reason", "words"), STRICT)
def test_a_strict_column_refuses_a_value_of_another_type(
    raw: dict[str, Any], reason: Reason, words: str, tiny_domain: Domain
) -> None:
    strict = replace(tiny_domain, columns=tuple(replace(c, strict=True) for c in tiny_domain.columns))
    refused = parse(raw, strict, NOW)
    assert isinstance(refused, Refusal), refused
    assert (refused.reason, words in refused.detail) == (reason, True), refused


FLAGGED = [
    *(({"properties": {"bytes": value}}, "properties.bytes") for value in ("12", True, 1.5, 2**63, -1e30, [], {})),
    ({"properties": {"public": 0}}, "properties.public"),
    ({"properties": {"title": 7}}, "properties.title"),
    ({"properties": {"file": "x"}}, "properties.file"),
    ({"properties": {"file": {"kind": 7}}}, "properties.file.kind"),
    ({"traits": {"plan": 1}}, "traits.plan"),
    ({"context": {"country": []}}, "context.country"),
]


@pytest.mark.parametrize(("sent", "path"), FLAGGED)
def test_a_value_of_another_type_is_kept_as_it_was_sent_and_flagged(
    sent: dict[str, Any], path: str, tiny_domain: Domain
) -> None:
    event = parse(but(**sent), tiny_domain, NOW)
    assert isinstance(event, Event), event
    assert event.context == sent.get("context", {}) | {"flags": [path]}
    assert (event.properties, event.traits) == (sent.get("properties", {}), sent.get("traits", {}))
    assert flagged(tiny_domain, event.context) == [path]
    again = parse(but(**sent | {"context": event.context}), tiny_domain, NOW)
    assert isinstance(again, Event) and again.context == event.context, "what is sent on is flagged once"


def test_a_sender_cannot_invent_flags_that_are_counted(tiny_domain: Domain) -> None:
    event = parse(but(context={"flags": ["x", 7, "traits.plan"]}), tiny_domain, NOW)
    assert isinstance(event, Event) and flagged(tiny_domain, event.context) == ["traits.plan"]
    event = parse(but(properties={"bytes": "12"}, context={"flags": "mine"}), tiny_domain, NOW)
    assert isinstance(event, Event) and event.context == {"flags": "mine"} and flagged(tiny_domain, event.context) == []


def test_a_number_out_of_bounds_is_flagged(tiny_domain: Domain) -> None:
    bounded = replace(tiny_domain, columns=(Column("bytes", "properties.bytes", "int64", low=0, high=10),))
    found = [parse(but(properties={"bytes": n}), bounded, NOW) for n in (-1, 0, 10, 11)]
    assert [e.context for e in found if isinstance(e, Event)] == [
        {"flags": ["properties.bytes"]}, {}, {}, {"flags": ["properties.bytes"]}
    ]  # fmt: skip


def test_every_reason_is_reached_and_explained() -> None:
    elsewhere = {Reason.NO_EVENT, Reason.UNSIGNED_USER_ID, Reason.WRONG_USER_HASH}  # given by the log and the door
    assert {reason for _, reason, _ in REFUSED + STRICT} | elsewhere == set(Reason) == set(MEANING)


def test_an_event_as_it_is_read(tiny_domain: Domain) -> None:
    raw = but(
        schemaVersion=1,
        anonymousId="a1",
        timestamp="2023-11-14T23:13:20.1234569+01:00",
        properties={"bytes": 3.0, "title": " É\u0301 ", "public": None, "other": [1.0, {"x": "12"}], "big": 2**70},
        traits={"plan": "pro"},
        context={"country": "DE"},
    )
    expected = Event(
        "track", "m1", "u1", "a1", NOW + 123_456, NOW, "Uploaded",
        {"bytes": 3, "title": " É\u0301 ", "public": None, "other": [1.0, {"x": "12"}], "big": 2**70},
        {"plan": "pro"}, {"country": "DE"},
    )  # fmt: skip
    for form in (raw, json.dumps(raw), json.dumps(raw, ensure_ascii=False).encode()):
        event = parse(form, tiny_domain, NOW)
        assert event == expected
        assert isinstance(event, Event) and type(event.properties["bytes"]) is int
    assert raw["properties"]["bytes"] == 3.0 and type(raw["properties"]["bytes"]) is float


ACCEPTED = [
    but(userId=None, anonymousId="anon:x"),
    but(userId="u" * 200, messageId="m" * 100),
    but(userId=" "),
    but(properties=deep(7)),
    but(properties={str(i): i for i in range(506)}),
    but(properties={"bytes": -(2**63)}),
    but(properties={"bytes": 2**63 - 1, "title": "", "public": False, "file": {"kind": "pdf", "x": 1}}),
    but(timestamp="2000-01-01T00:00:00Z"),
    but(timestamp="2023-11-15T22:13:20Z"),
    but(timestamp="2023-11-14t22:13:20.1z"),
    but(timestamp="2016-12-31T23:59:60.5Z"),
    page(),
    page(name=""),
    page(type="screen", name="Settings"),
    but(type="identify", event=None, anonymousId="a"),
    but(type="alias", event=None, anonymousId="u0"),
    but(type="group", event=None, userId=None, anonymousId="a", traits={"x": None}),
    BASE | {"properties": None, "traits": None, "context": None, "anonymousId": None, "schemaVersion": None},
]


@pytest.mark.parametrize("raw", ACCEPTED)
def test_accepted(raw: dict[str, Any], tiny_domain: Domain) -> None:
    event = parse(raw, tiny_domain, NOW)
    assert isinstance(event, Event), event
    assert event == parse(json.dumps(raw), tiny_domain, NOW)


def test_a_leap_second_is_the_second_after_it(tiny_domain: Domain) -> None:
    leap, after = (
        parse(but(timestamp=t), tiny_domain, NOW) for t in ("2016-12-31T18:59:60.5-05:00", "2017-01-01T00:00:00.5Z")
    )
    assert isinstance(leap, Event) and leap == after


ZONES = st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@given(at=st.datetimes(datetime(2000, 1, 2), datetime(2023, 11, 13), timezones=ZONES), more=st.sampled_from(["", "9"]))
def test_timestamps_are_exact_to_the_microsecond(at: datetime, more: str, tiny_domain: Domain) -> None:
    text = at.isoformat(timespec="microseconds")
    event = parse(but(timestamp=text[:26] + more + text[26:]), tiny_domain, NOW)
    assert isinstance(event, Event), event
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.ts_us) == at


TEXTS = st.text(st.characters(), max_size=8)  # lone surrogates among them
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=4) | st.builds(object)
    | st.integers(14_200, 15_000).map(lambda bits: 1 << bits)
    | st.sampled_from([2**63, -(2**63) - 1, "\0", "12", "anon:", NESTED, "u" * 300]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(TEXTS | st.integers(), inner, max_size=3)
    | st.tuples(inner)
    | st.sets(st.integers(), max_size=2),
    max_leaves=8,
)  # fmt: skip
FIELDS = [*BASE, "anonymousId", "name", "properties", "traits", "context", "schemaVersion"]
DECLARED = st.sampled_from(["bytes", "file", "title", "public", "plan", "country"])
OBJECTS = st.dictionaries(DECLARED | TEXTS, ANYTHING, max_size=3)
MUTATED = st.dictionaries(st.sampled_from(FIELDS) | TEXTS, ANYTHING | OBJECTS, max_size=3).map(lambda c: BASE | c)


def _is_sound(answer: object) -> None:
    assert isinstance(answer, Event | Refusal)
    if isinstance(answer, Refusal):
        answer.detail.encode()
        assert answer.reason in Reason and len(answer.detail) < 1_000
    else:
        for value in (answer.properties, answer.traits, answer.context):
            assert msgspec.json.decode(canonical_json(value)) == value


@given(raw=ANYTHING | MUTATED)
def test_python_objects_never_raise(raw: Any, tiny_domain: Domain) -> None:
    _is_sound(parse(raw, tiny_domain, NOW))


@given(raw=st.binary(max_size=60) | st.text(max_size=60))
def test_bytes_and_text_never_raise(raw: bytes | str, tiny_domain: Domain) -> None:
    _is_sound(parse(raw, tiny_domain, NOW))


@given(at=st.integers(0, 120), byte=st.binary(max_size=2), drop=st.integers(0, 3))
def test_damaged_json_never_raises(at: int, byte: bytes, drop: int, tiny_domain: Domain) -> None:
    whole = json.dumps(but(properties={"bytes": 1, "file": {"kind": "é"}})).encode()
    _is_sound(parse(whole[:at] + byte + whole[at + drop :], tiny_domain, NOW))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(properties=st.dictionaries(DECLARED | st.text(max_size=5), JSON, max_size=4))
def test_a_dict_is_read_like_its_json(properties: dict[str, Any], tiny_domain: Domain) -> None:
    raw = but(properties=properties)
    assert parse(raw, tiny_domain, NOW) == parse(json.dumps(raw).encode(), tiny_domain, NOW)


@given(value=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_canonical_json_is_one_for_one_value(value: dict[str, Any]) -> None:
    shuffled = dict(reversed(value.items()))
    assert canonical_json(shuffled) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ((Column("a", "properties.a"), Column("b", "properties.a.b")), "goes through"),
        ((Column("a", "properties.a"), Column("b", "properties.a", "int64")), "declared as"),
        ((Column("a", "userId"),), "expected a path"),
    ],
)
def test_contradicting_declarations_are_an_error(columns: tuple[Column, ...], words: str, tiny_domain: Domain) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match=words):
        declared_types(replace(tiny_domain, columns=columns, features=(), elapsed=()))
