"""What every route speaks: a request's headers and body in, an answer or a refusal out, over bare ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

import msgspec

from feature_repo.contract.events import ANONYMOUS, Reason
from serving.schema import Problem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

Part = TypeVar("Part")

JSON = b"application/json"
HANG_UP = (b"connection", b"close")
"""Goes with an answer that is given before the body is read: the rest of it is not waited for."""
GUARDS: tuple[Header, ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""Headers of every answer that does not say otherwise: not kept, not taken for another type, in no frame. Where
connections are served (http_limits.py) they are put in all answers: ours, streams, Bento's own, and refusals there."""
_encoder = msgspec.json.Encoder()


class Refused(Exception):
    """A request that is answered with a 4xx (or a 503 while it cannot be served)."""

    def __init__(self, status: int, code: str, message: str, where: str | None = None, *headers: Header) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(code, message, where)
        self.headers = headers


class Gone(Exception):
    """The caller hung up before the body had arrived."""


class Answer(msgspec.Struct, frozen=True):
    """A response."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[Header, ...] = ()


class Stream(msgspec.Struct, frozen=True):
    """A response that goes on: sends itself, headers first, until it ends."""

    run: Callable[[Receive, Send], Awaitable[None]]


def started(part: Part | None) -> Part:
    """A part of the service that is put in when it starts.

    Raises:
        Refused: 503, it is not there yet.
    """
    if part is None:
        told = "the service is starting; try again in a moment"
        raise Refused(503, "starting", told, None, (b"retry-after", b"1"))
    return part


def real_user(user_id: str, where: str) -> str:
    """A user id that somebody asks by.

    Raises:
        Refused: 422, no event can have it (see events.ANONYMOUS).
    """
    if user_id.startswith(ANONYMOUS):
        told = f"no userId begins with {ANONYMOUS!r}: ask for an anonymous user by the anonymous id itself"
        raise Refused(422, Reason.RESERVED_ID, told, where)
    return user_id


def answer_of(refused: Refused) -> Answer:
    """A refusal as JSON with `code` and `message`."""
    return Answer(_encoder.encode(refused.problem), refused.status, headers=refused.headers)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that name (lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(
    scope: Scope, receive: Receive, limit: int, advice: str, arrived: Callable[[int], None] | None = None
) -> bytes:
    """The request's body, at most `limit` bytes.

    advice: what to do about a body that is too long.
    arrived: is told the bytes of each piece as it comes; may raise Refused.

    Raises:
        Refused: 413, the body is too long. Gone: the caller hung up.
    """
    length = header(scope, b"content-length") or b"0"
    if length.isdigit() and int(length) > limit:
        raise _too_long(limit, advice)
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_long(limit, advice)
        if arrived:
            arrived(len(parts[-1]))
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def guarded(app: App) -> App:
    """The application, with those of GUARDS in each of its answers that the answer does not set itself."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_guards(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name.lower() for name, _ in headers}
                message["headers"] = headers + [guard for guard in GUARDS if guard[0] not in names]
            await send(message)

        await app(scope, receive, with_guards)

    return answering


async def send_answer(answer: Answer, head: bool, send: Send) -> None:
    """Send an answer; without its body for HEAD."""
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


def _too_long(limit: int, advice: str) -> Refused:
    return Refused(413, "too_long", f"the body is longer than {limit} bytes; {advice}", None, HANG_UP)
