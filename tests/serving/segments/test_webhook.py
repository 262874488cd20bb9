"""Webhooks against a real HTTP receiver: signed, in order, tried again, put aside, sent again, erased."""

import base64
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from feature_repo.settings import Settings
from serving.__main__ import main
from serving.segments.channels import signing, webhook
from serving.segments.channels.channel import Channel
from serving.segments.channels.dead_letters import DeadLetters, Letter, folder
from serving.segments.channels.disabled import Disabled
from serving.segments.channels.endpoints import Endpoint, WebhooksError, declared
from serving.segments.channels.event import document, encode
from serving.segments.channels.webhook import TRIES, Webhook
from serving.segments.journal import FILE, Change, Journal

NOW = 1_767_225_600_123_456
KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def change(n: int, person: str = "u-1", segment: str = "keen") -> Change:
    return Change(person, "rules", segment, True, NOW + n, "more than 5 sessions", "v1", NOW + n)


class Handler(BaseHTTPRequestHandler):
    """Answers what the server's plan says, then 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        server: Any = self.server
        server.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
        status, headers = server.plan.pop(0) if server.plan else (200, {})
        self.send_response(status)
        for name, value in ({"content-length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    """got: (headers, body) of each request. plan: (status, headers) of the next answers."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.got, server.plan = True, [], []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def bodies(receiver: Any) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in receiver.got]


@pytest.fixture
def make(tmp_path: Path, receiver: Any) -> Iterator[Callable[..., tuple[Journal, Channel, DeadLetters]]]:
    """A journal in the state folder, and a webhook's channel that is not running: `step` is called by the test."""
    settings, opened = Settings(home=tmp_path, domain="saas"), list[Any]()

    def make(segments: frozenset[str] | None = None, url: str = receiver.url) -> tuple[Journal, Channel, DeadLetters]:
        settings.state.mkdir(parents=True, exist_ok=True)
        journal, letters = Journal(settings.state / FILE), DeadLetters(folder(settings))
        to = Webhook(
            Endpoint("crm", url, (KEY,), segments),
            journal,
            letters,
            Disabled(folder(settings)),
            lambda: NOW,
            lambda: 0.5,
        )
        channel = Channel(journal, to)
        opened.extend([channel, journal])
        return journal, channel, letters

    yield make
    for one in opened:
        one.close()


def verify(key: bytes, headers: dict[str, str], body: bytes) -> None:
    """As a receiver does it, with nothing of ours."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()
    assert expected in headers["webhook-signature"].split(" ")


def test_each_change_is_a_signed_request_in_order(make: Any, receiver: Any) -> None:
    journal, channel, _ = make()
    written = journal.write({}, [change(n, f"u-{n}") for n in range(3)])
    while channel.step() is not None:
        pass
    assert bodies(receiver) == [json.loads(encode(document(c))) for c in written]
    for headers, body in receiver.got:
        verify(KEY, headers, body)
        assert headers["webhook-timestamp"] == "1767225600" and headers["content-type"] == "application/json"
        assert headers["webhook-id"] == json.loads(body)["id"]
    first = bodies(receiver)[0]
    assert first | {"id": ""} == {
        "type": "segment.changed", "id": "", "userId": "u-0", "anonymousId": None, "segment": "keen", "source": "rules",
        "entered": True, "at": "2026-01-01T00:00:00.123456Z", "notedAt": "2026-01-01T00:00:00.123456Z",
        "cause": "more than 5 sessions",
        "version": "v1", "seq": 1, "correctsSeq": None,
    }  # fmt: skip
    assert datetime.fromisoformat(first["at"]).timestamp() == NOW / 1_000_000
    assert len({body["id"] for body in bodies(receiver)}) == 3


def test_the_published_example_is_signed_as_published() -> None:
    """The example of the Standard Webhooks libraries' own documentation."""
    key = signing.keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = signing.headers(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330_000_000, body)
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_secrets_sign_side_by_side() -> None:
    other = b"o" * 24
    keys = signing.keys(f"{SECRET}, whsec_{base64.b64encode(other).decode()}")
    made = signing.headers(keys, "chg_1", NOW, b"{}")
    for key in (KEY, other):
        verify(key, made, b"{}")


def test_after_500_the_same_change_comes_again_before_the_next(make: Any, receiver: Any) -> None:
    journal, channel, letters = make()
    journal.write({}, [change(1), change(2)])
    receiver.plan = [(500, {}), (307, {"location": "/elsewhere"}), (503, {"retry-after": "90"})]
    assert [channel.step() for _ in range(6)] == [0.75, 1.5, 90.0, 0.0, 0.0, None]
    assert [b["seq"] for b in bodies(receiver)] == [1, 1, 1, 1, 2]
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 2 and letters.all() == []


