"""What is sent: made-up people of domain `saas`, as an SDK puts their events on the wire, and their pasts in bulk.

Everybody begins anonymously on a device, is identified by the second event, and goes on with both ids. A few events
come late. How late is far from every window's length, so that no window ends while something is compared.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from feature_repo.contract.events import ANONYMOUS, Event
from feature_repo.settings import now_us
from serving.times import rfc3339

LATE_US = (4_000_000_000, 90_000_000_000)
LATE = 0.02
"""Share of events that come late."""
EACH = 100
"""Events of one request."""
DAY_US = 86_400_000_000
NAMES = ("Clicked", "Clicked", "Feature Used", "Clicked", "File Uploaded", "Help Opened", "Clicked", "Feature Used")
PROPERTIES: dict[str, dict[str, Any]] = {
    "Clicked": {"target": "save"},
    "Feature Used": {"feature": "editor"},
    "File Uploaded": {"bytes": 12_345},
    "Help Opened": {"topic": "import"},
}


def device(user: str) -> str:
    """The anonymous id of a person."""
    return f"device-{user}"


def senders(user: str) -> list[str]:
    """Whose events can be a person's."""
    return [user, f"{ANONYMOUS}{device(user)}"]


def wire(user: str, n: int, ts_us: int, message: str) -> dict[str, Any]:
    """A person's n-th event."""
    ids = {"anonymousId": device(user)} | ({"userId": user} if n else {})
    common = ids | {"messageId": message, "timestamp": rfc3339(ts_us), "context": {"device": {"type": "phone"}}}
    if n == 1:
        return common | {"type": "identify", "traits": {"plan": "free"}}
    if n % 5 == 0:
        return common | {"type": "page", "name": "/app", "properties": {"path": "/app"}}
    name = "Signed Up" if n == 2 else NAMES[n % len(NAMES)]
    return common | {"type": "track", "event": name, "properties": PROPERTIES.get(name, {})}


def click(user: str, message: str, ts_us: int | None = None) -> dict[str, Any]:
    """A click; ts_us: when, by default now."""
    ids = {"userId": user, "messageId": message, "timestamp": rfc3339(ts_us or now_us())}
    return ids | {"type": "track", "event": "Clicked", "properties": PROPERTIES["Clicked"]}


def clicked(user: str, message: str) -> Event:
    """The same of now, as the contract has it."""
    return Event("track", message, user, None, now_us(), now_us(), "Clicked", PROPERTIES["Clicked"], {}, {})


def crowd(run: str, people: int) -> list[str]:
    """Ids of people whom nobody has seen; run: what makes them other people than those of before."""
    return [f"{run}-{number}" for number in range(people)]


def events(run: str, users: list[str], many: int, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Events of people in turn as chance has it, all of about now."""
    chance, seen, start = Random(seed), Counter[str](), now_us()
    for number in range(many):
        user = chance.choice(users)
        late = chance.choice(LATE_US) if chance.random() < LATE else 0
        yield wire(user, seen[user], start + number - late, f"{run}:{number}")
        seen[user] += 1


def write_bodies(path: Path, sent: Iterable[dict[str, Any]], each: int = EACH) -> int:
    """A file of the bodies of POST /v1/batch, `each` events in one; returns how many bodies."""
    bodies, left = 0, iter(sent)
    with path.open("wb") as file:
        while batch := list(islice(left, each)):
            file.write(msgspec.json.encode({"batch": batch}) + b"\n")
            bodies += 1
    return bodies


def past(user: str, many: int, until_us: int) -> Iterator[Event]:
    """So many events in the 12 days before a time, the last one an hour before it, in order."""
    begun, step = until_us - 12 * DAY_US, (12 * DAY_US - 3_600_000_000) // many
    for n in range(many):
        at, name = begun + step * (n + 1), "Signed Up" if n == 0 else NAMES[n % len(NAMES)]
        yield Event("track", f"{n:09}", user, None, at, at, name, PROPERTIES.get(name, {}), {}, {})
