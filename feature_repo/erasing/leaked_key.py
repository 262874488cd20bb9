"""The events that came by one write key: who sent them, and how to take them back when the key has leaked.

Only while no service runs: what is computed from events (history, features, online rows) is removed first and made anew
from what stays, so that a kill in between leaves nothing that still counts them. A mark stays until all of it is done:
no service starts meanwhile, and the next try goes on.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import ibis

from feature_repo.contract.origin import FINGERPRINT, fingerprint, origin_of
from feature_repo.feature_store import backfill
from feature_repo.feature_store.ownership import claim
from feature_repo.intact import REVOKING
from feature_repo.lake.lake import Lake
from feature_repo.lake.lake_index import LakeIndex
from feature_repo.lake.log_to_lake import drain, log_file
from feature_repo.lake.quarantine import Quarantine
from feature_repo.lake.user_events import senders
from feature_repo.log.sqlite_log import SqliteLog
from feature_repo.rebuild import PARTS, empty_online, remove
from feature_repo.settings import Settings


class Sent(NamedTuple):
    """What one user, by user id or "anon:" + anonymous id, sent by a key: the events, their first and last time, µs."""

    user: str
    events: int
    first_us: int
    last_us: int


class Revoked(NamedTuple):
    """How many events were removed from lake and log, which may hold the same ones, and of how many users.

    refused: how many refused events were removed.
    """

    lake: int
    log: int
    users: int
    refused: int


def fingerprint_of(text: str) -> str:
    """The fingerprint that a text is, or else that of the key that it is."""
    return text if re.fullmatch(f"[0-9a-f]{{{FINGERPRINT}}}", text) else fingerprint(text)


def sent_by(settings: Settings, key: str) -> list[Sent]:
    """What came by the key with this fingerprint, all copies of each message, the user with the most events first."""
    drain(settings)
    stored = Lake(settings.lake).new_since(ibis.duckdb.connect(), 0)
    rows = stored.filter(stored.context.contains(f'"key":"{key}"')).to_pyarrow()
    times: dict[str, list[int]] = {}
    for sender, context, ts_us in zip(
        senders(rows), rows["context"].to_pylist(), rows["ts_us"].to_pylist(), strict=True
    ):
        if origin_of(context).key == key:
            times.setdefault(sender, []).append(ts_us)
    found = [Sent(user, len(of), min(of), max(of)) for user, of in times.items()]
    return sorted(found, key=lambda sent: (-sent.events, sent.user))


def refused_by(settings: Settings, key: str) -> Mapping[str, int]:
    """How many refused events came by the key with this fingerprint, by reason."""
    return Counter(refused.reason for refused in Quarantine(settings.quarantine).by_key(key))


def revoke(settings: Settings, key: str, progress: bool = True) -> Revoked:
    """Remove every event that came by the key with this fingerprint, and compute all features anew.

    Raises:
        BusyError: a service runs. ValueError: log or history are not in this state folder, or the online store holds
            the rows of another lake.
    """
    _of_this_folder(settings)
    last = Lake(settings.lake).last_position()
    log = SqliteLog(log_file(settings), last + 1, last)  # from here on no service can start
    try:
        sent, mark, of_lake, of_log = sent_by(settings, key), settings.state / REVOKING, 0, 0
        if sent or mark.exists():
            mark.write_text(key)
            remove(settings, "history.db")
            empty_online(settings)
            with backfill.alone(settings):
                for file in settings.features.glob("*"):
                    file.unlink()
                of_log = log.erase(lambda event: origin_of(event.context).key == key)
                index = LakeIndex(settings)
                of_lake = index.lake.erase((), key=key)
                index.refresh()
            PARTS["online"](settings, progress)
            mark.unlink()
        refused = Quarantine(settings.quarantine).take_back(key)
    finally:
        log.close()
    return Revoked(of_lake, of_log, len(sent), refused)


def _of_this_folder(settings: Settings) -> None:
    for name, store in (("LOG", settings.log), ("HISTORY", settings.history)):
        if store != "sqlite":
            raise ValueError(
                f"FIRSTMILE_{name}: expected sqlite, as the events of a key are taken back only from files of a state "
                f"folder; came {store}. Take the key out of FIRSTMILE_WRITE_KEYS, so that nothing more comes by it; "
                "`python -m feature_repo events --key` lists the users, and DELETE /v1/users/{id} erases those whom "
                "the key alone has made up"
            )
    claim(settings)
