"""Why an event is refused: stable reasons for machines, and words for people."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NoReturn

import msgspec


class Reason(StrEnum):
    """Why an event was refused: stable names, for machines. `MEANING` has them in words."""

    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    TOO_MANY_KEYS = "too_many_keys"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_EVENT = "unknown_event"
    MISSING_ID = "missing_id"
    EMPTY_ID = "empty_id"
    RESERVED_ID = "reserved_id"
    TOO_LONG = "too_long"
    BAD_CHARACTER = "bad_character"
    BAD_TIMESTAMP = "bad_timestamp"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    UNSIGNED_USER_ID = "unsigned_user_id"
    WRONG_USER_HASH = "wrong_user_hash"
    NO_EVENT = "no_event"


MEANING: Mapping[Reason, str] = {
    Reason.NOT_JSON: "not one JSON value in UTF-8 (NaN, Infinity and half a surrogate pair are no JSON)",
    Reason.NOT_AN_OBJECT: "JSON, but no object",
    Reason.TOO_LARGE: "more than 32,768 bytes of JSON",
    Reason.TOO_DEEP: "objects and lists nested more than 8 deep, or within themselves",
    Reason.TOO_MANY_KEYS: "more than 512 keys in all objects together",
    Reason.NUMBER_OUT_OF_RANGE: "a number that is not finite, of over 4300 digits, or no int64 where that is declared",
    Reason.UNSUPPORTED_VERSION: "a schemaVersion other than 1",
    Reason.UNKNOWN_FIELD: "a field that the contract does not have, or not for this type of event",
    Reason.MISSING_FIELD: "type, messageId or timestamp is missing, or event on a track",
    Reason.WRONG_TYPE: "a value of another JSON type than the contract or the domain declares",
    Reason.UNKNOWN_TYPE: "a type that is none of alias, group, identify, page, screen, track",
    Reason.UNKNOWN_EVENT: "a track event that the domain does not declare",
    Reason.MISSING_ID: "neither userId nor anonymousId; identify without userId; alias without both",
    Reason.EMPTY_ID: "an id of no characters",
    Reason.RESERVED_ID: "a userId that begins with 'anon:', which marks people never identified",
    Reason.TOO_LONG: "an id or a name of too many characters",
    Reason.BAD_CHARACTER: "a control character in an id or a name, or NUL in a declared string",
    Reason.BAD_TIMESTAMP: "a timestamp that is no RFC 3339 date and time with a zone",
    Reason.TIMESTAMP_IN_FUTURE: "a timestamp more than 24 hours after the event was received",
    Reason.TIMESTAMP_TOO_OLD: "a timestamp before the year 2000",
    Reason.UNSIGNED_USER_ID: "a userId without its signature (userHash), by a write key that browsers hold",
    Reason.WRONG_USER_HASH: "userHash is not the signature of the userId",
    Reason.NO_EVENT: "a message in the event log that was not put there by this project",
}


class Refusal(msgspec.Struct, frozen=True):
    """A refused event: the reason for machines; for people where, what was expected and what came."""

    reason: Reason
    detail: str


class RefusedError(Exception):
    """Carries a refusal up to `parse`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        self.refusal = Refusal(reason, detail)


def refuse(reason: Reason, detail: str) -> NoReturn:
    """Raise RefusedError."""
    raise RefusedError(reason, detail)


def show(value: object) -> str:
    """What came, in a few words, for any object at all."""
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]  # type: ignore[index]
    if type(value) is str:
        return f"the string {value[:40]!r}" + ("…" if len(value) > 40 else "")
    if type(value) is int:
        return f"the integer {value}" if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"
    if type(value) is float:
        return f"the number {value!r}"
    if type(value) is dict:
        return "an object"
    return "a list" if type(value) is list else "a Python object that is no JSON"
