"""Signatures of webhooks, as Standard Webhooks 1.0 has them (symmetric, `v1`)."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from hashlib import sha256

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
HOW = "python -c \"import base64, secrets; print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""


def keys(secrets: str) -> tuple[bytes, ...]:
    """The keys in a secret; several, separated by commas, sign side by side, so that one can be replaced without a gap.

    Raises:
        ValueError: there is none, or one is not `whsec_` and the base64 of 24 to 64 bytes. Never repeats the secret.
    """
    found = tuple(_key(number, s.strip()) for number, s in enumerate(secrets.split(","), 1) if s.strip())
    if not found:
        raise ValueError(f"holds no secret; make one: {HOW}")
    return found


def _key(number: int, secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(
            f"secret {number}: expected {PREFIX} and the base64 of {SHORTEST} to {LONGEST} bytes; make one: {HOW}"
        )
    return key


def headers(keys: Sequence[bytes], identity: str, at_us: int, body: bytes) -> dict[str, str]:
    """The three headers of an attempt. identity: the same in every attempt; holds no full stop. at_us: of this one."""
    seconds = at_us // 1_000_000
    signed = b".".join([identity.encode(), str(seconds).encode(), body])
    made = (base64.b64encode(hmac.digest(key, signed, sha256)).decode() for key in keys)
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in made),
    }
