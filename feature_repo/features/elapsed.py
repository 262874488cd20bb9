"""The one function for what changes continuously: both sides compute elapsed time with it."""

from typing import Any


def elapsed_seconds(now_us: Any, since_us: Any) -> Any:
    """Seconds from `since_us` to `now_us`, both microseconds since 1970 UTC; null where `since_us` is.

    Works on an int or None (gives float or None) and on a pandas Series (gives float64 with NaN for null).

    >>> elapsed_seconds(3_500_000, 1_000_000)
    2.5
    """
    if since_us is None:
        return None
    if hasattr(since_us, "to_numpy"):
        return ((now_us - since_us) / 1_000_000).astype("float64")
    return (now_us - since_us) / 1_000_000
