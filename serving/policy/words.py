"""Durations and numbers in words, for the reasons of a decision."""

from serving.yaml_file import UNITS


def span(us: int) -> str:
    """A duration of at least 0 µs in its two largest units.

    >>> span(47 * 3600 * 1_000_000), span(2 * 86_400_000_000), span(10)
    ('1 day 23 hours', '2 days', 'less than a second')
    """
    parts = []
    for name, unit in sorted(UNITS.items(), key=lambda u: -u[1]):
        number, us = divmod(us, unit)
        if number and (name != "week" or not us):
            parts.append(plural(number, name))
        elif number:
            us += number * unit
    return " ".join(parts[:2]) or "less than a second"


def plural(number: int, noun: str) -> str:
    """A number with its noun.

    >>> plural(1, "time"), plural(2, "time")
    ('1 time', '2 times')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
