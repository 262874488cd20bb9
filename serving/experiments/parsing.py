"""The file of experiments, checked as a whole: everything that is wrong in it at once, with its line and what to do.

The file's form is described in saas.yaml.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from serving import yaml_file
from serving.experiments.declared import Experiment, Experiments, Guardrail, Step, Variant
from serving.yaml_file import Entry, Findings, hint

FOLDER = Path(__file__).parent
VARIABLE = "FIRSTMILE_EXPERIMENTS"
OPTIONAL = ("end", "ramp", "share", "for", "kill", "guardrails")
FOREVER = 2**62


class ExperimentsError(ValueError):
    """A file of experiments that cannot be used: every finding, a line each."""


@dataclass(frozen=True)
class Known:
    """What a file may name: elements of the policy, segments; metrics, and whether more of each is better."""

    domain: str
    elements: Sequence[str]
    segments: Sequence[str]
    metrics: dict[str, bool]


def location(domain: Domain) -> Path:
    """Where the experiments are read from: FIRSTMILE_EXPERIMENTS, else <domain>.yaml in this folder."""
    return Settings().experiments or FOLDER / f"{domain.name}.yaml"


def for_domain(domain: Domain, elements: Sequence[str], segments: Sequence[str]) -> Experiments:
    """The domain's experiments; none where it has no file.

    elements: those that the policy declares. segments: all that a person can be in.

    Raises:
        ExperimentsError: the file cannot be read or does not fit.
    """
    file = location(domain)
    if not file.exists() and Settings().experiments is None:
        return Experiments(domain.name)
    metrics = dict.fromkeys(domain.events, False) | {domain.label.name: domain.label.good}
    return load(file, Known(domain.name, elements, segments, metrics))


def load(file: Path, known: Known) -> Experiments:
    """The experiments in a YAML file.

    Raises:
        ExperimentsError: with all that is wrong in it.
    """
    instead = f"set {VARIABLE} or write {FOLDER / (known.domain + '.yaml')}"
    return yaml_file.load(file, partial(_file, known), ExperimentsError, instead)


def _file(known: Known, root: Entry, findings: Findings) -> Experiments:
    top = root.mapping(findings, required=("domain", "holdout", "layers", "experiments"))
    if "domain" in top and (named := top["domain"].text(findings)) not in (None, known.domain):
        wrong = f"these experiments are for domain {named!r}, and the service runs {known.domain!r}"
        findings.add(top["domain"].line, wrong, "use the file of that domain")
    share = top["holdout"].number(findings, 0, 1) if "holdout" in top else None
    layers = dict(_layers(top["layers"], findings)) if "layers" in top else {}
    entries = top["experiments"].mapping(findings, known=None) if "experiments" in top else {}
    parsed = {name: _experiment(name, e, layers, known, findings) for name, e in entries.items()}
    complete = {name: e for name, e in parsed.items() if e is not None}
    _together(complete, entries, findings)
    return Experiments(known.domain, float(share or 0), f"{known.domain}/holdout", layers, complete)


def _layers(entry: Entry, findings: Findings) -> Iterator[tuple[str, str]]:
    """(layer, salt); two layers with one salt would divide people in the same way."""
    salts = dict[str, str]()
    for name, layer in entry.mapping(findings, known=None).items():
        fields = layer.mapping(findings, required=("salt",))
        salt = fields["salt"].text(findings) if "salt" in fields else None
        if salt in salts:
            wrong = f"layers {salts[salt]!r} and {name!r} have the same salt, so they divide people in the same way"
            findings.add(fields["salt"].line, wrong, "give each its own")
        elif salt is not None:
            salts[salt] = name
            yield name, salt


def _experiment(name: str, entry: Entry, layers: dict[str, str], known: Known, findings: Findings) -> Experiment | None:
    before = len(findings.found)
    required = ("layer", "question", "start", "buckets", "variants", "metric")
    fields = entry.mapping(findings, required=required, known=OPTIONAL)
    if any(key not in fields for key in required):
        return None
    start, end = fields["start"].time(findings), fields["end"].time(findings) if "end" in fields else None
    if start is not None and end is not None and end <= start:
        findings.add(fields["end"].line, f"{entry.path} ends before it starts", "give an end after the start")
    found = Experiment(
        name=name,
        question=fields["question"].text(findings) or "",
        layer=fields["layer"].choice(findings, tuple(layers)) or "",
        buckets=_buckets(fields["buckets"], findings),
        start_us=start or 0,
        end_us=end,
        ramp=_ramp(entry, fields, start or 0, end, findings),
        variants=_variants(fields["variants"], known, findings),
        metric=fields["metric"].choice(findings, tuple(known.metrics)) or "",
        segments=_names(fields["for"], known.segments, "segment", findings) if "for" in fields else (),
        guardrails=_guardrails(fields["guardrails"], known, findings) if "guardrails" in fields else (),
        kill=bool(fields["kill"].boolean(findings)) if "kill" in fields else False,
    )
    return found if len(findings.found) == before else None


def _buckets(entry: Entry, findings: Findings) -> tuple[float, float]:
    ends = [item.number(findings, 0, 1) for item in entry.items(findings)]
    if len(ends) != 2:
        findings.add(entry.line, f"{entry.path} has {len(ends)} values", "write [from, to), such as [0, 0.5]")
    elif ends[0] is not None and ends[1] is not None:
        if ends[0] >= ends[1]:
            findings.add(entry.line, f"{entry.path} is empty", "write [from, to) with from below to")
        return float(ends[0]), float(ends[1])
    return 0.0, 1.0


def _ramp(entry: Entry, fields: dict[str, Entry], start: int, end: int | None, findings: Findings) -> tuple[Step, ...]:
    """The steps of `ramp`, or the one that `share` stands for."""
    if ("ramp" in fields) == ("share" in fields):
        findings.add(entry.line, f"{entry.path} needs `ramp` or `share`, one of them", "write `share: 0.5`, say")
        return ()
    if "share" in fields:
        return (Step(start, float(fields["share"].number(findings, 0, 1) or 0)),)
    steps = list[tuple[Step, int]]()
    for item in fields["ramp"].items(findings):
        given = item.mapping(findings, required=("at", "share"))
        at = given["at"].time(findings) if "at" in given else None
        share = given["share"].number(findings, 0, 1) if "share" in given else None
        if at is not None and share is not None:
            steps.append((Step(at, float(share)), item.line))
    for step, line in steps:
        if step.at_us < start or (end is not None and step.at_us >= end):
            findings.add(line, f"a step of {entry.path}.ramp is outside its start and end", "move it inside")
    for (one, _), (two, line) in pairwise(steps):
        if two.at_us <= one.at_us:
            findings.add(line, f"a step of {entry.path}.ramp is not after the one before", "put them in time order")
    if not fields["ramp"].node.value:
        findings.add(fields["ramp"].line, f"{entry.path}.ramp has no step", "write [{at: ..., share: ...}]")
    return tuple(step for step, _ in steps)


def _variants(entry: Entry, known: Known, findings: Findings) -> dict[str, Variant]:
    found = dict[str, Variant]()
    entries = entry.mapping(findings, known=None)
    if len(entries) < 2:
        findings.add(entry.line, f"{entry.path} names {len(entries)}", "name the control first, then at least one more")
    for name, item in entries.items():
        fields = item.mapping(findings, required=("weight",), known=("show", "hide"))
        weight = fields["weight"].number(findings, 0) if "weight" in fields else None
        if weight == 0:
            findings.add(fields["weight"].line, f"{item.path} has weight 0", "give every variant a weight above 0")
        show, hide = (
            _names(fields[k], known.elements, "element", findings) if k in fields else () for k in ("show", "hide")
        )
        if both := sorted({*show} & {*hide}):
            findings.add(item.line, f"{item.path} shows and hides {', '.join(both)}", "keep one of the two")
        found[name] = Variant(float(weight or 1), show, hide)
    return found


def _names(entry: Entry, known: Sequence[str], what: str, findings: Findings) -> tuple[str, ...]:
    names = entry.texts(findings) or []
    for name, line in names:
        if name not in known:
            findings.add(line, f"{what} {name!r} in {entry.path} is not known", hint(name, known))
    return tuple(dict.fromkeys(name for name, _ in names))


def _guardrails(entry: Entry, known: Known, findings: Findings) -> tuple[Guardrail, ...]:
    found = list[Guardrail]()
    for item in entry.items(findings):
        fields = item.mapping(findings, required=("metric", "worse_than"), known=("within", "good"))
        metric = fields["metric"].choice(findings, tuple(known.metrics)) if "metric" in fields else None
        worse = fields["worse_than"].number(findings, 0, 1) if "worse_than" in fields else None
        within = fields["within"].duration(findings) if "within" in fields else None
        good = fields["good"].boolean(findings) if "good" in fields else known.metrics.get(metric or "", False)
        if metric is not None and worse is not None:
            found.append(Guardrail(metric, float(worse), bool(good), within))
    return tuple(found)


def _together(experiments: dict[str, Experiment], entries: dict[str, Entry], findings: Findings) -> None:
    """What two experiments may not do to each other while both run."""
    for one, two in combinations(experiments.values(), 2):
        at_once = max(one.start_us, two.start_us) < min(one.end_us or FOREVER, two.end_us or FOREVER)
        if not at_once:
            continue
        line = entries[two.name].line
        shared = max(one.buckets[0], two.buckets[0]) < min(one.buckets[1], two.buckets[1])
        if one.layer == two.layer and shared:
            wrong = f"{two.name} and {one.name} overlap in the buckets of layer {one.layer}"
            findings.add(line, wrong, "give each its own slice, or one another layer or another time")
        if one.layer != two.layer and (both := sorted(_touched(one) & _touched(two))):
            wrong = f"{two.name} and {one.name} both change {', '.join(both)}, and one person may be in both"
            findings.add(line, wrong, "put them in one layer, with a slice each")


def _touched(experiment: Experiment) -> set[str]:
    return {e for v in experiment.variants.values() for e in (*v.show, *v.hide)}
