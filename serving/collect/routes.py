"""The collectors' routes: what stands between the network and a dialect, the same for all of them.

origin ─► started? ─► body, limited and timed ─► unpacked, translated ─► key ─► rate ─► opted out? ─► door ─► answer
"""

import asyncio
import base64
import binascii
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec
from msgspec.structs import replace

from feature_repo.log.event_log import Busy
from feature_repo.settings import Settings, now_us
from serving.asgi import HANG_UP, Answer, Header, Receive, Refused, Scope, answer_of, read_body, started
from serving.auth import Keys
from serving.collect import ga4, mixpanel, segment, snippet
from serving.collect.cors import Cors
from serving.collect.dialect import RECEIPTS, Dialect, Taken, counted
from serving.collect.door import Door, Receipt
from serving.collect.identity import BROWSER, NOBODY, Sender
from serving.collect.limiter import Limiter
from serving.collect.request import KB, Request, parameters
from serving.local_only import require_local

BODY_S = 10.0
"""How long a body may take to arrive."""
MOST_HELD = 64 * KB * KB
"""Bytes of bodies that are held at once, those still arriving included."""
BYTES_AN_EVENT = 1024
"""A request counts as one event for each so many bytes of it, where that is more than its events."""
SMALL = 16 * KB
"""A larger body is unpacked and translated in a thread, so that nobody waits for it."""
MOST_TRANSLATING = 32
"""Large bodies that are being translated or wait for it; two at once."""
UNKNOWN = 1024 * KB
"""Bytes of a body whose write key is not in the headers or the query, so that a stranger may have sent it."""
PIXELS = {f"/v1/pixel/{call}": segment.PIXEL for call in segment.CALLS.values() if call != "batch"}
ROUTES: dict[str, Dialect] = {
    **{f"/v1/{name}": segment.POST for call in segment.CALLS.items() for name in call},
    **PIXELS,
    "/track": mixpanel.EVENTS,
    "/import": mixpanel.EVENTS,
    "/engage": mixpanel.PROFILES,
    "/mp/collect": ga4.POST,
    "/debug/mp/collect": ga4.DEBUG,
}
MIXPANEL = ("/track", "/import", "/engage")
"""Mixpanel's own address of each ends in a slash; both forms are taken."""
METHODS = dict.fromkeys(ROUTES, "POST") | dict.fromkeys(PIXELS, "GET")
METHODS |= dict.fromkeys(MIXPANEL, "GET, POST")
SNIPPET = "/firstmile.js"
SETTINGS = ("/v1/projects/", "/settings")
"""Before and after the write key in the path that Segment's browser SDK asks for."""
DO_NOT_TRACK = ("dnt", "sec-gpc")
"""Headers by which a browser says so, each with the value 1."""


class Options(msgspec.Struct, frozen=True):
    """Who may send, from where, and how much.

    keys: write keys that browsers do not hold. browser_keys: those that they hold. secrets: see identity.Sender.
    per_second: events, for each key.
    """

    keys: Keys = Keys()
    browser_keys: Keys = Keys()
    secrets: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()
    per_second: float = 10_000.0
    body_s: float = BODY_S
    most_held: int = MOST_HELD

    @classmethod
    def of(cls, settings: Settings) -> "Options":
        """The settings' keys, secrets, origins and rate."""
        keys, browser_keys = Keys(settings.write_keys), Keys(settings.browser_keys)
        return cls(keys, browser_keys, settings.user_hash_secrets, frozenset(settings.origins), settings.rate)


