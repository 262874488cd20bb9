"""monitoring.hints: the commands after a run name STATE, DOMAIN and PORT wherever they are not the default."""

from pathlib import Path

import pytest

from feature_repo.settings import SOURCE, Settings
from monitoring import hints

DEFAULT = (SOURCE / "var").resolve()


def test_defaults_are_not_named() -> None:
    found = hints.commands(Settings(home=DEFAULT, domain="saas"), None)
    assert found["service"] == "make serve  # 127.0.0.1:3000, its API at /docs"
    assert found["mlflow"].startswith("make mlflow-ui  #") and found["feast"].startswith("make feast-ui  #")


@pytest.mark.parametrize("home", ["/somewhere/var", "/tmp/with a space/var"])
def test_another_folder_is_named_although_it_is_called_var(home: str) -> None:
    quoted = f"'{home}'" if " " in home else home
    for command in hints.commands(Settings(home=Path(home), domain="saas"), None).values():
        assert f" STATE={quoted}  #" in command


def test_domain_and_port_are_named() -> None:
    found = hints.commands(Settings(home=DEFAULT, domain="oulad"), 4000)
    assert found["service"] == "make serve DOMAIN=oulad PORT=4000  # 127.0.0.1:4000, its API at /docs"
    assert found["mlflow"] == "make mlflow-ui DOMAIN=oulad  # 127.0.0.1:5000"
