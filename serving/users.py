"""What single people can ask: GET and DELETE /v1/users/{id}, PUT and DELETE .../opt-out, GET .../why.

lake and log ─► profile, events   online store ─► features   journal ─► segments   decision log ─► decisions
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from feature_repo import domains
from feature_repo.contract.events import ANONYMOUS, ids_of
from feature_repo.erasing import erasure
from feature_repo.erasing.erasure import KnownError
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.lake import held, user_events
from feature_repo.lake.quarantine import Quarantine, as_json
from feature_repo.settings import Settings, now_us
from serving import decision_log
from serving.asgi import Answer, Refused
from serving.collect.request import parameters
from serving.consent import Consent
from serving.decide import Model
from serving.erasing import Erasing
from serving.features import APPLIED, VALID_UNTIL, OnlineFeatures
from serving.schema import DroppedElement
from serving.segments.channels.dead_letters import DeadLetters, Letter, folder
from serving.segments.journal import FILE, changes_of
from serving.segments.keeper import Keeper
from serving.times import rfc3339
from serving.why.route import Reasons

_log = logging.getLogger("bentoml.serve.firstmile")
PATH, ANONYMOUS_USERS = "/v1/users/", "/v1/anonymous/"
"""The routes by user id, and those by an anonymous id that was not identified."""
OPT_OUT, WHY = "/opt-out", "/why"
METHODS = {"": ("GET", "DELETE"), OPT_OUT: ("PUT", "DELETE"), WHY: ("GET",)}
"""What follows the id, and what it takes."""
LIMIT, MOST, LONGEST = 1_000, 10_000, 256
Time = Annotated[str, Meta(description="RFC 3339, microseconds, UTC.")]


class Profile(msgspec.Struct, frozen=True, rename="camel"):
    """Who it is."""

    user_id: Annotated[str | None, Meta(description="null: an anonymous user.")]
    anonymous_id: Annotated[str | None, Meta(description="The anonymous user's; null: a known one.")]
    traits: Annotated[dict[str, Any], Meta(description="The last value of each.")]
    aliases: Annotated[list[str], Meta(description="Anonymous ids that were identified as this person.")]
    unverified: Annotated[
        list[str],
        Meta(
            description="Anonymous ids that only a key that browsers hold, without a signature, said to be this "
            "person's: their events are not in here. Ask for each by its anonymous id."
        ),
    ]


class HeldEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An event, the copy of it that counts."""

    message_id: str
    type: str
    name: str | None
    user_id: str | None
    anonymous_id: str | None
    timestamp: Time
    received_at: Time
    position: Annotated[int, Meta(description="In the event log.")]
    properties: dict[str, Any]
    traits: dict[str, Any]
    context: dict[str, Any]


class HeldFeatures(msgspec.Struct, frozen=True, rename="camel"):
    """The stored features."""

    at: Annotated[str, Meta(description="Since when they have these values: RFC 3339, UTC.")]
    valid_until: Annotated[str | None, Meta(description="When they next change with no new event; null: they do not.")]
    values: dict[str, Any]


class HeldChange(msgspec.Struct, frozen=True, rename="camel"):
    """The person entered or left a segment."""

    at: Time
    segment: str
    source: Annotated[str, Meta(description="`rules`, `engagement` or `personas`.")]
    entered: bool
    cause: str
    taken_back: Annotated[bool, Meta(description="Whether a later event showed that it was otherwise.")]


class HeldDecision(msgspec.Struct, frozen=True, rename="camel"):
    """A decision as it was logged, with everything that it was made from."""

    decision_id: str
    at: Time
    user_id: Annotated[str | None, Meta(description="null: an anonymous user.")]
    anonymous_id: Annotated[str | None, Meta(description="The anonymous user's; null: a known one.")]
    known: Annotated[bool, Meta(description="Whether features of theirs were found.")]
    unavailable: Annotated[str | None, Meta(description="Why features could not be read; null: they could.")]
    segment: str | None
    segments: list[str]
    persona: str | None
    variants: Annotated[Any, Meta(description="Of experiments, with what they showed and hid.")]
    holdout: Annotated[bool | None, Meta(description="Whether they are among those who are shown the default.")]
    situation: Annotated[Any, Meta(description="What rules and policy remembered of them; null: it was erased.")]
    playbook: Annotated[str | None, Meta(description="Version of the rules, the policy and the experiments.")]
    note: str | None
    score: float | None
    model_name: str | None
    model_version: int | None
    feature_service: str | None
    policy_version: str | None
    elements: list[str]
    reasons: list[str]
    dropped: Annotated[list[DroppedElement], Meta(description="What boundaries removed.")]
    features: dict[str, Any] | None
    features_at: Annotated[Time | None, Meta(description="Since when the features had these values.")]
    applied_position: int | None


