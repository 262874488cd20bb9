"""Rule segments: declared in YAML by a product manager, checked at load, folded over a person's feature rows.

saas.yaml, oulad.yaml      the rules; saas.yaml explains the form
catalogue.py, grammar.py   what a condition may name, and how it is read      conditions.py    conditions as data
reading.py, checks.py      a file, and what is wrong with it as a whole       reasoning.py     what can never hold
ruleset.py, compiled.py    the rules, compiled, and their content             intervals.py     values that are left
facts.py, fold.py          a step, and all the steps of a person              limits.py        of the guard
history.py, comparison.py  everybody's past under old and new rules           guard.py         over-segmentation
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
