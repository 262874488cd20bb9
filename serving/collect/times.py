"""Times as SDKs send them -> the RFC 3339 text of the contract. What is no time stays as it is, for it to refuse."""

from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MILLISECONDS_FROM = 10**11
"""Seconds since 1970 below it, milliseconds from it on: it is 1973 in these and the year 5138 in those."""


def rfc3339(at_us: int) -> str | None:
    """Microseconds since 1970 UTC as text; None beyond the calendar.

    >>> rfc3339(1_700_000_000_000_001)
    '2023-11-14T22:13:20.000001+00:00'
    """
    try:
        return (EPOCH + timedelta(microseconds=at_us)).isoformat()
    except OverflowError:
        return None


def behind_us(sent_at: Any, received_us: int) -> int | None:
    """How far the sender's clock is behind ours, the way here included; None where it does not say."""
    sent_us = microseconds(sent_at)
    return None if sent_us is None else received_us - sent_us


def corrected(time: Any, behind: int | None, received_us: int) -> Any:
    """An event's time by our clock: receivedAt - (sentAt - time); when it came, where it has none."""
    if time is None:
        return rfc3339(received_us)
    if behind is None:
        return time
    at_us = microseconds(time)
    return time if at_us is None else rfc3339(at_us + behind) or time


def microseconds(text: Any) -> int | None:
    """ISO 8601 with a zone -> microseconds since 1970 UTC; None for whatever else it is."""
    if type(text) is not str:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at - EPOCH) // MICROSECOND
    except (ValueError, TypeError, OverflowError):  # no time, no zone, beyond the calendar
        return None


def of_number(value: Any, received_us: int) -> Any:
    """Mixpanel's times: seconds or milliseconds since 1970; when it came, where there is none.

    >>> of_number(1_700_000_000, 0) == of_number(1_700_000_000_000, 0) == of_number(1_700_000_000.0, 0)
    True
    """
    if value is None:
        return rfc3339(received_us)
    if type(value) is int or (type(value) is float and abs(value) < 10**15):  # not NaN, not infinite
        return rfc3339(round(value * (1_000 if abs(value) >= MILLISECONDS_FROM else 1_000_000))) or value
    return value
