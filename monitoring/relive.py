"""The live part of a run: some people's first miles once more, as somebody new's, through an unmodified SDK.

a person's events from the lake ─► Segment's Python SDK ─► the service's collector ─► decide after each ─► what is shown
                                          `──── what they did with what was shown ◄────────────────────────────┘
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from feature_repo.lake.lake import Lake
from feature_repo.progress import track
from feature_repo.settings import Settings
from feature_repo.vocabulary import DAY
from monitoring.inputs import LIVE_USER

PEOPLE, FEWEST, MOST = 8, 12, 40
"""How many people, and how many events each of them has. Half are the newest, half the newest who stayed for days."""
DAYS_US = 2 * DAY
SDK = "segment-analytics-python"
PATIENCE_S = 120
"""Seconds that the service may take to accept an event."""


class DeliveryError(RuntimeError):
    """The SDK could not deliver an event."""


@dataclass(frozen=True)
class Move:
    """Somebody entered or left a segment. by: the event of that moment; null: none, so for rules time alone moved them,
    and for what the model says the asking. cause: in words."""

    person: str
    at: str
    by: str | None
    segment: str
    source: str
    entered: bool
    cause: str


@dataclass(frozen=True)
class Shown:
    """What the last decision showed somebody first, and why; dropped: what boundaries had removed by then."""

    person: str
    element: str
    why: str
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Relived:
    """What came of it: events sent, feedback among them, decisions that lacked one, moves, what was shown last, and ms
    from sending an event to its decision."""

    people: int
    events: int
    feedback: int
    stale: int
    moves: list[Move]
    shown: list[Shown]
    milliseconds: list[float]

    def figures(self) -> dict[str, Any]:
        """For run.json: counts, and the median time from sending an event to having the decision that knows it."""
        ordered = sorted(self.milliseconds)
        p50 = round(ordered[len(ordered) // 2], 1) if ordered else None
        counts = {"people": self.people, "events": self.events, "feedback": self.feedback, "stale": self.stale}
        by_time = sum(m.by is None and m.source == "rules" for m in self.moves)
        return {"sdk": SDK} | counts | {"moves": len(self.moves), "by_time": by_time, "event_to_decision_p50_ms": p50}

    def tables(self, most: int = 30) -> list[Table]:
        """The moves, of the people with the most first, a row each; and what everybody was shown last."""
        moves = Table("person", "at", "what happened", "move", "because", title="People moving between segments")
        for m in sorted(self.moves, key=lambda m: (-self._by_time(m.person), m.person, m.at))[:most]:
            happened = m.by or ("time passed" if m.source == "rules" else "asked again")
            move = f"{'in' if m.entered else 'out of'} {m.segment}"
            moves.add_row(_short(m.person), m.at[5:16].replace("T", " "), happened, move, _brief(m.cause))
        shown = Table(
            "person", "shown first", "because", "dropped by a boundary", title="What they were shown in the end"
        )
        for x in self.shown:
            why = x.why.removeprefix(f"{x.element} ")
            shown.add_row(_short(x.person), x.element or "(nothing)", why, ", ".join(x.dropped))
        return [moves, shown]

    def _by_time(self, person: str) -> int:
        return sum(m.by is None and m.source == "rules" for m in self.moves if m.person == person)


def _short(person: str) -> str:
    return person.rsplit("-", 1)[1]


def _brief(cause: str) -> str:
    """A cause without what the model is called."""
    return re.sub(r" by \S+ version \d+: segment.*", "", cause)


def relive(settings: Settings, client: httpx.Client, run: str, console: Console) -> Relived:
    """Send the events and ask after each of them.

    Args:
        client: of the service.
        run: what the new people's ids begin with; another one for each run, so that nobody acts twice.

    Raises:
        DeliveryError: the SDK could not deliver an event. httpx.HTTPError: a request failed.
    """
    from segment.analytics.client import Client

    sdk = Client("local", host=str(client.base_url), sync_mode=True, send=True, timeout=PATIENCE_S)
    lives = list(_lives(settings))
    moves, shown, milliseconds, feedback, stale = list[Move](), list[Shown](), list[float](), 0, 0
    for number, life in enumerate(track(lives, "living", console), 1):
        person, last = f"{run}-{number}", dict[str, Any]()
        late = datetime.now(UTC) - life[-1]["at"]
        for n, event in enumerate(life):
            began = time.perf_counter()
            with _delivered():
                _send(sdk, person, event, event["at"] + late, f"{person}-{n}")
            asked = {"userId": person} | ({} if settings.log == "sqlite" else {"after": f"{person}-{n}"})
            last = client.post("/v1/decide", json=asked).raise_for_status().json()
            milliseconds.append((time.perf_counter() - began) * 1000)
            stale += last["stale"]
            with _delivered():
                feedback += _react(sdk, person, last, event["at"] + late, n)
        moves += _moves(client, person)
        shown.append(_shown(person, last))
    return Relived(len(lives), len(milliseconds) + feedback, feedback, stale, moves, shown, milliseconds)


def _react(sdk: Any, person: str, decision: dict[str, Any], at: datetime, n: int) -> int:
    """Tell what was done with the first element shown: now and then it is completed, or dismissed."""
    said = list[tuple[str, dict[str, str]]]()
    for element in decision["elements"][:1]:
        said.append(("Element Shown", {"element": element}))
        if n % 11 == 10:
            said.append(("Element Dismissed", {"element": element}))
        elif n % 7 == 6:
            said.append(("Element Completed", {"element": element}))
    said += [
        ("Experiment Viewed", {"experiment_id": v["experiment"], "variation_id": v["variant"]})
        for v in decision["experiments"]
    ]
    for number, (name, what) in enumerate(said):
        what |= {"decision_id": decision["decisionId"]}
        sdk.track(person, name, what, timestamp=at, message_id=f"{person}-{n}-{number}")
    return len(said)


def _moves(client: httpx.Client, person: str) -> list[Move]:
    """The changes of somebody's segments, each with the event of that moment."""
    held = client.get(f"/v1/users/{person}").raise_for_status().json()
    events = {e["timestamp"]: e["name"] or e["type"] for e in held["events"]}
    return [
        Move(person, c["at"], events.get(c["at"]), c["segment"], c["source"], c["entered"], c["cause"])
        for c in held["segments"]
        if not c["takenBack"]
    ]


