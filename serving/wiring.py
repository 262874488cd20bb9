"""What a running service is made of, put together in one place."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from feature_repo import domains
from feature_repo.domain import Domain
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.erasing.tombstones import Tombstones
from feature_repo.intact import faults, parquet_faults, sqlite_faults
from feature_repo.lake.quarantine import Quarantine
from feature_repo.settings import Settings, now_us
from feature_repo.storage import BusyError, DamagedFile
from feature_repo.stream.live import Live, open_live
from feature_repo.stream.personal import Personal
from serving import bento, decision_log, playbook
from serving.collect.door import Door
from serving.consent import FILE as OPTED_OUT
from serving.consent import Consent
from serving.decide import Model, ModelFault, Snapshot, score
from serving.decision_log import DecisionLog
from serving.engine import Engine
from serving.erasing import Erasing
from serving.experiments.paused import Pauses
from serving.features import Reader, with_elapsed
from serving.models import Champion, from_folder, from_registry
from serving.past_data import PastData
from serving.playbook import Playbook, Shelf
from serving.rules import Rules
from serving.segments.announcer import Announcer
from serving.segments.channels import endpoints, running
from serving.segments.channels.running import Channels
from serving.segments.journal import FILE, Journal
from serving.segments.keeper import Keeper
from serving.users import Users
from serving.values import Value
from serving.why.explanation import Explainer

EMBEDDED = "sqlite"
_log = logging.getLogger("bentoml.serve.firstmile")


def check(settings: Settings) -> tuple[Domain, Playbook]:
    """What can be checked before anything starts.

    Raises:
        ValueError: no such domain, or a step of its enrichment lacks what it needs, or policy, rules, experiments or
            webhooks do not fit.
    """
    domain = domains.load(settings.domain)
    Enrichment(domain)
    endpoints.declared(settings)
    return domain, playbook.for_domain(domain)


def intact(settings: Settings) -> str | None:
    """Look at the files of the state; returns what to say of damaged ones that the service can do without.

    Raises:
        DamagedFile: some without which it would lose events, or decide wrongly.
    """
    databases = {
        settings.state / OPTED_OUT: "Bring it back from a backup: without it who opted out is profiled again.",
        settings.state / FILE: f"Remove it, then run `python -m serving segments --domain {settings.domain}`.",
    }
    if found := [*faults(settings), *sqlite_faults(databases)]:
        raise DamagedFile("\n".join(found))
    return "\n".join(parquet_faults(settings.decisions, decision_log.REMEDY)) or None


def champion(settings: Settings, folder: Path | None) -> Champion:
    """The model: the one in a folder (the Bento's own), or the registry's champion, whoever that is."""
    if folder is not None:
        return from_folder(folder, bento.champion_digest())
    return from_registry(settings, settings.poll_seconds)


def engine(settings: Settings, folder: Path | None = None, logged: bool = True, live: Live | None = None) -> Engine:
    """A started engine. Stores and registry may be down: it decides anyway, and says so.

    folder: of a bundled champion; None: follow the registry. logged: whether decisions go to the decision log. live:
    what takes events in, where this process does: without it rules remember nothing, and nothing is known of feedback.
    """
    domain, book = check(settings)
    reader = Reader(settings, domain, live)
    reader.connect()
    holder = champion(settings, folder)
    holder.fits = lambda model: fits(model, domain, reader, book)
    holder.start()
    erased = live.erased if live else Tombstones(settings.state)
    log = DecisionLog(settings.decisions, erased=erased.covers).start() if logged else None
    if logged:
        Shelf(settings).keep(book)
    follows = keeper(settings, domain, book, live, holder) if live else None
    consent, paused = Consent(settings.state), Pauses(settings.state)
    past = PastData(settings.lake, domain.horizon).start(now_us())
    made = Engine(reader, holder, book, log, follows, consent, Explainer(domain), lambda: paused.names, past)
    if live is not None and live.sums_at_limit is not None:
        made.metrics.asked["sums_at_limit"] = lambda: live.sums_at_limit or 0
    return made


def keeper(settings: Settings, domain: Domain, book: Playbook, live: Live, holder: Champion) -> Keeper:
    """Follows people's segments; the first process of a state folder writes down what it finds."""
    try:
        journal = Journal(settings.state / FILE)
    except BusyError:
        journal = Journal()
    eras = [(since, Rules.from_content(content)) for since, content in journal.begin_era(book.rules.content, now_us())]

    def scored(values: Mapping[str, Value], at_us: int) -> dict[str, float | str | None]:
        found = score(with_elapsed(domain, Snapshot(values, at_us), at_us).values, holder.model, domain.label)
        return {"score": found.score, "engagement": found.engagement, "persona": found.persona}

    reader = partial(Personal, settings, live.history)
    return Keeper(reader, journal, eras, book.policy.boundaries.session_gap_us, scored, live.erased.covers)


def announcer(settings: Settings, engine: Engine, live: Live) -> Announcer | None:
    """Keeps everybody's segments up to date and tells of changes; None where another process does."""
    if engine.keeper is None or engine.keeper.journal.file is None:
        return None
    reader = Reader(settings, domains.load(settings.domain), live)
    reader.connect()
    model = lambda: engine.champion.model  # noqa: E731
    consent = engine.consent or Consent(settings.state)
    found = Announcer(engine.keeper, reader, model, engine.playbook, consent.opted_out)
    live.on_written(found.touch)
    engine.metrics.asked["segments_waiting"] = lambda: found.waiting
    return found.start()


def channels(settings: Settings, engine: Engine, announcer: Announcer) -> Channels:
    """Tell others of changes of segments."""
    assert engine.keeper is not None
    return running.start(settings, engine.keeper.journal, announcer)


def fits(model: Model, domain: Domain, reader: Reader, book: Playbook) -> str | None:
    """Whether the service can work with a model, asked before it is put in place.

    Gives what to say of a persona that the rules read and the model does not know: their names come and go with models.

    Raises:
        ModelFault: it reads a sensitive feature, needs one that the online store does not hold, or has a segment
            without a journey.
    """
    who = f"{model.name} version {model.version}"
    if barred := domain.sensitive_among(getattr(model, "reads", model.features)):
        raise ModelFault(
            f"{who} reads {', '.join(barred)}, which domain {domain.name} declares sensitive: "
            "train and promote another one"
        )
    if lacking := reader.missing(model.features):
        raise ModelFault(f"{who} needs {', '.join(lacking)}, which the feature view does not hold: run `make apply`")
    if strange := [s for s in model.segments if s not in book.policy.segments]:
        raise ModelFault(f"{who} has segment {', '.join(strange)}, for which the policy has no journey")
    if nobody := [p for p in book.rules.personas if p not in model.personas]:
        known = ", ".join(model.personas) or "none"
        return f"the rules read persona {', '.join(nobody)}, in which nobody is: {who} knows {known}"
    return None


def door(settings: Settings, live: Live, consent: Consent | None = None, past_data: PastData | None = None) -> Door:
    """Where events come in. consent: of whom none are taken. past_data: is told of accepted events."""
    domain = domains.load(settings.domain)
    enrich = Enrichment(domain) if domain.enrich else None
    quarantine, pending = Quarantine(settings.quarantine), live.pending
    accepted = past_data.see if past_data else lambda _: None
    return Door(domain, live, quarantine, pending.known, pending.claims, enrich, live.erased, consent, accepted)


def users(settings: Settings, live: Live | None, collector: Door | None, engine: Engine) -> Users:
    """What answers for single people; where this process takes events in, it also finishes erasures begun before."""
    consent = engine.consent or Consent(settings.state)
    if live is None or collector is None:
        return Users(settings, Tombstones(settings.state), consent, model=lambda: engine.champion.model)
    erasing = Erasing(live, collector.erase, engine.log, engine.keeper).start()
    return Users(settings, live.erased, consent, engine.keeper, erasing, model=lambda: engine.champion.model)


def live(settings: Settings) -> Live | None:
    """What takes events in, started; None where another process has this state folder's log, or several workers run
    without a broker."""
    if settings.workers > 1 and settings.log == EMBEDDED:
        return None
    try:
        return open_live(settings)
    except BusyError as e:
        _log.warning("no events are taken in here: %s", e)
        return None
