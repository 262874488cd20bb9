"""The JSON types that a domain declares for paths in an event's properties, traits and context."""

from typing import Any

from feature_repo.contract.feedback import EVENTS
from feature_repo.contract.refusals import Reason, refuse, show
from feature_repo.domain import Domain

Spec = dict[str, Any]
"""Declared types by key: a type's name, or a Spec where paths go deeper."""

Rules = dict[str | None, dict[str, Spec]]
"""For each name of a track event, the domain's and the standard ones (feedback.py), and under None for all others:
a Spec of `properties`, `traits`, `context`."""

INT64 = (-(2**63), 2**63 - 1)

_RULES: dict[int, tuple[Domain, Rules]] = {}


def declared_types(domain: Domain) -> Rules:
    """The types that a domain and feedback.py declare, compiled once a domain.

    Raises:
        ValueError: two declarations contradict each other, or one is no path or type that an event can have.
    """
    known = _RULES.get(id(domain))
    if known is None or known[0] is not domain:
        known = _RULES[id(domain)] = (domain, _compile(domain))
    return known[1]


def _compile(domain: Domain) -> Rules:
    columns = [(c.path, c.type) for c in domain.columns]
    rules: Rules = {None: _spec(columns, domain.name)}
    for event in {**domain.events, **EVENTS}:
        properties = [*domain.events.get(event, {}).items(), *EVENTS.get(event, {}).items()]
        rules[event] = _spec([*columns, *((f"properties.{k}", t) for k, t in properties)], domain.name)
    return rules


def _spec(declared: list[tuple[str, str]], domain: str) -> dict[str, Spec]:
    spec: dict[str, Spec] = {"properties": {}, "traits": {}, "context": {}}
    for path, kind in declared:
        *above, last = path.split(".")
        if not above or above[0] not in spec or kind not in ("string", "int64", "boolean"):
            raise ValueError(
                f"domain {domain}: {path!r} of type {kind!r}: expected a path from properties, traits or context "
                "and one of string, int64, boolean"
            )
        node: Spec = spec
        for key in above:
            node = node.setdefault(key, {})
            if type(node) is not dict:
                raise ValueError(f"domain {domain}: {path!r} goes through a path that is declared as {node}")
        if node.setdefault(last, kind) != kind:
            raise ValueError(f"domain {domain}: {path!r} is declared as {kind} and as {node[last]}")
    return spec


def check(value: dict[str, Any], spec: Spec, path: str) -> None:
    """Refuse declared values of another type; an integral float becomes the int64 it stands for."""
    for key, item in value.items():
        want = spec.get(key)
        if want is None or item is None:
            continue
        kind = type(item)
        if want == "string" and kind is str:
            if "\0" in item:
                refuse(Reason.BAD_CHARACTER, f"{path}.{key}: expected no NUL; came one at {item.index(chr(0))}")
        elif want == "int64" and (kind is int or (kind is float and item.is_integer())):
            if not INT64[0] <= item <= INT64[1]:
                refuse(Reason.NUMBER_OUT_OF_RANGE, f"{path}.{key}: expected an int64; came {show(item)}")
            value[key] = int(item)
        elif type(want) is dict and kind is dict:
            check(item, want, f"{path}.{key}")
        elif not (want == "boolean" and kind is bool):
            what = "an object" if type(want) is dict else want
            refuse(Reason.WRONG_TYPE, f"{path}.{key}: expected {what}; came {show(item)}")
