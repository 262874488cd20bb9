"""The gate before @champion: the standing champion and the candidate on the same newest holdout, and why."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.settings import Settings
from training import dataset, registry, splits, tracking
from training.candidates import EDGE
from training.contest import labels
from training.evaluate import METRICS, difference, draws, ece, metrics, roc_auc
from training.model import EngagementModel


@dataclass(frozen=True)
class Gate:
    """What a candidate must show.

    margin: ROC-AUC by which it must be better; the lower end of the paired 90 % bootstrap interval must be above 0.
    slice_drop: ROC-AUC by which no slice with `slice_rows` rows, and `slice_each` of either label, may be worse.
    ece: most calibration error beyond what chance gives; log loss must be below that of the holdout's base rate.
    latency_us: most microseconds for one person, median.
    """

    margin: float = 0.002
    slice_drop: float = 0.03
    slice_rows: int = 200
    slice_each: int = 30
    ece: float = 0.05
    latency_us: float = 1_000.0
    draws: int = 300
    seed: int = 11


@dataclass(frozen=True)
class Check:
    """One condition of the gate: whether it holds, and the figures in words."""

    name: str
    passed: bool
    words: str


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a version. `standing`: the champion's version before, None: there was none."""

    version: int
    standing: int | None
    promoted: bool
    checks: list[Check]

    @property
    def reason(self) -> str:
        """Why, in words: what failed, or else what was shown."""
        failed = [c.words for c in self.checks if not c.passed]
        return "; ".join(failed or [c.words for c in self.checks])


def promote(settings: Settings, version: int | None = None, gate: Gate = Gate(), reason: str = "") -> Verdict:
    """Move @champion: to the newest version if it passes the gate, or to `version` without one (a roll back).

    Either way the version gets the tags gate.verdict and gate.reason.

    Raises:
        NoModelError: there is no version, or not that one. ValueError: the version asked for reads a sensitive feature.
    """
    standing = registry.champion_version(settings)
    if version is not None:
        return _force(settings, version, standing, reason)
    newest = registry.newest_version(settings)
    if newest is None:
        raise registry.NoModelError(f"no version of {tracking.model_name(settings)} yet: run `make train`")
    verdict = _unchanged(newest) if newest == standing else _gated(settings, newest, standing, gate)
    if newest != standing:
        _record(settings, verdict, "promoted" if verdict.promoted else "refused")
    return verdict


def _unchanged(version: int) -> Verdict:
    return Verdict(version, version, False, [Check("newer", False, f"version {version} is the champion already")])


def _force(settings: Settings, version: int, standing: int | None, reason: str) -> Verdict:
    if not (allowed := not_sensitive(domains.load(settings.domain), registry.load(settings, version))).passed:
        raise ValueError(allowed.words)
    words = f"asked for by name, without the gate; the champion was {standing or 'none'}"
    verdict = Verdict(version, standing, True, [Check("asked for", True, f"{reason}: {words}" if reason else words)])
    _record(settings, verdict, "rolled back" if standing and version < standing else "forced")
    return verdict


def _record(settings: Settings, verdict: Verdict, outcome: str) -> None:
    """The tags first, so that a champion never stands without its reason."""
    registry.tag(settings, verdict.version, {"gate.verdict": outcome, "gate.reason": verdict.reason[:4_900]})
    if verdict.promoted:
        registry.move_champion(settings, verdict.version)


def _gated(settings: Settings, version: int, standing: int | None, gate: Gate) -> Verdict:
    """Both models on the newest holdout of the candidate's time, then every check.

    A champion that reads a sensitive feature, which the service refuses, is no rival: the base rate is.
    """
    domain, facts = domains.load(settings.domain), registry.tags(settings, version)
    known = dataset.matured(dataset.observations(settings, int(facts["now_us"])))
    held = splits.newest_holdout(known, float(facts["holdout"]), int(facts["gap_us"]))
    candidate = registry.load(settings, version)
    rows = _rows_for(settings, candidate, held.holdout)
    p = candidate.probabilities(rows)
    base = labels(held.train).mean()
    champion = None if standing is None else registry.load(settings, standing)
    rival = champion if champion is not None and not_sensitive(domain, champion).passed else None
    q = _rival_scores(settings, rival, held.holdout, rows, float(base))
    other = "the base rate" if rival is None else f"version {rival.version}"
    checks = [
        serves(settings, candidate),
        not_sensitive(domain, candidate),
        unseen(int(facts["known_by_us"]), held.known_by_us),
        *compare(domain, rows, p, q, other, gate),
        fast_enough(candidate, rows, gate),
        *served_right(settings),
    ]
    return Verdict(version, standing, all(c.passed for c in checks), checks)


