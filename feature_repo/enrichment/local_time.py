"""Time -> the part of the day where the person is."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from feature_repo.enrichment.step import added

if TYPE_CHECKING:
    from feature_repo.contract.events import Event

PARTS = ("night", "morning", "afternoon", "evening")
"""Six hours each, from midnight on, as of the built-in column `part_of_day`."""
_IANA = re.compile(r"[A-Z][A-Za-z0-9]{0,31}([/_+-][A-Za-z0-9]{1,31}){0,6}", re.ASCII)


@dataclass(frozen=True)
class LocalTime:
    """context.timezone (an IANA name) -> context.local.part_of_day, .hour (0-23) and .weekday (1-7, 1 is Monday).

    part_of_day: night 0-5, morning 6-11, afternoon 12-17, evening 18-23. Nothing where the zone is absent or unknown.
    """

    @property
    def adds(self) -> Mapping[str, str]:
        """Type by path."""
        return {
            "context.local.part_of_day": "string",
            "context.local.hour": "int64",
            "context.local.weekday": "int64",
        }

    def compiled(self) -> Callable[["Event"], "Event"]:
        """The step itself."""
        return _apply


def _apply(event: "Event") -> "Event":
    name = event.context.get("timezone")
    zone = _zone(name) if type(name) is str else None
    if zone is None:
        return event
    at = datetime.fromtimestamp(event.ts_us // 1_000_000, zone)
    part = PARTS[at.hour // 6]
    return added(
        event,
        {("local", "part_of_day"): part, ("local", "hour"): at.hour, ("local", "weekday"): at.isoweekday()},
    )


@lru_cache(1_024)
def _zone(name: str) -> tzinfo | None:
    """None: there is no such zone. `localtime` and the like would be another one on another machine."""
    if not _IANA.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None
