"""What a policy says: elements, the segments that they are for, and the boundaries of what is shown."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import msgspec

from feature_repo.vocabulary import MINUTE

KINDS = (
    "guided_tour",
    "skip_step",
    "checklist",
    "hint",
    "message",
    "banner",
    "form",
    "content",
    "help_offer",
)
"""What an element can be. A `skip_step` tells the product to leave steps out."""

DEFAULT = "default"
"""The segment of people of whom nothing is known."""

SOURCES = ("rules", "engagement", "personas")
"""Where a person's segments come from."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often one element may be shown to one person; null: no limit.

    per_day: in the last 24 hours. cool_down_us: the least time from one showing to the next, µs.
    """

    per_session: int | None = None
    per_day: int | None = None
    ever: int | None = None
    cool_down_us: int | None = None


class Element(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that the product can show.

    segments: whom it is for. why: for each of them the reason in words. priority: the higher ones come first within a
    segment. after: elements that have to be completed, or skipped, before. skips: what it makes needless (a skip_step).
    excludes: what is not shown together with it. again_after_us: how long it stays away once dismissed, µs; null: for
    good. repeats: whether it is shown again once completed.
    """

    name: str
    kind: str
    title: str
    segments: tuple[str, ...]
    why: dict[str, str]
    priority: int = 50
    after: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    limits: Limits = Limits()
    again_after_us: int | None = None
    repeats: bool = False


class Boundaries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much one person is shown, all elements together; null: no limit.

    at_once: in one decision. per_day: in the last 24 hours. session_gap_us: a session is a run of the person's events
    that are at most so far apart, µs; at most a day.
    """

    at_once: int = 3
    per_session: int | None = None
    per_day: int | None = None
    session_gap_us: int = 30 * MINUTE


class Policy(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """The policy of a domain.

    elements: in declared order. nothing_for: segments whose people are shown nothing at all, with the reason.
    order: in which the segments of a person compose.
    """

    domain: str
    elements: tuple[Element, ...]
    nothing_for: dict[str, str]
    boundaries: Boundaries = Boundaries()
    order: tuple[str, ...] = SOURCES

    @classmethod
    def from_content(cls, content: str) -> "Policy":
        """The policy of which this is the content.

        Raises:
            ValueError: it is no content of a policy, or of one with more to it than this version of Firstmile knows.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except msgspec.DecodeError as e:
            raise ValueError(f"no content of a policy: {e}; expected what `Policy.content` gives") from e

    def compose(self, segments: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """A person's segments by source (see SOURCES) -> all of them in this policy's order, each once."""
        return tuple(dict.fromkeys(s for source in self.order for s in segments.get(source, ())))

    @cached_property
    def content(self) -> str:
        """All of it as canonical JSON, from which `from_content` makes an equal policy."""
        return msgspec.json.encode(self, order="sorted").decode()

    @cached_property
    def version(self) -> str:
        """12 hex digits of the SHA-256 over the content: equal for equal behaviour and words, whatever the file's
        comments and spacing."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:12]

    @cached_property
    def segments(self) -> Mapping[str, tuple[Element, ...]]:
        """Segment -> its journey: skip steps first, then by priority, then as declared. Empty: shown nothing."""
        names = dict.fromkeys([DEFAULT, *(s for e in self.elements for s in e.segments), *self.nothing_for])
        ranked = sorted(self.elements, key=lambda e: (not e.skips, -e.priority))
        return {s: () if s in self.nothing_for else tuple(e for e in ranked if s in e.segments) for s in names}

    @cached_property
    def apart(self) -> Mapping[str, frozenset[str]]:
        """Element -> those that are not shown together with it, whichever of the two says so."""
        pairs = {(a.name, b) for a in self.elements for b in a.excludes}
        pairs |= {(b, a) for a, b in pairs}
        return {e.name: frozenset(b for a, b in pairs if a == e.name) for e in self.elements}

    @cached_property
    def named(self) -> Mapping[str, Element]:
        """The elements by name."""
        return {e.name: e for e in self.elements}

    @cached_property
    def skip_steps(self) -> tuple[Element, ...]:
        """The elements that make others needless."""
        return tuple(e for e in self.elements if e.skips)
