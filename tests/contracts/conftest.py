"""Servers that several contracts run against."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from tests import brokers


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Redis."""
    with brokers.redis(tmp_path_factory.mktemp("redis")) as server:
        yield server.address


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], brokers.Server]]:
    """The server of a kind of log, started when it is asked for."""
    start: dict[str, Callable[[], AbstractContextManager[brokers.Server]]] = {
        "kafka": brokers.kafka,
        "rabbitmq": lambda: brokers.rabbitmq(tmp_path_factory.mktemp("rabbitmq")),
        "kinesis": brokers.kinesis,
    }
    running: dict[str, brokers.Server] = {}
    with ExitStack() as stack:

        def server(kind: str) -> brokers.Server:
            if kind not in running:
                running[kind] = stack.enter_context(start[kind]())
            return running[kind]

        yield server
