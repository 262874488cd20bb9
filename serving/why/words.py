"""Values and lists in the words of people: units of everyday life, no figures beyond what anybody needs.

The catalogue gives the unit of a value and what null means; `Domain.said` and `Feature.doc` give its name.
"""

import re
from collections.abc import Sequence
from functools import cached_property

from feature_repo.domain import Domain
from feature_repo.vocabulary import DAY, HOUR, MINUTE, SECOND, Elapsed, Feature, Ratio, null_meaning
from serving.values import Value

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SPANS = (("day", DAY), ("hour", HOUR), ("minute", MINUTE), ("second", SECOND))
SIZES = (("GB", 10**9), ("MB", 10**6), ("KB", 10**3))


class Words:
    """How a domain's features are spoken of."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    @cached_property
    def _declared(self) -> dict[str, Feature | Elapsed]:
        stored: dict[str, Feature | Elapsed] = {f.name: f for f in self.domain.features}
        return stored | {e.name: e for e in self.domain.elapsed}

    def name(self, feature: str) -> str:
        """A feature as a noun in the middle of a sentence; one that the catalogue lacks is called by its name."""
        if said := self.domain.said.get(feature):
            return said
        declared = self._declared.get(feature)
        return noun(declared.doc) if declared and declared.doc else feature.replace("_", " ")

    def value(self, feature: str, value: Value, at_us: int) -> str:
        """A value in people's units at a time (µs since 1970 UTC); null: what that means."""
        declared = self._declared.get(feature)
        if value is None:
            return self._null(declared)
        if isinstance(value, str):
            return value or "empty"
        unit = declared.unit if declared else ""
        if unit.startswith("µs"):
            return ago(at_us - round(value))
        if unit in ("seconds", "ms"):
            return span(round(value * (1_000_000 if unit == "seconds" else 1_000)))
        if unit == "bytes":
            return size(value)
        scale = f" {unit}" if re.search(r"[%\d]", unit) else ""
        return f"{number(value)}{scale}"

    def _null(self, declared: Feature | Elapsed | None) -> str:
        if isinstance(declared, Elapsed):
            declared = self._declared[declared.of]
        if declared is None:
            return "not known"
        assert isinstance(declared, Feature)
        return "nothing yet" if isinstance(declared.term, Ratio) and not declared.null else null_meaning(declared)

    def with_value(self, feature: str, value: Value, at_us: int) -> str:
        """`different features tried (4)`."""
        return f"{self.name(feature)} ({self.value(feature, value, at_us)})"


def noun(doc: str) -> str:
    """What a feature's description calls it: up to the first colon, without what stands in brackets.

    >>> noun("Visits: runs of events at most 30 minutes apart"), noun("Country last seen in (ISO 3166)")
    ('visits', 'country last seen in')
    """
    said = re.sub(r"\s*\([^)]*\)", "", re.split(r"[:;]", doc)[0]).strip()
    return said if said[1:2].isupper() else said[:1].lower() + said[1:]


def span(us: int) -> str:
    """A duration in its largest unit, rounded down.

    >>> span(90 * MINUTE), span(26 * HOUR), span(400_000)
    ('1 hour', '1 day', 'less than a second')
    """
    for name, unit in SPANS:
        if us >= unit:
            return f"{us // unit} {name}{'' if us // unit == 1 else 's'}"
    return "less than a second"


def ago(us: int) -> str:
    """How long something is past.

    >>> ago(3 * DAY), ago(200), ago(-HOUR)
    ('3 days ago', 'just now', 'in 1 hour')
    """
    if us < 0:
        return f"in {span(-us)}"
    return f"{span(us)} ago" if us >= SECOND else "just now"


def size(value: float) -> str:
    """A number of bytes.

    >>> size(1_250_000), size(12), size(1)
    ('1.2 MB', '12 bytes', '1 byte')
    """
    for name, unit in SIZES:
        if value >= unit:
            return f"{value / unit:.3g} {name}" if value >= 10 * unit else f"{value / unit:.2g} {name}"
    return f"{value:.0f} byte{'' if value == 1 else 's'}"


def number(value: float) -> str:
    """A number with at most two figures behind the point.

    >>> number(3), number(0.333), number(12_345), number(2.0)
    ('3', '0.33', '12,345', '2')
    """
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 0.01 else f"{value:.1g}"


def counted(n: int) -> str:
    """A number in words up to ten."""
    return NUMBERS[n] if 0 <= n < len(NUMBERS) else str(n)


def listed(parts: Sequence[str], last: str = "and") -> str:
    """`a, b and c`.

    >>> listed(["a"]), listed(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""
