"""The activity clock: how many ordinary days of use lie between two instants of somebody's local time.

It runs fast in the evening of a working day and almost stands at night, and over any whole week it has run seven
days. What the simulator draws on this clock gets the rhythm of the day and of the week by itself, and a
distribution over 14 days of it is a distribution over 14 days of ordinary time.
"""

import numpy as np
import numpy.typing as npt

from feature_repo.vocabulary import DAY, HOUR, WEEK

Micros = npt.NDArray[np.int64]
Days = npt.NDArray[np.float64]

_HOURS = [1, 0.6, 0.4, 0.3, 0.3, 0.6, 1.5, 3, 6, 8.5, 9, 8.5, 6.5, 7.5, 8.5, 8.5, 8, 7, 6, 6.5, 7.5, 7, 4.5, 2.2]
_WEEKDAYS = [1.1, 1.15, 1.15, 1.1, 0.95, 0.5, 0.6]
_FLOW = np.outer(_WEEKDAYS, _HOURS).ravel()
_RUN = 7 * np.concatenate([[0.0], np.cumsum(_FLOW / _FLOW.sum())])
_AT = np.arange(7 * 24 + 1, dtype=np.float64) * HOUR
_MONDAY = 3 * DAY  # 1970-01-01 was a Thursday


def activity(local_us: Micros) -> Days:
    """Days on the activity clock since a Monday at midnight in 1969, for microseconds of local time."""
    week, rest = np.divmod(np.asarray(local_us, dtype=np.int64) + _MONDAY, WEEK)
    return np.asarray(7.0 * week + np.interp(rest, _AT, _RUN))


def instant(days: Days) -> Micros:
    """The inverse of `activity`, to a few microseconds."""
    week, rest = np.divmod(np.asarray(days, dtype=np.float64), 7.0)
    return np.asarray(week * WEEK + np.rint(np.interp(rest, _RUN, _AT)) - _MONDAY).astype(np.int64)


def age(signup_us: Micros, zone_us: Micros, at_us: Micros) -> Days:
    """Days on the activity clock from the sign-up to `at_us` (both UTC), for people `zone_us` ahead of UTC."""
    return activity(at_us + zone_us) - activity(signup_us + zone_us)


def at_age(signup_us: Micros, zone_us: Micros, days: Days) -> Micros:
    """The instant (UTC) at which so many days have run on the activity clock since the sign-up."""
    return instant(activity(signup_us + zone_us) + days) - zone_us
