"""How far the parts of the live side are behind one another.

log ─(log)─► history ─(due)─► online rows
                └────(lake)─► the lake
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from feature_repo.history.history_store import HistoryStore, open_history
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import log_file
from feature_repo.log.event_log import open_log
from feature_repo.log.sqlite_log import extent
from feature_repo.settings import Settings, now_us


@dataclass(frozen=True)
class Lag:
    """log: events accepted and not applied yet. due: people whose online rows are to be written. lake: events by which
    the lake is behind. set_aside: users whose row cannot be computed, each with the reason."""

    log: int
    due: int
    lake: int
    set_aside: Mapping[str, str] = field(default_factory=dict)


def lag(settings: Settings) -> Lag:
    """What waits by now. It may be asked beside the processes that work on it, and changes nothing.

    With RabbitMQ, up to 250 events of a queue that a worker has in hand are not counted; of a Kinesis shard not more
    than 10,000.

    Raises:
        ValueError, ModuleNotFoundError: as `open_log`. And whatever the broker or Redis raises.
    """
    lake = Lake(settings.lake).last_position()
    if settings.log == "sqlite":
        return _embedded(settings, lake)
    with closing(open_history(settings)) as history, closing(open_log(settings.broker)) as log:
        return Lag(log.lag(), history.waiting(now_us()), max(0, history.position() - lake), history.aside())


def _embedded(settings: Settings, lake: int) -> Lag:
    if not log_file(settings).exists():
        if not lake:
            raise ValueError(f"no events yet in {settings.state}: `make simulate`, or send events to the service")
        return Lag(0, 0, 0)
    last = extent(log_file(settings))
    with closing(open_history(settings)) as found:
        history: HistoryStore = found
        return Lag(max(0, last - history.position()), history.waiting(now_us()), max(0, last - lake), history.aside())
