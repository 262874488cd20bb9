"""Stable hashing: which part of an experiment an id falls in, the same in every process and on every machine."""

import math
from collections.abc import Mapping
from hashlib import blake2b


def unit_interval(salt: str, unit_id: str) -> float:
    """A number in [0, 1) from 53 bits of a BLAKE2b hash; uniform over ids, and independent between salts.

    The salt's length goes first, so that no two (salt, id) pairs are hashed as the same text.

    >>> unit_interval("layer", "u1") == unit_interval("layer", "u1") != unit_interval("other", "u1")
    True
    """
    digest = blake2b(f"{len(salt)}:{salt}{unit_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def weighted(salt: str, unit_id: str, weights: Mapping[str, float]) -> str:
    """One of the names, each with a chance in proportion to its weight: weighted rendezvous hashing.

    Every name draws an exponential of rate `weight` from a hash of its own, and the earliest wins (Thaler and
    Ravishankar, 1998, with weights). So the order of the names does not matter, and raising one weight moves ids
    only to that name, lowering it only away from it; a new name only takes, and a removed one only gives.
    A weight of 0 is never chosen.

    Raises:
        ValueError: no weight is above 0.

    >>> weighted("salt", "u1", {"a": 1, "b": 0})
    'a'
    """
    best, chosen = math.inf, None
    for name, weight in weights.items():
        if weight > 0:
            at = -math.log1p(-unit_interval(f"{salt}/{name}", unit_id)) / weight
            if at < best:
                best, chosen = at, name
    if chosen is None:
        raise ValueError(f"weights {dict(weights)}: expected one above 0")
    return chosen
