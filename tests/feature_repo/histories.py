"""Generated histories of a few people, made to hit the edges: equal timestamps, windows' ends, shared devices."""

import json
from typing import Any

from hypothesis import strategies as st

from feature_repo.domain import Domain

Row = dict[str, Any]
BASE = 1_700_000_000_000_000
WRONG = st.sampled_from([True, "12", "x", 12.5, 10**25, 1e300, [1], {"a": 1}, "", '"', "\\", "true", "1e3", " 1", "é"])
"""Values of which each is wrong in most columns."""
DECIMALS = [0, 9.99, "9.99", 0.1, 0.005, -0.005, 0.30000000000000004, 1e-7, 2.5e-3, 123456789.12, 1e16, 7, -7, 2**62,
            "-12.345", "92233720368547758.07", "92233720368547758.08", "0.999999999999999999", 1e15, -1.5]  # fmt: skip
USERS, DEVICES = ["u1", "u2"], ["d1", "d2"]


def lattice(domain: Domain) -> st.SearchStrategy[int]:
    """Timestamps at which windows, gaps and initial periods of other timestamps end, and a microsecond beside."""
    spans = [*domain.windows, *_gaps(domain)] or [1]
    return st.builds(
        lambda parts, beside: BASE + sum(parts) + beside,
        st.lists(st.sampled_from([0, *spans, *(s // 3 for s in spans)]), max_size=3),
        st.sampled_from([-1, 0, 0, 1]),
    )


def _gaps(domain: Domain) -> list[int]:
    from feature_repo.vocabulary import leaves

    every = [leaf for f in domain.features for leaf in leaves(f.term)]
    gaps = {getattr(leaf, "gap", None) for leaf in every}
    periods = {leaf.initial.period for leaf in every if getattr(leaf, "initial", None)}
    return sorted((gaps | periods) - {None})


@st.composite
def events(draw: st.DrawFn, domain: Domain, most: int = 25) -> list[Row]:
    """Rows of the lake in arrival order, no copies; identify and alias edges on two shared devices."""
    n = draw(st.integers(1, most))
    return [_event(draw, domain, i) for i in range(n)]


def _event(draw: st.DrawFn, domain: Domain, i: int) -> Row:
    kind = draw(st.sampled_from(["track", "track", "track", "page", "identify", "alias"]))
    user = draw(st.sampled_from([*USERS, None])) if kind in ("track", "page") else draw(st.sampled_from(USERS))
    device = (
        draw(st.sampled_from(DEVICES)) if user is None or kind == "alias" else draw(st.sampled_from([*DEVICES, None]))
    )
    name = draw(st.sampled_from(sorted(domain.events))) if kind == "track" else None
    documents: dict[str, dict[str, Any]] = {"properties": {}, "traits": {}, "context": {}}
    for column in domain.columns:
        root, *keys = column.path.split(".")
        value = draw(
            st.none() | _value(domain, column.name, column.type) | _value(domain, column.name, column.type) | WRONG
        )
        if value is not None:
            at = documents[root]
            for key in keys[:-1]:
                at = at.setdefault(key, {})
            at[keys[-1]] = value
    return {
        "position": i + 1,
        "message_id": f"m{draw(st.integers(0, 999)):03}-{i}",
        "type": kind,
        "name": name,
        "user_id": user,
        "anonymous_id": device,
        "ts_us": draw(lattice(domain)),
        "received_us": BASE + i,
        "content_hash": f"{i:016}",
    } | {root: json.dumps(d, separators=(",", ":"), sort_keys=True) for root, d in documents.items()}


def _value(domain: Domain, name: str, type_: str) -> st.SearchStrategy[Any]:
    from feature_repo.vocabulary import leaves

    if type_ == "boolean":
        return st.booleans()
    if type_ == "decimal":
        return st.sampled_from(DECIMALS) | st.decimals(-1000, 1000, places=3).map(float)
    if type_ == "int64":
        return st.sampled_from([0, 1, 1, 7, -3, 2**40, 2**63 - 1, 2**63 - 1, -(2**63), 2**62 + 1])
    used = {
        v
        for f in domain.features
        for leaf in leaves(f.term)
        for c, vs in getattr(leaf, "where", ())
        if c == name
        for v in vs
    }
    return st.sampled_from(sorted({"a", "b", "é'\"", "", "back\\slash\n"} | used))
