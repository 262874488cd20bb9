"""The latent kinds of people that the simulator knows, and what they are like."""

from dataclasses import dataclass

ACTIONS = ("page", "click", "feature", "upload", "invite", "error", "help")
"""What people do in a session; the weights of a kind's `mix` are in this order."""


@dataclass(frozen=True)
class Kind:
    """One kind of people.

    share: of all sign-ups.  base: logit of activating within the horizon, at an average propensity.
    start_days: mean of the exponential (cut at the horizon) after which a serious attempt begins.
    attempt: share of those who will not activate who make a serious attempt all the same, and fail.
    leave, leave_days: share of those who will not activate who leave for good, and the mean of when.
    sessions: a day, when new and keen.  actions: mean a session.  empty: chance that an optional field stays empty.
    mix: weights of ACTIONS.
    """

    name: str
    share: float
    base: float
    start_days: float
    attempt: float
    leave: float
    leave_days: float
    sessions: float
    actions: float
    empty: float
    mix: tuple[float, ...]


KINDS = (
    Kind("racer", 0.20, 0.85, 2.0, 0.30, 0.12, 4.0, 3.0, 8.0, 0.06, (26, 22, 32, 9, 5, 4, 2)),
    Kind("explorer", 0.34, -0.35, 4.0, 0.25, 0.15, 5.0, 2.1, 6.0, 0.20, (38, 26, 26, 3, 1.5, 3, 2.5)),
    Kind("hesitant", 0.28, -1.35, 5.5, 0.22, 0.22, 4.0, 1.5, 4.5, 0.45, (42, 18, 12, 1, 0.5, 11, 16)),
    Kind("tourist", 0.18, -2.70, 5.0, 0.10, 0.60, 1.2, 1.3, 3.0, 0.75, (74, 20, 3, 0.5, 0.2, 1.5, 0.8)),
)
NAMES = tuple(k.name for k in KINDS)

SPREAD = 0.7
"""Standard deviation of the individual propensity, on the logit scale of activation."""

ATTEMPT_DAYS = 1.2
"""Mean length of a serious attempt (exponential, cut at the horizon), whether it succeeds or fails."""

ZONES = {"US": -6, "DE": 1, "GB": 0, "FR": 1, "IN": 5, "BR": -3, "PL": 1}
"""Hours ahead of UTC, by country."""

TRAITS: dict[str, dict[str, tuple[float, ...]]] = {
    "referral": {
        "organic": (22, 36, 34, 14),
        "search_ad": (8, 18, 28, 34),
        "social": (4, 12, 20, 44),
        "partner": (24, 14, 7, 2),
        "invite": (34, 10, 3, 1),
        "newsletter": (8, 10, 8, 5),
    },
    "country": {
        "US": (34, 32, 30, 30),
        "DE": (18, 17, 16, 12),
        "GB": (13, 13, 13, 11),
        "FR": (10, 11, 12, 11),
        "IN": (10, 12, 13, 18),
        "BR": (7, 8, 9, 12),
        "PL": (8, 7, 7, 6),
    },
    "device": {"desktop": (85, 72, 60, 30), "mobile": (11, 22, 33, 62), "tablet": (4, 6, 7, 8)},
    "plan": {"free": (20, 50, 72, 90), "trial": (52, 43, 26, 9), "pro": (28, 7, 2, 1)},
    "role": {
        "developer": (40, 26, 16, 10),
        "manager": (28, 24, 26, 12),
        "analyst": (24, 32, 24, 12),
        "student": (8, 18, 34, 66),
    },
    "company_size": {
        "1": (12, 28, 42, 66),
        "2-10": (30, 32, 28, 18),
        "11-100": (36, 24, 18, 9),
        "100+": (22, 16, 12, 7),
    },
}
"""Weights of each answer, by kind in the order of KINDS."""

BROWSERS: dict[str, dict[str, float]] = {
    "desktop": {"Chrome": 62, "Firefox": 14, "Edge": 14, "Safari": 10},
    "mobile": {"Chrome": 55, "Safari": 42, "Firefox": 3},
    "tablet": {"Safari": 70, "Chrome": 30},
}
