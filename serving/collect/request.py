"""A request to a collector as a value, and what SDKs wrap their JSON in: gzip, base64, a form.

Content-Type and Content-Encoding are not believed: Rudder's gzip says it is a form, Segment's JSON says it is text.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace

from serving.asgi import Refused

GZIP = b"\x1f\x8b"
KB = 1024
MOST_MEMBERS = 100
"""Files that one gzip body may consist of: empty ones cost work and count for nothing in a limit on bytes."""
WINDOW = 64 * KB
"""Bytes that are unpacked at once."""
REPAIRED = 256 * KB
"""Bytes of JSON with a fault in one event, of which the others are kept; a longer one is refused as a whole."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Request(msgspec.Struct, frozen=True):
    """A request.

    query: the last value of each parameter. headers: by name in lower case. body: as it came.
    limit: bytes that the body may have once it is unpacked. received_us: µs since 1970 UTC.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    limit: int
    received_us: int

    @property
    def user_agent(self) -> str | None:
        """The person's browser, where it was a browser that sent this and not a server's SDK."""
        browser = "origin" in self.headers or "/pixel/" in self.path
        return self.headers.get("user-agent") if browser else None


class Json(msgspec.Struct, frozen=True):
    """A decoded JSON value, and how its parts are encoded again without a change."""

    value: Any
    encode: Callable[[Any], bytes]


def plain(body: bytes, limit: int) -> bytes:
    """The body, unpacked if it is gzip.

    Raises:
        Refused: 413 beyond `limit` bytes, however small it was packed; 400 for broken gzip.
    """
    if not body.startswith(GZIP):
        return body
    view, at, parts, left = memoryview(body), 0, list[bytes](), limit + 1
    for _ in range(MOST_MEMBERS):  # gzip files may follow one another
        unpacker = zlib.decompressobj(wbits=31)
        while not unpacker.eof and left > 0 and at < len(body):  # in windows: what follows a member is copied
            window = unpacker.unconsumed_tail or view[at : at + WINDOW]
            at += 0 if unpacker.unconsumed_tail else len(window)
            try:
                parts.append(unpacker.decompress(window, left))
            except zlib.error as e:
                raise Refused(400, "invalid_gzip", f"the body begins like gzip and is none: {e}") from None
            left -= len(parts[-1])
        if left <= 0:
            raise Refused(413, "too_long", f"the body is longer than {limit} bytes once unpacked; send fewer at once")
        if not unpacker.eof:
            raise Refused(400, "invalid_gzip", "the gzip body ends before its end")
        at -= len(unpacker.unused_data)
        if view[at : at + 2] != GZIP:
            return b"".join(parts)
    raise Refused(400, "invalid_gzip", f"expected at most {MOST_MEMBERS} gzip files one after another")


def unpacked(request: Request) -> Request:
    """The request with its body unpacked; raises what `plain` does."""
    return replace(request, body=plain(request.body, request.limit))


def unwrapped(text: bytes) -> bytes:
    """JSON that may be in base64, with a URL's alphabet, without padding, or with blanks for its pluses.

    >>> unwrapped(b'{"a":1}'), unwrapped(b"eyJhIjoxfQ")
    (b'{"a":1}', b'{"a":1}')
    """
    text = text.strip()
    if not text or text[:1] in b'[{"':
        return text
    letters = text.translate(bytes.maketrans(b"-_ ", b"+/+"))
    try:
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except binascii.Error:
        raise Refused(400, "invalid_data", "expected JSON, or JSON in base64") from None


def decoded(text: bytes) -> Json:
    """The JSON value of a whole request.

    What is wrong with a string or a number of one event (NaN, half a surrogate pair) is left for the contract to
    refuse, so that the others of its batch are not lost with it.

    Raises:
        Refused: 400, it is no JSON.
    """
    try:
        return Json(_decode(text), _encode)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        if len(text) > REPAIRED:  # Python's own decoder is slow, and nothing else runs meanwhile
            raise Refused(400, "invalid_json", f"the body is no JSON: {e}"[:300]) from None
    try:
        return Json(json.loads(text), _slowly)
    except (ValueError, RecursionError) as e:
        raise Refused(400, "invalid_json", f"the body is no JSON: {e}"[:300]) from None


def parameters(text: bytes) -> dict[str, str]:
    """A query or a form: the last value of each name."""
    try:
        return dict(parse_qsl(text.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise Refused(400, "invalid_form", "expected at most 100 parameters") from None


def one(value: Any) -> dict[str, Any]:
    """A value where an object is expected; an empty one for whatever else it is."""
    return value if type(value) is dict else {}


def listed(value: Any) -> list[Any]:
    """An array, or the one value as an array."""
    return value if type(value) is list else [value]


def _slowly(value: Any) -> bytes:
    return json.dumps(value).encode()
