"""The door: raw events in, through the contract, to the lake or the quarantine."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from feature_repo.contract.events import Event, Refusal, parse
from feature_repo.domain import Domain, Ingested
from feature_repo.enrichment.compiled import Enrichment
from feature_repo.erasing.tombstones import ERASED, Tombstones
from feature_repo.lake.lake import Lake
from feature_repo.lake.quarantine import Quarantine
from feature_repo.progress import Bars
from feature_repo.settings import Settings, now_us

Raw = bytes | dict[str, Any]
BATCH = 50_000


def take_in(
    settings: Settings,
    domain: Domain,
    events: Iterable[tuple[Raw, int]],
    total: int | None = None,
    progress: bool = True,
) -> Ingested:
    """Parse (raw, received_us) pairs in order; the accepted go to the lake, the others as they came to the quarantine.

    The accepted get what the domain's steps add, but for those over HTTP. total: how many there are, for the bar.

    Raises:
        ValueError: a table that a step joins with is not there or not right.
    """
    enrich = Enrichment(domain).pure if domain.enrich else None
    lake, quarantine, erased = Lake(settings.lake), Quarantine(settings.quarantine), Tombstones(settings.state)
    accepted, refused = 0, Counter[str]()
    with Bars(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("events", total=total)
        for batch in _batches(events, BATCH):
            good = _parsed(batch, domain, quarantine, refused, erased)
            lake.append([enrich(event) for event in good] if enrich else good)
            accepted += len(good)
            bar.advance(task, len(batch))
    quarantine.flush()
    return Ingested(accepted, dict(sorted(refused.items())))


def take_in_files(settings: Settings, domain: Domain, folder: Path | None) -> Ingested:
    """What is new in the `*.jsonl` files of a folder, one event a line; they may have grown since the last time.

    Returns the counts of all times. A kill in between makes some lines come twice, which changes nothing but counts.

    Raises:
        ValueError: no folder was given, or it holds no such file.
    """
    files = sorted(folder.glob("*.jsonl")) if folder else []
    if not files:
        raise ValueError(f"{domain.name}: expected DATA=<a folder with *.jsonl files, one event a line>; came {folder}")
    bookmark = settings.state / "intake.json"
    held: dict[str, Any] = {"bytes": {}, "accepted": 0, "refused": {}}
    if bookmark.exists():
        held = json.loads(bookmark.read_text())
    for file in files:
        known = held["bytes"].get(file.name, 0)
        new = file.read_bytes()[known:]
        whole = new[: new.rfind(b"\n") + 1]
        lines = ((line, now_us()) for line in whole.splitlines() if line.strip())
        taken = take_in(settings, domain, lines)
        held["bytes"][file.name] = known + len(whole)
        held["accepted"] += taken.accepted
        held["refused"] = dict(Counter(held["refused"]) + Counter(taken.refused))
        bookmark.parent.mkdir(parents=True, exist_ok=True)
        part = bookmark.with_suffix(".part")
        part.write_text(json.dumps(held))
        part.rename(bookmark)
    return Ingested(held["accepted"], held["refused"])


def _batches(events: Iterable[tuple[Raw, int]], size: int) -> Iterator[list[tuple[Raw, int]]]:
    source = iter(events)
    while batch := list(islice(source, size)):
        yield batch


def _parsed(
    batch: list[tuple[Raw, int]], domain: Domain, quarantine: Quarantine, refused: Counter[str], erased: Tombstones
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
