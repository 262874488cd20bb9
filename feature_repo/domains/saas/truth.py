"""What is true of the simulated people, and the best that anybody could predict of them."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.domains.saas.clock import Days, Micros, age
from feature_repo.domains.saas.kinds import KINDS, NAMES
from feature_repo.domains.saas.people import HORIZON_DAYS, People, user_id
from feature_repo.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

FILE = "truth.parquet"


def table(people: People) -> pa.Table:
    """The truth, a row a person.

    user_id, kind, propensity (logit scale) | signup_us, zone_us (local time minus UTC) | p: probability at the
    sign-up of activating within 14 days; p0: the same had no element been shown; p1_<element>: had that one alone |
    elements: those shown | attempt_us, attempt_end_us, left_us, activated_us: when the serious attempt begins and ends,
    when they leave for good, when they activate (it may lie after the end of the simulated time); null: never.
    """
    columns: dict[str, Any] = {
        "user_id": [user_id(i) for i in range(len(people))],
        "kind": np.array(NAMES)[people.kind],
        "propensity": people.propensity,
        "signup_us": people.signup_us,
        "zone_us": people.zone_us,
        "p": people.p,
        "p0": people.p0,
        **{f"p1_{name}": values for name, values in people.p1.items()},
        "elements": pa.array(_shown(people), pa.list_(pa.string())),
        "attempt_us": _instants(people, people.attempt_day),
        "attempt_end_us": _instants(people, people.end_day),
        "left_us": _instants(people, people.left_day),
        "activated_us": _instants(people, np.where(people.activates, people.end_day, np.nan)),
    }
    return pa.table(columns)


def _shown(people: People) -> list[list[str]]:
    return [[name for name, who in people.shown.items() if who[i]] for i in range(len(people))]


def _instants(people: People, days: Days) -> pa.Array:
    return pa.array(people.instant_of(days), pa.int64(), mask=np.isnan(days))


def read(settings: Settings) -> pa.Table:
    """The truth of the simulation in this state folder.

    Raises:
        FileNotFoundError: nothing has been simulated there.
    """
    path = settings.state / FILE
    if not path.exists():
        raise FileNotFoundError(f"{path}: no simulated people here; run `make simulate` first")
    return pq.read_table(path)


def probability(truth: pa.Table, at_us: Micros) -> Days:
    """P(activates after `at_us` and within 14 days of the sign-up | kind, propensity, elements, state at `at_us`).

    truth: rows of `table`, one for each entry of `at_us` (UTC microseconds). The state is what the person is doing:
    with F, G the distributions of W and C (see people.py), a = attempt, S = 1 - leave * G, all at the age of asking,

        not yet attempting   p(1 - F) / (p(1 - F) + (1 - p)(1 - aF) S)
        attempting           p / (p + (1 - p) a S)
        left or given up     0

    by Bayes' rule: the attempts of those who succeed and of those who fail last equally long. Without attempts that
    fail and people who leave (a = leave = 0) the first is p(1 - F) / (1 - pF). NaN where the person has activated by
    then; before the sign-up it is `p`.
    """
    column = {name: np.asarray(truth[name]) for name in ("signup_us", "zone_us", "p")}
    begun, ended, left, activated = (
        _until(truth, name, at_us) for name in ("attempt_us", "attempt_end_us", "left_us", "activated_us")
    )
    days = np.clip(age(column["signup_us"], column["zone_us"], at_us), 0.0, float(HORIZON_DAYS))
    kind = np.array([NAMES.index(k) for k in truth["kind"].to_pylist()], dtype=np.int64)
    start, attempt, leave, leave_days = (
        np.array([getattr(k, name) for k in KINDS])[kind] for name in ("start_days", "attempt", "leave", "leave_days")
    )
    p, f = column["p"], _cdf(days, start)
    stays = 1.0 - leave * _cdf(days, leave_days)
    yes, no = p * (1.0 - f), (1.0 - p) * (1.0 - attempt * f) * stays
    chance = np.where(begun, p / (p + (1.0 - p) * attempt * stays), yes / (yes + no))
    chance = np.where(ended | left | (days >= HORIZON_DAYS), 0.0, chance)
    return np.where(activated, np.nan, chance)


def _until(truth: pa.Table, name: str, at_us: Micros) -> Any:
    """Whether that has happened by `at_us`: null never has."""
    return np.asarray(truth[name].fill_null(np.iinfo(np.int64).max)) <= at_us


def _cdf(days: Days, mean: Days) -> Days:
    """Distribution function of an exponential cut at the horizon."""
    return np.asarray(np.expm1(-days / mean) / np.expm1(-HORIZON_DAYS / mean))


def attainable(settings: Settings, observations: "pd.DataFrame") -> Days:
    """True probability of each observation (float64, in their order): what knowing all latent state would give.

    observations: columns `user_id` and `now_us` (UTC microseconds) or `event_timestamp`. NaN for people who have
    activated by then, and for people who were not simulated.
    """
    truth = read(settings)
    rows = {u: i for i, u in enumerate(truth["user_id"].to_pylist())}
    index = np.array([rows.get(u, -1) for u in observations["user_id"]], dtype=np.int64)
    known = index >= 0
    result = np.full(len(index), np.nan)
    result[known] = probability(truth.take(pa.array(index[known])), _asked_us(observations)[known])
    return result


def _asked_us(observations: "pd.DataFrame") -> Micros:
    if "now_us" in observations:
        return observations["now_us"].to_numpy(dtype=np.int64)
    stamps = observations["event_timestamp"].dt.tz_convert("UTC").dt.tz_localize(None)
    return stamps.to_numpy().astype("datetime64[us]").astype(np.int64)
