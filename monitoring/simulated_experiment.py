"""The experiment among simulated people, and beside what its analysis says what is true: the simulator knows."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq
from rich.table import Table

from feature_repo.domains.saas import filling, truth
from feature_repo.domains.saas.experiment import CONTROL
from feature_repo.settings import Settings
from monitoring import experiments, experiments_console
from monitoring.comparison import Curve
from monitoring.experiments import Result, sentence
from serving.experiments.declared import Experiment, Experiments, Step, Variant


@dataclass(frozen=True)
class Simulated:
    """truth: the mean of what the element does to the probability of the people who count, overall (None) and by
    segment. picture: path of the drawn curve."""

    result: Result
    truth: Mapping[str | None, float]
    picture: str

    def table(self) -> Table:
        """A row for everybody and each segment: the interval, the truth, whether it is inside."""
        found = Table(
            "who", "people", "effect, in percentage points", "truth", "covered", title=self.result.experiment.name
        )
        for curve in (*self.result.overall, *self.result.segments):
            true = self.truth.get(curve.segment)
            known = curve.known and true is not None
            covered = ("yes" if self.covers(curve) else "NO") if known else ""
            told = "" if true is None else f"{100 * true:+.1f}"
            found.add_row(curve.segment or "everybody", f"{curve.people[-1]:,}", sentence(curve), told, covered)
        return found

    def covers(self, curve: Curve) -> bool:
        """Whether the newest interval holds the truth."""
        return bool(curve.low[-1] <= self.truth[curve.segment] <= curve.high[-1])

    def figures(self) -> dict[str, object]:
        """The overall comparison, as plain values; effects are differences of probabilities."""
        [curve], result = self.result.overall, self.result
        values = {"effect": curve.effect[-1], "low": curve.low[-1], "high": curve.high[-1], "truth": self.truth[None]}
        rounded = {name: round(float(value), 6) for name, value in values.items()} if curve.known else {}
        return {"name": result.experiment.name, "people": len(result.people), "picture": self.picture, **rounded}


def simulated(settings: Settings, at_us: int) -> Simulated | None:
    """Analyse the simulated experiment of this state folder up to a time; None: there is none.

    The people were divided by the hash that serving divides by, and each of them sent its exposure; from there on it is
    analysed as any other is. Nothing is paused.
    """
    tried = filling.experiment(settings)
    if tried is None:
        return None
    people = pq.read_table(settings.state / truth.FILE).to_pandas()
    declared = _declared(tried, int(people["signup_us"].min()))
    [result] = experiments.experiments(settings, declared, at_us)
    people["effect"] = people[f"p1_{tried.element}"] - people["p0"]
    counted = result.people.merge(people[["user_id", "effect"]], on="user_id")
    true: dict[str | None, float] = {None: float(counted["effect"].mean())}
    true |= {str(s): float(v) for s, v in counted.groupby("segment")["effect"].mean().items()}
    return Simulated(result, true, experiments_console.draw(settings, result, true[None]))


def _declared(tried: filling.Experiment, start_us: int) -> Experiments:
    """The simulated experiment as a file would declare it."""
    variants = {CONTROL: Variant(1.0), tried.element: Variant(1.0, show=(tried.element,))}
    question = f"Does {tried.element} help people to activate?"
    ramp = (Step(start_us, 1.0),)
    one = Experiment(tried.name, question, "simulated", (0.0, 1.0), start_us, None, ramp, variants, "activation")
    return Experiments("saas", layers={"simulated": "simulated"}, experiments={one.name: one})
