"""Households: a few users and devices of one client each, which sends, asks and erases, and knows what has to be held.

Nothing that a household does depends on another one, and it does one thing after the other. So it knows what every
answer has to be, whatever is killed meanwhile, but for the batch whose answer it never got (`doubtful`).
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from feature_repo.contract.events import ANONYMOUS, Event, canonical_json, parse
from feature_repo.history.history_store import content_hash
from feature_repo.vocabulary import DAY, HOUR, MINUTE, SECOND
from tests.e2e.processes import NAMES, SAAS
from tests.feature_repo import oracle

EDGES = ("identify", "alias")
PATIENCE_S = 240.0
"""How long a client tries while the service is away."""
MOST_PAUSE_S = 0.2
"""The longest pause between two things that a household does."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Sent = dict[str, Any]


def rfc3339(at_us: int) -> str:
    return (EPOCH + timedelta(microseconds=at_us)).isoformat()


def microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def sender_of(row: oracle.Row) -> str:
    return str(row["user_id"] or f"{ANONYMOUS}{row['anonymous_id']}")


def row_of(event: Event) -> oracle.Row:
    """An event as the oracle takes it, with the content's hash, which decides among copies of the same time."""
    found = {f: getattr(event, f) for f in ("message_id", "type", "name", "user_id", "anonymous_id", "ts_us")}
    documents = {d: canonical_json(getattr(event, d)).decode() for d in ("properties", "traits", "context")}
    ids = (event.type, event.name, event.user_id, event.anonymous_id)
    return found | documents | {"content_hash": content_hash(*ids, *documents.values())}


def counting(rows: list[oracle.Row]) -> list[oracle.Row]:
    """Of the copies of each message the one that counts: the earliest, then that of the smallest hash."""
    best: dict[tuple[str, str], oracle.Row] = {}
    for row in rows:
        key = sender_of(row), row["message_id"]
        best[key] = min(best.get(key, row), row, key=lambda r: (r["ts_us"], r["content_hash"]))
    return list(best.values())


def features(rows: list[oracle.Row], key: str, at_us: int) -> oracle.Row | None:
    """The features of a user key at a time, by all copies that were taken."""
    return oracle.row(counting(rows), SAAS, key, at_us)


def linked_to(rows: list[oracle.Row], device: str, at_us: int) -> str:
    """The user key that an anonymous id stands for at a time."""
    links = sorted((r["ts_us"], r["message_id"], r["user_id"]) for r in counting(rows)
                   if r["type"] in EDGES and r["anonymous_id"] == device and r["ts_us"] <= at_us)  # fmt: skip
    return str(links[-1][2]) if links else f"{ANONYMOUS}{device}"


@dataclass
class Decided:
    """A decision, and the rows that it had to know; `doubtful`: those that it may have known."""

    decision_id: str
    at_us: int
    key: str
    rows: list[oracle.Row]
    doubtful: list[oracle.Row]
    erasures: int