def test_after_ten_tries_it_is_a_dead_letter_and_can_be_sent_again(make: Any, receiver: Any) -> None:
    journal, channel, letters = make()
    journal.write({}, [change(1), change(2)])
    receiver.plan = [(500, {})] * TRIES
    waits = [channel.step() for _ in range(TRIES)]
    assert waits[-1] == 0.0 and all(w and w > 0 for w in waits[:-1])
    assert channel.step() == 0.0 and journal.cursor("webhook:crm") == 2
    (letter,) = letters.all()
    assert letter == Letter("webhook:crm", "2026-01-01T00:00:00.123456Z", TRIES, "HTTP 500", letter.event)
    receiver.got.clear()
    receiver.plan = [(500, {})]
    endpoints = [Endpoint("crm", receiver.url, (KEY,))]
    with webhook.client() as http:
        assert webhook.redeliver(endpoints, letters, http) == [(letter, "HTTP 500")] and letters.all() == [letter]
        assert webhook.redeliver([], letters, http)[0][1] == "no endpoint of that name is configured"
        assert webhook.redeliver(endpoints, letters, http) == [(letter, "")] and letters.all() == []
    assert receiver.got[0][1] == receiver.got[1][1] == encode(letter.event)
    verify(KEY, *receiver.got[1])


def test_nobody_there_is_a_failure_like_others(make: Any) -> None:
    journal, channel, letters = make(url="http://127.0.0.1:1/")
    journal.write({}, [change(1)])
    for _ in range(TRIES):
        channel.step()
    assert letters.all()[0].reason.startswith("ConnectError")


def test_410_disables_until_it_is_enabled(make: Any, receiver: Any, tmp_path: Path) -> None:
    journal, channel, letters = make()
    journal.write({}, [change(1)])
    receiver.plan = [(410, {})]
    assert channel.step() == channel.step() == webhook.RECHECK_S and len(receiver.got) == 1
    found = run(tmp_path)
    assert "webhook:crm: change 0 of 1, answered 410 Gone, disabled since 2026-01-01T00:00:00.123456Z" in found
    assert "other is not disabled; disabled are: webhook:crm" in run(tmp_path, "--enable", "other")
    assert "webhook:crm: change 0 of 1, not configured" in run(tmp_path, "--enable", "webhook:crm")
    assert channel.step() == 0.0 and len(receiver.got) == 2 and letters.all() == []


def test_only_the_segments_that_are_asked_for(make: Any, receiver: Any) -> None:
    journal, channel, _ = make(frozenset({"keen"}))
    journal.write({}, [change(1, segment="idle"), change(2)])
    while channel.step() is not None:
        pass
    assert [b["segment"] for b in bodies(receiver)] == ["keen"] and journal.cursor("webhook:crm") == 2


def test_an_erased_persons_dead_letters_go_without_a_trace(make: Any, receiver: Any, tmp_path: Path) -> None:
    journal, channel, letters = make()
    journal.write({}, [change(1, "anna.example"), change(2, "kept")])
    receiver.plan = [(500, {})] * 2 * TRIES
    for _ in range(2 * TRIES):
        channel.step()
    assert len(letters.all()) == 2
    letters.file.with_suffix(".part").write_bytes(b"left by a kill: anna.example")
    assert letters.erase({"anna.example"}) == 1 and letters.erase({"anna.example"}) == 0
    assert [k.event.user_id for k in letters.all()] == ["kept"]
    assert not [f for f in letters.file.parent.iterdir() if b"anna.example" in f.read_bytes()]


def test_an_anonymous_user_is_told_of_by_anonymous_id_and_their_letters_can_be_erased(make: Any, receiver: Any) -> None:
    journal, channel, letters = make()
    journal.write({}, [change(1, "anon:visitor-9"), change(2, "visitor-9")])
    receiver.plan = [(500, {})] * 2 * TRIES
    for _ in range(2 * TRIES):
        channel.step()
    sent = bodies(receiver)
    assert [sent[n * TRIES]["userId"] for n in range(2)] == [None, "visitor-9"]
    assert [sent[n * TRIES]["anonymousId"] for n in range(2)] == ["visitor-9", None]
    assert "anon:" not in json.dumps(sent) and b"anon:" not in letters.file.read_bytes()
    assert letters.erase({"anon:visitor-9"}) == 1
    assert [k.event.user_id for k in letters.all()] == ["visitor-9"]


def test_what_a_kill_left_of_the_first_letter_goes_too(tmp_path: Path) -> None:
    (tmp_path / "dead.part").write_bytes(b"anna.example")
    assert DeadLetters(tmp_path).erase({"anna.example"}) == 0
    assert not [f for f in tmp_path.iterdir() if b"anna.example" in f.read_bytes()]


def test_whom_the_journal_has_forgotten_becomes_no_dead_letter(make: Any, receiver: Any) -> None:
    journal, channel, letters = make()
    written = journal.write({}, [change(1, "anna.example")])
    journal.erase(["anna.example"])
    assert channel._to.failed(written, OSError("refused"), TRIES) is None and letters.all() == []


