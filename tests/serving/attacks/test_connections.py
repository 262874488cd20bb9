"""What a connection may cost before any route sees it: headers, silence, upgrades, bodies that nobody waits for."""

import json
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace

import httpx
import pytest

from serving import http_limits
from serving.http_limits import FRAMING, HEAD_BYTES, HEADER_FIELDS, REST_BYTES, LimitedProtocol
from tests.serving.attacks.conftest import answer, bystander, p99, send_until_closed

Connect = Callable[[], socket.socket]
CHUNK = 256 * 1024
"""The most that the event loop reads at once."""
CHUNKED = b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
KERNEL = 16 * 1024 * 1024
"""More than the sockets' buffers of both sides hold."""


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"a" * 65_536),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X: a\r\n" * 10_000),
        (b"GET /", b"a" * 65_536),
        (b"", b"\r\n" * 30_000),
        (CHUNKED + b"1;", b"a" * 65_536),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"X: a\r\n" * 10_000),
    ],
    ids=["one header", "many headers", "request line", "empty lines", "chunk extension", "trailers"],
)  # fmt: skip
def test_what_is_no_body_ends_soon(connect: Connect, start: bytes, piece: bytes) -> None:
    connection = connect()
    connection.sendall(start)
    assert send_until_closed(connection, piece, 300 * 1024 * 1024) < HEAD_BYTES + CHUNK + KERNEL


@pytest.mark.parametrize(
    "fields",
    [[("X-Long", "a" * HEAD_BYTES)], [(f"X-{n}", "a") for n in range(HEADER_FIELDS)]],
    ids=["bytes", "fields"],
)
def test_headers_that_came_at_once_are_refused_in_words(
    service: SimpleNamespace, fields: list[tuple[str, str]]
) -> None:
    refused = httpx.get(f"{service.url}/healthz", headers=fields)
    assert (refused.status_code, refused.json()["code"], refused.headers["connection"]) == (
        431, "headers_too_large", "close",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * HEAD_BYTES + b"\r\n\r\n", b"431"),
        (b"GET /healthz HTTP/1.1\r\nX-Long: " + b"a" * (HEAD_BYTES + CHUNK), b"431"),
        (b"NO HTTP\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nX: ", b"408"),
    ],
    ids=["431", "431 at once", "400", "408"],
)
def test_refusals_of_connections_are_in_no_frame_and_of_no_other_type(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, sent: bytes, status: bytes
) -> None:
    monkeypatch.setattr(http_limits, "HEAD_S", 1.0)
    connection = connect()
    connection.sendall(sent)
    head, _, body = answer(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    for header in (b"x-content-type-options: nosniff", b"x-frame-options: DENY", b"cache-control: no-store"):
        assert head.count(header) == 1
    assert json.loads(body).keys() >= {"code", "message"}


def test_headers_below_the_limits_are_served(service: SimpleNamespace) -> None:
    fields = [(f"X-{n}", "a" * 300) for n in range(HEADER_FIELDS - 10)]
    assert httpx.get(f"{service.url}/healthz", headers=fields).status_code == 200


def test_many_requests_in_one_packet_are_all_answered(connect: Connect) -> None:
    connection = connect()
    connection.sendall(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2_000 + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert answer(connection).count(b"HTTP/1.1 200") == 2_000


def test_a_body_in_chunks_of_one_byte_is_a_body(connect: Connect, service: SimpleNamespace) -> None:
    body = b'{"writeKey":"%s","batch":[%s]}' % (service.key.encode(), b" " * 40_000)
    assert len(body) * 5 > HEAD_BYTES and FRAMING >= 5
    connection = connect()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    connection.sendall(
        b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunks + b"0\r\n\r\n"
    )  # fmt: skip
    assert answer(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: local", b"\r\n"])
def test_silence_and_slow_headers_are_cut(connect: Connect, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http_limits, "HEAD_S", 0.2)
    connection = connect()
    connection.sendall(sent)
    assert answer(connection).startswith(b"HTTP/1.1 408" if b"GET" in sent else b"")


def test_headers_that_trickle_are_cut(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "HEAD_S", 0.3)
    connection, began = connect(), time.monotonic()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
    with pytest.raises(OSError):
        while time.monotonic() - began < 30:
            connection.sendall(b"a")
            time.sleep(0.02)


def test_a_second_request_is_timed_too(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "HEAD_S", 0.3)
    connection = connect()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    connection.sendall(b"GET /healthz HTT")
    assert answer(connection).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_an_upgrade_is_answered_as_plain_http_and_closed(connect: Connect, protocol: bytes) -> None:
    connection = connect()
    connection.sendall(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % protocol
    )
    assert answer(connection).startswith(b"HTTP/1.1 200")


def test_a_body_that_goes_on_after_its_answer_is_not_read_for_long(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = connect()
    fast.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\n")
    assert send_until_closed(fast, b"a" * 65_536, 300 * 1024 * 1024) < REST_BYTES + KERNEL
    monkeypatch.setattr(http_limits, "REST_S", 0.2)
    slow = connect()
    slow.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\na")
    assert answer(slow).startswith(b"HTTP/1.1 405")


def test_connections_beyond_the_limit_are_told_so(
    connect: Connect, service: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LimitedProtocol, "most_connections", 3)
    open_ones = [connect() for _ in range(3)]
    time.sleep(0.1)
    beyond = answer(connect())
    assert beyond.startswith(b"HTTP/1.1 503") and b"too many connections" in beyond
    for one in open_ones:
        one.close()
    until = time.monotonic() + 10
    while httpx.get(f"{service.url}/healthz").status_code != 200:
        assert time.monotonic() < until


def test_who_does_not_read_an_answer_is_cut(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "READER_S", 0.3)
    connection = connect()
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.sendall(asked * 2_000)  # some 60 MB of answers
    until = time.monotonic() + 30
    with pytest.raises(OSError):
        while time.monotonic() < until:
            connection.sendall(b"\r\n")
            time.sleep(0.05)


@pytest.mark.soak
def test_nobody_waits_for_a_header_of_300_megabytes(connect: Connect, service: SimpleNamespace) -> None:
    with bystander(service.url) as took:
        for _ in range(20):
            connection = connect()
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
            send_until_closed(connection, b"a" * 65_536, 300 * 1024 * 1024)
        time.sleep(5)
    assert p99(took) <= 0.1
