"""Draws the people: who signs up when, what they are like, and what will become of them.

The path of a person, in days on the activity clock since the sign-up, H = 14:

    cold ──W──► attempt ──U──► activated        with probability p
    cold ──W──► attempt ──U──► given up         with probability (1 - p) * attempt
    cold                                        otherwise
    and of those who will not activate, some leave at C, whatever they were doing

W and U are exponentials cut so that W + U < H, C is an exponential cut at H; their parameters depend on the kind only.
`p` is the logistic function of the kind's base plus the propensity plus the effects of the elements shown. How
somebody behaves depends on kind, propensity and where on the path they are, never on what is still to come: so
`truth.probability` is the most that their events can tell.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.domains.saas.clock import Days, Micros, activity, at_age, instant
from feature_repo.domains.saas.experiment import Experiment
from feature_repo.domains.saas.kinds import ATTEMPT_DAYS, BROWSERS, KINDS, NAMES, SPREAD, TRAITS, ZONES
from feature_repo.vocabulary import DAY, HOUR

Effects = Mapping[str, Mapping[str, float]]
"""Onboarding element -> kind -> shift of the logit of activating for those who were shown it."""

Assignment = Mapping[str, float] | Callable[[int, np.random.Generator], set[str]]
"""Who is shown which elements: the share for each element, or a function of the person's number and a generator."""

HORIZON_DAYS = 14
GROWTH = 0.5
"""How much the rate of sign-ups grows from the first day to the last."""

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True)
class People:
    """Arrays with an entry a person, in the order of sign-up. Days are on the activity clock; NaN means never."""

    kind: npt.NDArray[np.int64]
    propensity: Days
    signup_us: Micros
    zone_us: Micros
    p: Days
    p0: Days
    p1: dict[str, Days]
    shown: dict[str, npt.NDArray[np.bool_]]
    attempt_day: Days
    end_day: Days
    left_day: Days
    activates: npt.NDArray[np.bool_]
    traits: dict[str, Texts]
    empty: dict[str, npt.NDArray[np.bool_]]
    experiment: Experiment | None = None

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def fields_empty(self) -> npt.NDArray[np.int64]:
        """How many optional fields of the sign-up form each person leaves empty."""
        return np.sum(list(self.empty.values()), axis=0, dtype=np.int64)

    def of_kind(self, parameter: str) -> Days:
        """That parameter of each person's kind."""
        return np.array([getattr(k, parameter) for k in KINDS], dtype=np.float64)[self.kind]

    def instant_of(self, days: Days) -> Micros:
        """UTC microseconds of a day on each person's activity clock; the value means nothing where the day is NaN."""
        return at_age(self.signup_us, self.zone_us, np.nan_to_num(days))


def user_id(number: int) -> str:
    """The id of the person with that number."""
    return f"u{number:06d}"


def logistic(x: Days) -> Days:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def cut_exponential(u: Days, mean: Days | float, limit: Days | float) -> Days:
    """The quantile u of an exponential with that mean, given that it is below `limit`."""
    return np.asarray(-mean * np.log1p(-u * -np.expm1(-limit / mean)))


def draw(
    users: int,
    seed: int,
    end_us: int,
    days: int,
    effects: Effects | None = None,
    assignment: Assignment | None = None,
    experiment: Experiment | None = None,
) -> People:
    """Draws `users` people who sign up in the `days` before `end_us` (UTC microseconds).

    The same seed gives the same people whatever the effects are, and the same chance decides with and without them,
    so that their fates differ only by what the elements did. An element with an effect and no assignment is shown
    to half of them; that of an experiment as its hash says, which leaves all other chances as they are.

    Raises:
        ValueError: an effect names no kind, the experiment's element has another one, or no time or no users are
            asked for.
    """
    effects = _with(experiment, effects or {})
    _check(users, days, effects)
    born, fate, form, showing = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4))
    kind = born.choice(len(KINDS), users, p=[k.share for k in KINDS])
    traits = {name: _answers(born, kind, weights) for name, weights in TRAITS.items()}
    traits["browser"] = _browsers(born, traits["device"])
    zone_us = np.array([ZONES[str(c)] * HOUR for c in traits["country"]], dtype=np.int64)
    signup_us = _arrivals(born, zone_us, end_us - days * DAY, end_us)
    order = np.argsort(signup_us, kind="stable")
    kind, zone_us, signup_us = kind[order], zone_us[order], signup_us[order]
    traits = {name: values[order] for name, values in traits.items()}
    propensity = fate.normal(0.0, SPREAD, users)
    shown, shifts = _elements(showing, kind, effects, assignment, experiment)
    logit = np.array([k.base for k in KINDS])[kind] + propensity
    p = logistic(logit + sum((shifts[e] * shown[e] for e in shifts), np.zeros(users)))
    p1 = {e: logistic(logit + shifts[e]) for e in shifts}
    path = _paths(fate, kind, p)
    chance = np.array([k.empty for k in KINDS])[kind]
    empty = {name: form.random(users) < chance for name in ("role", "company_size", "phone")}
    return People(kind, propensity, signup_us, zone_us, p, logistic(logit), p1, shown, *path, traits, empty, experiment)


