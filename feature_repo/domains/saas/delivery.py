"""How the simulated acts look on the wire, faults of clients and networks included."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from feature_repo.contract.feedback import VIEWED
from feature_repo.domains.saas.behaviour import Act, Acts, Ints, together
from feature_repo.domains.saas.experiment import CONTROL
from feature_repo.domains.saas.people import People, user_id
from feature_repo.vocabulary import DAY, HOUR, MINUTE, SECOND

Raw = dict[str, Any] | bytes
"""An event as it came: a JSON object, or bytes that should have been one."""

PAGES = (
    "/", "/pricing", "/features", "/blog", "/app", "/app/projects", "/app/project", "/app/reports", "/app/import",
    "/app/team", "/app/settings", "/app/billing", "/docs", "/docs/api",
)  # fmt: skip
TARGETS = (
    "new_project", "open_project", "save", "share", "filter", "export", "search", "tour_next", "menu", "upgrade",
    "notifications", "profile",
)  # fmt: skip
FEATURES = (
    "editor", "templates", "import", "charts", "comments", "dashboards", "sharing", "automation", "alerts", "api",
    "integrations", "audit_log",
)  # fmt: skip
ROLES = ("member", "viewer", "admin", "guest")
TOPICS = ("getting_started", "import", "sharing", "billing", "charts", "api")

FAULTS = ("cut_off", "unknown_field", "number_as_text", "no_sender", "no_message_id", "clock_ahead")
"""Ways in which an event can be malformed; the first act of `number_as_text` is an upload or an error."""

MALFORMED = 0.005
DUPLICATED = 0.01
LATE = 0.03
"""Shares: of all events, of all events, of sessions (whose device was off line)."""

SURE = (Act.FORM, Act.IDENTIFY, Act.SIGNED_UP, Act.SHOWN, Act.PUBLISHED, Act.VIEWED)
"""Sent by the product's own server: in time and well formed."""


@dataclass(frozen=True)
class Stream:
    """Acts in the order in which they arrive. fault: index in FAULTS, -1 none. message: 64 random bits."""

    acts: Acts
    received_us: Ints
    message: npt.NDArray[np.uint64]
    fault: Ints

    def __len__(self) -> int:
        return len(self.acts)


def send(acts: Acts, end_us: int, rng: np.random.Generator) -> Stream:
    """What has been sent and received by `end_us`, with the network's delays, retries and the clients' faults."""
    acts = acts.take(np.lexsort((acts.act, acts.ts_us, acts.person)))
    sure = np.isin(acts.act, SURE)
    received = acts.ts_us + 50_000 + rng.exponential(0.4 * SECOND, len(acts)).astype(np.int64)
    received += np.where(sure, 0, _offline(acts, rng))
    message = rng.integers(0, 2**64, len(acts), dtype=np.uint64)
    fault = np.where(sure | (rng.random(len(acts)) >= MALFORMED), -1, _faults(acts, rng))
    again = np.flatnonzero((fault < 0) & (rng.random(len(acts)) < DUPLICATED))
    retry, retried = _retries(acts.take(again), sure[again], received[again], rng)
    acts, received = together([acts, retry]), np.concatenate([received, retried])
    message, fault = np.concatenate([message, message[again]]), np.concatenate([fault, fault[again]])
    order = np.argsort(received, kind="stable")
    order = order[(received[order] < end_us) & (acts.ts_us[order] < end_us)]
    return Stream(acts.take(order), received[order], message[order], fault[order])


def _offline(acts: Acts, rng: np.random.Generator) -> Ints:
    """Delay of each act: that of its session, for a few sessions hours to days, for the others none."""
    sessions, which = np.unique(acts.session, return_inverse=True)
    late = rng.random(len(sessions)) < LATE
    delay = np.minimum(rng.exponential(10 * HOUR, len(sessions)) + 10 * MINUTE, 4 * DAY)
    return np.asarray(np.where(late, delay, 0.0).astype(np.int64)[which])


def _faults(acts: Acts, rng: np.random.Generator) -> Ints:
    typed = np.isin(acts.act, (Act.UPLOAD, Act.ERROR))
    text = FAULTS.index("number_as_text")
    others = np.array([i for i in range(len(FAULTS)) if i != text])
    return np.where(typed, text, others[rng.integers(0, len(others), len(acts))])


def _retries(acts: Acts, sure: npt.NDArray[np.bool_], received: Ints, rng: np.random.Generator) -> tuple[Acts, Ints]:
    """The same events once more, some time later; the corrected timestamp has moved a little (a server's: later)."""
    moved = rng.integers(-1500, 1500, len(acts)) * 1000 + 77
    moved = np.where(sure, np.abs(moved), moved)
    wait = 2 * SECOND + rng.exponential(2 * MINUTE, len(acts)).astype(np.int64)
    return Acts(acts.person, acts.ts_us + moved, acts.act, acts.value, acts.session), received + wait


