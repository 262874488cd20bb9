"""What the parts of the section share: the services, started when first asked for, and the people in them."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.history.history_store import row_of
from feature_repo.settings import Settings, now_us
from feature_repo.stream.embedded import Embedded
from tests.bench import states
from tests.bench.figures import Cell, Check, Table, alternated
from tests.bench.live.naive import Feast
from tests.bench.live.service import Service, running
from tests.bench.live.traffic import past
from tests.bench.options import Options, steps
from tests.brokers import free_port, started

ROUNDS = 3
CONNECTIONS = 4
"""Of whoever sends."""
GIANT, ORDINARY = "giant", "ordinary"
"""The person with a very long past, and one with a short one who does the same."""
ORDINARY_PAST = 50
KEPT_AT_ONCE = 20_000
PAST = 1
"""The log position of what a history is given: not after that of any event of the bench."""
PEOPLE = 500
Round = dict[str, Cell]
T = TypeVar("T")


class Part(msgspec.Struct):
    """What a part of the section measured; as in Result."""

    checks: list[Check] = []
    tables: list[Table] = []
    notes: list[str] = []
    rounds: list[Round] = []


class World:
    """One run of the section. served: the state that the service's own is a copy of.

    limit: events/s that the embedded service takes, once that has been measured.
    """

    def __init__(self, options: Options, served: Settings, stack: ExitStack) -> None:
        self.options, self.served, self._stack = options, served, stack
        self.limit: float | None = None
        self.rounds: int = options.rounds or ROUNDS
        self.folder = (options.folder / "live").resolve()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @cached_property
    def people(self) -> list[str]:
        """The newest people of the state whose onboarding is under way; at most so many.

        Raises:
            ValueError: there is nobody.
        """
        if not (found := self._people(under_way=True)):
            raise ValueError(f"{self.served.state}: expected people whose onboarding is under way; simulate some anew")
        return found

    @cached_property
    def former(self) -> list[str]:
        """The newest of those whose onboarding has ended, and whose past is in the lake only; at most so many."""
        return self._people(under_way=False)

    def _people(self, under_way: bool) -> list[str]:
        found, now = domains.load(self.served.domain).outcomes(self.served).to_pandas(), now_us()
        chosen = found[(found["anchor_us"] <= now) & ((found["end_us"] > now) == under_way)]
        return list(chosen.sort_values(["anchor_us", "user_id"], ascending=False)["user_id"].head(PEOPLE))

    @cached_property
    def service(self) -> Service:
        """The embedded service over a copy of the state, to which GIANT and ORDINARY are added."""
        settings = states.copied(self.options, self.served, "live/embedded")
        live = Embedded(settings)
        try:
            for user, many in ((GIANT, self.options.giant), (ORDINARY, ORDINARY_PAST)):
                remember(live, past(user, many, now_us()))
        finally:
            live.close()
        return self._running(settings)

    @cached_property
    def on_redis(self) -> Service | None:
        """The service with its online store on Redis, over a state without a past; None where there is no Redis."""
        address = self.enter(redis())
        if address is None:
            return None
        return self._running(self.empty("redis", f"redis://{address}/0"))

    @cached_property
    def naive(self) -> Feast:
        """Feast by itself."""
        return Feast(self.folder / "naive", domains.load(self.served.domain))

    def _running(self, settings: Settings) -> Service:
        service = self.enter(running(settings, self.served.tracking_uri))
        service.ready()
        return service

    def in_turn(self, part: str, ways: Mapping[str, Callable[[int], Round]]) -> list[Round]:
        """Every way once in every round, given the round's number."""
        found = list[Round]()
        with self.options.bar() as progress:
            step = steps(progress, part, self.rounds * len(ways))
            for number in range(self.rounds):
                for which in alternated(list(ways), number):
                    step(f"{which}, round {number + 1}")
                    found.append({"part": part, "round": number + 1, "which": which, **ways[which](number)})
        return found

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Keep something open until the section ends."""
        return self._stack.enter_context(context)

    def empty(self, name: str, online: str = "sqlite") -> Settings:
        """A state without any past."""
        settings = Settings(home=self.folder / name, domain=self.served.domain, online=online)
        settings.state.mkdir(parents=True)
        return settings

    def file(self, name: str) -> Path:
        """A file for bodies."""
        return self.folder / f"{name}.jsonl"


def remember(live: Embedded, events: Iterable[Event]) -> None:
    """Give a history that nobody processes yet the past of some people, as if their rows had long been written."""
    left = iter(events)
    while some := list(islice(left, KEPT_AT_ONCE)):
        live.history.keep([row_of(PAST, event) for event in some])


@contextmanager
def redis() -> Iterator[str | None]:
    """host:port of a Redis: one of our own, else the one that the environment names, else none."""
    binary = shutil.which("redis-server")
    if binary is None:
        yield os.environ.get("FIRSTMILE_TEST_REDIS") or None
        return
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with started(command, port, 20) as server:
        yield server.address
