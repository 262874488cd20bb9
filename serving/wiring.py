"""What a running service is made of, put together in one place."""

import logging
import os
from pathlib import Path

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.live import Live, open_live
from feature_repo.quarantine import Quarantine
from feature_repo.settings import Settings
from feature_repo.storage import BusyError
from feature_repo.tombstones import Tombstones
from serving import policy
from serving.collect.door import Door
from serving.decide import Model, ModelFault
from serving.decision_log import DecisionLog
from serving.engine import Engine
from serving.erasing import Erasing
from serving.features import Reader
from serving.models import POLL_S, Champion, from_folder, from_registry
from serving.users import Users

EMBEDDED = "sqlite"
_log = logging.getLogger("bentoml.serve.firstmile")


class WorkersError(ValueError):
    """More than one worker over stores that one process owns."""


def workers() -> int:
    """How many worker processes: FIRSTMILE_WORKERS, 1 by default.

    Raises:
        WorkersError: no number above 0, or several over the embedded stores.
    """
    asked = os.environ.get("FIRSTMILE_WORKERS") or "1"
    if not asked.isdigit() or int(asked) < 1:
        raise WorkersError(f"FIRSTMILE_WORKERS: expected a whole number from 1, got {asked!r}")
    if int(asked) > 1 and Settings().online == EMBEDDED:
        raise WorkersError(
            f"{asked} workers over embedded stores: they belong to one process. "
            "Use one worker, or an online store of its own: FIRSTMILE_ONLINE=redis://host:port/db"
        )
    return int(asked)


def check(settings: Settings) -> tuple[Domain, policy.Policy]:
    """What can be checked before anything starts.

    Raises:
        ValueError: no such domain, or a step of its enrichment lacks what it needs. PolicyError: the policy does not
            fit.
    """
    domain = domains.load(settings.domain)
    Enrichment(domain)
    return domain, policy.for_domain(domain)


def champion(settings: Settings, folder: Path | None) -> Champion:
    """The model: the one in a folder (the Bento's own), or the registry's champion, whoever that is."""
    if folder is not None:
        return from_folder(folder)
    return from_registry(settings, float(os.environ.get("FIRSTMILE_POLL_SECONDS") or POLL_S))


def engine(settings: Settings, folder: Path | None = None, logged: bool = True, live: Live | None = None) -> Engine:
    """A started engine. Stores and registry may be down: it decides anyway, and says so.

    folder: of a bundled champion; None: follow the registry. logged: whether decisions go to the decision log. live:
    what takes events in, where this process does.
    """
    domain, rules = check(settings)
    reader = Reader(settings, domain, live)
    reader.connect()
    holder = champion(settings, folder)
    holder.fits = lambda model: fits(model, reader, rules)
    erased = live.erased if live else Tombstones(settings.state)
    log = DecisionLog(settings.decisions, erased=erased.covers).start() if logged else None
    return Engine(reader, holder.start(), rules, domain.label, log)


def fits(model: Model, reader: Reader, rules: policy.Policy) -> None:
    """Whether the service can work with a model, asked before it is put in place.

    Raises:
        ModelFault: it needs a feature that the online store does not hold, or has a segment without a journey.
    """
    who = f"{model.name} version {model.version}"
    if lacking := reader.missing(model.features):
        raise ModelFault(f"{who} needs {', '.join(lacking)}, which the feature view does not hold: run `make apply`")
    if strange := [s for s in model.segments if s not in rules.segments]:
        raise ModelFault(f"{who} has segment {', '.join(strange)}, for which the policy has no journey")


def door(settings: Settings, live: Live) -> Door:
    """Where events come in."""
    domain = domains.load(settings.domain)
    enrich = Enrichment(domain) if domain.enrich else None
    return Door(domain, live, Quarantine(settings.quarantine), live.pending.known, enrich, live.erased)


def users(settings: Settings, live: Live | None, collector: Door | None, log: DecisionLog | None) -> Users:
    """What answers for single people; where this process takes events in, it also finishes erasures begun before."""
    if live is None or collector is None:
        return Users(settings, Tombstones(settings.state), None)
    return Users(settings, live.erased, Erasing(live, collector.erase, log).start())


def live(settings: Settings) -> Live | None:
    """What takes events in, started; None where another process has this state folder's log, or several workers run
    without a broker."""
    if workers() > 1 and settings.log == EMBEDDED:
        return None
    try:
        return open_live(settings)
    except BusyError as e:
        _log.warning("no events are taken in here: %s", e)
        return None
