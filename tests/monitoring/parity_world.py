"""The live part in this process, with a clock that is set by hand: real stores, real decision log, real lake."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from feature_repo import domains
from feature_repo.contract.events import Event
from feature_repo.settings import Settings
from feature_repo.stream.embedded import Embedded
from monitoring.parity import Parity, parity
from serving import playbook
from serving.decision_log import DecisionLog
from serving.engine import READ_TIMEOUT_S, Engine
from serving.features import Reader
from serving.models import Champion

SAAS = domains.load("saas")
BEGIN = 1_700_000_000_000_000


class World:
    """Events go in, decisions come out and are logged; features are served without a model too."""

    def __init__(self, home: Path, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self.now_us = BEGIN
        self.settings = Settings(home=home, domain="saas")
        self.live = Embedded(self.settings, lambda: self.now_us).start()
        self.reader = Reader(self.settings, SAAS, self.live)
        self.reader.connect()
        self.log = DecisionLog(self.settings.decisions).start()
        nobody = Champion(lambda: None, lambda version: None, None)
        clock = lambda: self.now_us  # noqa: E731
        known = self.reader, nobody, playbook.for_domain(SAAS), self.log
        self.engine = Engine(*known, clock=clock, read_timeout_s=read_timeout_s)

    def send(self, *events: Event) -> None:
        """Returns once they are durable."""
        self.live.append(events).result()

    def decide(self, *users: str) -> None:
        """Decisions for all of them, of one moment."""
        asyncio.run(self.engine.decide_many(users))

    def compare(self) -> Parity:
        """What was served so far, against the lake; nothing is decided after this."""
        self.log.close()
        return parity(self.settings, progress=False, clock=lambda: self.now_us)

    def close(self) -> None:
        """Stop all of it."""
        self.engine.close()
        self.live.close()


def clicked(user: str | None, n: int, at_us: int, device: str | None = None) -> Event:
    """A click, the n-th message of this person or device."""
    properties = {"target": "save"}
    return Event("track", f"{user or device}-{n}", user, device, at_us, at_us, "Clicked", properties, {}, {})


def used(user: str, n: int, at_us: int) -> Event:
    """A use of a product feature, another one for each of three messages."""
    feature = {"feature": f"f{n % 3}"}
    return Event("track", f"{user}-{n}", user, None, at_us, at_us, "Feature Used", feature, {}, {})


def identified(user: str, n: int, at_us: int, device: str) -> Event:
    """This device is that person from then on."""
    return Event("identify", f"{user}-{n}", user, device, at_us, at_us, None, {}, {}, {})


def wrong(found: Parity) -> dict[str, int]:
    """How many values differ, by feature."""
    return {name: tally.wrong for name, tally in found.wrong_features.items()}


def faults(found: Parity) -> Sequence[str]:
    """What the examples are said to be."""
    return [example["fault"] for example in found.examples]
