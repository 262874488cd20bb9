"""What the steps have in common: what they declare, how they read an event, and how they add to it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msgspec.structs import replace

from feature_repo.vocabulary import Column

if TYPE_CHECKING:
    from feature_repo.contract.events import Event
    from feature_repo.enrichment.http_join import Source

Path = tuple[str, ...]
Added = Mapping[Path, Any]
"""Values by their path below an event's context."""

LONGEST = 200
"""Characters of a text that a step may add."""
INT64 = (-(2**63), 2**63 - 1)
IDS = {"userId": "user_id", "anonymousId": "anonymous_id"}
ADDED = ("string", "int64", "boolean")
OBJECTS = ("properties", "traits", "context")


class Step(Protocol):
    """A step as the domain declares it. adds: the type of every path that it may add, as a Column has them."""

    @property
    def adds(self) -> Mapping[str, str]:
        """Type by path."""
        ...

    def compiled(self) -> "Callable[[Event], Event] | Source":
        """The step itself, a pure function; a join over HTTP gives its source.

        Raises:
            ValueError: what it needs is not there.
        """
        ...


def reader(path: str) -> Callable[["Event"], Any]:
    """What finds the value at a dotted path (or `userId`, `anonymousId`) of an event; None where there is none.

    Raises:
        ValueError: an event can have no such path.
    """
    first, *below = path.split(".")
    if first in IDS and not below:
        return lambda event: getattr(event, IDS[first])
    if first not in OBJECTS or not all(below) or not below:
        raise ValueError(f"{path!r}: expected userId, anonymousId or a path from properties, traits or context")

    def read(event: "Event") -> Any:
        value = getattr(event, first)
        for key in below:
            if type(value) is not dict:
                return None
            value = value.get(key)
        return value

    return read


def within_context(path: str) -> Path:
    """The keys of a dotted path below `context`.

    Raises:
        ValueError: it leads elsewhere.
    """
    first, *below = path.split(".")
    if first != "context" or not below or not all(below):
        raise ValueError(f"{path!r}: expected a path from context, where all is that a step adds")
    return tuple(below)


def adding(columns: tuple[Column, ...]) -> dict[str, str]:
    """The types of the paths of columns.

    Raises:
        ValueError: there are none, or one is no path or type that a step can add.
    """
    if not columns:
        raise ValueError("a join: expected columns to add, came none")
    for column in columns:
        within_context(column.path)
        if column.type not in ADDED:
            raise ValueError(f"{column.path!r} of type {column.type!r}: expected one of {', '.join(ADDED)}")
    return {column.path: column.type for column in columns}


def key_of(value: Any) -> str | None:
    """A value as the key of a join: a text, or an integer's digits; None for all that can't be one."""
    if type(value) is int and INT64[0] <= value <= INT64[1]:
        return str(value)
    return value if type(value) is str and 0 < len(value) <= LONGEST else None


def fits(value: Any) -> bool:
    """Whether a value may be added: a boolean, an int64, or a text that is not empty, too long, or has a NUL in it."""
    if type(value) is str:
        return 0 < len(value) <= LONGEST and "\0" not in value
    return type(value) is bool or (type(value) is int and INT64[0] <= value <= INT64[1])


def added(event: "Event", values: Added) -> "Event":
    """The event with those of the values that fit and whose place is empty; the same one where that is none."""
    context = event.context
    for path, value in values.items():
        if fits(value):
            context = _put(context, path, value)
    return event if context is event.context else replace(event, context=context)


def _put(tree: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    key, *below = path
    held = tree.get(key)
    if not below:
        return {**tree, key: value} if held is None else tree
    if held is not None and type(held) is not dict:
        return tree
    inner = _put(held or {}, tuple(below), value)
    return tree if inner is held else {**tree, key: inner}
