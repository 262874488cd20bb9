"""What one would do instead: counters kept by hand, and Feast's own ways to get a row online, in its own SQLite store.

The view has the same features with the same types. What Feast is given is worth less than what the service makes: the
counters know nothing of copies, of late events, of identity, or of a window that ends; and nothing is durable but the
row itself.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from monitoring.live import free_port
from tests.bench.contenders import SCRIPTS, server

SOURCE, VIEW = "events", "by_hand"
DAY_S = 86_400.0
GAP_S = 1_800.0
EMPTY: dict[str, Any] = {"int64": 0, "float64": 0.0, "string": ""}
ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
COUNTERS = {
    "Clicked": ("clicks", "interactions"),
    "Feature Used": ("feature_uses", "interactions"),
    "File Uploaded": ("uploads", "interactions"),
    "Help Opened": ("help_opened", "interactions"),
}


class Person:
    """What is kept of one person."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.features: set[str] = set()
        self.day: deque[float] = deque()
        self.last: float | None = None


class ByHand:
    """Event in, row out, as one would write it in an afternoon."""

    def __init__(self, domain: Domain) -> None:
        self._empty = {name: EMPTY[kind] for name, kind in domain.feature_types.items()}
        self._people: defaultdict[str, Person] = defaultdict(Person)

    def row(self, event: dict[str, Any]) -> dict[str, Any]:
        """The person's row after an event on the wire."""
        user = event.get("userId") or event["anonymousId"]
        at = datetime.fromisoformat(event["timestamp"])
        person = self._people[user]
        self._count(person, event, at.timestamp())
        values = self._empty | person.counters | {"device": event.get("context", {}).get("device", {}).get("type", "")}
        values |= {"features_used": len(person.features), "interactions_24h": len(person.day)}
        return {"user_id": user, "event_timestamp": at} | values

    def _count(self, person: Person, event: dict[str, Any], at: float) -> None:
        counters, properties = person.counters, event.get("properties", {})
        for name in COUNTERS.get(event.get("event", ""), ("pages",) if event["type"] == "page" else ()):
            counters[name] += 1
        counters["upload_bytes"] += properties.get("bytes", 0)
        if "feature" in properties:
            person.features.add(properties["feature"])
        counters["sessions"] += person.last is None or at - person.last > GAP_S
        counters["session_time"] += int((at - person.last) * 1000) if person.last and at - person.last <= GAP_S else 0
        counters["last_event_us"] = int(at * 1e6)
        person.last = at
        person.day.append(at)
        while person.day[0] <= at - DAY_S:
            person.day.popleft()


class Feast:
    """A Feast repository of its own with a push source, made and applied in an empty folder."""

    def __init__(self, folder: Path, domain: Domain) -> None:
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType

        from feature_repo.feature_store.definitions import DTYPES

        folder.mkdir(parents=True)
        types = domain.feature_types
        self.yaml = folder / "feature_store.yaml"
        config = {
            "project": "naive",
            "provider": "local",
            "registry": str(folder / "registry.db"),
            "online_store": {"type": "sqlite", "path": str(folder / "online.db")},
            "offline_store": {"type": "duckdb"},
            "entity_key_serialization_version": 3,
        }
        self.yaml.write_text(yaml.safe_dump(config))
        moment = pa.timestamp("us", "UTC")
        columns = {"user_id": pa.string(), "event_timestamp": moment} | {n: ARROW[t] for n, t in types.items()}
        pq.write_table(pa.schema(columns).empty_table(), folder / "rows.parquet")
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
        files = FileSource(name="rows", path=str(folder / "rows.parquet"), timestamp_field="event_timestamp")
        source = PushSource(name=SOURCE, batch_source=files)
        fields = [Field(name=n, dtype=DTYPES[t]) for n, t in types.items()]
        view = FeatureView(name=VIEW, entities=[user], schema=fields, source=source, online=True)
        self.store = FeatureStore(config=RepoConfig(**config, repo_path=folder))
        self.store.apply([user, files, source, view])

    def push(self, rows: list[dict[str, Any]]) -> None:
        """`store.push`."""
        self.store.push(SOURCE, pd.DataFrame(rows))

    def write(self, rows: list[dict[str, Any]]) -> None:
        """`store.write_to_online_store`, of several rows of a person the last one."""
        newest = {row["user_id"]: row for row in rows}
        self.store.write_to_online_store(VIEW, pd.DataFrame(list(newest.values())))

    def clicks(self, user: str) -> int | None:
        """What is online of a person."""
        found = self.store.get_online_features([f"{VIEW}:clicks"], [{"user_id": user}]).to_dict()
        value: int | None = found["clicks"][0]
        return value


class Pusher:
    """`feast serve`'s /push."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def push(self, row: dict[str, Any]) -> None:
        """One row.

        Raises:
            RuntimeError: it was refused.
        """
        columns = {name: [value] for name, value in row.items()}
        columns["event_timestamp"] = [row["event_timestamp"].astimezone(UTC).isoformat()]
        body = {"push_source_name": SOURCE, "df": columns, "to": "online"}
        answer = self._client.post("/push", json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"feast serve: expected 200, came {answer.status_code}: {answer.text[:500]}")


@contextmanager
def feast_serve(feast: Feast, settings: Settings) -> Iterator[Pusher]:
    """`feast serve` over the repository while the block runs, with what makes it faster, as in contenders.py."""
    port, folder = free_port(), feast.yaml.parent
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    options += ["--no-access-log", "--max-requests", "0", "--max-requests-jitter", "0"]
    command = [str(SCRIPTS / "feast"), "-f", str(feast.yaml), "serve", *options]
    with (
        server(command, settings, port, "/health", folder),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield Pusher(client)
