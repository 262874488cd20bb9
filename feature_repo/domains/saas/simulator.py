"""A SaaS product and its sign-ups, made up: the same seed gives the same bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from feature_repo.domains.saas import truth
from feature_repo.domains.saas.behaviour import live
from feature_repo.domains.saas.delivery import Raw, Stream, render, send
from feature_repo.domains.saas.experiment import Experiment
from feature_repo.domains.saas.people import Assignment, Effects, People, draw

DAYS = 112
"""Days over which people sign up, unless told otherwise."""


@dataclass(frozen=True)
class Simulation:
    """Iterating gives (raw event, received_us) in order of arrival, as often as wanted; `len` is their number."""

    people: People
    seed: int
    stream: Stream

    def __iter__(self) -> Iterator[tuple[Raw, int]]:
        return render(self.people, self.seed, self.stream)

    def __len__(self) -> int:
        return len(self.stream)

    @property
    def truth(self) -> pa.Table:
        """What is true of each person: see `truth.table`."""
        return truth.table(self.people)


def simulate(
    users: int,
    seed: int,
    end_us: int,
    days: int = DAYS,
    effects: Effects | None = None,
    assignment: Assignment | None = None,
    experiment: Experiment | None = None,
) -> Simulation:
    """`users` people who sign up in the `days` before `end_us`, and what was received of them by then.

    effects: onboarding element -> kind -> shift of the logit of activating, for those who were shown the element.
    assignment: element -> share who are shown it (default: half, of each element with an effect), or a function
        of the person's number and a generator that gives the set of their elements.

    experiment: everybody is in it, its element is shown as its hash says, and each of them sends `Experiment Viewed`.

    >>> a, b = (simulate(20, seed=1, end_us=1_750_000_000_000_000) for _ in range(2))
    >>> list(a) == list(b), len(a.truth)
    (True, 20)

    Raises:
        ValueError: an effect names no kind of people (kinds.py), or no users or no days are asked for.
    """
    people = draw(users, seed, end_us, days, effects, assignment, experiment)
    doing, sending = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)[4:])
    return Simulation(people, seed, send(live(people, doing), end_us, sending))
