"""Who may ask for decisions, and who may send events: those with a key, or nobody but this machine.

Server keys come from FIRSTMILE_SERVER_KEYS, write keys (which a browser may hold) from FIRSTMILE_WRITE_KEYS, separated
by commas (several, so that one can be replaced without a gap). Without server keys it listens on loopback only.
"""

import hmac
import ipaddress
import os
from collections.abc import Mapping
from functools import lru_cache

VARIABLE = "FIRSTMILE_SERVER_KEYS"
WRITE = "FIRSTMILE_WRITE_KEYS"
SHORTEST = 16
HOW = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class KeysError(ValueError):
    """The server keys, or the address to listen on without them, cannot be accepted."""


class Keys:
    """Keys that open routes. Without any, only callers on loopback are served.

    >>> Keys(("k" * 32,)).allows(b"Bearer " + b"k" * 32)
    True
    """

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._keys = tuple(k.encode() for k in keys)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, variable: str = VARIABLE) -> "Keys":
        """The keys in FIRSTMILE_SERVER_KEYS, or in another variable.

        Raises:
            KeysError: a key is shorter than 16 characters, or holds something else than visible ASCII.
        """
        return cls(listed(environment, variable))

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


def listed(environment: Mapping[str, str], variable: str) -> tuple[str, ...]:
    """The keys or secrets in an environment variable, separated by commas.

    Raises:
        KeysError: one is shorter than 16 characters, or holds something else than visible ASCII.
    """
    keys = tuple(k for part in environment.get(variable, "").split(",") if (k := part.strip()))
    for position, key in enumerate(keys, 1):
        if len(key) < SHORTEST:
            short = f"has {len(key)} characters, expected {SHORTEST} or more"
            raise KeysError(f"{variable}: key {position} {short}; make one: {HOW}")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise KeysError(f"{variable}: key {position} holds a character that no header can carry; make one: {HOW}")
    return keys


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
            f"Set {VARIABLE} (make a key: {HOW}) or listen on 127.0.0.1"
        )
    return f"no server keys: /v1/decide is open to everybody on this machine. Set {VARIABLE} to close it"