class Collector:
    """Answers the collectors' routes."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._cors, self._limiter = Cors(options.origins), Limiter(options.per_second)
        self._held = self._translating = 0
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="translate")

    def methods(self, path: str) -> str | None:
        """The methods of a route, as an Allow header has them; None: it is none of these."""
        if path == SNIPPET:
            return "GET, HEAD"
        if _settings_key(path) is not None:
            return "GET"
        return METHODS.get(_plain(path))

    async def respond(self, path: str, scope: Scope, receive: Receive, door: Door | None) -> Answer:
        """The answer to a request to one of these routes; a refusal is answered in the dialect's own form.

        Raises:
            Gone: the caller hung up.
        """
        path = _plain(path)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, methods = scope["method"], self.methods(path) or ""
        cors: tuple[Header, ...] = ()
        try:
            if method == "OPTIONS":
                return Answer(b"", 204, headers=self._cors.preflight(headers, methods))
            if path == SNIPPET and method in ("GET", "HEAD"):
                return snippet.answer(headers)
            cors = self._cors.headers(headers)
            if method not in methods.split(", "):
                told = f"{path} takes {methods}, not {method}"
                raise Refused(405, "method_not_allowed", told, None, (b"allow", methods.encode()))
            if (write_key := _settings_key(path)) is not None:
                self._admit([write_key], scope)
                answer = segment.settings(write_key, *_address(scope, headers))
            else:
                answer = await self._collect(path, scope, receive, headers, started(door))
        except Refused as e:
            answer = ROUTES[path].refusal(e) if path in ROUTES else answer_of(e)
        return replace(answer, headers=(*answer.headers, *cors))

    async def _collect(
        self, path: str, scope: Scope, receive: Receive, headers: Mapping[str, str], door: Door
    ) -> Answer:
        dialect, received_us = ROUTES[path], now_us()
        query, basic = parameters(scope.get("query_string", b"")), _basic(headers.get("authorization"))
        limit = dialect.limit if self._admitted_early(dialect, query, basic, scope) else min(dialect.limit, UNKNOWN)
        with self._memory() as arrived:
            body = await self._body(scope, receive, limit, arrived)
            request = Request(path, query, headers, body, limit, received_us)
            request, taken = await self._translate(dialect, request)
            sender = self._admit(taken.keys or basic, scope)
            self._limit(sender.key or "", max(len(taken.raws), len(request.body) // BYTES_AN_EVENT))
            receipts = await _receipts(dialect, taken, request, door, sender)
        answer = dialect.answer(request, receipts)
        return replace(answer, headers=(*answer.headers, (RECEIPTS, counted(receipts))))

    def _admitted_early(self, dialect: Dialect, query: Mapping[str, str], basic: Sequence[str], scope: Scope) -> bool:
        """Whether a request may send by what it shows before its body; False: only its body can tell.

        Raises:
            Refused: it may not, whatever its body holds.
        """
        shown = [query[name] for name in dialect.key_parameters if query.get(name)]
        shown += basic if dialect.basic_is_key else [key for key in basic if self._ours(key)]
        if shown or not (self._keyed and dialect.key_in_body):
            self._admit(shown, scope)
            return True
        return False

    def _ours(self, key: str) -> bool:
        given = key.encode(errors="replace")
        return self._options.keys.holds(given) or self._options.browser_keys.holds(given)

    async def _translate(self, dialect: Dialect, request: Request) -> tuple[Request, Taken]:
        """The request unpacked, and its events; in a thread where it is large."""
        if len(request.body) <= SMALL:
            return _translated(dialect, request)
        if self._translating >= MOST_TRANSLATING:
            told = "too many large requests are being read; try again in a moment"
            raise Refused(503, "busy", told, None, (b"retry-after", b"1"))
        self._translating += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, _translated, dialect, request)
        finally:
            self._translating -= 1

    @contextmanager
    def _memory(self) -> Iterator[Callable[[int], None]]:
        """A function to report the bytes of a body to as they arrive, which are held until the context is left."""
        mine = 0

        def arrived(count: int) -> None:
            nonlocal mine
            if self._held + count > self._options.most_held:
                told = "too much is arriving at once; try again in a moment"
                raise Refused(503, "busy", told, None, (b"retry-after", b"1"), HANG_UP)
            mine += count
            self._held += count

        try:
            yield arrived
        finally:
            self._held -= mine

    async def _body(self, scope: Scope, receive: Receive, limit: int, arrived: Callable[[int], None]) -> bytes:
        seconds = self._options.body_s
        try:
            async with asyncio.timeout(seconds):
                return await read_body(scope, receive, limit, "send fewer events at once", arrived)
        except TimeoutError:
            raise Refused(
                408, "too_slow", f"the body took longer than {seconds:g} s to arrive", None, HANG_UP
            ) from None

    @property
    def _keyed(self) -> bool:
        return bool(self._options.keys or self._options.browser_keys)

    def _admit(self, shown: Sequence[str], scope: Scope) -> Sender:
        """Who sends a request. All keys that it shows have to be ours; one that browsers hold counts for all of it."""
        if not self._keyed:
            require_local(scope, f"set write keys (FIRSTMILE_WRITE_KEYS, {BROWSER})", self._cors.may_send)
            return NOBODY
        options, public = self._options, list[str]()
        for key in shown:
            given = key.encode(errors="replace")
            if options.browser_keys.holds(given):
                public.append(key)
            elif not options.keys.holds(given):
                raise Refused(401, "unauthorized", "this write key is none of ours", None, HANG_UP)
        if not shown:
            raise Refused(401, "unauthorized", "a write key is needed", None, HANG_UP)
        return Sender((public or shown)[0], bool(public), options.secrets)

    def _limit(self, key: str, events: int) -> None:
        if wait_s := self._limiter.take(key, max(1, events)):
            told = f"more than {self._options.per_second:g} events (or KiB) a second with this write key"
            raise Refused(429, "rate_limited", told, None, (b"retry-after", str(math.ceil(wait_s)).encode()))


def _translated(dialect: Dialect, request: Request) -> tuple[Request, Taken]:
    try:
        request = dialect.opened(request)
        return request, dialect.take(request)
    except RecursionError:
        raise Refused(400, "invalid_json", "the body is nested too deeply") from None


async def _receipts(dialect: Dialect, taken: Taken, request: Request, door: Door, sender: Sender) -> Sequence[Receipt]:
    """A receipt for each event that was sent."""
    if dialect.dry:
        return await door.check(taken.raws, request.received_us, sender)
    if asked := next((name for name in DO_NOT_TRACK if request.headers.get(name) == "1"), None):
        return door.decline(taken.raws, f"the request has {asked}: 1")
    try:
        receipts = await door.accept([*taken.raws, *taken.edges], request.received_us, sender)
        return receipts[: len(taken.raws)]
    except Busy as e:
        retry = (b"retry-after", str(math.ceil(e.retry_after_s)).encode())
        raise Refused(503, "busy", str(e), None, retry) from e


def _plain(path: str) -> str:
    """The path by which ROUTES knows a route."""
    return path.removesuffix("/") if path.removesuffix("/") in MIXPANEL else path


def _settings_key(path: str) -> str | None:
    """The write key in the path of the settings route; None for other paths."""
    before, after = SETTINGS
    key = path.removeprefix(before).removesuffix(after)
    return key if path == before + key + after and key and "/" not in key else None


def _address(scope: Scope, headers: Mapping[str, str]) -> tuple[str, str]:
    """Host and protocol by which the browser reached us."""
    protocol = headers.get("x-forwarded-proto") or scope.get("scheme", "http")
    return headers.get("host", "") + scope.get("root_path", ""), "https" if protocol == "https" else "http"


def _basic(authorization: str | None) -> list[str]:
    """The user of Basic authentication, where SDKs put the write key."""
    kind, _, given = (authorization or "").partition(" ")
    if kind.lower() != "basic":
        return []
    try:
        user = base64.b64decode(given.encode("latin-1")).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return []
    return [user] if user else []