def served_right(settings: Settings) -> list[Check]:
    """Whether the last comparison of served features with the lake found them equal; none where there was none."""
    path = settings.state / "parity.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    words = f"{found['vectors']:,} served feature vectors, {found['wrong']:,} values that the lake does not give"
    return [Check("parity", found["wrong"] == 0, words + _what_is_wrong(found))]


def _what_is_wrong(found: dict[str, Any], most: int = 5) -> str:
    """The features of a parity.json that were served wrong, the worst first, and what that looks like."""
    kinds = ("mismatched", "missing", "extra")
    counts = {name: sum(tally[k] for k in kinds) for name, tally in found.get("features", {}).items()}
    wrong = [f"{name} {n:,}" for name, n in sorted(counts.items(), key=lambda c: (-c[1], c[0])) if n]
    if not wrong:
        return ""
    more = f" and {len(wrong) - most} more" if len(wrong) > most else ""
    looks = ", ".join(found.get("faults", {}))
    return f": {', '.join(wrong[:most])}{more}" + (f"; looks like {looks}" if looks else "")


def _rows_for(settings: Settings, model: EngagementModel, observed: pd.DataFrame) -> pd.DataFrame:
    return dataset.with_features(settings, observed, dataset.service_version(model.feature_service))


def _rival_scores(
    settings: Settings, model: EngagementModel | None, observed: pd.DataFrame, rows: pd.DataFrame, base: float
) -> np.ndarray:
    """(n,) what the champion says of the holdout, through its own feature service; without one, the base rate."""
    if model is None:
        return np.full(len(rows), base)
    own = rows if set(model.features) <= set(rows.columns) else _rows_for(settings, model, observed)
    return model.probabilities(own)


def serves(settings: Settings, model: EngagementModel) -> Check:
    """The feature service exists and gives every feature that the model was trained on."""
    from feast.errors import FeatureServiceNotFoundException

    from feature_repo.feature_store.store import feature_store

    try:
        service = feature_store(settings, lineage=False).get_feature_service(model.feature_service)
    except FeatureServiceNotFoundException:
        return Check(
            "feature service", False, f"feature service {model.feature_service} is not there: run `make apply`"
        )
    given = {f.name for p in service.feature_view_projections for f in p.features}
    missing = sorted(set(model.features) - given)
    words = f"lacks {', '.join(missing)}" if missing else f"has all {len(model.features)} features"
    return Check("feature service", not missing, f"feature service {model.feature_service} {words}")


def not_sensitive(domain: Domain, model: EngagementModel) -> Check:
    """The model reads no feature that the domain declares sensitive: the service would refuse it."""
    barred = domain.sensitive_among(model.reads)
    words = f"reads {', '.join(barred)}" if barred else "reads none of them"
    of = f"domain {domain.name} declares {', '.join(domain.sensitive) or 'nothing'} sensitive"
    return Check("sensitive features", not barred, f"{of}, and version {model.version} {words}")


def unseen(known_by_us: int, begins_us: int) -> Check:
    """The candidate has not learnt from labels that came after the holdout began."""
    words = "learnt only from labels known before the holdout begins"
    late = f"learnt from labels up to {known_by_us} µs, the holdout begins at {begins_us} µs"
    return Check("unseen holdout", known_by_us <= begins_us, words if known_by_us <= begins_us else late)


