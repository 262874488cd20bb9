"""A disk without space: what cannot be kept is answered with 503, what was answered with 200 is there, and it goes on.

The folder is a small tmpfs where this process may mount one; else no file of the service may grow (RLIMIT_FSIZE).
"""

import os
import random
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_repo.lake.lake import Lake
from feature_repo.lake.quarantine import Quarantine
from feature_repo.settings import Settings
from serving import decision_log
from tests.e2e.processes import Server, exactly_once, send_all, until, wire

SIZE = "32m"
LEFT = (0, 30_000, 60_000, 90_000)
"""Bytes that are left, so that now one part is the first without space and now another."""
COMPLAINTS = (
    "events cannot be stored",
    "the stream cannot go on",
    "the lake does not get what the log has",
    "decision log: cannot write",
)
"""What a service says of its parts that have no space, where its messages can be written."""


@contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """A small file system there; False where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder, mounted(Path(folder)) as possible:
        return possible


@contextmanager
def filled(folder: Path, left: int) -> Iterator[None]:
    """So many bytes of space meanwhile, and no more."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    os.truncate(ballast, max(0, ballast.stat().st_size - left))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def limited(server: Server, left: int) -> Iterator[None]:
    """No file of the service can grow beyond so many bytes meanwhile."""
    assert server.process
    everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (left, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, everything)


@pytest.fixture(params=["tmpfs", "limit"] if can_mount() else ["limit"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Server, int], Any]]:
    """Makes a context in which a server has no space; its state folder is tmp_path/disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if request.param == "limit":
        yield limited
    else:
        with mounted(disk):
            (disk / "server.log").symlink_to(tmp_path / "server.log")
            yield lambda server, left: filled(disk, left)
            said = (tmp_path / "server.log").read_text()
            assert all(part in said for part in COMPLAINTS), said


class Client:
    """Sends batches and asks for decisions, and notes what was answered."""

    def __init__(self, server: Server, users: list[str]) -> None:
        self.server, self.users, self.chance = server, users, random.Random(1)
        self.kept: list[dict[str, Any]] = []
        self.turned_away: list[list[dict[str, Any]]] = []
        self.wrong: list[str] = []
        """Message ids of events that the contract refuses, where the answer was 200."""
        self.decisions: list[str] = []
        self._n = 0
        self._http = httpx.Client(base_url=server.url, timeout=30)

    def turn(self, wrong: bool) -> None:
        """A batch with some events, or with one that is wrong, and a decision."""
        user, self._n = self.users[self._n % len(self.users)], self._n + 1
        if wrong:
            message_id = f"wrong-{self._n}"
            bad = {"type": "track", "event": "Clicked", "messageId": message_id, "properties": {"n": "x" * 3_000}}
            if self._answer([bad]).status_code == 200:
                self.wrong.append(message_id)
        else:
            batch = [wire(user, 2 * self._n + i, self.chance) for i in range(2)]
            batch[0]["context"] = {"note": "y" * 8_000}
            if self._answer(batch).status_code == 200:
                self.kept += batch
            else:
                self.turned_away.append(batch)
        decided = self._http.post("/v1/decide", json={"userId": user}).raise_for_status().json()
        self.decisions.append(decided["decisionId"])

    def _answer(self, batch: list[dict[str, Any]]) -> httpx.Response:
        answer = self._http.post("/v1/batch", json={"batch": batch})
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
        return answer


def test_a_full_disk_loses_nothing_that_was_answered_with_200(
    full: Callable[[Server, int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTMILE_TEST_DRAIN_S", "0.5")
    settings = Settings(home=tmp_path / "disk", domain="saas")
    server = Server(settings)
    server.start()
    client = Client(server, [f"u{i}" for i in range(4)])
    for n in range(40):
        client.turn(wrong=n % 4 == 3)
    assert not client.turned_away and len(client.wrong) == 10
    for left in LEFT:
        before = len(client.turned_away)
        with full(server, left):
            until(lambda n=before: client.turn(wrong=False) or len(client.turned_away) >= n + 3, 60)
            for n in range(8):
                client.turn(wrong=n % 4 == 3)
    answered = len(client.kept)
    until(lambda: Lake(settings.lake).last_position() >= answered)
    send_all(server, client.turned_away, client.chance)
    for n in range(20):
        client.turn(wrong=n % 4 == 3)
    server.stop()
    sent = client.kept + [e for batch in client.turned_away for e in batch]
    exactly_once(settings, sent, client.users)
    held = "".join(str(q.raw) for q in Quarantine(settings.quarantine).read())
    assert all(f'"{w}"' in held for w in client.wrong)
    assert set(client.decisions) <= set(decision_log.read(settings.decisions)["decision_id"].to_pylist())
