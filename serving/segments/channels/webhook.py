"""Webhooks: one change a request, signed as Standard Webhooks 1.0 says, tried again, put aside at last.

change ─► POST ──► 2xx: taken
              ├─► 410: the endpoint is disabled, until `python -m serving webhooks --enable`
              └─► all else, redirects too, or no answer ─► tried again, ten times in some nine minutes ─► dead.jsonl

The next change waits meanwhile: an endpoint gets its changes in their order, and the journal holds those that wait.
"""

import random
from collections.abc import Callable, Sequence
from typing import NoReturn

import httpx

from feature_repo.settings import now_us
from serving.segments.channels import signing
from serving.segments.channels.channel import LONGEST_S, Suspended, backoff_s
from serving.segments.channels.dead_letters import DeadLetters, Letter
from serving.segments.channels.disabled import Disabled
from serving.segments.channels.endpoints import Endpoint
from serving.segments.channels.event import SegmentChanged, document, encode
from serving.segments.journal import Change, Journal
from serving.times import rfc3339

TRIES = 10
TIMEOUT_S = 10.0
RECHECK_S = 10.0
"""How often a disabled endpoint is looked at: it may have been enabled."""
SMALL = 4096
"""Bytes of an answer that are read, so that the connection can be used again."""


class Untaken(Exception):
    """An endpoint answered, and did not take it. retry_after_s: as it asked; 0: it did not."""

    def __init__(self, status: int, retry_after_s: float) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.retry_after_s = status, retry_after_s


def channel_name(endpoint: Endpoint) -> str:
    """What an endpoint's cursor and dead letters go by."""
    return f"webhook:{endpoint.name}"


def client() -> httpx.Client:
    """What webhooks are sent with: follows no redirect, for a signature is made for one receiver."""
    return httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, headers={"user-agent": "firstmile"})


def send(http: httpx.Client, endpoint: Endpoint, changed: SegmentChanged, at_us: int) -> None:
    """One attempt.

    Raises:
        Untaken: another status than 2xx. httpx.HTTPError: no answer, or not in time.
    """
    body = encode(changed)
    headers = {"content-type": "application/json"} | signing.headers(endpoint.keys, changed.id, at_us, body)
    with http.stream("POST", endpoint.url, content=body, headers=headers) as answer:
        length = answer.headers.get("content-length", "")
        if length.isdigit() and int(length) <= SMALL:
            answer.read()
        if not answer.is_success:
            asked = answer.headers.get("retry-after", "")
            raise Untaken(answer.status_code, float(asked) if asked.isascii() and asked.isdigit() else 0.0)


class Webhook:
    """A Destination (see there). draw: uniform in [0, 1), for the jitter."""

    most = 1

    def __init__(
        self,
        endpoint: Endpoint,
        journal: Journal,
        letters: DeadLetters,
        disabled: Disabled,
        clock: Callable[[], int] = now_us,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name, self._endpoint, self._journal = channel_name(endpoint), endpoint, journal
        self._letters, self._disabled, self._clock, self._draw = letters, disabled, clock, draw
        self._http = client()

    def wants(self, change: Change) -> bool:
        """Whether its segment is one of the endpoint's."""
        return self._endpoint.segments is None or change.segment in self._endpoint.segments

    def deliver(self, changes: Sequence[Change]) -> None:
        """As `Destination.deliver`."""
        if since := self._disabled.since(self.name):
            self._suspend(since)
        for change in changes:
            try:
                send(self._http, self._endpoint, document(change), self._clock())
            except Untaken as e:
                if e.status == httpx.codes.GONE:
                    self._disabled.disable(self.name, since := rfc3339(self._clock()))
                    self._suspend(since)
                raise

    def failed(self, changes: Sequence[Change], error: Exception, tries: int) -> float | None:
        """As `Destination.failed`: put aside after ten tries; an endpoint may ask for more time between them."""
        if tries < TRIES:
            asked = error.retry_after_s if isinstance(error, Untaken) else 0.0
            return max(backoff_s(tries, self._draw()), min(asked, LONGEST_S))
        for change in changes:
            reason = str(error) if isinstance(error, Untaken) else f"{type(error).__name__}: {error}"
            letter = Letter(self.name, rfc3339(self._clock()), tries, reason[:300], document(change))
            self._letters.add(letter, still=lambda change=change: self._known(change))  # type: ignore[misc]
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def _known(self, change: Change) -> bool:
        """Whether it is in the journal yet: an erasure takes it from there before it looks at the dead letters."""
        return self._journal.after(change.seq - 1, 1)[:1] == [change]

    def _suspend(self, since: str) -> NoReturn:
        raise Suspended(f"{self.name}: answered 410 Gone, disabled since {since}", RECHECK_S)


def redeliver(
    endpoints: Sequence[Endpoint], letters: DeadLetters, http: httpx.Client, clock: Callable[[], int] = now_us
) -> list[tuple[Letter, str]]:
    """Send what is dead once more, the first first; with what came of each: empty where it was taken, and is gone."""
    by_name, results = {channel_name(e): e for e in endpoints}, list[tuple[Letter, str]]()
    for letter in letters.all():
        endpoint, told = by_name.get(letter.channel), ""
        if endpoint is None:
            told = "no endpoint of that name is configured"
        elif not letters.holds(letter):  # erased just now, or sent by another
            continue
        else:
            try:
                send(http, endpoint, letter.event, clock())
                letters.remove(letter)
            except (Untaken, httpx.HTTPError) as e:
                told = str(e) or type(e).__name__
        results.append((letter, told))
    return results
