"""The feature catalogue in words: what is printed, put into the README and shown to people."""

from feature_repo.domain import Domain
from feature_repo.vocabulary import DAY, HOUR, MINUTE, WEEK, Feature, leaves, null_meaning


def catalogue(domain: Domain) -> list[dict[str, str]]:
    """One row a feature, in declared order: name, type, unit, window, what it says, what null means, since."""
    types = domain.feature_types
    stored = [
        {
            "feature": f.name,
            "type": types[f.name],
            "unit": f.unit or "-",
            "window": window_words(f),
            "meaning": f.doc,
            "null": null_meaning(f),
            "since": f"v{f.since}",
        }
        for f in domain.features
    ]
    elapsed = [
        {
            "feature": e.name,
            "type": "float64",
            "unit": e.unit,
            "window": "time of asking",
            "meaning": e.doc,
            "null": f"{e.of} is null",
            "since": f"v{e.since}",
        }
        for e in domain.elapsed
    ]
    return stored + elapsed


def window_words(feature: Feature) -> str:
    """The windows of a feature: `all time`, `last 7 d`, `first 24 h`.

    >>> from feature_repo.vocabulary import Count, Feature
    >>> window_words(Feature("n", Count(window=24 * HOUR), ""))
    'last 24 h'
    """
    words = []
    for leaf in leaves(feature.term):
        window, initial = getattr(leaf, "window", None), getattr(leaf, "initial", None)
        if window:
            words.append(f"last {duration(window)}")
        if initial:
            words.append(f"first {duration(initial.period)}")
    return ", ".join(dict.fromkeys(words)) or "all time"


def duration(us: int) -> str:
    """A duration in the largest unit that is whole, days only from two of them on.

    >>> duration(36 * HOUR), duration(2 * WEEK)
    ('36 h', '2 w')
    """
    for unit, name, least in ((WEEK, "w", 2), (DAY, "d", 2), (HOUR, "h", 1), (MINUTE, "min", 1)):
        if us % unit == 0 and us >= least * unit:
            return f"{us // unit} {name}"
    return f"{us / 1_000_000:g} s"
