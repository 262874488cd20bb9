"""GET /v1/quarantine: how many events were refused and why, and the newest of them as they came."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from feature_repo.erasing.tombstones import ERASED
from feature_repo.lake.quarantine import Quarantined, as_json
from serving.asgi import Answer, Refused
from serving.collect.door import OPTED_OUT, Door
from serving.collect.request import parameters
from serving.collect.times import rfc3339

LIMIT, MOST = 100, 1_000


class RefusedEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An event that was refused, as the contract saw it."""

    received_at: Annotated[str, Meta(description="RFC 3339, microseconds, UTC.")]
    reason: Annotated[str, Meta(description="For programs.", examples=["unknown_event"])]
    detail: Annotated[str, Meta(description="For people: where, what was expected, what came.")]
    event: Annotated[Any, Meta(description="JSON, or its text where it is none.")]
    key: Annotated[str | None, Meta(description="Fingerprint of the write key that it came by; null: none was needed.")]


class RefusedEvents(msgspec.Struct, frozen=True, rename="camel"):
    """What the quarantine holds."""

    counts: Annotated[dict[str, int], Meta(description="All refused events by reason.")]
    opted_out: Annotated[
        int, Meta(description="Events since the start whose person did not want them collected; none is kept.")
    ]
    erased: Annotated[int, Meta(description="Events since the start of people who were erased; none is kept.")]
    dropped: Annotated[
        int, Meta(description="Refused events that are not kept any more, or never were, for want of room.")
    ]
    events: Annotated[
        list[RefusedEvent], Meta(description="The newest, the newest last: up to `limit`, and about 4 MiB of them.")
    ]


async def listing(door: Door, query: bytes) -> Answer:
    """The answer; `limit` (100, at most 1,000) and `reason` are parameters.

    Raises:
        Refused: 422 for another limit.
    """
    asked = parameters(query)
    limit = asked.get("limit", str(LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and int(limit) <= MOST):
        raise Refused(422, "invalid_request", f"expected a number from 0 to {MOST}", "limit")
    counts, newest = await door.refused(int(limit), asked.get("reason") or None)
    opted_out, erased = (door.counted["refused", reason] for reason in (OPTED_OUT, ERASED))
    shown = RefusedEvents(dict(counts), opted_out, erased, door.dropped(), [_shown(q) for q in newest])
    return Answer(msgspec.json.encode(shown))


def _shown(kept: Quarantined) -> RefusedEvent:
    return RefusedEvent(rfc3339(kept.received_us) or "", kept.reason, kept.detail, as_json(kept.raw), kept.key)
