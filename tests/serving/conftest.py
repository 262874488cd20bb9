"""Hand-made stand-ins for the store, the model and the clock, so that tests own what they answer."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import domains
from feature_repo.domain import Domain, Label
from feature_repo.settings import Settings
from serving.app import App
from serving.auth import Keys
from serving.decide import Snapshot
from serving.decision_log import DecisionLog
from serving.engine import Engine
from serving.experiments.declared import Experiments
from serving.models import Champion
from serving.playbook import Playbook
from serving.policy import Element, Policy
from serving.rules import Rules
from serving.values import Value

NOW = 1_767_225_600_000_000
KEY = "k" * 32


class FakeModel:
    """Scores a person by feature `clicks`: clicks / 10; below 0.5 is `slow`, else `fast`."""

    name = "tiny-engagement"
    feature_service = "tiny_v1"
    features = ("clicks", "device")
    segments = ("slow", "fast")
    cutoffs = (0.5,)
    personas = ()

    def __init__(self, version: int = 1, answer: Any = None) -> None:
        self.version = version
        self.answer = answer

    def score_one(self, values: Sequence[Value]) -> tuple[float, str]:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        score = float(values[0] or 0) / 10
        return score, "slow" if score < 0.5 else "fast"

    def persona_one(self, values: Sequence[Value]) -> str | None:
        return None

    def explain_one(self, values: Sequence[Value]) -> dict[str, float]:
        return {"clicks": float(values[0] or 0) - 5, "device": 0.25}


class FakeReader:
    """People in a dict. `fault` is raised by read; `slow_s` is waited for; `later` holds the rows in force;
    `waits` holds whose events are not applied, `behind` how many there are."""

    def __init__(self, people: Mapping[str, Snapshot], local: bool = True) -> None:
        self.people, self.local = people, local
        self.fault: Exception | None = None
        self.slow_s = 0.0
        self.later: dict[str, Snapshot] | Exception = {}
        self.waits: set[str] = set()
        self.behind: int | None = None
        self.links: dict[str, str] = {}

    set_aside: Mapping[str, str] = {}

    def lag(self) -> int | None:
        return self.behind

    def pending(self, user_ids: Sequence[str], after: str | None = None) -> bool:
        return not self.waits.isdisjoint(user_ids)

    def linked(self, anonymous_ids: Sequence[str], at_us: int) -> dict[str, str]:
        return {a: self.links[a] for a in anonymous_ids if a in self.links}

    def read(self, user_ids: Sequence[str], now_us: int) -> list[Snapshot | None]:
        time.sleep(self.slow_s)
        if self.fault:
            raise self.fault
        return [self.people.get(u) for u in user_ids]

    def ended(self, row: Snapshot, now_us: int) -> bool:
        return row.valid_until_us is not None and row.valid_until_us <= now_us

    def in_force(self, rows: Mapping[str, Snapshot], now_us: int, patient: bool = True) -> dict[str, Snapshot]:
        if isinstance(self.later, Exception):
            raise self.later
        return {u: self.later[u] for u in rows if u in self.later}


def person(clicks: int | None, **other: Any) -> Snapshot:
    """A person with that many clicks."""
    return Snapshot({"clicks": clicks, "device": "mobile", "done": other.pop("done", 0)}, NOW - 1_000, **other)


LABEL = Label("activation", "has done it", good=True, done="done", done_segment="finished")
POLICY = Policy(
    "tiny",
    (
        Element("help", "help_offer", "A person", ("slow",), {"slow": "slow people get help"}, priority=60),
        Element(
            "tour", "guided_tour", "Three steps", ("default", "slow"),
            {"default": "all start so", "slow": "again"},
        ),
        Element("thanks", "message", "Thank you", ("finished",), {"finished": "they are done"}),
    ),
    {"fast": "fast people need nothing"},
)  # fmt: skip
PLAYBOOK = Playbook(POLICY, Rules("tiny", ()), Experiments("tiny"), LABEL)


@pytest.fixture
def fakes() -> SimpleNamespace:
    """The stand-ins, by name."""
    return SimpleNamespace(
        NOW=NOW,
        KEY=KEY,
        LABEL=LABEL,
        POLICY=POLICY,
        PLAYBOOK=PLAYBOOK,
        Model=FakeModel,
        Reader=FakeReader,
        person=person,
        client=client,
    )


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Engines over stand-ins, closed at the end. Their people: `slow` (2 clicks), `fast` (8), `done`."""
    engines: list[Engine] = []

    def make(reader: FakeReader | None = None, model: Any = "default", logged: bool = False, **options: Any) -> Engine:
        people = {"slow": person(2), "fast": person(8), "done": person(8, done=1)}
        champion = Champion(lambda: None, lambda version: FakeModel(version), poll_s=None)
        champion.model = FakeModel() if model == "default" else model
        log = DecisionLog(tmp_path / "decisions", interval_s=0.05).start() if logged else None
        engine = Engine(reader or FakeReader(people), champion, PLAYBOOK, log, clock=lambda: NOW, **options)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


