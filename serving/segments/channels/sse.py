"""GET /v1/segments/stream: changes as server-sent events (the HTML standard's `text/event-stream`).

Last-Event-ID ─► what came since, out of the journal ─► what comes, as it comes; a comment where nothing does

After a break a browser sends Last-Event-ID by itself. `?after=` says the same for a first request, with the `seq` that
GET /v1/segments gave. Where too much came since to be sent again, an event `reset` says so first.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial

from feature_repo.contract.events import key_of
from serving.asgi import Receive, Refused, Scope, Send, Stream, header, real_user
from serving.collect.request import parameters
from serving.segments.channels.hub import Frame, Hub, Listener
from serving.segments.journal import Journal

HEARTBEAT_S = 15.0
MOST_AGAIN = 10_000
"""Changes of the journal that are looked through for what a reader has missed."""
PAGE = 500
CLOSING_S = 1.0
_log = logging.getLogger("bentoml.serve.firstmile")
_BEAT = b":\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class Streams:
    """Answers the route. heartbeat_s: the longest silence."""

    def __init__(self, journal: Journal, hub: Hub, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._journal, self._hub, self._heartbeat_s = journal, hub, heartbeat_s

    async def open(self, scope: Scope) -> Stream:
        """The stream that a request asks for; it listens from now on.

        Raises:
            Refused: 422, no such position or user; 503, see `Hub.add`.
        """
        query = parameters(scope.get("query_string", b""))
        after = _after(query, header(scope, b"last-event-id"))
        listener = Listener(_person(query), query.get("segment"))
        self._hub.add(listener)  # first: what comes from here on waits in its queue
        try:
            last = await asyncio.to_thread(self._journal.last)
        except BaseException:
            self._hub.remove(listener)
            raise
        return Stream(partial(self._run, listener, last if after is None else after, last))

    async def _run(self, listener: Listener, after: int, last: int, receive: Receive, send: Send) -> None:
        """Until the reader hangs up, is too slow, or the service ends."""
        write = asyncio.create_task(self._write(listener, after, last, send))
        tasks = [write, asyncio.create_task(_hung_up(receive)), asyncio.create_task(_ended(listener))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.remove(listener)
            for task in tasks:
                task.cancel()
            failed, *_ = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(failed, Exception):
            _log.error("a stream of changes broke off", exc_info=failed)
        with suppress(Exception):  # who reads nothing does not get the end either: the server then cuts the connection
            async with asyncio.timeout(CLOSING_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, listener: Listener, after: int, last: int, send: Send) -> None:
        reached = min(max(after, last - MOST_AGAIN), last)
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await _send(send, _BEAT if reached == after else f"event: reset\nid: {reached}\ndata: {{}}\n\n".encode())
        async for page in self._missed(listener, reached, last):
            await _send(send, page)
        while True:
            await _send(send, await self._next(listener, last))

    async def _missed(self, listener: Listener, reached: int, last: int) -> AsyncIterator[bytes]:
        """What the journal holds up to `last`, a page at a time."""
        while reached < last and (page := await asyncio.to_thread(self._journal.after, reached, PAGE)):
            reached = page[-1].seq
            yield b"".join(Frame(c).raw for c in page if listener.wants(c) and c.seq <= last)

    async def _next(self, listener: Listener, reached: int) -> bytes:
        """All that waits, without what was sent out of the journal; a comment where nothing comes."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                frames = [await listener.waiting.get()]
        except TimeoutError:
            return _BEAT
        while not listener.waiting.empty():
            frames.append(listener.waiting.get_nowait())
        return b"".join(frame.raw for frame in frames if frame.seq > reached)


def _person(query: Mapping[str, str]) -> str | None:
    """Whose changes are asked for; null: everybody's."""
    user_id, anonymous_id = query.get("user"), query.get("anonymousId")
    if user_id is not None and anonymous_id is not None:
        raise Refused(422, "invalid_request", "expected either ?user or ?anonymousId", "?anonymousId")
    if user_id is None and anonymous_id is None:
        return None
    return key_of(user_id if user_id is None else real_user(user_id, "?user"), anonymous_id)


def _after(query: Mapping[str, str], last_event_id: bytes | None) -> int | None:
    given = last_event_id.decode("latin-1") if last_event_id else query.get("after")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        where = "Last-Event-ID" if last_event_id else "?after"
        raise Refused(422, "invalid_position", f"expected the id of an event, a whole number; came {given!r}", where)
    return int(given)


async def _send(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _ended(listener: Listener) -> None:
    await listener.ended.wait()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