class HeldRefusal(msgspec.Struct, frozen=True, rename="camel"):
    """An event that was refused, as it came."""

    received_at: Time
    reason: str
    detail: str
    event: Annotated[Any, Meta(description="JSON, or its text where it is none.")]


class Next(msgspec.Struct, frozen=True, rename="camel"):
    """The parameters of the next page."""

    after: int
    decisions_after: str
    refused_after: str


class Held(msgspec.Struct, frozen=True, rename="camel"):
    """What is held of a person, a page of it: events, decisions and refused events from the oldest on."""

    profile: Profile
    features: Annotated[HeldFeatures | None, Meta(description="null: none are stored.")]
    segments: Annotated[list[HeldChange], Meta(description="Every change, the first first.")]
    opted_out: bool
    opted_out_since: Annotated[Time | None, Meta(description="null: they have not opted out.")]
    events: list[HeldEvent]
    decisions: list[HeldDecision]
    refused: Annotated[list[HeldRefusal], Meta(description="Refused events that name them as their sender.")]
    undelivered: Annotated[list[Letter], Meta(description="Changes of segments that a webhook would not take.")]
    next: Annotated[Next | None, Meta(description="null: this is the last page.")]


class Users:
    """Answers the routes of one state folder.

    erasing: None where another process takes the events in. keeper: follows people's segments; None: nobody does here.
    model: the champion, for who asks why.
    """

    def __init__(
        self,
        settings: Settings,
        tombstones: Tombstones,
        consent: Consent,
        keeper: Keeper | None = None,
        erasing: Erasing | None = None,
        clock: Callable[[], int] = now_us,
        model: Callable[[], Model | None] = lambda: None,
    ) -> None:
        self._settings, self._domain = settings, domains.load(settings.domain)
        self._tombstones, self._consent, self._keeper, self.erasing = tombstones, consent, keeper, erasing
        self._clock = clock
        self._online: OnlineFeatures | None = None
        self._reading = threading.Lock()
        self._reasons = Reasons(settings, tombstones, consent, model, lambda who: self._features(who) is not None)

    def close(self) -> None:
        """Begin no erasure any more; what is under way ends."""
        if self.erasing is not None:
            self.erasing.close()

    async def respond(self, method: str, person: str, what: str, query: bytes, accept: bytes = b"") -> Answer:
        """The answer to one of METHODS[what].

        Raises:
            Refused: 404 nobody is known by that id, 409 it is an anonymous id of somebody known, 410 the person was
                erased, 422 what no id or parameter can be, 503 another process takes the events in, or nothing can be
                written.
        """
        if not 0 < len(person.removeprefix(ANONYMOUS)) <= LONGEST:
            raise Refused(422, "invalid_request", f"expected an id of 1 to {LONGEST} characters", "id")
        try:
            if what == OPT_OUT:
                return await asyncio.to_thread(self._opt, method == "PUT", person)
            if what == WHY:
                return await asyncio.to_thread(self._reasons.answer, person, accept)
            if method == "DELETE":
                return await self._delete(person)
            return await self._get(person, parameters(query))
        except KnownError as e:
            raise Refused(409, "identified", str(e), "id") from None
        except (OSError, sqlite3.OperationalError) as e:  # a full disk is no fault of the program
            if method == "GET":
                raise
            _log.error("an opt-out or erasure cannot be recorded: %s: %s", type(e).__name__, e)
            told = "it cannot be recorded now; ask again in a moment"
            raise Refused(503, "busy", told, None, (b"retry-after", b"1")) from None

    def _opt(self, out: bool, person: str) -> Answer:
        """Out: nothing more is collected of them, and they leave every segment. Else all of that begins again."""
        aliases = self._keeper.aliases(person, trusted=True) if self._keeper else []
        senders = [person, *(f"{ANONYMOUS}{a}" for a in aliases)]
        if not out:
            self._consent.opt_in(senders)
        else:
            self._consent.opt_out(senders, self._clock())
            if self._keeper is not None:
                self._keeper.leave(person, "opted out", self._clock())
        return Answer(b"", 204)

    async def _delete(self, person: str) -> Answer:
        if self.erasing is None:
            raise Refused(503, "not_here", "another process takes this state folder's events in: ask that one")
        report = await asyncio.to_thread(self.erasing.erase, person)
        return Answer(msgspec.json.encode(report), 202 if report.pending else 200)

    async def _get(self, person: str, asked: Mapping[str, str]) -> Answer:
        after, limit = _number(asked, "after", 0, 2**62), _number(asked, "limit", LIMIT, MOST)
        if self._tombstones.covers(person):
            raise Refused(410, "erased", "this person was erased; nothing is held", "id")
        others = asked.get("decisionsAfter", ""), limit, asked.get("refusedAfter", "")
        page = await asyncio.to_thread(self.export, person, after, *others)
        if page is None:
            raise Refused(404, "unknown_user", "nobody is known by that id", "id")
        return Answer(msgspec.json.encode(page))

    def export(
        self, person: str, after: int = 0, decisions_after: str = "", limit: int = LIMIT, refused_after: str = ""
    ) -> Held | None:
        """A page of what is held; None: nothing.

        Up to `limit` events after a position, decisions after an id, and refused events after a place.

        Raises:
            KnownError: an anonymous id that was identified.
        """
        around = user_events.around(self._settings, person)
        of = erasure.plan_of(around, person)
        theirs = held.theirs(around, of)
        aliases = [a for a in (*of.aliases, *of.shared) if f"{ANONYMOUS}{a}" != person]
        profile = Profile(*ids_of(person), held.traits(theirs), aliases, list(of.unverified))
        events = held.page(theirs, after, limit + 1)
        features, decided = self._features(person), decision_log.of_users(self._settings.decisions, of.senders)
        refused = Quarantine(self._settings.quarantine).of(of.ids, refused_after, limit + 1)
        since = self._consent.since(of.senders)
        if not (events or after or features or decided or refused or since):
            return None
        decisions = [d for d in decided if d["decision_id"] > decisions_after][: limit + 1]
        more = any(len(found) > limit for found in (events, decisions, refused))
        events, decisions, refused = events[:limit], decisions[:limit], refused[:limit]
        last = Next(
            events[-1]["position"] if events else after,
            decisions[-1]["decision_id"] if decisions else decisions_after,
            refused[-1][0] if refused else refused_after,
        )
        return Held(
            profile=profile,
            features=features,
            segments=self._segments(of.senders),
            opted_out=since is not None,
            opted_out_since=None if since is None else rfc3339(since),
            events=list(map(_event, events)),
            decisions=[_decision(d) for d in decisions],
            refused=[HeldRefusal(rfc3339(r.received_us), r.reason, r.detail, as_json(r.raw)) for _, r in refused],
            undelivered=[d for d in DeadLetters(folder(self._settings)).all() if d.event.person in of.senders],
            next=last if more else None,
        )

    def _segments(self, senders: list[str]) -> list[HeldChange]:
        if self._keeper is None:
            changes = changes_of(self._settings.state / FILE, senders)
        else:
            self._keeper.flush()
            changes = self._keeper.journal.of(senders)
        back = {c.corrects for c in changes}
        return [
            HeldChange(rfc3339(c.at_us), c.segment, c.source, c.entered, c.cause, c.seq in back)
            for c in changes
            if c.corrects is None
        ]

    def _features(self, person: str) -> HeldFeatures | None:
        with self._reading:
            if self._online is None:  # opening the feature store takes far longer than reading from it
                self._online = OnlineFeatures(self._settings, self._domain)
            found = self._online.read([person])[0]
        if found is None:
            return None
        values, at_us = dict(found[0]), found[1]
        until = values.pop(VALID_UNTIL, None)
        values.pop(APPLIED, None)
        return HeldFeatures(rfc3339(at_us), rfc3339(until) if isinstance(until, int) else None, values)


def _event(row: dict[str, Any]) -> HeldEvent:
    times: dict[str, Any] = {"timestamp": rfc3339(row.pop("ts_us")), "received_at": rfc3339(row.pop("received_us"))}
    documents = {name: msgspec.json.decode(row.pop(name)) for name in ("properties", "traits", "context")}
    return HeldEvent(**row, **times, **documents)


def _decision(row: dict[str, Any]) -> HeldDecision:
    kept = {n: row[n] for n in HeldDecision.__struct_fields__ if n in row}
    kept["user_id"], kept["anonymous_id"] = ids_of(row["user_id"])
    kept |= {n: None if row[n] is None else msgspec.json.decode(row[n]) for n in ("features", "variants", "situation")}
    kept["dropped"] = msgspec.json.decode(row["dropped"] or "[]", type=list[DroppedElement])
    since = None if row["event_us"] is None else rfc3339(row["event_us"])
    return HeldDecision(**kept, at=rfc3339(row["at_us"]), features_at=since)


def _number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    given = asked.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 20 and int(given) <= most):
        raise Refused(422, "invalid_request", f"expected a number from 0 to {most}", name)
    return int(given)
