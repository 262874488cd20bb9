"""monitoring.live: a service that does not start or does not answer as it should is told with the end of its log."""

import socket
from pathlib import Path

import httpx
import pytest

from feature_repo.settings import Settings
from monitoring import children, live
from monitoring.live import ServiceError, free_port, in_use, service

READY_ONLY = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/gone":
            print("I have had enough", flush=True)
            sys.stdout.flush()
            import os; os._exit(7)
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b"" if self.path == "/readyz" else b"the disk is full")

http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, domain="saas")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is ready at once and answers nothing else, in the place of the service."""
    (tmp_path / "serving.py").write_text(READY_ONLY)
    started = children.start
    monkeypatch.setattr(
        live.children, "start", lambda words, env, log: started(words, env | {"PYTHONPATH": str(tmp_path)}, log)
    )
    monkeypatch.setattr(children, "SOURCE", tmp_path)


def test_a_service_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    port = free_port()
    said = r"did not start: it ended with exit code \d+; .*service\.log ends:\n(.|\n)*no domain 'nothing-like-it'"
    with (
        pytest.raises(ServiceError, match=said),
        service(Settings(home=tmp_path, domain="nothing-like-it"), port),
    ):
        pass
    assert not in_use(port)


def test_an_answer_that_is_an_error_is_told(settings: Settings, stand_in: None) -> None:
    port = free_port()
    with (
        pytest.raises(ServiceError, match=rf"the service on port {port}: GET /v1/x was answered with 503: the disk"),
        service(settings, port),
    ):
        httpx.get(f"http://127.0.0.1:{port}/v1/x").raise_for_status()
    assert not in_use(port)


def test_a_service_that_dies_under_way_is_told(settings: Settings, stand_in: None) -> None:
    port = free_port()
    said = r"GET /gone failed \(RemoteProtocolError: .*\)(; it has ended with exit code 7)?; (.|\n)*I have had enough"
    with pytest.raises(ServiceError, match=said), service(settings, port):
        httpx.get(f"http://127.0.0.1:{port}/gone")


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert in_use(listening.getsockname()[1])
    assert not in_use(free_port())
