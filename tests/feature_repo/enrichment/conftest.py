"""An HTTP source whose answers, speed and health a test chooses."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Companies:
    """A server on a free port; it can be slow, wrong, stopped, and started again on the same port."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.delay_s = 0.0
        self.status = 200
        self.body: bytes | None = None
        self.at_once = self.most_at_once = self.port = 0
        self.server: ThreadingHTTPServer | None = None
        self._lock, self._over = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/companies/{{key}}"

    def start(self) -> None:
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.answer(self)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def close(self) -> None:
        self._over.set()
        self.stop()

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        key = to.path.removeprefix("/companies/")
        with self._lock:
            self.asked.append(key)
            self.tokens.append(to.headers["Authorization"])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self._over.wait(self.delay_s)
        with self._lock:
            self.at_once -= 1
        body = self.body or json.dumps({"company": {"name": f"Company {key}", "size": 50}, "active": True}).encode()
        try:
            to.send_response(self.status)
            if self.status != 204:
                to.send_header("Content-Length", str(len(body)))
            to.end_headers()
            if self.status != 204:
                to.wfile.write(body)
        except OSError:  # whoever asked has left
            pass


@pytest.fixture
def companies() -> Iterator[Companies]:
    source = Companies()
    source.start()
    yield source
    source.close()
