"""The live part of a run: some people's first miles once more, as somebody new's, through an unmodified SDK.

a person's events from the lake ─► Segment's Python SDK ─► the service's collector ─► decide after each ─► who moved
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from feature_repo.lake import Lake
from feature_repo.settings import Settings

PEOPLE, FEWEST, MOST = 8, 12, 40
"""How many people, and how many events each of them has."""
SDK = "segment-analytics-python"


@dataclass(frozen=True)
class Move:
    """A change of segment that an event brought; None: not scored yet."""

    person: str
    event: str
    before: str | None
    after: str | None
    score: float | None


@dataclass(frozen=True)
class Relived:
    """What came of it: events sent, decisions that lacked one, moves, and ms from sending an event to its decision."""

    people: int
    events: int
    stale: int
    moves: list[Move]
    milliseconds: list[float]

    def figures(self) -> dict[str, Any]:
        """For run.json: counts, and the median time from sending an event to having the decision that knows it."""
        ordered = sorted(self.milliseconds)
        p50 = round(ordered[len(ordered) // 2], 1) if ordered else None
        counts = {"people": self.people, "events": self.events, "stale": self.stale, "moves": len(self.moves)}
        return {"sdk": SDK} | counts | {"event_to_decision_p50_ms": p50}

    def table(self, most: int = 20) -> Table:
        """The first moves, a row each."""
        shown = Table("person", "event", "segment before", "after", "score", title="Segments changing as events arrive")
        for m in self.moves[:most]:
            score = "" if m.score is None else f"{m.score:.3f}"
            shown.add_row(
                m.person.rsplit("-", 1)[1],
                m.event,
                m.before or "(default journey)",
                m.after or "(default journey)",
                score,
            )
        return shown


def relive(settings: Settings, url: str, run: str, console: Console) -> Relived:
    """Send the events and ask after each of them.

    Args:
        url: of the service.
        run: what the new people's ids begin with; another one for each run, so that nobody acts twice.

    Raises:
        RuntimeError: the SDK could not deliver an event.
    """
    from segment.analytics.client import Client

    sdk = Client("local", host=url, sync_mode=True, send=True, max_retries=3, on_error=_undelivered)
    lives = list(_lives(settings))
    moves, milliseconds, events, stale = list[Move](), list[float](), 0, 0
    with httpx.Client(base_url=url) as client:
        for number, life in enumerate(track(lives, "living", console=console, transient=True), 1):
            person, before = f"{run}-{number}", None
            late = datetime.now(UTC) - life[-1]["at"]
            for n, event in enumerate(life):
                began = time.perf_counter()
                _send(sdk, person, event, event["at"] + late, f"{person}-{n}")
                asked = {"userId": person} | ({} if settings.log == "sqlite" else {"after": f"{person}-{n}"})
                decision = client.post("/v1/decide", json=asked).raise_for_status().json()
                milliseconds.append((time.perf_counter() - began) * 1000)
                events, stale = events + 1, stale + decision["stale"]
                if decision["segment"] != before:
                    name = event["name"] or event["type"]
                    moves.append(Move(person, name, before, decision["segment"], decision["score"]))
                    before = decision["segment"]
    return Relived(len(lives), events, stale, moves, milliseconds)


def _undelivered(error: Exception, items: Any) -> None:
    raise RuntimeError(f"the SDK could not deliver {len(items)} events: {error}") from error


def _lives(settings: Settings) -> Iterator[list[dict[str, Any]]]:
    """The first events of the people who came last, in order: type, name, at, properties, traits, context."""
    import ibis

    con = ibis.duckdb.connect()
    con.create_view("lake", Lake(settings.lake).events(con))
    newest = con.raw_sql(f"""select user_id from lake where user_id is not null and user_id not like 'live-%'
        group by user_id having count(*) >= {FEWEST} order by min(ts_us) desc, user_id limit {PEOPLE}""").fetchall()
    for (user,) in newest:
        rows = con.raw_sql(f"""select type, name, ts_us, properties, traits, context from lake
            where user_id = '{user.replace("'", "''")}' order by ts_us, message_id limit {MOST}""").fetchall()
        yield [
            {"type": t, "name": n, "at": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)}
            | {k: json.loads(d) for k, d in zip(("properties", "traits", "context"), documents, strict=True)}
            for t, n, us, *documents in rows
        ]
    con.disconnect()


def _send(sdk: Any, person: str, event: dict[str, Any], at: datetime, message_id: str) -> None:
    """One event with the SDK's call for its type."""
    common = {"context": event["context"], "timestamp": at, "message_id": message_id}
    match event["type"]:
        case "identify":
            sdk.identify(person, event["traits"], **common)
        case "track":
            sdk.track(person, event["name"], event["properties"], **common)
        case "page" | "screen" as kind:
            getattr(sdk, kind)(person, None, event["name"], event["properties"], **common)
        case _:
            sdk.group(person, person, event["traits"], **common)