def _shown(person: str, decision: dict[str, Any]) -> Shown:
    first = (decision["elements"] or [""])[0]
    why = next((r for r in decision["reasons"] if first and r.startswith(f"{first} ")), decision["reasons"][-1])
    return Shown(person, first, why, tuple(f"{d['element']} ({d['boundary']})" for d in decision["dropped"]))


@contextmanager
def _delivered() -> Iterator[None]:
    """Name an error of the SDK.

    Raises:
        DeliveryError: an event was not accepted.
    """
    from requests import RequestException
    from segment.analytics.request import APIError

    try:
        yield
    except (RequestException, APIError) as error:
        raise DeliveryError(f"{SDK} could not deliver an event ({type(error).__name__}: {error})") from error


def _lives(settings: Settings) -> Iterator[list[dict[str, Any]]]:
    """The first events of the people who came last, in order: type, name, at, properties, traits, context."""
    import ibis

    con = ibis.duckdb.connect()
    con.create_view("lake", Lake(settings.lake).events(con))
    who = f"""select user_id from (select user_id, ts_us, row_number() over (partition by user_id order by ts_us) as n
        from lake where user_id is not null and not regexp_full_match(user_id, '{LIVE_USER}')) where n <= {MOST}
        group by user_id having count(*) >= {FEWEST} and max(ts_us) - min(ts_us)"""
    order = f"order by min(ts_us) desc, user_id limit {PEOPLE // 2}"
    newest = con.raw_sql(f"({who} < {DAYS_US} {order}) union all ({who} >= {DAYS_US} {order})").fetchall()
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