@dataclass
class Household:
    """Three users who share a device, an anonymous visitor, and a user who opts out and in.

    rows: every copy that is held. refused: message ids of events that the quarantine has. out: who has opted out.
    gone: the keys of who was erased.
    """

    name: str
    url: str
    now_us: Callable[[], int]
    chance: random.Random
    tell: Callable[..., None]
    rows: list[oracle.Row] = field(default_factory=list)
    refused: dict[str, Sent] = field(default_factory=dict)
    out: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    decided: list[Decided] = field(default_factory=list)
    doubtful: list[Sent] = field(default_factory=list)
    erasures: int = 0
    _n: int = 0
    _sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.users = [self.an_id(f"user{n}") for n in range(3)]
        self.own = {u: self.an_id(f"device{n}") for n, u in enumerate(self.users)}
        self.quiet, self.shared, self.visitor = map(self.an_id, ("quiet", "shared", "visitor"))
        self.devices = [*self.own.values(), self.shared, self.visitor]

    def an_id(self, kind: str) -> str:
        """An id that no compression can make of other ids."""
        return f"{kind}-{self.name}-{self.chance.randbytes(4).hex()}"

    @property
    def keys(self) -> list[str]:
        """Everybody who may have features."""
        return [*self.users, self.quiet, *(f"{ANONYMOUS}{d}" for d in self.devices)]

    def live(self, over: threading.Event) -> None:
        """Do one thing after the other until it is over."""
        acts = (self.send, self.decide, self.look, self.erase, self.opt)
        with httpx.Client(base_url=self.url, timeout=60, verify=False) as self.client:
            while not over.wait(self.chance.uniform(0, MOST_PAUSE_S)):
                self.chance.choices(acts, (60, 20, 8, 2, 5))[0]()

    # events

    def send(self) -> None:
        if self.doubtful and self.chance.random() < 0.7:
            self.settle()
        batch = [self.event() for _ in range(self.chance.randint(1, 6))]
        giving_up = not self.doubtful and self.chance.random() < 0.5
        if giving_up:  # what is only perhaps there has to be new, so that it can be told by its ids
            batch = [self.fresh() for _ in batch]
        self.deliver(batch, giving_up)

    def event(self) -> Sent:
        return self.chance.choices((self.fresh, self.again, self.wrong), (70, 20, 10))[0]()

    def fresh(self) -> Sent:
        """A new event of somebody, of now, of before, or of a device whose clock is ahead."""
        self._n += 1
        user = self.chance.choice([*self.users, self.quiet])
        device = None if user == self.quiet else self.chance.choice([self.own[user], self.own[user], self.shared])
        kind = self.chance.choices(("track", "page", "identify", "alias"), (60, 15, 15, 10))[0]
        sent: Sent = {"type": kind, "messageId": f"m-{self.name}-{self._n}", "timestamp": rfc3339(self.moment())}
        if kind in EDGES and device:
            sent |= {"userId": user, "anonymousId": device}
        elif kind in EDGES:
            sent |= {"type": "identify", "userId": user}
        elif (whose := self.chance.random()) < 0.15:
            sent |= {"anonymousId": self.visitor}
        elif whose < 0.5 and device:
            sent |= {"anonymousId": device}
        else:
            sent |= {"userId": user} | ({"anonymousId": device} if device and whose < 0.75 else {})
        if sent["type"] == "track":
            sent |= {"event": self.chance.choice(NAMES), "properties": {"feature": f"f{self.chance.randrange(4)}"}}
        elif sent["type"] == "page":
            sent |= {"name": "Pricing"}
        elif sent["type"] == "identify":
            sent |= {"traits": {"plan": self.chance.choice(["free", "pro"])}}
        self._sent.append(sent)
        return sent

    def moment(self) -> int:
        if self.rows and self.chance.random() < 0.1:  # at the same microsecond as another one
            return int(self.chance.choice(self.rows)["ts_us"])
        back = self.chance.choice([0, 0, SECOND, MINUTE, HOUR, 25 * HOUR, 8 * DAY, 40 * DAY, 200 * DAY, -HOUR])
        return self.now_us() - back - self.chance.randrange(SECOND)

    def again(self) -> Sent:
        """A copy of something that was sent before: exact, of another time, or with other content."""
        if not self._sent:
            return self.fresh()
        sent = dict(self.chance.choice(self._sent[-40:]))
        how = self.chance.randrange(4)
        if how == 1:
            moved = microseconds(sent["timestamp"]) + self.chance.choice([-HOUR, -1, 1, HOUR])
            sent["timestamp"] = rfc3339(moved)
        elif how == 2 and sent["type"] == "track":
            sent |= {"event": self.chance.choice(NAMES), "properties": {"feature": f"g{self.chance.randrange(4)}"}}
        return sent

    def wrong(self) -> Sent:
        """An event that the contract refuses."""
        faults = ({"event": "No Such Event"}, {"type": "walk"}, {"properties": 5}, {"timestamp": "soon"},
                  {"timestamp": "1999-12-31T00:00:00Z"}, {"timestamp": "2999-01-01T00:00:00Z"})  # fmt: skip
        self._n += 1
        whose = self.chance.choice([{"userId": u} for u in self.users] + [{"anonymousId": d} for d in self.devices])
        sent = {"type": "track", "event": NAMES[0], "messageId": f"m-{self.name}-{self._n}"}
        return sent | {"timestamp": rfc3339(self.now_us())} | whose | self.chance.choice(faults)

    def settle(self) -> None:
        """Send what is doubtful until it is answered."""
        batch, self.doubtful = self.doubtful, []
        if batch:
            self.deliver(batch, cut=True)

    def deliver(self, batch: list[Sent], giving_up: bool = False, cut: bool = False) -> None:
        """Send until it is answered with 200; or never again once an answer failed to come, where it gives up."""
        for _ in self.tries():
            try:
                answer = self.client.post("/v1/batch", json={"batch": batch})
            except httpx.TransportError:
                cut = True
                if giving_up:
                    self.tell(self.name, "gave up on", batch)
                    self.doubtful = batch
                    return
                continue
            assert answer.status_code in (200, 429, 503), answer.text
            if answer.status_code == 200:
                receipts = answer.json()["receipts"]
                told = [f"{r['status']} {r.get('reason', r.get('copy', ''))}".strip() for r in receipts]
                self.tell(self.name, "sent, cut before" if cut else "sent", list(zip(batch, told, strict=True)))
                return self.answered(batch, receipts, cut)
        raise AssertionError("the service did not come back")

    def tries(self) -> Iterator[None]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            yield
            time.sleep(0.05)

    def answered(self, batch: list[Sent], receipts: list[dict[str, Any]], cut: bool) -> None:
        """Hold the receipts to what they have to be, and know what is held from now on."""
        before = {(sender_of(r), r["message_id"]) for r in self.rows}
        for sent, receipt in zip(batch, receipts, strict=True):
            judged = self.judged(sent)
            if isinstance(judged, str):
                assert (receipt["status"], receipt["reason"]) == ("refused", judged), (sent, receipt)
                if judged not in ("erased", "opted_out"):
                    self.refused[sent["messageId"]] = sent
                continue
            key = sender_of(judged), judged["message_id"]
            wanted = ("accepted", "duplicate") if cut else ("duplicate" if key in before else "accepted",)
            assert receipt["status"] in wanted, (sent, receipt, wanted)
            before.add(key)
            self.rows.append(judged)

    def judged(self, sent: Sent) -> oracle.Row | str:
        """The row that an event is kept as, or the reason for which it is not."""
        event = parse(sent, SAAS, self.now_us())
        user, anonymous = sent.get("userId"), f"{ANONYMOUS}{sent.get('anonymousId')}"
        if user in self.out:
            return "opted_out"
        if not isinstance(event, Event):
            return "erased" if user in self.gone or anonymous in self.gone else str(event.reason)
        speaks = event.user_id is None or event.type in EDGES
        return "erased" if user in self.gone or (speaks and anonymous in self.gone) else row_of(event)

    def told(self, held: set[tuple[str, str]]) -> None:
        """What is doubtful is there or is not, as a whole. held: (sender, message id) of every event that there is."""
        rows = [row for row in map(self.judged, self.doubtful) if not isinstance(row, str)]
        there = [row for row in rows if (sender_of(row), row["message_id"]) in held]
        assert there in ([], rows), f"half of a batch is there: {there} of {rows}"
        self.rows, self.doubtful = self.rows + there, []

    # questions

    def decide(self) -> None:
        device = self.chance.choice([None, *self.devices])
        user = None if device else self.chance.choice([*self.users, self.quiet])
        asked = {"anonymousId": device} if device else {"userId": user}
        found = self.ask("POST", "/v1/decide", json=asked).json()
        at_us = microseconds(found["at"])
        key = found["userId"] or f"{ANONYMOUS}{found['anonymousId']}"
        self.tell(self.name, "decided for", asked, key, "stale" if found["stale"] else found["decisionId"])
        if found["stale"]:
            return
        perhaps = [row for row in map(self.judged, self.doubtful) if not isinstance(row, str)]
        wanted = {linked_to(rows, device, at_us) if device else user for rows in (self.rows, self.rows + perhaps)}
        assert key in wanted, (found, wanted)
        if key in self.gone:
            assert not found["known"], found
        elif key in self.out:
            assert not found["known"] and found["reasons"][0].startswith("opted out"), found
        else:
            self.decided.append(Decided(found["decisionId"], at_us, key, list(self.rows), perhaps, self.erasures))

    def look(self) -> None:
        """What is held of a user: all of their events, and none that was never sent."""
        user = self.chance.choice([*self.users, self.quiet])
        answer = self.ask("GET", f"/v1/users/{user}", (200, 404, 410))
        self.tell(self.name, "looked at", user, answer.status_code)
        assert (answer.status_code == 410) == (user in self.gone), answer.text
        known = counting(self.rows)
        own = {r["message_id"] for r in known if r["user_id"] == user}
        if answer.status_code == 404:
            assert not own, own
        if answer.status_code == 200:
            perhaps = {sent["messageId"] for sent in self.doubtful}
            found = [(e["userId"], e["messageId"]) for e in answer.json()["events"]]
            assert len(set(found)) == len(found), found
            assert {m for u, m in found if u == user} - perhaps == own, (found, own)
            assert {m for _, m in found} - perhaps <= {r["message_id"] for r in known}, found

    def ask(self, method: str, path: str, statuses: tuple[int, ...] = (200,), **options: Any) -> httpx.Response:
        for _ in self.tries():
            try:
                answer = self.client.request(method, path, **options)
            except httpx.TransportError:
                continue
            if answer.status_code != 503:
                assert answer.status_code in statuses, (method, path, answer.status_code, answer.text)
                return answer
        raise AssertionError(f"{method} {path}: the service did not come back")

    def opt(self) -> None:
        """The quiet user opts out, or in again."""
        out = self.quiet not in self.out
        self.settle()
        self.ask("PUT" if out else "DELETE", f"/v1/users/{self.quiet}/opt-out", (204,))
        self.tell(self.name, "opted out" if out else "opted in", self.quiet)
        (self.out.add if out else self.out.discard)(self.quiet)

    # erasing

    def erase(self) -> None:
        """Somebody is erased for good; their devices go on sending."""
        self.settle()
        alive = [u for u in self.users if u not in self.gone]
        if self.chance.random() < 0.2 or len(alive) < 2:
            self.erased(f"/v1/anonymous/{self.visitor}", f"{ANONYMOUS}{self.visitor}")
        else:
            user = self.chance.choice(alive)
            self.erased(f"/v1/users/{user}", user)

    def erased(self, path: str, key: str) -> None:
        for _ in self.tries():
            answer = self.ask("DELETE", path, (200, 202))
            self.tell(self.name, "asked to erase", key, answer.status_code, answer.json()["pending"])
            if answer.status_code == 200:
                break
        else:
            raise AssertionError(f"{key} is not erased in time")
        self.erasures += 1
        known = counting(self.rows)
        gone, messages = {key}, set[tuple[str, str]]()
        for device in {r["anonymous_id"] for r in known if r["user_id"] == key and r["type"] in EDGES} - {None}:
            if any(r["anonymous_id"] == device and r["user_id"] not in (None, key) for r in known):
                whose = [r for r in known if r["anonymous_id"] == device and r["user_id"] is None]
                messages |= {(sender_of(r), r["message_id"]) for r in whose
                             if oracle.owner(r, known, 2**62) == key}  # fmt: skip
            else:
                gone.add(f"{ANONYMOUS}{device}")
        self.gone |= gone
        self.rows = [r for r in self.rows
                     if sender_of(r) not in gone and (sender_of(r), r["message_id"]) not in messages]  # fmt: skip
        ids = {g.removeprefix(ANONYMOUS) for g in gone}
        self.refused = {m: s for m, s in self.refused.items() if not ids & set(map(str, s.values()))}

    def forgotten(self) -> list[str]:
        """The ids that nothing may hold any more: who was erased, but for devices that others have named since."""
        named = {r["anonymous_id"] for r in self.rows} | {s.get("anonymousId") for s in self.refused.values()}
        return [g.removeprefix(ANONYMOUS) for g in self.gone if g.removeprefix(ANONYMOUS) not in named]

    # what came out

    def as_served(self, logged: dict[str, dict[str, Any]]) -> int:
        """Hold the decisions in the log to the definition; returns how many there were. logged: rows by decision id."""
        seen = 0
        for decided in self.decided:
            row = logged.get(decided.decision_id)
            if row is None:  # lost with the last moments before a kill, or erased
                continue
            seen += 1
            if row["features"] is None and decided.erasures < self.erasures:
                continue
            served = json.loads(row["features"] or "null") or None
            wanted = [features(decided.rows + more, decided.key, decided.at_us) for more in ([], decided.doubtful)]
            found = served and {name: served[name] for name in SAAS.feature_types}
            what = (decided.decision_id, decided.key, decided.at_us, row["reasons"])
            assert found in wanted, (*what, differing(found, wanted[0]))
        return seen


def differing(found: oracle.Row | None, wanted: oracle.Row | None) -> dict[str, Any]:
    names = [*(found or {}), *(n for n in wanted or {} if n not in (found or {}))]
    pairs = {n: ((found or {}).get(n), (wanted or {}).get(n)) for n in names}
    return {n: pair for n, pair in pairs.items() if pair[0] != pair[1]} or {"row": (found, wanted)}
