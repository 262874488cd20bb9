"""The service under test, the real one in a process of its own, and what can be seen of it from outside."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from itertools import count, cycle
from random import Random
from types import MappingProxyType
from typing import Any

import httpx

from feature_repo import domains
from feature_repo.contract.events import ids_of
from feature_repo.domain import Domain
from feature_repo.feature_store.store import delete_online, feature_store, read_online
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import drain
from feature_repo.settings import SOURCE, Settings, now_us
from monitoring.live import free_port
from tests.bench.contenders import server
from tests.bench.live.traffic import click
from tests.feature_repo import oracle

LOOK_S = 0.0002
"""How long to wait before looking at the online store again."""
LAG_S = 0.05
"""The same for what is not applied."""
NO_LAG, AT_REST = "firstmile_log_lag 0", "firstmile_segments_waiting 0"
PATIENCE_S = 600
LIMIT = "1000000"
"""FIRSTMILE_RATE: events a second of one key, out of the way of what is measured."""


class Service:
    """One that runs: what an SDK sends to it, what a caller asks it, and the rows that it writes."""

    def __init__(self, settings: Settings, port: int, client: httpx.Client, shift_us: int = 0) -> None:
        self.settings, self.port, self.client = settings, port, client
        self._shift_us, self._number = shift_us, count()

    @cached_property
    def domain(self) -> Domain:
        """Its domain."""
        return domains.load(self.settings.domain)

    @cached_property
    def _store(self) -> Any:
        return feature_store(self.settings, lineage=False)

    def now_us(self) -> int:
        """Its clock, as near as can be known from here."""
        return now_us() + self._shift_us

    def message(self) -> str:
        """A message id that was not used before."""
        return f"{time.time_ns()}-{next(self._number)}"

    def send(self, event: dict[str, Any]) -> None:
        """One event.

        Raises:
            RuntimeError: it was not accepted.
        """
        answer = self.client.post("/v1/batch", json={"batch": [event]})
        if answer.status_code != 200 or answer.json()["receipts"][0]["status"] != "accepted":
            raise RuntimeError(f"expected an accepted event; came {answer.status_code}: {answer.text[:500]}")

    def rows(self, users: Sequence[str], names: Sequence[str] | None = None) -> list[dict[str, Any] | None]:
        """What is online of these people."""
        return read_online(self._store, self.domain, users, names or list(self.domain.feature_types))

    def ready(self) -> None:
        """Wait until what an earlier process left to do is done."""
        user = self.message()
        self.send(click(user, user))
        self.settle([user])

    def forget(self, users: Sequence[str]) -> None:
        """Delete these people's online rows."""
        delete_online(self._store, self.domain, users)

    def settle(self, users: Sequence[str]) -> None:
        """Wait until all that was accepted is applied, and a decision for each of these says that it knows everything.

        A decision alone tells nothing of others: whose row it waits for comes before theirs.

        Raises:
            TimeoutError: that takes too long.
        """
        deadline = time.monotonic() + PATIENCE_S
        self._until(NO_LAG, deadline)
        for user in users:
            user_id, anonymous_id = ids_of(user)
            asked = {"userId": user_id} if user_id is not None else {"anonymousId": anonymous_id}
            while self.client.post("/v1/decide", json=asked).raise_for_status().json()["stale"]:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"after {PATIENCE_S} s the features of {user} still lack an accepted event")

    def rest(self) -> None:
        """Wait until everybody's segments are up to date too: nothing is left to do.

        Raises:
            TimeoutError: that takes too long.
        """
        self._until(AT_REST, time.monotonic() + PATIENCE_S)

    def _until(self, line: str, deadline: float) -> None:
        while line not in self.client.get("/metrics").raise_for_status().text.splitlines():
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {PATIENCE_S} s there is no {line!r} in /metrics")
            time.sleep(LAG_S)

    def exact(self, users: Sequence[str], senders: dict[str, list[str]]) -> None:
        """Whether what is online of these people is what the definition says of their events in the lake.

        senders: whose events can be each one's.

        Raises:
            RuntimeError: a value is another one.
        """
        import ibis

        found, at = self.rows(users), self.now_us()
        drain(self.settings)
        con = ibis.duckdb.connect()
        for user, row in zip(users, found, strict=True):
            events = Lake(self.settings.lake).events(con, senders[user]).to_pyarrow().to_pylist()
            wanted = oracle.row(events, self.domain, user, at)
            if row != wanted:
                wrong = [
                    f"{k}={(row or {}).get(k)!r} for {v!r}" for k, v in (wanted or {}).items() if not row or row[k] != v
                ]
                raise RuntimeError(f"the features of {user} are not those of its {len(events)} events: {wrong[:5]}")
        con.disconnect()


@contextmanager
def running(
    settings: Settings,
    tracking_uri: str,
    at_us: int | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Service]:
    """The service over a state folder while the block runs.

    tracking_uri: where its champion is. at_us: where its clock starts, default the present. more: of its environment.

    Raises:
        TimeoutError: it did not get ready; the message holds the end of its log.
    """
    port, given = free_port(), {"FIRSTMILE_RATE": LIMIT, "FIRSTMILE_ONLINE": settings.online, **more}
    given["MLFLOW_TRACKING_URI"] = tracking_uri
    if at_us is not None:
        given["FIRSTMILE_NOW"] = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat()
    shift_us = 0 if at_us is None else at_us - now_us()
    command = [sys.executable, "-m", "serving", "serve", "--port", str(port)]
    with (
        server(command, settings, port, "/readyz", SOURCE, given),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield Service(settings, port, client, shift_us)


def freshness(service: Service, users: Sequence[str], seconds: float, seed: int) -> tuple[list[float], list[float]]:
    """One click after the other of people in an order of chance; for each, ms until it is in the person's online row.

    Returns:
        From the 200 on, and from the beginning of the request on.

    Raises:
        TimeoutError: one does not get there.
    """
    durable, whole = list[float](), list[float]()
    drawn = cycle(Random(seed).sample(users, len(users)))
    until = time.perf_counter() + seconds
    while not whole or time.perf_counter() < until:
        user = next(drawn)
        at = service.now_us()
        event = click(user, service.message(), at)
        began = time.perf_counter()
        service.send(event)
        answered = time.perf_counter()
        while seen(service, user) < at:
            if time.perf_counter() > answered + PATIENCE_S:
                raise TimeoutError(f"a click of {user} was not online {PATIENCE_S} s after its 200")
            time.sleep(LOOK_S)
        now = time.perf_counter()
        durable.append((now - answered) * 1000)
        whole.append((now - began) * 1000)
    return durable, whole


def seen(service: Service, user: str) -> int:
    """When somebody was last seen, by the online row; 0 where there is none."""
    (row,) = service.rows([user], ["last_event_us"])
    return int(row["last_event_us"]) if row else 0
