"""A served collector with a raw socket to it, and a second client that notes how long /healthz takes meanwhile."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest

from tests.serving.collect.conftest import ask, keys, log, make_collector, make_door, quarantine, service  # noqa: F401


@pytest.fixture
def connect(service: SimpleNamespace) -> Iterator[Callable[[], socket.socket]]:  # noqa: F811
    """Opens connections to the service, which are closed at the end."""
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", service.port), timeout=20))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


def answer(connection: socket.socket) -> bytes:
    """All that comes until the service closes the connection."""
    parts = list[bytes]()
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def send_until_closed(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send the same piece again until the service closes, at most `most` bytes; how many were sent."""
    sent = 0
    try:
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return sent


@contextmanager
def bystander(url: str, every_s: float = 0.02) -> Iterator[list[float]]:
    """Another client, which asks /healthz all the time; the list holds how many seconds each answer took."""
    took, ended = list[float](), threading.Event()

    def ask_on() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not ended.wait(every_s):
                began = time.perf_counter()
                assert client.get("/healthz").status_code == 200
                took.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask_on, daemon=True)
    thread.start()
    try:
        yield took
    finally:
        ended.set()
        thread.join(60)


def p99(took: list[float]) -> float:
    """The 99th percentile, in seconds."""
    assert len(took) >= 100, "too few answers for a percentile"
    return sorted(took)[len(took) * 99 // 100]