def client(app: App, address: str = "127.0.0.1", key: str | None = None) -> httpx.AsyncClient:
    """An HTTP client that calls the app in this process."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=True, client=(address, 12345))  # type: ignore[arg-type]
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)


@pytest.fixture
def make_app(make_engine: Callable[..., Engine]) -> Callable[..., App]:
    """Apps over such engines; `keys` are server keys."""
    return lambda keys=(), **options: App(Keys(tuple(keys)), make_engine(**options))


def make_row(domain: Domain, number: int, event_us: int, valid_until_us: int | None, step: int) -> dict[str, Any]:
    """A made-up feature row of person `u<number>`: every third value null, times in the past, not done."""
    row: dict[str, Any] = {"user_id": f"u{number}", "event_us": event_us, "created_us": 900_000 + number}
    for position, (name, kind) in enumerate(domain.feature_types.items()):
        value: Any = {"int64": number + step, "float64": (number + step) / 7, "string": f"value {number % 3}"}[kind]
        row[name] = None if (position + number) % 3 == 0 else value
    row |= {"clicks": number + step * 100, "last_event_us": event_us - 1_000, "activations": 0}
    return row | {"valid_until_us": valid_until_us}


def offline_table(domain: Domain, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows in the schema of the offline feature rows."""
    types = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
    moment = pa.timestamp("us", "UTC")
    columns = {
        "user_id": pa.array([r["user_id"] for r in rows]),
        "event_timestamp": pa.array([r["event_us"] for r in rows], pa.int64()).cast(moment),
        "created": pa.array([r["created_us"] for r in rows], pa.int64()).cast(moment),
        "valid_until_us": pa.array([r["valid_until_us"] for r in rows], pa.int64()),
        "applied_position": pa.array([r["created_us"] for r in rows], pa.int64()),
    }
    columns |= {n: pa.array([r[n] for r in rows], types[t]) for n, t in domain.feature_types.items()}
    return pa.table(columns)


class State(SimpleNamespace):
    """settings, domain, rows (as dicts), now and start (µs)."""

    def __repr__(self) -> str:
        return "State"


@pytest.fixture(scope="session")
def state(make_state: Callable[[], State]) -> State:
    """A made-up state folder that many tests read, so that none may change it."""
    return make_state()


@pytest.fixture(scope="session")
def make_state(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], State]:
    """Makes state folders for who changes them."""
    return lambda: made_up_state(tmp_path_factory.mktemp("home"))


def made_up_state(home: Path) -> State:
    """A state folder with 40 made-up people of domain saas, applied to Feast and written online.

    People with an even number have rows from `start`, +1 h, +2 h, +3 h on, each until the next one; those with an odd
    number have one row that holds for good. Online is everybody's first row.
    """
    from feature_repo.feature_store.store import apply, feature_store, write_online
    from feature_repo.lake.lake_sql import sender_bucket

    hour, domain = 3_600_000_000, domains.load("saas")
    chosen = Settings(home=home, domain="saas", online="sqlite")
    now = time.time_ns() // 1_000
    start, rows = now - hour * 3 // 2, list[dict[str, Any]]()
    for number in range(40):
        steps = 4 if number % 2 == 0 else 1
        for step in range(steps):
            until = start + (step + 1) * hour if step + 1 < steps else None
            rows.append(make_row(domain, number, start + step * hour, until, step))
    apply(chosen)
    for bucket in range(4):
        mine = sorted((r for r in rows if sender_bucket(r["user_id"], 4) == bucket), key=lambda r: r["user_id"])
        pq.write_table(offline_table(domain, mine), chosen.features / f"{bucket:04d}.parquet", row_group_size=16)
    (chosen.features / "backfill.json").write_text('{"buckets": 4}')
    write_online(
        feature_store(chosen, lineage=False), domain, offline_table(domain, [r for r in rows if r["event_us"] == start])
    )
    return State(settings=chosen, domain=domain, rows=rows, now=now, start=start)
