"""monitoring.client: an answer that takes its time is awaited, and the waiting is announced."""

import io
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console

from monitoring.client import patient_client


class Slow(BaseHTTPRequestHandler):
    """Answers `/slow` only when it is let."""

    let = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.let.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Slow.let.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Listening(io.StringIO):
    """Lets the slow answer come as soon as the waiting has been announced."""

    def write(self, text: str) -> int:
        if "waiting" in text:
            Slow.let.set()
        return super().write(text)


def test_waiting_is_announced_and_ends_with_the_answer(url: str) -> None:
    out = Listening()
    with patient_client(url, Console(file=out, width=200), say_every_s=0.05) as client:
        assert client.get("/slow").status_code == 200
    assert re.match(r"waiting for the service's answer to GET /slow for \d+ s\n", out.getvalue())


def test_a_quick_answer_is_not_announced(url: str) -> None:
    out = io.StringIO()
    with patient_client(url, Console(file=out), say_every_s=30) as client:
        assert client.get("/quick").status_code == 200
    assert out.getvalue() == "" and "waiting for an answer" not in {t.name for t in threading.enumerate()}