def _with(experiment: Experiment | None, effects: Effects) -> Effects:
    """The effects, with those of the experiment's element."""
    if experiment is None:
        return effects
    if experiment.element in effects:
        raise ValueError(f"simulation: {experiment.element} has an effect of its own and one of {experiment.name}")
    return {**effects, experiment.element: experiment.effects}


def _check(users: int, days: int, effects: Effects) -> None:
    if users < 1 or days < 1:
        raise ValueError(f"simulation: at least one user and one day are needed, got users={users}, days={days}")
    if unknown := sorted({k for e in effects.values() for k in e} - set(NAMES)):
        raise ValueError(f"simulation: effect on unknown kind {', '.join(unknown)}; there are {', '.join(NAMES)}")


def _answers(rng: np.random.Generator, kind: npt.NDArray[np.int64], weights: Mapping[str, tuple[float, ...]]) -> Texts:
    """An answer for each person, by the weights of their kind."""
    table = np.array(list(weights.values()), dtype=np.float64)
    ladder = (table / table.sum(axis=0)).cumsum(axis=0)[:-1]
    return np.array(list(weights))[(rng.random(len(kind)) >= ladder[:, kind]).sum(axis=0)]


def _browsers(rng: np.random.Generator, device: Texts) -> Texts:
    browser = np.empty(len(device), dtype="U8")
    for name, weights in BROWSERS.items():
        share = np.array(list(weights.values())) / sum(weights.values())
        browser[device == name] = rng.choice(list(weights), int((device == name).sum()), p=share)
    return browser


def _arrivals(rng: np.random.Generator, zone_us: Micros, start_us: int, end_us: int) -> Micros:
    """Sign-up times in [start, end): a density that grows linearly, on each person's activity clock."""
    share = (np.sqrt(1.0 + ((1.0 + GROWTH) ** 2 - 1.0) * rng.random(len(zone_us))) - 1.0) / GROWTH
    first, last = activity(start_us + zone_us), activity(end_us + zone_us)
    return np.clip(instant(first + share * (last - first)) - zone_us, start_us, end_us - 1)


def _elements(
    rng: np.random.Generator,
    kind: npt.NDArray[np.int64],
    effects: Effects,
    assignment: Assignment | None,
    experiment: Experiment | None,
) -> tuple[dict[str, npt.NDArray[np.bool_]], dict[str, Days]]:
    """Who is shown each element, and what each would do to each person's logit."""
    users = len(kind)
    if callable(assignment):
        sets = [assignment(i, rng) for i in range(users)]
        names = sorted(set(effects).union(*sets))
        shown = {e: np.array([e in s for s in sets], dtype=bool) for e in names}
    else:
        shares = dict.fromkeys(effects, 0.5) if assignment is None else dict(assignment)
        names = sorted(set(effects) | set(shares))
        shown = {e: rng.random(users) < shares.get(e, 0.0) for e in names}
    if experiment is not None:
        shown[experiment.element] = np.array([experiment.shows(user_id(i)) for i in range(users)], dtype=bool)
    shifts = {e: np.array([effects.get(e, {}).get(k, 0.0) for k in NAMES])[kind] for e in names}
    return shown, shifts


def _paths(
    rng: np.random.Generator, kind: npt.NDArray[np.int64], p: Days
) -> tuple[Days, Days, Days, npt.NDArray[np.bool_]]:
    """When the attempt begins and ends, when they leave for good (days, NaN never), and whether they activate."""
    u = rng.random((6, len(kind)))
    start, attempt, leave, leave_days = (
        np.array([getattr(k, name) for k in KINDS])[kind] for name in ("start_days", "attempt", "leave", "leave_days")
    )
    activates = u[0] < p
    tries = activates | (u[1] < attempt)
    begin = cut_exponential(u[2], start, HORIZON_DAYS)
    end = begin + cut_exponential(u[3], ATTEMPT_DAYS, HORIZON_DAYS - begin)
    left = cut_exponential(u[4], leave_days, HORIZON_DAYS)
    leaves = ~activates & (u[5] < leave)
    return np.where(tries, begin, np.nan), np.where(tries, end, np.nan), np.where(leaves, left, np.nan), activates
