"""A Redis database belongs to one lake: rows of two would mix under the same keys, and an older lake's later positions
would win. The key `firstmile:<domain>:lake` says whose it is; `apply` sets it where there is none.
"""

import logging
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from feature_repo.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

_log = logging.getLogger(__name__)


def claim(settings: Settings, whosever: bool = False) -> None:
    """From now on the online store is this lake's; nothing where each state folder has one of its own.

    whosever: also where it was another lake's.

    Raises:
        ValueError: it is another lake's. redis.RedisError: it does not answer.
    """
    if settings.online == "sqlite":
        return
    with closing(_client(settings)) as client:
        taken = client.set(_key(settings), settings.lake, nx=not whosever)
        owner = settings.lake if taken else _owner(client, settings)
    if owner != settings.lake:
        raise ValueError(_told(settings, owner))


def claim_if_there(settings: Settings) -> None:
    """The same, but a store that does not answer is passed over: whoever reads and writes there says so.

    Raises:
        ValueError: it is another lake's.
    """
    from redis import RedisError

    try:
        claim(settings)
    except RedisError as e:
        _log.warning("not known whether %s is this lake's: %s", _address(settings), e)


def _client(settings: Settings) -> "Redis":
    from redis import Redis

    return Redis.from_url(settings.online, socket_connect_timeout=3, socket_timeout=10)


def _owner(client: "Redis", settings: Settings) -> str:
    found = client.get(_key(settings))
    return found.decode() if isinstance(found, bytes) else settings.lake


def _key(settings: Settings) -> str:
    return f"firstmile:{settings.domain}:lake"


def _address(settings: Settings, another: bool = False) -> str:
    """Without user and password."""
    url = urlsplit(settings.online)
    database = int(url.path.strip("/") or 0) + another
    return f"{url.scheme}://{url.hostname}:{url.port or 6379}/{database}"


def _told(settings: Settings, owner: str) -> str:
    return (
        f"{_address(settings)} holds the rows of another lake: expected {settings.lake}, came {owner}. Take another "
        f"database, FIRSTMILE_ONLINE={_address(settings, another=True)}, or, where those rows are not needed any more: "
        f"FIRSTMILE_HOME={settings.home} FIRSTMILE_ONLINE={_address(settings)} "
        f"python -m feature_repo apply --domain {settings.domain} --take-over"
    )
