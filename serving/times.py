"""Times as the service writes them."""

from datetime import UTC, datetime


def rfc3339(at_us: int) -> str:
    """A time in RFC 3339, with microseconds, UTC.

    >>> rfc3339(1_700_000_000_000_001)
    '2023-11-14T22:13:20.000001Z'
    """
    seconds, micro = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{micro:06d}Z"
