"""The commands with which a user goes on after a run."""

import shlex

from feature_repo.settings import SOURCE, Settings

PORT = 3000
"""The Makefile's default."""


def commands(settings: Settings, port: int | None) -> dict[str, str]:
    """What to call for each user interface; names STATE, DOMAIN and PORT wherever they are not the default."""
    state = _variables(settings)
    other = f" PORT={port}" if port not in (None, PORT) else ""
    return {
        "mlflow": f"make mlflow-ui{state}  # 127.0.0.1:5000",
        "feast": f"make feast-ui{state}  # 127.0.0.1:8888",
        "service": f"make serve{state}{other}  # 127.0.0.1:{port or PORT}, its API at /docs",
    }


def _variables(settings: Settings) -> str:
    words = "" if settings.domain == "saas" else f" DOMAIN={shlex.quote(settings.domain)}"
    return words if settings.home == (SOURCE / "var").resolve() else f"{words} STATE={shlex.quote(str(settings.home))}"
