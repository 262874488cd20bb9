"""The HTTP surface, as a bare ASGI application: Bento mounts it, and tests call it directly.

scope -> route -> method -> key -> content type and length -> body -> struct -> engine -> JSON
              ├-> a collector (collect/routes.py) -> door -> receipts
              └-> a page for people (console/) -> a file
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import UNSET

from feature_repo.contract.events import CONTROL, key_of
from feature_repo.storage import DamagedFile
from serving import docs, openapi
from serving.asgi import (
    HANG_UP,
    JSON,
    Answer,
    Gone,
    Receive,
    Refused,
    Scope,
    Send,
    Stream,
    answer_of,
    header,
    read_body,
    real_user,
    send_answer,
    started,
)
from serving.auth import VARIABLE, Keys
from serving.collect.door import Door
from serving.collect.refused import listing
from serving.collect.routes import Collector, Options
from serving.console import files as console
from serving.console.playbook import PATH as PLAYBOOK
from serving.console.playbook import Declared
from serving.engine import Engine
from serving.local_only import require_local
from serving.schema import MAX_USERS, BatchRequest, BatchResponse, DecideRequest, Problem
from serving.segments.channels.running import PATH as SEGMENTS
from serving.segments.channels.running import STREAM, Channels
from serving.users import ANONYMOUS_USERS, Users
from serving.users import METHODS as USER_METHODS
from serving.users import PATH as USERS
from serving.why.page import POLICY

Request = TypeVar("Request")

LIMITS = {"/v1/decide": 64 * 1024, "/v1/decide/batch": 1024 * 1024}
"""Largest body in bytes, by route."""
QUARANTINE, METRICS = "/v1/quarantine", "/metrics"

DOCS_POLICY = ((b"content-security-policy", POLICY),)

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()
_decide_request = msgspec.json.Decoder(DecideRequest)
_batch_request = msgspec.json.Decoder(BatchRequest)


class App:
    """The routes. `engine`, `door`, `users`, `channels`, `declared` are put in when the service starts; before, theirs
    answer 503.

    keys: of servers. collect: who may send events, from where, and how many.
    """

    def __init__(
        self, keys: Keys, engine: Engine | None = None, door: Door | None = None, collect: Options | None = None
    ) -> None:
        self.keys = keys
        self.engine = engine
        self.door = door
        self.users: Users | None = None
        self.channels: Channels | None = None
        self.declared: Declared | None = None
        self._collector = Collector(collect or Options())
        self._document = _encoder.encode(openapi.document())
        self._decides = {"/v1/decide": self._decide, "/v1/decide/batch": self._batch}
        self._pages: dict[str, Callable[[], Answer]] = {
            "/": lambda: Answer(b"", 307, b"text/plain", ((b"location", b"docs"),)),
            "/docs": lambda: Answer(docs.page().encode(), 200, b"text/html; charset=utf-8", DOCS_POLICY),
            "/openapi.json": lambda: Answer(self._document),
            "/healthz": lambda: Answer(b"\n", content_type=b"text/plain; charset=utf-8"),
            "/livez": lambda: Answer(b"\n", content_type=b"text/plain; charset=utf-8"),
            "/readyz": self._ready,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Only HTTP is spoken; lifespan is the service's."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        try:
            answer = await self._route(path, scope, receive)
            if isinstance(answer, Stream):
                return await answer.run(receive, send)
        except Refused as e:
            answer = answer_of(e)
        except Gone:
            return
        except DamagedFile as e:
            _log.error("%s %s: %s", scope["method"], path, e)
            answer = Answer(_encoder.encode(Problem("damaged_file", "a file is damaged; the log names it")), 503)
        except Exception:  # the last line: a fault of ours is logged and told, and the process goes on
            _log.exception("%s %s failed", scope["method"], path)
            answer = Answer(_encoder.encode(Problem("internal", "a fault in the service; its log says more")), 500)
        if self.engine is not None and path in self._decides:
            self.engine.metrics.responded(path, answer.status, time.perf_counter() - began)
        await send_answer(answer, scope["method"] == "HEAD", send)

    async def _route(self, path: str, scope: Scope, receive: Receive) -> Answer | Stream:
        method = scope["method"]
        if handler := self._decides.get(path):
            if method != "POST":
                raise Refused(405, "method_not_allowed", f"{path} takes POST, not {method}", None, (b"allow", b"POST"))
            self._authorize(scope)
            return await handler(await _body(scope, receive, LIMITS[path]))
        if page := self._pages.get(path):
            _reads(method, path)
            return page()
        if path == METRICS:
            _reads(method, path)
            self._authorize(scope)
            return self._metrics()
        if self._collector.methods(path):
            return await self._collector.respond(path, scope, receive, self.door)
        if path == QUARANTINE:
            return await self._refused(scope)
        if path in (SEGMENTS, STREAM):
            return await self._segments(path, scope)
        if path == PLAYBOOK:
            return await self._playbook(scope)
        if path == console.PATH or path.startswith(f"{console.PATH}/"):
            _reads(method, path)
            return console.answer(path, b"gzip" in (header(scope, b"accept-encoding") or b""))
        if path.startswith(USERS):
            return await self._user(scope, USERS)
        if path.startswith(ANONYMOUS_USERS):
            return await self._user(scope, ANONYMOUS_USERS)
        raise Refused(404, "not_found", f"there is no {path}; /openapi.json lists what there is")

    def _authorize(self, scope: Scope) -> None:
        if self.keys:
            if not self.keys.allows(header(scope, b"authorization")):
                told = (b"www-authenticate", b'Bearer realm="firstmile"')
                raise Refused(401, "unauthorized", "a server key is needed: Authorization: Bearer <key>", None, told)
        else:
            require_local(scope, f"set server keys ({VARIABLE})")

    async def _decide(self, body: bytes) -> Answer:
        request = _parse(_decide_request, body)
        engine = self._started()
        if request.user_id is not UNSET:
            key, stale = real_user(request.user_id, "$.userId"), False
        elif request.anonymous_id is not UNSET:
            (key,), stale = await engine.user_keys([request.anonymous_id])
        else:
            raise Refused(422, "invalid_request", "expected userId or anonymousId", "$")
        return Answer(_encoder.encode(await engine.decide(key, request.explain, request.after, stale)))

    async def _batch(self, body: bytes) -> Answer:
        request = _parse(_batch_request, body)
        engine, asked = self._started(), len(request.user_ids) + len(request.anonymous_ids)
        if not 0 < asked <= MAX_USERS:
            raise Refused(422, "invalid_request", f"expected 1 to {MAX_USERS:,} ids together, got {asked:,}", "$")
        for n, user_id in enumerate(request.user_ids):
            real_user(user_id, f"$.userIds[{n}]")
        anonymous, stale = await engine.user_keys(request.anonymous_ids)
        decisions = await engine.decide_many([*request.user_ids, *anonymous], request.explain, stale)
        return Answer(_encoder.encode(BatchResponse(decisions)))

    async def _refused(self, scope: Scope) -> Answer:
        _reads(scope["method"], QUARANTINE)
        self._authorize(scope)
        return await listing(started(self.door), scope.get("query_string", b""))

    async def _segments(self, path: str, scope: Scope) -> Answer | Stream:
        if path == STREAM and scope["method"] == "HEAD":
            raise Refused(405, "method_not_allowed", f"{path} takes GET, not HEAD", None, (b"allow", b"GET"))
        _reads(scope["method"], path)
        self._authorize(scope)
        return await started(self.channels).respond(path, scope)

    async def _playbook(self, scope: Scope) -> Answer:
        _reads(scope["method"], PLAYBOOK)
        self._authorize(scope)
        return await started(self.declared).respond()

    async def _user(self, scope: Scope, route: str) -> Answer:
        id_, what = _user_and_what(scope, route)
        if scope["method"] not in USER_METHODS[what]:
            allow = ", ".join(USER_METHODS[what])
            told = f"{route}{{id}}{what} takes {allow}, not {scope['method']}"
            raise Refused(405, "method_not_allowed", told, None, (b"allow", allow.encode()))
        self._authorize(scope)
        key = real_user(id_, "id") if route == USERS else key_of(None, id_)
        query = scope.get("query_string", b"")
        return await started(self.users).respond(scope["method"], key, what, query, header(scope, b"accept") or b"")

    def _started(self) -> Engine:
        return started(self.engine)

    def _ready(self) -> Answer:
        self._started()
        return Answer(b"\n", content_type=b"text/plain; charset=utf-8")

    def _metrics(self) -> Answer:
        engine = self._started()
        text = engine.metrics.text(engine.gauges()) + (self.door.metrics() if self.door else "")
        return Answer(text.encode(), content_type=b"text/plain; version=0.0.4; charset=utf-8")


def _user_and_what(scope: Scope, route: str = USERS) -> tuple[str, str]:
    """The id in the path after `route`, and what follows it, one of USER_METHODS.

    The path is split before it is percent-decoded: `bob%2Fopt-out` is the id "bob/opt-out".

    Raises:
        Refused: 404, there is no such route after an id. 422, the id is not UTF-8 or has a control character.
    """
    raw = scope["raw_path"].removeprefix(scope.get("root_path", "").encode()).removeprefix(route.encode())
    encoded, slash, rest = raw.partition(b"/")
    what = (slash + rest).decode("latin-1")
    if what not in USER_METHODS:
        told = f"there is no {route}{{id}} followed by {what[:100]!r}; write a slash inside an id as %2F"
        raise Refused(404, "not_found", told)
    try:
        id_ = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        raise Refused(422, "invalid_request", "expected an id in UTF-8, percent-encoded", "id") from None
    if CONTROL.search(id_):
        raise Refused(422, "invalid_request", "expected an id without control characters", "id")
    return id_, what


def _reads(method: str, path: str) -> None:
    if method not in ("GET", "HEAD"):
        allow = (b"allow", b"GET, HEAD")
        raise Refused(405, "method_not_allowed", f"{path} takes GET, not {method}", None, allow)


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body, at most `limit` bytes of JSON.

    Raises:
        Refused: too long, another content type, or compressed. Gone: the caller hung up.
    """
    kind = header(scope, b"content-type")
    if kind is None or kind.split(b";")[0].strip().lower() != JSON:  # none is what pages of other sites may send
        got = "none" if kind is None else repr(kind.decode("latin-1")[:200])
        raise Refused(
            415, "unsupported_media_type", f"expected Content-Type application/json, got {got}", None, HANG_UP
        )
    if (coding := header(scope, b"content-encoding")) not in (None, b"identity"):
        raise Refused(
            415, "unsupported_encoding", f"expected a plain body, got Content-Encoding {coding!r}", None, HANG_UP
        )
    return await read_body(scope, receive, limit, "send fewer users at once")


def _parse(decoder: msgspec.json.Decoder[Request], body: bytes) -> Request:
    """The typed request.

    Raises:
        Refused: 400 for what is no JSON, 422 for JSON that is no such request; with the path to what is wrong.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as e:
        message, _, where = str(e).partition(" - at `")
        raise Refused(422, "invalid_request", message, where.removesuffix("`") or "$") from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Refused(400, "invalid_json", f"the body is no JSON: {e}") from e
    except RecursionError as e:
        raise Refused(400, "invalid_json", "the body is nested too deeply") from e
