"""Limits on what one connection may cost before any route sees it, for uvicorn's HTTP parser, which has none itself.

| limit | number | beyond it |
|---|---|---|
| bytes of a request that are not its body | 32 KB, and 8 bytes for each byte of body | 431, the connection is closed |
| header fields of a request | 100 | 431, the connection is closed |
| time until the headers of a request are complete | 10 s | closed, with 408 where something of a request came |
| connections at once | 4,096, or half of the files that the process may open | 503, closed |
| a body that goes on after its answer | 1 MB and 2 s | closed |
| a reader that takes less than 10 KB in 10 s while an answer waits | | aborted |

An `Upgrade` (WebSocket, h2c) is answered as the plain HTTP request that it is, and the connection is closed after it.
Bento starts uvicorn by itself and passes no protocol on, so `install` puts this one in the place of uvicorn's default.
"""

import asyncio
import resource
from typing import Any, Literal

import msgspec
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.asgi import GUARDS, HANG_UP, Answer, Receive, Scope, Send, guarded, send_answer
from serving.schema import Problem

HEAD_BYTES = 32 * 1024
"""Bytes of a request line with its headers; trailers and the framing of chunks count too."""
FRAMING = 8
"""Bytes of framing that each byte of a body allows: a chunk of one byte needs 5."""
HEADER_FIELDS = 100
HEAD_S = 10.0
"""Seconds from the first byte of a request, or from the connection, until its headers are complete."""
CONNECTIONS = 4_096
REST_BYTES, REST_S = 1024 * 1024, 2.0
"""How much of a body is read and thrown away once the request has been answered, and for how long."""
READER_BYTES, READER_S = 10 * 1024, 10.0
"""How much of an answer a client has to take in how many seconds, while more of it waits."""


def most_connections() -> int:
    """CONNECTIONS, or half of the files that this process may have open, where that is less."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return CONNECTIONS if files == resource.RLIM_INFINITY else min(CONNECTIONS, files // 2)


def install() -> None:
    """Make every uvicorn server of this process use `LimitedProtocol`."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{LimitedProtocol.__name__}"


async def headers_too_large(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application that answers a request whose headers are too large."""
    await send_answer(Answer(TOO_LARGE, 431, headers=(HANG_UP,)), False, send)


TOO_LARGE = msgspec.json.encode(
    Problem(
        "headers_too_large",
        f"expected at most {HEAD_BYTES // 1024} KB of request line and headers in at most {HEADER_FIELDS} fields",
    )
)
TOO_SLOW = msgspec.json.encode(Problem("too_slow", f"the headers took longer than {HEAD_S:g} s to arrive"))
NO_HTTP = msgspec.json.encode(Problem("invalid_http", "this is no HTTP/1.1 request"))
TOO_MANY = msgspec.json.encode(Problem("busy", "too many connections are open; try again in a moment"))


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, with the limits of this module and asgi.GUARDS in every answer."""

    most_connections = most_connections()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app = guarded(self.app)
        self._stage: Literal["idle", "head", "body"] = "idle"
        """What the next bytes belong to; idle: a request has not begun."""
        self._began = False
        """Whether a request began in the bytes that were parsed last."""
        self._framing = self._size = self._fields = self._body = self._rest = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Serve the connection, unless too many are open."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._close_with(b"503 Service Unavailable", TOO_MANY)
        else:
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        for timer in (self._head_timer, self._rest_timer, self._reader_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, at most 256 KB of it at once, and end the connection where too much of it is no body."""
        if self.transport.is_closing():
            return
        body, self._began = self._body, False
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._began:  # else most of it may belong to requests before the last one
            self._framing += len(data) - (self._body - body)
        answered = self.cycle is None or self.cycle.response_complete
        if self._framing > HEAD_BYTES + FRAMING * self._body:
            if self._stage == "head" and answered:
                self._close_with(b"431 Request Header Fields Too Large", TOO_LARGE)
            else:
                self.transport.close()
        elif self._head_timer is None and (
            self._stage == "head" or (self._stage == "idle" and answered and not self.timeout_keep_alive_task)
        ):
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._stage, self._began = "head", True
        self._framing = self._size = self._fields = self._body = self._rest = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; or a trailer after a body, which nothing here reads."""
        self._fields += 1
        self._size += len(name) + len(value) + 4
        if self._stage == "head" and self._fields <= HEADER_FIELDS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request starts; with too large headers it gets to no route."""
        self._stage = "body"
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None
        if self._fields > HEADER_FIELDS or self._size + len(self.url) > HEAD_BYTES:
            self.app = guarded(headers_too_large)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body += len(body)
        if self.cycle.response_complete:
            self._rest += len(body)
            if self._rest > REST_BYTES:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived as a whole."""
        self._stage = "idle"
        if self._rest_timer:
            self._rest_timer.cancel()
            self._rest_timer = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer has been given; a body that still arrives is not waited for long."""
        super().on_response_complete()
        if self._stage == "body" and not self.pipeline and not self.transport.is_closing():
            self._rest_timer = self.loop.call_later(REST_S, self.transport.close)

    def pause_writing(self) -> None:
        """The client takes less than we have for it: watch that it takes something."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has taken it."""
        if self._reader_timer:
            self._reader_timer.cancel()
            self._reader_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._close_with(b"400 Bad Request", NO_HTTP)

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to say: the request is answered as plain HTTP, and the connection ends with it."""
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.transport.close()

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.cycle is not None and not self.cycle.response_complete:  # the answer to a request before it goes on
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)
        elif self._stage == "head":
            self._close_with(b"408 Request Timeout", TOO_SLOW)
        else:
            self.transport.close()

    def _watch_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()

        def look() -> None:
            if self.transport.get_write_buffer_size() > waiting - READER_BYTES:
                self.transport.abort()
            else:
                self._watch_reader()

        self._reader_timer = self.loop.call_later(READER_S, look)

    def _close_with(self, status: bytes, problem: bytes) -> None:
        length = str(len(problem)).encode()
        headers = ((b"content-type", b"application/json"), (b"content-length", length), HANG_UP, *GUARDS)
        fields = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"HTTP/1.1 %s\r\n%s\r\n%s" % (status, fields, problem))
        self.transport.close()
