"""Who gets which variant: a pure function of (experiments, person, segments, exposures, time, what is paused).

killed, paused, not running ---------> nobody
exposed before, ramp still covers ---> the variant of the first exposure, whatever hash and segment say
holdout -----------------------------> nothing
another experiment of the layer -----> skipped
segment, slice of the layer, ramp ---> the variant by hash
"""

from collections.abc import Collection, Mapping

import msgspec

from feature_repo.buckets import unit_interval, weighted
from serving.experiments.declared import Experiment, Experiments
from serving.times import rfc3339

Exposures = Mapping[str, tuple[str, int]]
"""Experiment -> (variant, µs) of a person's first exposure, merged over the ids that are known to be theirs."""


class Assigned(msgspec.Struct, frozen=True):
    """A variant, what it does to the elements, and why, in words."""

    experiment: str
    variant: str
    why: str
    show: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()


class Assignment(msgspec.Struct, frozen=True):
    """A person's variants in the order of the experiments; `skipped`: (experiment, why not).

    holdout: whether the person is in the permanent holdout, who get neither treatments nor adaptive elements.
    """

    variants: tuple[Assigned, ...] = ()
    holdout: bool = False
    skipped: tuple[tuple[str, str], ...] = ()


def assign(
    experiments: Experiments,
    unit_id: str,
    segments: Collection[str],
    exposures: Exposures,
    at_us: int,
    paused: Collection[str] = (),
) -> Assignment:
    """The variants of one person at a time.

    unit_id: the id that is hashed. Of somebody who becomes known it changes: their exposures keep them where they
        are. segments: those that the person is in now.
    """
    holdout = in_holdout(experiments, unit_id, exposures)
    taken = _sticky(experiments, unit_id, exposures, at_us, paused)
    variants, skipped = list[Assigned](), list[tuple[str, str]]()
    for experiment in experiments.experiments.values():
        held = taken.get(experiment.layer)
        if why_not := closed(experiment, at_us, paused):
            skipped.append((experiment.name, why_not))
        elif held is experiment:
            variants.append(_stays(experiment, *exposures[experiment.name]))
        elif holdout:
            skipped.append((experiment.name, "in the permanent holdout"))
        elif held is not None:
            skipped.append((experiment.name, f"already in {held.name} of layer {experiment.layer}"))
        elif why_not := _outside(experiments, experiment, unit_id, segments, at_us):
            skipped.append((experiment.name, why_not))
        else:
            variants.append(_enters(experiment, unit_id))
    return Assignment(tuple(variants), holdout, tuple(skipped))


def closed(experiment: Experiment, at_us: int, paused: Collection[str]) -> str | None:
    """Why nobody is in it at that time: killed, paused, not begun, ended; None: somebody may be."""
    if experiment.kill:
        return "killed"
    if experiment.name in paused:
        return "paused"
    if at_us < experiment.start_us:
        return "not begun"
    return None if experiment.runs(at_us) else "ended"


def in_holdout(experiments: Experiments, unit_id: str, exposures: Exposures) -> bool:
    """Whether a person is in the permanent holdout: by hash, unless they have seen an experiment under another id."""
    return not exposures and unit_interval(experiments.holdout_salt, unit_id) < experiments.holdout


def in_ramp(experiment: Experiment, unit_id: str, at_us: int, exposed_us: int | None = None) -> bool:
    """Whether the ramp covers a person: by hash, and for the exposed as long as it is not below where it was then.

    Both grow with the share now, so that a ramp going up only adds people and one going down only removes. The second
    is what keeps people whose id, and so whose hash, changed when they became known.
    """
    share = experiment.share(at_us)
    if exposed_us is not None and share > 0 and share >= experiment.share(exposed_us):
        return True
    return unit_interval(f"{experiment.name}/ramp", unit_id) < share


def _sticky(
    experiments: Experiments, unit_id: str, exposures: Exposures, at_us: int, paused: Collection[str]
) -> dict[str, Experiment]:
    """By layer the experiment that a person stays in: of several exposures the earliest."""
    seen = sorted((us, name) for name, (_, us) in exposures.items())
    stays = dict[str, Experiment]()
    for us, name in seen:
        experiment = experiments.experiments.get(name)
        if experiment is None or experiment.layer in stays or exposures[name][0] not in experiment.variants:
            continue
        if not closed(experiment, at_us, paused) and in_ramp(experiment, unit_id, at_us, us):
            stays[experiment.layer] = experiment
    return stays


def _stays(experiment: Experiment, name: str, exposed_us: int) -> Assigned:
    variant = experiment.variants[name]
    why = f"{experiment.name}: {name}, as first seen at {rfc3339(exposed_us)}"
    return Assigned(experiment.name, name, why, variant.show, variant.hide)


def _outside(
    experiments: Experiments, experiment: Experiment, unit_id: str, segments: Collection[str], at_us: int
) -> str | None:
    """Why a person does not enter; None: they do."""
    if experiment.segments and not any(s in experiment.segments for s in segments):
        return f"for {', '.join(experiment.segments)} only"
    low, high = experiment.buckets
    if not low <= unit_interval(experiments.layers[experiment.layer], unit_id) < high:
        return f"outside its buckets [{low:g}, {high:g}) of layer {experiment.layer}"
    return None if in_ramp(experiment, unit_id, at_us) else f"the ramp is at {experiment.share(at_us):.0%}"


def _enters(experiment: Experiment, unit_id: str) -> Assigned:
    name = weighted(f"{experiment.name}/variant", unit_id, experiment.weights)
    variant, total = experiment.variants[name], sum(experiment.weights.values())
    why = f"{experiment.name}: {name}, by chance (weight {variant.weight:g} of {total:g})"
    return Assigned(experiment.name, name, why, variant.show, variant.hide)
