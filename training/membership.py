"""The personas of a registered version: how many people are in each, and how often the outcome follows."""

from dataclasses import dataclass

import pandas as pd

from feature_repo import domains
from feature_repo.settings import Settings
from training import dataset, registry
from training.discovery import latest
from training.model import EngagementModel

NOBODY = "in none"


@dataclass(frozen=True)
class Members:
    """A persona's people. rate: share of those with a known label whose outcome follows; None: no label is known."""

    name: str
    doc: str
    people: int
    share: float
    rate: float | None


@dataclass(frozen=True)
class Membership:
    """What came of it. label: name of the outcome. people: all of them. personas: the largest first."""

    model: EngagementModel
    label: str
    people: int
    personas: list[Members]


def membership(settings: Settings, now_us: int, version: int | None = None) -> Membership:
    """Everybody whose onboarding has begun by `now_us`, once, at their latest observation (default: by @champion).

    Raises:
        NoModelError: there is no such version, or no champion yet.
    """
    model, domain = registry.load(settings, version), domains.load(settings.domain)
    observed = latest(dataset.observations(settings, now_us))
    if model.discovered is None or observed.empty:
        return Membership(model, domain.label.name, len(observed), [])
    rows = dataset.with_features(settings, observed, dataset.service_version(model.feature_service))
    return Membership(model, domain.label.name, len(rows), members(model, rows))


def members(model: EngagementModel, rows: pd.DataFrame) -> list[Members]:
    """Each persona's people among feature rows with their `label` (null: not known yet), the largest first."""
    found = model.discovered
    if found is None:
        return []
    docs = {p.name: p.doc for p in found.personas} | {NOBODY: "Unlike everybody learnt from."}
    by_name = rows["label"].groupby([n or NOBODY for n in found.many(rows)])
    told = [_of(str(name), docs[str(name)], label, len(rows)) for name, label in by_name]
    return sorted(told, key=lambda m: (-m.people, m.name))


def _of(name: str, doc: str, label: pd.Series, everybody: int) -> Members:
    known = label.dropna()
    return Members(name, doc, len(label), len(label) / everybody, float(known.mean()) if len(known) else None)
