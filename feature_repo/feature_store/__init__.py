"""Feast: its objects, its offline and online stores, and the bulk ways into them.

Feast has typeguard check the arguments of its classes, which compiles them anew in every process that imports it: that
is most of five seconds. What we give to it is checked before anything runs, so here its classes stay as they are.
"""

from typing import Any

import typeguard

_typechecked = typeguard.typechecked


def _unless_feast(target: Any = None, /, **options: Any) -> Any:
    if getattr(target, "__module__", "").partition(".")[0] == "feast":
        return target
    return _typechecked(target, **options)


typeguard.typechecked = _unless_feast  # type: ignore[assignment]
