"""Who may ask for decisions, and who may send events: those with a key, or nobody but this machine.

Server keys come from FIRSTMILE_SERVER_KEYS, write keys (which a browser may hold) from FIRSTMILE_WRITE_KEYS, separated
by commas (several, so that one can be replaced without a gap). Without server keys it listens on loopback only.
"""

import hmac
import ipaddress
from functools import lru_cache

from feature_repo.setting_values import MAKE_A_KEY

VARIABLE = "FIRSTMILE_SERVER_KEYS"


class KeysError(ValueError):
    """Without server keys, the address to listen on cannot be accepted."""


class Keys:
    """Keys that open routes. Without any, only callers on loopback are served.

    >>> Keys(("k" * 32,)).allows(b"Bearer " + b"k" * 32)
    True
    """

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._keys = tuple(k.encode() for k in keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def allows(self, authorization: bytes | None) -> bool:
        """Whether an `Authorization: Bearer` header holds one of the keys."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return False
        return self.holds(authorization[7:].strip())

    def holds(self, given: bytes) -> bool:
        """Whether this is one of the keys; takes as long for a wrong one as for a right one."""
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(given, key)
        return found


@lru_cache(1_024)
def is_loopback(host: str) -> bool:
    """Whether an address (or `localhost`) can be reached from this machine only; a Unix socket (empty) can."""
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").split("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_address(host: str, keys: Keys) -> str | None:
    """The warning to print for listening on `host` with these keys, or None.

    Raises:
        KeysError: no keys, and the address can be reached from other machines.
    """
    if keys:
        return None
    if not is_loopback(host):
        raise KeysError(
            f"refusing to listen on {host} without server keys: anybody who reaches it could ask about anybody. "
            f"Set {VARIABLE} (make a key: {MAKE_A_KEY}) or listen on 127.0.0.1"
        )
    return f"no server keys: /v1/decide is open to everybody on this machine. Set {VARIABLE} to close it"
