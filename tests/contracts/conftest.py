"""Servers that several contracts run against."""

from collections.abc import Iterator

import pytest

from tests import brokers


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Redis."""
    with brokers.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.address
