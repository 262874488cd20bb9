"""The door: raw events in, through the contract, to the lake or the quarantine."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
from rich.console import Console

from feature_repo.contract.declared import flagged
from feature_repo.contract.events import Event, Refusal, parse
from feature_repo.domain import Domain, Ingested
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.erasing.tombstones import ERASED, Tombstones
from feature_repo.lake.lake import Lake
from feature_repo.lake.quarantine import Quarantine
from feature_repo.progress import Bars
from feature_repo.settings import Settings

Raw = bytes | dict[str, Any]
BATCH = 50_000


class Intake:
    """Parses raw events of a domain; the accepted go to the lake, the others as they came to the quarantine.

    The accepted get what the domain's steps add, but for those over HTTP.

    Raises:
        ValueError: a table that a step joins with is not there or not right.
    """

    def __init__(self, settings: Settings, domain: Domain) -> None:
        self._domain, self._enrich = domain, Enrichment(domain).pure if domain.enrich else None
        self._lake, self._quarantine = Lake(settings.lake), Quarantine(settings.quarantine)
        self._erased = Tombstones(settings.state)

    def take(self, batch: Sequence[tuple[Raw, int]]) -> Ingested:
        """Take (raw, received_us) pairs in, in their order; durable when it returns."""
        refused = Counter[str]()
        good = _parsed(batch, self._domain, self._quarantine, refused, self._erased)
        self._lake.append([self._enrich(event) for event in good] if self._enrich else good)
        self._quarantine.flush()
        flags = Counter(path for event in good for path in flagged(self._domain, event.context))
        return Ingested(len(good), dict(sorted(refused.items())), dict(sorted(flags.items())))


def take_in(
    settings: Settings,
    domain: Domain,
    events: Iterable[tuple[Raw, int]],
    total: int | None = None,
    progress: bool = True,
) -> Ingested:
    """Take (raw, received_us) pairs in, see Intake. total: how many there are, for the bar."""
    intake, taken = Intake(settings, domain), Ingested(0, {})
    with Bars(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("events", total=total)
        for batch in _batches(events, BATCH):
            taken = together(taken, intake.take(batch))
            bar.advance(task, len(batch))
    return taken


def together(one: Ingested, other: Ingested) -> Ingested:
    """The counts of both."""
    refused, flags = Counter(one.refused) + Counter(other.refused), Counter(one.flagged) + Counter(other.flagged)
    return Ingested(one.accepted + other.accepted, dict(sorted(refused.items())), dict(sorted(flags.items())))


def _batches(events: Iterable[tuple[Raw, int]], size: int) -> Iterator[list[tuple[Raw, int]]]:
    source = iter(events)
    while batch := list(islice(source, size)):
        yield batch


def _parsed(
    batch: Sequence[tuple[Raw, int]], domain: Domain, quarantine: Quarantine, refused: Counter[str], erased: Tombstones
) -> list[Event]:
    """The accepted events of a batch; counts the others by reason. Of those of erased people nothing else is kept."""
    good = []
    for sent, received_us in batch:
        raw = sent if isinstance(sent, bytes) else msgspec.json.encode(sent)  # as it would come: parsed fastest
        event = parse(raw, domain, received_us)
        if erased.refuses(event) if isinstance(event, Event) else erased.mentioned(raw):
            refused[ERASED] += 1
        elif isinstance(event, Refusal):
            quarantine.add(raw, event, received_us)
            refused[str(event.reason)] += 1
        else:
            good.append(event)
    return good
