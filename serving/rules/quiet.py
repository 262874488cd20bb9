"""Which feature rows cannot move anybody by their values: most of them, as few events cross a limit of a rule.

rows of many people, in order -> [each condition on a row: does it change at its beginning, or while it lasts?] -> quiet
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from serving.rules.compiled import test
from serving.rules.conditions import Compare, Elapsed, Null, OneOf, atoms
from serving.rules.facts import Scene
from serving.rules.ruleset import Rules

_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def quiet(rules: Rules, rows: pa.Table, begins: np.ndarray, ends: np.ndarray, first: np.ndarray) -> np.ndarray:
    """For each row whether all conditions on its values are what they were before it, and stay so while it lasts.

    At such a row only what time in a segment moves can move, and when that is due is known from the rows before.
    Scores, engagement segments and personas count as constant. The first row of a person is never quiet.

    Args:
        rows: the stored features that the rules need, in order of person and time.
        begins, ends: of each row, int64 µs; the end is not included.
        first: whether a row is its person's first, bool.

    Returns:
        bool of the same length.
    """
    loud = first.copy()
    conditions = [c for s in rules.declared.values() for c in (s.enter, s.exit) if c is not None]
    for atom in {a for c in conditions for a in atoms(c)}:
        match atom:
            case Elapsed(of=name, op=op, us=us):
                since = rows[name].combine_chunks()
                there, at = np.asarray(since.is_valid()), np.asarray(since.cast(pa.int64()).fill_null(0))
                start = there & _ORDERS[op](begins - at, us)
                end = there & _ORDERS[op](ends - 1 - at, us)
                loud |= start != end
            case Compare(feature=name) | OneOf(feature=name) | Null(feature=name):
                coded = rows[name].combine_chunks().dictionary_encode(null_encoding="encode")
                holds = [test(atom)(Scene({name: value}, 0)) for value in coded.dictionary.to_pylist()]
                start = end = np.asarray(holds, bool)[np.asarray(coded.indices)]
            case _:
                continue
        loud[1:] |= start[1:] != end[:-1]
    return ~loud
