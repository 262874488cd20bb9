"""A number that is out of its range is flagged, and stays what it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from feature_repo.enrichment.step import reader

if TYPE_CHECKING:
    from feature_repo.contract.events import Event

FLAGS = "flags"


@dataclass(frozen=True)
class Range:
    """Puts `path` into the list context.flags where the number there is below `low` or above `high` (None: open).

    Raises:
        ValueError: no event has such a path, or the range is empty.
    """

    path: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        reader(self.path)
        if self.low is None and self.high is None:
            raise ValueError(f"Range({self.path!r}): expected a bound, came none")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"Range({self.path!r}): expected low <= high; came {self.low} and {self.high}")

    @property
    def adds(self) -> Mapping[str, str]:
        """Type by path."""
        return {"context.flags": "list"}

    def compiled(self) -> Callable[["Event"], "Event"]:
        """The step itself."""
        path, read = self.path, reader(self.path)
        low = float("-inf") if self.low is None else self.low
        high = float("inf") if self.high is None else self.high

        def apply(event: "Event") -> "Event":
            value = read(event)
            if (type(value) is not int and type(value) is not float) or low <= value <= high:
                return event
            return _flagged(event, path)

        return apply


def _flagged(event: "Event", path: str) -> "Event":
    flags = event.context.get(FLAGS)
    flags = [] if flags is None else flags
    if type(flags) is not list or path in flags:
        return event
    return replace(event, context={**event.context, FLAGS: [*flags, path]})