def compare(domain: Domain, rows: pd.DataFrame, p: np.ndarray, q: np.ndarray, other: str, gate: Gate) -> list[Check]:
    """Better, calibrated, no slice worse: the candidate's probabilities p against q, those of `other`."""
    y, weights = labels(rows), draws(rows["user_id"].to_numpy(), gate.draws, gate.seed)
    return [
        better(y, p, q, weights, other, gate),
        calibrated(y, p, rows["user_id"].to_numpy(), gate),
        *slices_hold(domain.slices, rows, p, q, gate),
    ]


def better(y: np.ndarray, p: np.ndarray, q: np.ndarray, weights: np.ndarray, other: str, gate: Gate) -> Check:
    """ROC-AUC by the margin, and surely above that of the other."""
    gain = difference(METRICS["roc_auc"], y, p, q, weights)
    once = np.ones(len(y))
    passed = bool(gain.value >= gate.margin and gain.low > 0)
    words = (
        f"ROC-AUC {roc_auc(y, p, once):.4f} against {roc_auc(y, q, once):.4f} of {other}: "
        f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], needed {gate.margin:+.4f} and an interval above 0"
    )
    return Check("better", passed, words)


def calibrated(y: np.ndarray, p: np.ndarray, users: np.ndarray, gate: Gate) -> Check:
    """Calibration error within the limit beyond what chance gives, and log loss below that of the base rate.

    Chance: what 95 % of the errors stay below if p is exactly right, with labels drawn from it, one draw for all rows
    of a person.
    """
    once = np.ones(len(y))
    drawn = [ece(labels_, p, once) for labels_ in _labels_if_right(p, users, gate)]
    error, chance = ece(y, p, once), float(np.quantile(drawn, 0.95))
    own = metrics(y, p)["log_loss"]
    flat = metrics(y, np.full(len(y), np.clip(y.mean(), EDGE, 1 - EDGE)))["log_loss"]
    words = (
        f"calibration error {error:.3f}, of which chance explains {chance:.3f} (at most {gate.ece} beyond it); "
        f"log loss {own:.4f} against {flat:.4f} of the base rate"
    )
    return Check("calibrated", bool(error - chance <= gate.ece and own < flat), words)


def _labels_if_right(p: np.ndarray, users: np.ndarray, gate: Gate) -> Iterator[np.ndarray]:
    """(n,) labels of people whose probability is p, `gate.draws` times."""
    _, person = np.unique(users.astype(str), return_inverse=True)
    rng = np.random.default_rng(gate.seed)
    for _ in range(gate.draws):
        yield (rng.random(person.max() + 1)[person] < p).astype(np.int8)


def slices_hold(columns: Sequence[str], rows: pd.DataFrame, p: np.ndarray, q: np.ndarray, gate: Gate) -> list[Check]:
    """No slice with enough rows is worse than the limit, and surely worse; one check for all, naming those that are."""
    y, users = labels(rows), rows["user_id"].to_numpy()
    bad, judged = [], 0
    for column in columns:
        for value, index in rows.reset_index(drop=True).groupby(column, dropna=False).indices.items():
            positives = int(y[index].sum())
            if len(index) < gate.slice_rows or min(positives, len(index) - positives) < gate.slice_each:
                continue
            judged += 1
            weights = draws(users[index], gate.draws, gate.seed)
            loss = difference(METRICS["roc_auc"], y[index], p[index], q[index], weights)
            if loss.value < -gate.slice_drop and loss.high < 0:
                bad.append(f"{column}={value} {loss.value:+.3f} [{loss.low:+.3f}, {loss.high:+.3f}]")
    words = (
        f"worse on {', '.join(bad)} (limit -{gate.slice_drop})"
        if bad
        else f"none of {judged} slices worse by {gate.slice_drop}"
    )
    return [Check("slices", not bad, words)]


def fast_enough(model: EngagementModel, rows: pd.DataFrame, gate: Gate, people: int = 200) -> Check:
    """Median time of the one-row path."""
    frame = rows[model.features].head(people)
    values = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    taken = []
    for one in values:
        start = time.perf_counter_ns()
        model.score_one(one)
        taken.append((time.perf_counter_ns() - start) / 1_000)
    median = float(np.median(taken))
    return Check(
        "fast enough", median <= gate.latency_us, f"{median:.0f} µs for one person (at most {gate.latency_us:.0f})"
    )
