"""A server of the live part for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_repo.settings import Settings
from tests.e2e.processes import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(Settings(home=tmp_path, domain="saas"))
    yield found
    if found.process is not None and found.process.poll() is None:
        found.kill()
