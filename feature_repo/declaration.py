"""Checks of what a domain declares: every name that is used is declared, and every value fits its column.

A condition is checked as far as it can be known: the names of track events are the declared and the standard ones;
those of pages and screens are free, so a condition that names one says so: where(type="page", name="Pricing").
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from feature_repo.contract.feedback import STANDARD
from feature_repo.vocabulary import Linear, Ratio, Sum, Term, Where, leaves

if TYPE_CHECKING:
    from feature_repo.domain import Domain

EVENT_TYPES = ("track", "identify", "page", "screen", "group", "alias")
NAMED_FREELY = frozenset({"page", "screen"})


def findings(domain: "Domain") -> Iterator[str]:
    """What is wrong with a declaration, each with where it is, what is expected and what is nearest."""
    types = domain.feature_types
    if (done := domain.label.done) is not None and types and types.get(done) != "int64":
        numbers = [name for name, kind in types.items() if kind == "int64"]
        yield f"label {domain.label.name}: done={done!r} is no int64 feature{nearest(done, numbers)}"
    for feature in domain.features:
        for leaf in leaves(feature.term):
            at = f"feature {feature.name}"
            if isinstance(leaf, Sum) and domain.column_types.get(leaf.column) == "string":
                yield f"{at}: sums column {leaf.column}, which is a string; expected a number"
            yield from _condition(domain, at, getattr(leaf, "where", ()))
            if (initial := getattr(leaf, "initial", None)) is not None:
                yield from _condition(domain, at, initial.since)
        yield from _integers(domain, feature.name, feature.term)
    for act in domain.acts:
        if isinstance(name := act.columns.get("name"), str):
            yield from _condition(domain, f"act {act.one!r}", (("name", (name,)),))


def _condition(domain: "Domain", at: str, condition: Where) -> Iterator[str]:
    said = dict(condition)
    kinds = {c.name: c.type for c in domain.columns}
    for column, values in condition:
        if column not in domain.column_types:
            continue  # domain.py says so
        if column == "type":
            yield from _among(at, "type", values, EVENT_TYPES)
        elif column == "name" and NAMED_FREELY.isdisjoint(said.get("type", ())):
            yield from _among(at, "name", values, [*domain.events, *STANDARD])
        for value in values:
            kind = kinds.get(column, domain.column_types[column])
            fits = {"string": str, "boolean": bool}.get(kind, int)
            if type(value) is not fits:
                yield f"{at}: where({column}={value!r}): expected a value of type {kind}"


def _among(at: str, column: str, values: Iterable[object], known: Iterable[str]) -> Iterator[str]:
    known = list(known)
    for value in values:
        if isinstance(value, str) and value not in known:
            yield f"{at}: where({column}={value!r}): no event has it{nearest(value, known)}"


def _integers(domain: "Domain", name: str, term: Term) -> Iterator[str]:
    """Ratio and Linear are made of integers."""
    if not isinstance(term, Ratio | Linear):
        return
    for leaf in leaves(term):
        column = getattr(leaf, "column", None)
        if type(leaf).__name__ in ("First", "Last") and domain.column_types.get(column or "") == "string":
            yield f"feature {name}: expected integer terms; {type(leaf).__name__}({column!r}) is a string"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?", or which names there are.

    >>> nearest("sails", ["sales", "clicks"]), nearest("x", ["sales", "clicks", "sales"])
    ("; did you mean 'sales'?", '; there are clicks, sales')
    """
    known = sorted(set(known))
    if close := get_close_matches(name, known, 1):
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(known) or 'none'}"
