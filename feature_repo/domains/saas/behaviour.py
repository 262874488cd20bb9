"""What the people do: everything that happens to each of them, as columns.

Sessions are a Poisson process on the activity clock, thinned by novelty and by where the person is on their path,
plus three that the path itself brings: of the sign-up, at the beginning of an attempt, at the activation.
"""

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from feature_repo.domains.saas.clock import Days, Micros, age, at_age
from feature_repo.domains.saas.kinds import KINDS
from feature_repo.domains.saas.people import HORIZON_DAYS, People
from feature_repo.vocabulary import DAY, MINUTE, SECOND

Ints = npt.NDArray[np.int64]


class Act(IntEnum):
    """What happened; the first seven are ACTIONS."""

    PAGE = 0
    CLICK = 1
    FEATURE = 2
    UPLOAD = 3
    INVITE = 4
    ERROR = 5
    HELP = 6
    FORM = 7
    IDENTIFY = 8
    SIGNED_UP = 9
    SHOWN = 10
    PUBLISHED = 11
    VIEWED = 12


@dataclass(frozen=True)
class Acts:
    """Columns with an entry for everything that happened.

    person: number.  ts_us: UTC microseconds.  act: an Act.  value: what it needs to be told (which page, how many
    bytes, …; see delivery.py).  session: number, unique in the simulation.
    """

    person: Ints
    ts_us: Ints
    act: Ints
    value: Ints
    session: Ints

    def __len__(self) -> int:
        return len(self.person)

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "Acts":
        """The chosen entries."""
        return Acts(*(getattr(self, f.name)[index] for f in fields(self)))


def together(parts: list[Acts]) -> Acts:
    """All entries of all parts."""
    return Acts(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Acts)))


NOVELTY_DAYS = 4.0
PACE = {"cold": 0.4, "attempt": 1.0, "given up": 0.12, "activated": 0.3}
"""How often people come, by where they are on their path, against an attempt."""

EAGER = (0.6, 1.0, 1.6, 4.0, 4.0, 1.2, 1.0)
"""What an attempt does to the weights of ACTIONS."""

VALUES = (14, 12, 12, 0, 4, 5, 6)
"""How many pages, targets, … there are to choose from, by action."""

ERRORS = np.array([400, 403, 404, 409, 500])


def live(people: People, rng: np.random.Generator) -> Acts:
    """Everything that the people do from their first visit to the end of their 14 days, in no order."""
    start, person = _sessions(people, rng)
    inside = _actions(people, rng, person, start)
    before = _first_visit(people, rng)
    return together([*before, *_milestones(people), inside])


def _state(people: People, person: Ints, day: Days) -> tuple[npt.NDArray[np.bool_], ...]:
    """(attempting, ended, activated, left) of those people at those ages."""
    ended = day >= np.nan_to_num(people.end_day[person], nan=np.inf)
    begun = day >= np.nan_to_num(people.attempt_day[person], nan=np.inf)
    left = day >= np.nan_to_num(people.left_day[person], nan=np.inf)
    return begun & ~ended, ended & ~people.activates[person], ended & people.activates[person], left


def _sessions(people: People, rng: np.random.Generator) -> tuple[Micros, Ints]:
    """(start in UTC µs, person) of every session after the sign-up's, the sign-up's included."""
    keen = np.exp(0.8 * people.propensity)
    rate = people.of_kind("sessions") * keen
    person = np.repeat(np.arange(len(people)), rng.poisson(rate * HORIZON_DAYS))
    day = rng.random(len(person)) * HORIZON_DAYS
    attempting, given_up, activated, left = _state(people, person, day)
    pace = np.select(
        [attempting, given_up, activated], [PACE["attempt"], PACE["given up"], PACE["activated"]], PACE["cold"]
    )
    novelty = np.maximum(np.exp(-day / NOVELTY_DAYS), np.where(attempting, 0.9, 0.55))
    kept = ~left & (rng.random(len(person)) < pace * novelty)
    everyone = np.arange(len(people))
    stays = ~(people.left_day <= people.attempt_day)
    tries = everyone[~np.isnan(people.attempt_day) & stays]
    wins = everyone[people.activates]
    person = np.concatenate([everyone, tries, wins, person[kept]])
    day = np.concatenate([np.zeros(len(people)), people.attempt_day[tries], people.end_day[wins], day[kept]])
    return at_age(people.signup_us[person], people.zone_us[person], day), person


def _actions(people: People, rng: np.random.Generator, person: Ints, start: Micros) -> Acts:
    """The actions of each session: how many, of what sort, how far apart (log-normal, at most 20 minutes)."""
    day = _ages(people, person, start)
    attempting = _state(people, person, day)[0]
    mean = people.of_kind("actions")[person] * np.exp(0.4 * people.propensity[person]) * np.where(attempting, 1.5, 1.0)
    count = rng.geometric(1.0 / np.maximum(mean, 1.0))
    session = np.repeat(np.arange(len(person)), count)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    steps = np.minimum(np.exp(rng.normal(3.1, 1.1, len(session))) * SECOND, 20 * MINUTE).astype(np.int64) + 1
    run = np.cumsum(steps)
    ts_us = start[session] + run - (run - steps)[first][session]
    who = person[session]
    act = _choose(people, rng, who, attempting[session])
    acts = Acts(who, ts_us, act, _values(people, rng, who, act), session)
    return acts.take(ts_us < people.signup_us[who] + HORIZON_DAYS * DAY)