def render(people: People, seed: int, stream: Stream, chunk: int = 20_000) -> Iterator[tuple[Raw, int]]:
    """The events as they came, each with the time of its reception (UTC microseconds)."""
    sender = _Sender(people, seed)
    for at in range(0, len(stream), chunk):
        part = slice(at, at + chunk)
        acts = stream.acts.take(np.arange(len(stream))[part])
        fault, received = stream.fault[part], stream.received_us[part]
        ahead = np.where(
            fault == FAULTS.index("clock_ahead"), 3 * DAY + stream.message[part].astype(np.int64) % (300 * DAY), 0
        )
        stamps = np.datetime_as_string((acts.ts_us + ahead).astype("datetime64[us]"), timezone="UTC")
        rows = zip(
            acts.person.tolist(), acts.act.tolist(), acts.value.tolist(), acts.ts_us.tolist(), stamps.tolist(),
            stream.message[part].tolist(), fault.tolist(), received.tolist(), strict=True,
        )  # fmt: skip
        for person, act, value, ts_us, stamp, message, bad, received_us in rows:
            event = sender.event(person, act, value, ts_us < sender.known_us[person])
            event["messageId"] = f"{message:016x}"
            event["timestamp"] = stamp
            yield (event if bad < 0 else _DAMAGE[FAULTS[bad]](event)), received_us


class _Sender:
    """Builds well-formed events; what is the same for all events of a person is built once."""

    def __init__(self, people: People, seed: int) -> None:
        n = len(people)
        rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(8)[7])
        texts = {name: values.tolist() for name, values in people.traits.items()}
        self.users = [user_id(i) for i in range(n)]
        self.anonymous = [f"{x:016x}" for x in rng.integers(0, 2**64, n, dtype=np.uint64).tolist()]
        self.known_us = (people.signup_us - SECOND // 5).tolist()
        self.elements = list(people.shown)
        self.experiment = people.experiment
        self.empty = people.fields_empty.tolist()
        self.context = [_context(texts, i) for i in range(n)]
        self.traits = [_traits(people, texts, i) for i in range(n)]
        self.plan = texts["plan"]

    def event(self, person: int, act: int, value: int, anonymous: bool) -> dict[str, Any]:
        """The event without its message id and its timestamp."""
        if act == Act.PAGE:
            event = {"type": "page", "name": "Page Viewed", "properties": {"path": PAGES[value]}}
        elif act == Act.IDENTIFY:
            event = {"type": "identify", "traits": self.traits[person]}
        else:
            name, properties = _TRACKS[act](self, person, value)
            event = {"type": "track", "event": name, "properties": properties}
        if act in _WITH_CONTEXT:
            event["context"] = self.context[person]
        if not anonymous:
            event["userId"] = self.users[person]
        event["anonymousId"] = self.anonymous[person]
        return event

    def viewed(self, treated: int) -> dict[str, Any]:
        """What somebody in the experiment, treated (1) or not (0), saw of it."""
        assert self.experiment is not None, "who is in no experiment sees none"
        variant = self.experiment.element if treated else CONTROL
        return {"experiment_id": self.experiment.name, "variation_id": variant}


_WITH_CONTEXT = {Act.PAGE, Act.IDENTIFY, Act.SIGNED_UP}

_TRACKS: dict[int, Callable[[_Sender, int, int], tuple[str, dict[str, Any]]]] = {
    Act.CLICK: lambda s, i, v: ("Clicked", {"target": TARGETS[v]}),
    Act.FEATURE: lambda s, i, v: ("Feature Used", {"feature": FEATURES[v]}),
    Act.UPLOAD: lambda s, i, v: ("File Uploaded", {"bytes": v}),
    Act.INVITE: lambda s, i, v: ("Invitation Sent", {"role": ROLES[v]}),
    Act.ERROR: lambda s, i, v: ("Error Shown", {"status": v}),
    Act.HELP: lambda s, i, v: ("Help Opened", {"topic": TOPICS[v]}),
    Act.FORM: lambda s, i, v: ("Form Submitted", {"ok": v == 0, "fields_empty": s.empty[i] + v}),
    Act.SIGNED_UP: lambda s, i, v: ("Signed Up", {"plan": s.plan[i], "fields_empty": v}),
    Act.SHOWN: lambda s, i, v: ("Element Shown", {"element": s.elements[v]}),
    Act.PUBLISHED: lambda s, i, v: ("Project Published", {}),
    Act.VIEWED: lambda s, i, v: (VIEWED, s.viewed(v)),
}


def _context(texts: dict[str, list[str]], i: int) -> dict[str, Any]:
    return {
        "device": {"type": texts["device"][i]},
        "browser": texts["browser"][i],
        "location": {"country": texts["country"][i]},
        "campaign": {"source": texts["referral"][i]},
    }


def _traits(people: People, texts: dict[str, list[str]], i: int) -> dict[str, Any]:
    """What the form asked for; an empty field is absent."""
    asked = {"role": texts["role"][i], "company_size": texts["company_size"][i], "phone": f"+{555_000_000 + i}"}
    return {"plan": texts["plan"][i]} | {k: v for k, v in asked.items() if not people.empty[k][i]}


def _cut_off(event: dict[str, Any]) -> bytes:
    line = msgspec.json.encode(event)
    return line[: len(line) * 2 // 3]


def _number_as_text(event: dict[str, Any]) -> dict[str, Any]:
    return event | {"properties": {k: str(v) for k, v in event["properties"].items()}}


def _without(event: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {k: v for k, v in event.items() if k not in fields}


_DAMAGE: dict[str, Callable[[dict[str, Any]], Raw]] = {
    "cut_off": _cut_off,
    "unknown_field": lambda e: e | {"sessionNumber": 1},
    "number_as_text": _number_as_text,
    "no_sender": lambda e: _without(e, "userId", "anonymousId"),
    "no_message_id": lambda e: _without(e, "messageId"),
    "clock_ahead": lambda e: e,
}
