"""How the page writes dates and figures."""

from collections.abc import Sequence
from datetime import UTC, datetime


def date(us: int) -> str:
    """A day, from microseconds since 1970 UTC.

    >>> date(1_700_000_000_000_000)
    '14 Nov 2023'
    """
    moment = datetime.fromtimestamp(us // 1_000_000, UTC)
    return f"{moment.day} {moment:%b %Y}"


def day(us: int) -> str:
    """A day without its year, for axes.

    >>> day(1_700_000_000_000_000)
    '14 Nov'
    """
    return date(us)[:-5]


def moment(us: int) -> str:
    """A moment, to the minute.

    >>> moment(1_700_000_000_000_000)
    '14 Nov 2023, 22:13 UTC'
    """
    return f"{date(us)}, {datetime.fromtimestamp(us // 1_000_000, UTC):%H:%M} UTC"


def percent(share: float) -> str:
    """A share in percent: one decimal below 10 %, none above.

    >>> percent(0.0345), percent(0.345)
    ('3.5 %', '34 %')
    """
    return f"{100 * share:.1f} %" if 0 < share < 0.0995 else f"{100 * share:.0f} %"


def span(seconds: float) -> str:
    """A length of time in its largest whole unit.

    >>> span(86400), span(7200), span(90)
    ('1 day', '2 hours', '90 seconds')
    """
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}" + ("s" if count != 1 else "")
    return f"{seconds:g} seconds"


def listed(words: Sequence[str]) -> str:
    """Words in a row.

    >>> listed(["one", "two", "three"])
    'one, two and three'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