def _ages(people: People, person: Ints, at_us: Micros) -> Days:
    return age(people.signup_us[person], people.zone_us[person], at_us)


def _choose(people: People, rng: np.random.Generator, person: Ints, attempting: npt.NDArray[np.bool_]) -> Ints:
    """The sort of each action, by the mix of the kind; an attempt is work, more than looking."""
    mix = np.array([[k.mix, np.multiply(k.mix, EAGER)] for k in KINDS])
    ladder = (mix / mix.sum(axis=2, keepdims=True)).cumsum(axis=2)[:, :, :-1]
    chosen = ladder[people.kind[person], attempting.astype(np.int64)]
    return np.asarray((rng.random(len(person))[:, None] >= chosen).sum(axis=1), dtype=np.int64)


def _values(people: People, rng: np.random.Generator, person: Ints, act: Ints) -> Ints:
    """Which page, feature, …: mostly the first ones, the keen go further. Bytes of an upload, status of an error."""
    bend = np.clip(2.0 - 0.6 * people.propensity[person], 1.0, 3.5)
    value = (np.array(VALUES)[act] * rng.random(len(person)) ** bend).astype(np.int64)
    bytes_ = np.exp(rng.normal(11.5, 1.6, len(person))).astype(np.int64) + 200
    value = np.where(act == Act.UPLOAD, bytes_, value)
    return np.where(act == Act.ERROR, ERRORS[np.minimum(value, len(ERRORS) - 1)], value)


def _first_visit(people: People, rng: np.random.Generator) -> list[Acts]:
    """What happens before the sign-up, nobody known yet: pages (for some on an earlier day too), a click, the form."""
    everyone = np.arange(len(people))
    pages = 1 + rng.poisson(1.8, len(people))
    looking = np.repeat(everyone, pages)
    back = (4 * MINUTE + rng.exponential(5 * MINUTE, len(looking))).astype(np.int64)
    earlier = everyone[rng.random(len(people)) < 0.25]
    long_back = (DAY * (0.1 + rng.exponential(1.5, len(earlier)))).astype(np.int64)
    tries = 1 + rng.poisson(0.2 + 0.8 * people.of_kind("empty"))
    filling = np.repeat(everyone, tries)
    nth = np.arange(len(filling)) - np.concatenate([[0], np.cumsum(tries)[:-1]])[filling]
    failed = tries[filling] - 1 - nth
    wait = failed * 25 * SECOND + rng.integers(SECOND, 20 * SECOND, len(filling))
    click = people.signup_us - rng.integers(3 * MINUTE, 4 * MINUTE, len(people))
    return [
        _acts(people, looking, people.signup_us[looking] - back, Act.PAGE, rng.integers(0, 4, len(looking))),
        _acts(people, earlier, people.signup_us[earlier] - long_back, Act.PAGE, rng.integers(0, 4, len(earlier))),
        _acts(people, everyone, click, Act.CLICK, np.zeros(len(people), dtype=np.int64)),
        _acts(people, filling, people.signup_us[filling] - wait, Act.FORM, failed),
    ]


def _milestones(people: People) -> list[Acts]:
    """Identify and sign-up, the elements shown, the activation, the exposure to an experiment."""
    everyone = np.arange(len(people))
    empty = people.fields_empty
    wins = everyone[people.activates]
    published = people.instant_of(people.end_day)[wins]
    shown = [(i, everyone[who]) for i, who in enumerate(people.shown.values())]
    return [
        *_exposures(people, everyone),
        _acts(people, everyone, people.signup_us - SECOND // 5, Act.IDENTIFY, empty),
        _acts(people, everyone, people.signup_us, Act.SIGNED_UP, empty),
        *(
            _acts(people, who, people.signup_us[who] + (2 + i) * SECOND, Act.SHOWN, np.full(len(who), i))
            for i, who in shown
        ),
        _acts(people, wins, published, Act.PUBLISHED, np.zeros(len(wins), dtype=np.int64)),
    ]


def _exposures(people: People, everyone: Ints) -> list[Acts]:
    """When the experiment's element is shown or, to the control, would have been; the value says which."""
    if people.experiment is None:
        return []
    element = people.experiment.element
    at_us = people.signup_us + (2 + list(people.shown).index(element)) * SECOND
    return [_acts(people, everyone, at_us, Act.VIEWED, people.shown[element].astype(np.int64))]


def _acts(people: People, person: Ints, ts_us: Ints, act: Act, value: Ints) -> Acts:
    """Acts outside the sessions; they share the negative session number of their person."""
    return Acts(person, ts_us, np.full(len(person), int(act)), np.asarray(value, dtype=np.int64), -1 - person)
