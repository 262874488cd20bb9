"""The document that all channels send: somebody entered or left a segment."""

from hashlib import blake2b
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from feature_repo.contract.events import ids_of, key_of
from serving.segments.journal import Change
from serving.times import rfc3339

TYPE: Literal["segment.changed"] = "segment.changed"
Time = Annotated[str, Meta(description="RFC 3339, microseconds, UTC.", examples=["2026-03-01T09:30:00.000000Z"])]
_encoder = msgspec.json.Encoder()


class SegmentChanged(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Somebody entered or left a segment. It may come again, with the same `id`."""

    type: Literal["segment.changed"] = TYPE
    id: Annotated[str, Meta(description="The same however often it is sent; no two changes share one.")]
    user_id: Annotated[str | None, Meta(description="The user; null: an anonymous one.")]
    anonymous_id: Annotated[str | None, Meta(description="The anonymous user's; null: a known one.")]
    segment: Annotated[str, Meta(examples=["active_learner"])]
    source: Annotated[str, Meta(description="`rules`, `engagement` or `personas`.")]
    entered: Annotated[bool, Meta(description="false: left.")]
    at: Annotated[Time, Meta(description="When it happened; it may have been found later.")]
    noted_at: Annotated[Time, Meta(description="When it was found.")]
    cause: Annotated[str, Meta(description="Why, in words.")]
    version: Annotated[str, Meta(description="Of the rules, or of the model, that it is due to.")]
    seq: Annotated[int, Meta(description="Grows from change to change: the order, also where one comes again.")]
    corrects_seq: Annotated[
        int | None,
        Meta(description="The change that this one takes back: by what is known now it never was. null: none."),
    ] = None

    @property
    def person(self) -> str:
        """Whose it is, as the stores key them."""
        return key_of(self.user_id, self.anonymous_id)


def document(change: Change) -> SegmentChanged:
    """The document of a change out of the journal."""
    user_id, anonymous_id = ids_of(change.person)
    return SegmentChanged(
        id=_id(change),
        user_id=user_id,
        anonymous_id=anonymous_id,
        segment=change.segment,
        source=change.source,
        entered=change.entered,
        at=rfc3339(change.at_us),
        noted_at=rfc3339(change.noted_us),
        cause=change.cause,
        version=change.version,
        seq=change.seq,
        corrects_seq=change.corrects,
    )


def encode(changed: SegmentChanged) -> bytes:
    """JSON on one line."""
    return _encoder.encode(changed)


def _id(c: Change) -> str:
    """Of what the journal never rewrites; another journal that begins at 1 again gives other ids."""
    content = _encoder.encode((c.seq, c.person, c.source, c.segment, c.entered, c.at_us, c.noted_us))
    return f"chg_{blake2b(content, digest_size=16).hexdigest()}"
