"""The products that Firstmile knows, a module each; `load(name)` finds them."""

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import cast

from feature_repo.domain import Domain


def names() -> list[str]:
    """The domains that can be loaded: every module or package of this folder."""
    folder = Path(__file__).parent
    found = {p.stem for p in folder.glob("[!_]*.py")}
    found |= {p.parent.name for p in folder.glob("[!_]*/__init__.py")}
    return sorted(found)


def load(name: str) -> Domain:
    """The domain of that name.

    Raises:
        ValueError: there is no such domain.
    """
    if name not in names():
        near = get_close_matches(name, names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"no domain {name!r}: there are {', '.join(names())}{hint}")
    return cast(Domain, import_module(f"feature_repo.domains.{name}").DOMAIN)
