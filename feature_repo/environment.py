"""The variables that this process was started with: the environment, and below it `.env` in the working folder."""

import logging
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path

PREFIX = "FIRSTMILE_"
FILE = ".env"
TRACKING = os.environ.get("MLFLOW_TRACKING_URI") or ""
"""As it was when the program started: MLflow itself sets it later, to whatever was used last."""

_OTHERS = re.compile(r"FIRSTMILE_(TEST_\w+|CI|HYPOTHESIS|SERVICE_HOST|SERVICE_PORT\w*|PORT|PORT_\w+)")
"""No settings, and not misspelt either: those of the tests, and what Kubernetes sets beside a service `firstmile`."""

_log = logging.getLogger(__name__)


def variables() -> dict[str, str]:
    """Every variable by name. The environment wins over `.env`; an empty variable counts as not set."""
    found: dict[str, str | None] = dict(_file()) if Path(FILE).is_file() else {}
    found |= os.environ
    if TRACKING or "MLFLOW_TRACKING_URI" in os.environ:
        found["MLFLOW_TRACKING_URI"] = TRACKING
    return {name: value for name, value in found.items() if value}


def variable(name: str) -> str | None:
    """One variable, for secrets that are referred to by the name of their variable. None: it is not set."""
    return variables().get(name)


def _file() -> dict[str, str | None]:
    from dotenv import dotenv_values

    return dotenv_values(FILE, interpolate=False)


@cache
def warn_of_unknown(given: frozenset[str], known: tuple[str, ...]) -> None:
    """Log a warning, once, for each variable that begins as ours do and is none, with the nearest name."""
    for name, nearest in unknown(given, known):
        hint = f"did you mean {nearest}?" if nearest else "docs/settings.md lists all of them"
        _log.warning("%s is not a setting of Firstmile and has no effect; %s", name, hint)


def unknown(given: Iterable[str], known: Iterable[str]) -> list[tuple[str, str | None]]:
    """The names that begin with FIRSTMILE_ and are no setting, each with the nearest setting, if any is near.

    >>> unknown(["FIRSTMILE_DOMIAN", "FIRSTMILE_LOG", "HOME"], ["FIRSTMILE_DOMAIN", "FIRSTMILE_LOG"])
    [('FIRSTMILE_DOMIAN', 'FIRSTMILE_DOMAIN')]
    """
    names = tuple(known)
    wrong = sorted(n for n in given if n.startswith(PREFIX) and n not in names and not _OTHERS.fullmatch(n))
    ends = {name.removeprefix(PREFIX): name for name in names}
    nearest = (get_close_matches(name.removeprefix(PREFIX), ends, 1) for name in wrong)
    return [(name, ends[near[0]] if near else None) for name, near in zip(wrong, nearest, strict=True)]
