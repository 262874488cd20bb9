"""The experiments of a domain as people see them: one table, where each stands now."""

from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from feature_repo import domains
from feature_repo.settings import Settings
from serving import playbook
from serving.experiments.assign import closed
from serving.experiments.declared import Experiment, Experiments
from serving.experiments.paused import Paused, read


def of(settings: Settings) -> Experiments:
    """The domain's experiments, checked against its policy and rules.

    Raises:
        ValueError: no such domain, or one of the files does not fit.
    """
    return playbook.for_domain(domains.load(settings.domain)).experiments


def paused(settings: Settings) -> dict[str, Paused]:
    """What guardrails have paused in this state folder."""
    return read(settings.state)


def standing(experiment: Experiment, held: Mapping[str, Paused], at_us: int) -> str:
    """Running, not begun, ended, killed, or paused and why."""
    why_not = closed(experiment, at_us, held)
    return f"paused: {held[experiment.name].reason}" if why_not == "paused" else why_not or "running"


def table(experiments: Experiments, held: Mapping[str, Paused], at_us: int) -> Table:
    """Experiment, layer and slice, share now, standing, variants with their weights."""
    found = Table("experiment", "layer", "buckets", "share now", "standing", "variants", "question")
    for e in experiments.experiments.values():
        found.add_row(
            e.name, e.layer, f"[{e.buckets[0]:g}, {e.buckets[1]:g})".replace("[", r"\["), f"{e.share(at_us):.0%}",
            escape(standing(e, held, at_us)), ", ".join(f"{n} {w:g}" for n, w in e.weights.items()),
            escape(e.question),
        )  # fmt: skip
    return found
