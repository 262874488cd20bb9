"""Rule segments: declared in YAML by a product manager, checked at load, folded over a person's feature rows.

saas.yaml, oulad.yaml   the rules             catalogue.py, grammar.py, reading.py   YAML to conditions
conditions.py           conditions as data    reasoning.py, intervals.py, checks.py  what is wrong with them
ruleset.py, compiled.py rules, compiled       facts.py, fold.py                      a step, and all steps of a person
limits.py, guard.py     over-segmentation     history.py, table.py, commands.py      `python -m serving rules`
"""

from serving.rules.facts import Facts, Membership, MissingFeature, Move, State, Step
from serving.rules.fold import Folded, advance, fold, step
from serving.rules.limits import Limits
from serving.rules.reading import RulesError, for_domain, load, location
from serving.rules.ruleset import Rules, Segment

__all__ = [
    "Facts",
    "Folded",
    "Limits",
    "Membership",
    "MissingFeature",
    "Move",
    "Rules",
    "RulesError",
    "Segment",
    "State",
    "Step",
    "advance",
    "fold",
    "for_domain",
    "load",
    "location",
    "step",
]
