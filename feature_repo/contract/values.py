"""The value that a declared column has in an event: what JSON says, typed and within the column's bounds.

What does not have the column's type is no value: the event is kept, and features see null. history.py says the same
in SQL, for the events of the lake.
"""

import re
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

from feature_repo.vocabulary import INT64, Column

DECIMAL_TEXT = r"-?[0-9]{1,18}([.][0-9]{1,18})?"
"""What a string has to be to be read as a decimal: a number written out, with no exponent and no blanks."""

_TEXT = re.compile(DECIMAL_TEXT, re.ASCII)
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)


def typed(kind: str, scale: int, item: Any) -> str | int | None:
    """A JSON value as one of a column's type, None where it is none.

    string: a string. int64: an integer that fits. boolean: true is 1, false is 0. decimal: a number, or a string of
    one, in units of 10**-scale that fit into int64; further digits are rounded, half away from zero.

    >>> typed("decimal", 2, 9.99), typed("decimal", 2, "-0.005"), typed("boolean", 0, True), typed("int64", 0, "1")
    (999, -1, 1, None)
    """
    of = type(item)
    if kind == "string":
        return item if of is str else None
    if kind == "boolean":
        return int(item) if of is bool else None
    if kind == "decimal":
        return _units(item, scale)
    return item if of is int and INT64[0] <= item <= INT64[1] else None


def _units(item: Any, scale: int) -> int | None:
    of = type(item)
    if of is int:
        number = Decimal(item) if INT64[0] <= item <= INT64[1] else None
    elif of is float:
        number = Decimal(repr(item))  # the digits that the sender wrote, up to 15 of them
    else:
        number = Decimal(item) if of is str and _TEXT.fullmatch(item) else None
    if number is None:
        return None
    units = int(_EXACT.to_integral_value(_EXACT.scaleb(number, scale)))
    return units if INT64[0] <= units <= INT64[1] else None


def bounded(column: Column, value: str | int | None) -> str | int | None:
    """A typed value, or what the column declares in place of one that is outside its bounds."""
    if column.limits is None or not isinstance(value, int):
        return value
    low, high = column.limits
    if low <= value <= high:
        return value
    return min(max(value, low), high) if column.outside == "clip" else None


def value_of(column: Column, item: Any) -> str | int | None:
    """The value that features see of a column where JSON has `item`."""
    return bounded(column, typed(column.type, column.scale or 0, item))