def test_a_torn_line_harms_no_other(make: Any) -> None:
    _, _, letters = make()
    letter = Letter("webhook:crm", "2026-01-01T00:00:00Z", 1, "HTTP 500", document(change(1)))
    letters.add(letter)
    letters.add(letter)
    with letters.file.open("ab") as out:
        out.write(b'{"channel": "webhook:crm", "event": {"userId": "an')
    assert letters.all() == [letter]
    letters.remove(letter)
    assert letters.file.read_bytes() == b""


def run(home: Path, *arguments: str, **environment: str) -> str:
    names = {"FIRSTMILE_HOME": str(home), "FIRSTMILE_LOG": "sqlite", "FIRSTMILE_WEBHOOKS": ""} | environment
    return CliRunner().invoke(main, ["webhooks", "--domain", "saas", *arguments], env=names).output


def test_the_command_lists_and_sends_again(make: Any, receiver: Any, tmp_path: Path) -> None:
    assert "no channel: set FIRSTMILE_WEBHOOKS" in run(tmp_path)
    _, _, letters = make()
    letters.add(Letter("webhook:crm", "2026-01-01T00:00:00Z", 10, "HTTP 500", document(change(1))))
    file = tmp_path / "hooks.yaml"
    file.write_text(f"webhooks:\n  crm:\n    url: {receiver.url}\n    secret: CRM\n")
    names = {"FIRSTMILE_WEBHOOKS": str(file), "CRM": SECRET, "FIRSTMILE_LOG": "kafka://k:1/t"}
    assert run(tmp_path, **names).split("\n")[:3] == [
        "webhook:crm: change 0 of 0, open", "broker: not begun, open", "dead letters: 1"
    ]  # fmt: skip
    found = run(tmp_path, "--redeliver", **names)
    assert ": taken\n" in found and "dead letters: 0" in found and len(receiver.got) == 1


def given(webhooks: str = "", secret: str = SECRET) -> Settings:
    return Settings(webhooks=webhooks, webhook_secret=secret)


def test_addresses_one_by_one() -> None:
    urls = "https://a.example/x?token=t, http://localhost:9/h"
    found = declared(given(urls))
    assert [e.url for e in found] == ["https://a.example/x?token=t", "http://localhost:9/h"]
    assert found[0].name.startswith("a.example-") and len(found[0].name) == len("a.example-") + 8
    assert found[0].keys == (KEY,) and found[0].segments is None and declared(given()) == []


@pytest.mark.parametrize(
    ("urls", "secret", "told"),
    [
        ("http://crm.example/s3cr3t", SECRET, r"http://crm.example/…: expected https://…"),
        ("ftp://127.0.0.1/", SECRET, "no URL with a host"),
        ("https://[::1", SECRET, "no URL"),
        ("https://a.example:x/", SECRET, "no URL"),
        ("https://a.example/,https://a.example/", SECRET, "given twice"),
        ("https://a.example/", "", "FIRSTMILE_WEBHOOK_SECRET holds no secret; make one: python"),
        ("https://a.example/", "hunter2", "expected whsec_ and the base64 of 24 to 64 bytes"),
        ("https://a.example/", "whsec_" + base64.b64encode(b"short").decode(), "24 to 64 bytes"),
        ("/nowhere/hooks.yaml", SECRET, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_and_not_repeated(urls: str, secret: str, told: str) -> None:
    with pytest.raises(WebhooksError, match=told) as error:
        declared(given(urls, secret))
    assert "hunter2" not in str(error.value) and "s3cr3t" not in str(error.value)


def test_a_file_says_where_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    file = tmp_path / "hooks.yaml"
    file.write_text(
        "webhooks:\n"
        "  a b: {url: 'http://far.example/', secret: UNSET}\n"
        f"  c: {{url: 'https://c.example/', secret: {SECRET}, segment: [x]}}\n"
        "  d: {url: 'https://d.example/', secret: HOOK, segments: [keen, idle]}\n"
        "  e: {url: 'https://e.example/'}\n"
    )
    with pytest.raises(WebhooksError) as error:
        declared(given(str(file)))
    lines = str(error.value).split("\n")
    assert {line.removeprefix(f"{file}:").split(":")[0] for line in lines} == {"2", "3", "5"} and len(lines) == 6
    assert SECRET not in str(error.value)
    file.write_text("webhooks:\n  d: {url: 'https://d.example/', secret: HOOK, segments: [keen, idle]}\n")
    found = declared(given(str(file)))
    assert found == [Endpoint("d", "https://d.example/", (KEY,), frozenset({"keen", "idle"}))]


def test_an_answer_in_time_or_none(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent, httpx.Client(timeout=0.1) as http:
        endpoint = Endpoint("crm", f"http://127.0.0.1:{silent.getsockname()[1]}/", (KEY,))
        with pytest.raises(httpx.ReadTimeout):
            webhook.send(http, endpoint, document(change(1)), NOW)
