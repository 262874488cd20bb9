"""Made-up rules and people of a short time: every duration is a few µs, so that each µs can be looked at."""

from collections.abc import Iterator, Mapping
from functools import cache

from hypothesis import strategies as st

from serving.rules import Facts, Move, Rules, Segment, State, step
from serving.rules.conditions import All, Any, Compare, Condition, Elapsed, In, Never, Not, Null, OneOf, TimeIn
from serving.rules.fold import Row
from serving.values import Value

SHORT = st.integers(0, 9)
ORDERS = st.sampled_from([">", ">=", "<", "<="])
TIMES = st.builds(Elapsed, st.just("since"), st.just("seen_us"), ORDERS, SHORT)


def _atoms(before: tuple[str, ...]) -> st.SearchStrategy[Condition]:
    kinds: list[st.SearchStrategy[Condition]] = [
        st.builds(Compare, st.just("x"), st.sampled_from([">", ">=", "<", "<=", "==", "!="]), st.integers(0, 3)),
        st.builds(OneOf, st.just("x"), st.tuples(st.integers(0, 3), st.integers(0, 3))),
        st.builds(Null, st.just("x"), st.booleans()),
        TIMES,
        TIMES,
    ]
    if before:
        kinds += [st.builds(In, st.sampled_from(before)), st.builds(TimeIn, st.sampled_from(before), ORDERS, SHORT)]
    return st.one_of(kinds)


@cache
def conditions(before: tuple[str, ...]) -> st.SearchStrategy[Condition]:
    """Conditions over x (int or null), a time seen, and the segments before."""
    atoms = _atoms(before)
    pairs = st.tuples(atoms, atoms)
    return st.one_of(
        st.builds(All, st.tuples(TIMES, TIMES)),
        st.builds(Any, st.tuples(TIMES, TIMES)),
        st.builds(All, pairs),
        st.builds(Any, pairs),
        st.recursive(
            atoms,
            lambda inner: st.one_of(
                st.builds(Not, inner),
                st.builds(All, st.lists(inner, min_size=1, max_size=3).map(tuple)),
                st.builds(Any, st.lists(inner, min_size=1, max_size=3).map(tuple)),
            ),
            max_leaves=4,
        ),
    )


@cache
def exits(before: tuple[str, ...]) -> st.SearchStrategy[Condition | None]:
    """Often none."""
    return st.one_of(st.none(), st.none(), st.just(Never()), conditions(before))


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """One to four segments; each reads, and is excluded by, such as come before it only."""
    found: list[Segment] = []
    for number in range(draw(st.integers(1, 4))):
        before = tuple(s.name for s in found)
        stay = draw(st.integers(0, 6))
        segment = Segment(
            f"s{number}",
            "because",
            draw(conditions(before)),
            draw(exits(before)),
            10 - number,
            stay,
            draw(st.one_of(st.none(), st.integers(stay + 1, stay + 8))),
            draw(st.sampled_from([None, "g", "h"])),
        )
        found.append(segment)
    return Rules("saas", found)


@st.composite
def lives(draw: st.DrawFn) -> list[Row]:
    """A few change points, each in force until the next; the last one for 25 µs."""
    moments = sorted(draw(st.sets(st.integers(0, 40), min_size=1, max_size=5)))
    rows: list[Row] = []
    for at, until in zip(moments, [*moments[1:], moments[-1] + 25], strict=True):
        seen = draw(st.one_of(st.none(), st.integers(max(0, at - 6), at)))
        rows.append((at, {"x": draw(st.one_of(st.none(), st.integers(0, 3))), "seen_us": seen}, until))
    return rows


def each_moment(rows: list[Row]) -> Iterator[tuple[int, Mapping[str, Value]]]:
    """Every µs with the values that are in force."""
    for at, values, until in rows:
        assert until is not None
        for moment in range(at, until):
            yield moment, values


def looked_at_always(found: Rules, rows: list[Row], state: State = State()) -> tuple[State, list[Move]]:
    """The oracle: a step at every µs."""
    moves: list[Move] = []
    for moment, values in each_moment(rows):
        result = step(found, state, Facts(values, moment))
        state = result.state
        moves += result.moves
    return state, moves
