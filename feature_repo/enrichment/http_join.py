"""A join with an HTTP source: what another service says about a value of the event, in time or not at all."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import msgspec

from feature_repo.enrichment.step import Added, added, adding, key_of, reader, within_context
from feature_repo.environment import variable
from feature_repo.vocabulary import Column

if TYPE_CHECKING:
    import httpx

    from feature_repo.contract.events import Event

MOST_BYTES = 64 * 1024
"""Of an answer."""
ABSENT = frozenset({204, 400, 404, 410, 422})
"""Statuses that mean: of this key nothing is known."""


class JoinError(Exception):
    """Why there is no answer: a word for programs."""


@dataclass(frozen=True)
class HttpJoin:
    """Adds fields of the JSON object at `url` with the value of the event at path `on`; where there is none, nothing.

    An event waits `timeout_s` at the most, with several such joins the longest of theirs; then it goes on without.
    The `most` latest answers are kept for `ttl_s`, that nothing is known (404) is one too. After `failures` in a row
    (a time-out, no connection, another status) nothing is asked for `pause_s`, then a single request tries again.
    In the service only: a bulk intake asks nobody.

    url: with `{key}` in it. on: a path, `userId` or `anonymousId`. at_once: requests in flight.
    columns: name: the answer's field, dotted where it is deeper; path: where it goes, in context.
    token: the environment variable that holds a bearer token.

    Raises:
        ValueError: a path, type or number that there can't be.
    """

    url: str
    on: str
    columns: tuple[Column, ...]
    timeout_s: float = 0.2
    ttl_s: float = 300.0
    most: int = 10_000
    failures: int = 5
    pause_s: float = 10.0
    at_once: int = 20
    token: str | None = None

    def __post_init__(self) -> None:
        reader(self.on)
        adding(self.columns)
        if not self.url.startswith(("http://", "https://")) or self.url.count("{key}") != 1:
            raise ValueError(f"HttpJoin({self.url!r}): expected http(s)://… with {{key}} in it, once")
        if min(self.timeout_s, self.ttl_s, self.most, self.failures, self.pause_s, self.at_once) <= 0:
            raise ValueError(f"HttpJoin({self.url!r}): expected times and numbers above 0")

    @property
    def adds(self) -> Mapping[str, str]:
        """Type by path."""
        return adding(self.columns)

    def compiled(self) -> "Source":
        """The step itself.

        Raises:
            ValueError: the token is not in the environment.
        """
        if self.token and not variable(self.token):
            raise ValueError(f"HttpJoin({self.url!r}): expected a token in the environment, as {self.token}")
        return Source(self)


class Source:
    """The step with its cache, its breaker and its connections. It belongs to one event loop."""

    def __init__(self, step: HttpJoin, clock: Callable[[], float] = time.monotonic) -> None:
        import httpx
        from cachetools import TTLCache
        from circuitbreaker import CircuitBreaker

        self.step = step
        self._read = reader(step.on)
        self._fields = [(c.name.split("."), within_context(c.path), c.type) for c in step.columns]
        self._wanted = [reader(c.path) for c in step.columns]
        self._answers: TTLCache[str, Added] = TTLCache(step.most, step.ttl_s, timer=clock)
        self._breaker = CircuitBreaker(step.failures, step.pause_s)
        self._asking: dict[str, asyncio.Task[Added]] = {}
        self._slots = asyncio.Semaphore(step.at_once)
        token = variable(step.token) if step.token else None
        self._client = httpx.AsyncClient(  # made here: it takes longer than an event waits
            timeout=step.timeout_s,
            limits=httpx.Limits(max_connections=step.at_once),
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    async def __call__(self, event: "Event", until: float) -> "Event":
        """The event with what the source says. until: the loop's time at which it goes on without.

        Raises:
            JoinError: timeout, open (the breaker), busy (too many wait), or what was wrong with the answer.
        """
        key = key_of(self._read(event))
        if key is None or key in (".", "..") or all(read(event) is not None for read in self._wanted):
            return event
        values = self._answers.get(key)
        return added(event, await self._answer(key, until) if values is None else values)

    async def _answer(self, key: str, until: float) -> Added:
        """What there is to add. Who asks for a key that is being asked for waits for the same answer."""
        task = self._asking.get(key)
        if task is None:
            if self._breaker.opened or (self._asking and not self._breaker.closed):
                raise JoinError("open")
            task = self._asking[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(lambda done: self._asked(key, done))
        done, _ = await asyncio.wait({task}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        if not done:
            raise JoinError("timeout")
        return task.result()

    def _asked(self, key: str, task: "asyncio.Task[Added]") -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    async def _ask(self, key: str) -> Added:
        try:
            async with asyncio.timeout(self.step.timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            raise JoinError("busy") from None
        try:
            if self._breaker.opened:
                raise JoinError("open")
            with self._breaker:
                values = self._answers[key] = self._values(await self._fetch(key))
        finally:
            self._slots.release()
        return values

    async def _fetch(self, key: str) -> Any:
        """The answer's JSON; None where nothing is known of the key."""
        import httpx

        try:
            async with asyncio.timeout(self.step.timeout_s):
                url = self.step.url.replace("{key}", quote(key, safe=""))
                async with self._client.stream("GET", url) as response:
                    if response.status_code in ABSENT:
                        return None
                    if response.status_code != 200:
                        _fail(f"status_{response.status_code}")
                    return _decoded(await _body(response))
        except TimeoutError:
            _fail("timeout")
        except httpx.HTTPError as e:
            _fail("timeout" if isinstance(e, httpx.TimeoutException) else "connection")

    def _values(self, answer: Any) -> Added:
        found = {path: _field(answer, names) for names, path, _ in self._fields}
        return {path: found[path] for _, path, kind in self._fields if _is(found[path], kind)}


def _fail(reason: str) -> NoReturn:
    raise JoinError(reason) from None


async def _body(response: "httpx.Response") -> bytes:
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            _fail("too_long")
    return body


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _fail("not_json")
    if type(answer) is not dict:
        _fail("no_object")
    return answer


def _field(answer: Any, names: list[str]) -> Any:
    for name in names:
        if type(answer) is not dict:
            return None
        answer = answer.get(name)
    return answer


def _is(value: Any, kind: str) -> bool:
    return type(value) is {"string": str, "int64": int, "boolean": bool}[kind]
