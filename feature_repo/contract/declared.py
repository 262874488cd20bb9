"""The JSON types that a domain declares for paths in an event's properties, traits and context."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.contract.feedback import EVENTS, STANDARD
from feature_repo.contract.refusals import Reason, refuse, show
from feature_repo.contract.values import bounded, typed
from feature_repo.domain import Domain
from feature_repo.vocabulary import TYPES, Column

FLAGS = "flags"
"""The key of the list in an event's context of declared paths whose value features do not see as it was sent."""


@dataclass(frozen=True)
class Declared:
    """What a path is declared as. strict: an event with a value of another type is refused, not only flagged."""

    type: str
    strict: bool = False
    column: Column | None = None


Spec = dict[str, Any]
"""Declared, by key, or a Spec where paths go deeper."""

Rules = dict[str | None, dict[str, Spec]]
"""For each name of a track event, the domain's and the standard ones (feedback.py), and under None for all others:
a Spec of `properties`, `traits`, `context`."""

_RULES: dict[int, tuple[Domain, Rules, frozenset[str]]] = {}


def declared_types(domain: Domain) -> Rules:
    """The types that a domain and feedback.py declare, compiled once a domain.

    Raises:
        ValueError: two declarations contradict each other, or one is no path or type that an event can have.
    """
    return _compiled(domain)[1]


def flagged(domain: Domain, context: Mapping[str, Any]) -> list[str]:
    """The declared paths that an event's context says are flagged; a sender can put nothing else among them."""
    flags = context.get(FLAGS)
    known = _compiled(domain)[2]
    return [path for path in flags if type(path) is str and path in known] if type(flags) is list else []


def _compiled(domain: Domain) -> tuple[Domain, Rules, frozenset[str]]:
    known = _RULES.get(id(domain))
    if known is None or known[0] is not domain:
        rules = _compile(domain)
        paths = frozenset(
            path for specs in rules.values() for root, spec in specs.items() for path in _paths(root, spec)
        )
        known = _RULES[id(domain)] = (domain, rules, paths)
    return known


def _paths(path: str, spec: Spec) -> list[str]:
    found = [f"{path}.{key}" for key in spec]
    return found + [p for key, inner in spec.items() if type(inner) is dict for p in _paths(f"{path}.{key}", inner)]


def _compile(domain: Domain) -> Rules:
    columns = [(c.path, Declared(c.type, c.strict, c)) for c in domain.columns]
    rules: Rules = {None: _spec(columns, domain.name)}
    for event in dict.fromkeys([*domain.events, *STANDARD]):
        properties = {f"properties.{k}": Declared(t) for k, t in domain.events.get(event, {}).items()}
        standard = [(f"properties.{k}", Declared(t, strict=True)) for k, t in EVENTS.get(event, {}).items()]
        rules[event] = _spec([*columns, *properties.items(), *standard], domain.name)
    return rules


def _spec(declared: list[tuple[str, Declared]], domain: str) -> dict[str, Spec]:
    spec: dict[str, Spec] = {"properties": {}, "traits": {}, "context": {}}
    for path, what in declared:
        *above, last = path.split(".")
        if not above or above[0] not in spec or what.type not in TYPES:
            raise ValueError(
                f"domain {domain}: {path!r} of type {what.type!r}: expected a path from properties, traits or context "
                f"and one of {', '.join(TYPES)}"
            )
        node: Spec = spec
        for key in above:
            inner = node.setdefault(key, {})
            if isinstance(inner, Declared):
                raise ValueError(f"domain {domain}: {path!r} goes through a path that is declared as {inner.type}")
            node = inner
        held = node.setdefault(last, what)
        if type(held) is dict or held.type != what.type:
            was = "an object" if type(held) is dict else held.type
            raise ValueError(f"domain {domain}: {path!r} is declared as {what.type} and as {was}")
        node[last] = Declared(what.type, held.strict or what.strict, held.column or what.column)
    return spec


def check(value: dict[str, Any], spec: Spec, path: str, flags: list[str]) -> None:
    """Put the paths whose declared type or bounds a value does not have into `flags`; refuse where that is strict.

    An integral float becomes the int64 it stands for.
    """
    for key, item in value.items():
        want = spec.get(key)
        if want is None or item is None:
            continue
        at = f"{path}.{key}"
        if type(want) is not dict:
            if want.type == "int64" and type(item) is float and item.is_integer():
                item = value[key] = int(item)
            _check_one(item, want, at, flags)
        elif type(item) is dict:
            check(item, want, at, flags)
        elif _any_strict(want):
            refuse(Reason.WRONG_TYPE, f"{at}: expected an object; came {show(item)}")
        else:
            flags.append(at)


def _check_one(item: Any, want: Declared, at: str, flags: list[str]) -> None:
    if type(item) is str and want.type == "string" and "\0" in item:
        refuse(Reason.BAD_CHARACTER, f"{at}: expected no NUL; came one at {item.index(chr(0))}")
    scale = want.column.scale or 0 if want.column else 0
    found = typed(want.type, scale, item)
    if found is None:
        if want.strict and want.type == "int64" and type(item) is int:
            refuse(Reason.NUMBER_OUT_OF_RANGE, f"{at}: expected an int64; came {show(item)}")
        if want.strict:
            refuse(Reason.WRONG_TYPE, f"{at}: expected {want.type}; came {show(item)}")
        flags.append(at)
    elif want.column is not None and bounded(want.column, found) != found:
        flags.append(at)


def _any_strict(spec: Spec) -> bool:
    return any(_any_strict(inner) if type(inner) is dict else inner.strict for inner in spec.values())
