"""From whatever arrived to one decoded JSON object within the limits, and back to canonical JSON."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from feature_repo.contract.refusals import Reason, Refusal, RefusedError, refuse, show

MAX_BYTES = 32 * 1024
MAX_DEPTH = 8
"""Objects and lists inside one another, the event itself included."""
MAX_KEYS = 512
"""Keys of all objects of an event together."""
MAX_INTEGER = 10**4300
"""Integers are below it, either side of 0: Python converts no longer ones from and to text."""

_JSON = msgspec.json.Decoder()
_CANONICAL = msgspec.json.Encoder(order="sorted")


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Compact JSON with sorted keys in UTF-8: the same value gives the same bytes.

    >>> canonical_json({"b": [1.0, None], "a": {"é": True}}).decode()
    '{"a":{"é":true},"b":[1.0,null]}'
    """
    return _CANONICAL.encode(value) if value else b"{}"


def plain_json(value: object, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Refusal | None:
    """Why a Python value is no JSON within the limits (bytes at the least), or None if it is.

    Looks at exact types only, so that it can neither recurse without end nor run anybody's code.
    """
    try:
        _measure(value, "", max_depth, [max_bytes])
    except RefusedError as refused:
        return refused.refusal
    return None


def decode(raw: object) -> dict[str, Any]:
    """The JSON object in bytes or text, or a copy of the one in Python values.

    Raises:
        RefusedError: it is none, or is beyond the limits.
    """
    if type(raw) is dict:
        raw = _encode(raw)
    elif type(raw) is str:
        raw = _utf8(raw)
    elif type(raw) is not bytes:
        refuse(Reason.NOT_AN_OBJECT, f"expected JSON as bytes or text, or a dict; came {show(raw)}")
    if len(raw) > MAX_BYTES:
        refuse(Reason.TOO_LARGE, f"expected at most {MAX_BYTES} bytes; came {len(raw)}")
    value = _loads(raw)
    if type(value) is not dict:
        refuse(Reason.NOT_AN_OBJECT, f"expected a JSON object; came {show(value)}")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH or raw.count(b":") > MAX_KEYS:  # else it cannot be too much
        keys = _keys(value, "", 1)
        if keys > MAX_KEYS:
            refuse(Reason.TOO_MANY_KEYS, f"expected at most {MAX_KEYS} keys in all; came {keys}")
    return value


def _loads(raw: bytes) -> Any:
    try:
        return _JSON.decode(raw)
    except msgspec.ValidationError as error:
        refuse(Reason.NUMBER_OUT_OF_RANGE, f"expected finite numbers, integers of at most 4300 digits; came: {error}")
    except RecursionError:
        refuse(Reason.TOO_DEEP, f"expected at most {MAX_DEPTH} levels; came more than the decoder goes down")
    except ValueError as error:
        refuse(Reason.NOT_JSON, f"expected one JSON value in UTF-8; came {len(raw)} bytes: {error}")


def _utf8(text: str) -> bytes:
    if len(text) > MAX_BYTES:
        refuse(Reason.TOO_LARGE, f"expected at most {MAX_BYTES} bytes; came {len(text)} characters")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        refuse(Reason.NOT_JSON, f"expected Unicode text; came half a surrogate pair at character {error.start}")


def _encode(raw: dict[Any, Any]) -> bytes:
    _measure(raw, "", MAX_DEPTH, [MAX_BYTES])
    return msgspec.json.encode(raw)


def _measure(value: object, path: str, levels: int, left: list[int]) -> None:
    """Refuse a Python value that is no JSON, or of more levels or bytes (the least it can take) than are left."""
    left[0] -= len(value) + 2 if type(value) is str else 1
    if left[0] < 0:
        refuse(Reason.TOO_LARGE, f"{path or 'the event'}: expected at most {MAX_BYTES} bytes in all; came more")
    kind = type(value)
    if kind is str:
        _pairs(value, path)  # type: ignore[arg-type]
    elif kind is dict or kind is list:
        _measure_inside(value, path, levels, left)
    elif kind is float:
        if not isfinite(value):  # type: ignore[arg-type]
            refuse(Reason.NUMBER_OUT_OF_RANGE, f"{path}: expected a finite number; came {value!r}")
    elif kind is int:
        if not -MAX_INTEGER < value < MAX_INTEGER:  # type: ignore[operator]
            refuse(Reason.NUMBER_OUT_OF_RANGE, f"{path}: expected at most 4300 digits; came {show(value)}")
    elif value is not None and kind is not bool:
        refuse(Reason.WRONG_TYPE, f"{path or 'the event'}: expected a JSON value; came {show(value)}")


def _measure_inside(value: Any, path: str, levels: int, left: list[int]) -> None:
    if levels == 0:
        refuse(Reason.TOO_DEEP, f"{path[:200]}: expected at most {MAX_DEPTH} levels; came more")
    if type(value) is list:
        for index, item in enumerate(value):
            _measure(item, f"{path}[{index}]", levels - 1, left)
        return
    for key, item in value.items():
        if type(key) is not str:
            refuse(Reason.WRONG_TYPE, f"{path or 'the event'}: expected keys that are strings; came {show(key)}")
        left[0] -= len(key) + 3
        _pairs(key, path)
        _measure(item, _join(path, key), levels - 1, left)


def _pairs(text: str, path: str) -> None:
    """Refuse half a surrogate pair, which no UTF-8 can hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            refuse(Reason.NOT_JSON, f"{path}: expected Unicode; came half a surrogate pair at {error.start}")


def _join(path: str, key: str) -> str:
    """`path` one key further down, fit to be printed."""
    part = key[:40] if key[:40].isprintable() else repr(key[:40])
    return f"{path}.{part}" if path else part


def _keys(value: Any, path: str, depth: int) -> int:
    """Number of keys of all objects in decoded JSON; refuses what is too deep."""
    if depth > MAX_DEPTH:
        refuse(Reason.TOO_DEEP, f"{path}: expected at most {MAX_DEPTH} levels; came more")
    if type(value) is dict:
        inside = [(k, v) for k, v in value.items() if type(v) is dict or type(v) is list]
        return len(value) + sum(_keys(v, _join(path, k), depth + 1) for k, v in inside)
    return sum(_keys(v, f"{path}[]", depth + 1) for v in value if type(v) is dict or type(v) is list)
