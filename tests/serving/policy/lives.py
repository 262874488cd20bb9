"""Made-up events, lives and policies: what the tests of a policy draw from."""

import json

from hypothesis import strategies as st

from feature_repo.contract.feedback import ABOUT_ELEMENTS, VIEWED
from feature_repo.history.history_store import Row
from feature_repo.vocabulary import DAY, HOUR, MINUTE
from serving.policy import Boundaries, Element, Limits, Policy

NOW = 1_767_225_600_000_000
GAP = 30 * MINUTE
NAMES = ("a", "b", "c", "d", "e", "f")
SEGMENTS = ("default", "new", "stuck")


def row(number: int, name: str | None, ts_us: int, kind: str = "track", **properties: object) -> Row:
    """An event of person u1 as the history keeps it."""
    said = json.dumps(properties)
    return Row("u1", f"m{number}", number, kind, name, "u1", None, ts_us, ts_us, said, "{}", "{}", f"{number:016}")


MOMENTS = st.builds(
    lambda spans, beside: NOW - sum(spans) + beside,
    st.lists(st.sampled_from([0, GAP, GAP, GAP // 2, HOUR, DAY, DAY - GAP, 3 * DAY]), max_size=4),
    st.sampled_from([-1, 0, 0, 1]),
)
"""Times at which gaps and days end, and a microsecond beside."""

PROPERTIES = st.one_of(
    st.builds(dict, element=st.sampled_from(NAMES[:3])),
    st.builds(dict, element=st.sampled_from([None, 3]) | st.builds(list)),
    st.builds(dict, experiment_id=st.sampled_from(["x", "y"]), variation_id=st.sampled_from(["on", "off", None])),
    st.just({"page": "/"}),
)


@st.composite
def histories(draw: st.DrawFn, most: int = 25) -> list[Row]:
    """Canonical rows of one person, in no order."""
    kinds = st.sampled_from([("track", n) for n in (*ABOUT_ELEMENTS, VIEWED, "Clicked")] + [("page", "Element Shown")])
    made = draw(st.lists(st.tuples(kinds, MOMENTS, PROPERTIES), max_size=most))
    return [row(i, name, ts, kind, **said) for i, ((kind, name), ts, said) in enumerate(made)]


SOME = st.none() | st.integers(1, 3)
LIMITS = st.builds(Limits, SOME, SOME, SOME, st.none() | st.sampled_from([1, HOUR, 2 * DAY]))


@st.composite
def elements(draw: st.DrawFn, at: int) -> Element:
    """The element of that number; it waits for earlier ones only."""
    name, earlier = NAMES[at], st.lists(st.sampled_from(NAMES[:at]), unique=True, max_size=1) if at else st.just([])
    others = st.lists(st.sampled_from([n for n in NAMES if n != name]), unique=True, max_size=1)
    segments = draw(st.lists(st.sampled_from(SEGMENTS), unique=True, min_size=1))
    skips = draw(st.sampled_from([[], [], [], draw(others)]))
    return Element(
        name,
        "skip_step" if skips else "hint",
        name,
        tuple(segments),
        {s: f"{name} in {s}" for s in segments},
        draw(st.integers(0, 3)),
        tuple(draw(earlier)),
        tuple(skips),
        tuple(draw(others)),
        draw(LIMITS),
        draw(st.none() | st.sampled_from([1, HOUR, 3 * DAY])),
        draw(st.booleans()),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies with all that one can have; a file that says the same would now and then be refused."""
    nothing = draw(st.sampled_from([{}, {}, {}, {"stuck": "no more"}]))
    boundaries = Boundaries(draw(st.integers(1, 4)), draw(SOME), draw(SOME), GAP)
    return Policy("tiny", tuple(draw(elements(i)) for i in range(len(NAMES))), nothing, boundaries)
