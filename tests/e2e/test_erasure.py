"""Erasure over HTTP while others send, and while the service is killed."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from feature_repo.erasing.tombstones import Tombstones
from tests import searching
from tests.e2e.processes import Server, exactly_once, send_all, until, wire

GONE = "person-to-erase"


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.soak)])
def test_a_person_is_gone_and_the_others_are_whole_whatever_is_killed(server: Server, kills: int) -> None:
    chance = random.Random(kills)
    users = [f"u{i}" for i in range(6)]
    sent = {u: [wire(u, n, chance) for n in range(30 * kills)] for u in users}
    late, over = [wire(GONE, n, chance) for n in range(60)], threading.Event()
    server.start()
    send_all(server, [late], random.Random(0))
    assert searching.found(server.settings.state, [GONE])

    def go_on() -> None:
        """The person's device knows nothing of it and sends on."""
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not over.is_set():
                try:
                    client.post("/v1/batch", json={"batch": random.sample(late, 5)})
                    client.post("/v1/decide", json={"userId": GONE})
                except httpx.TransportError:
                    time.sleep(0.02)

    with ThreadPoolExecutor(len(users) + 1) as pool:
        batches = {u: [events[i : i + 4] for i in range(0, len(events), 4)] for u, events in sent.items()}
        done = [pool.submit(send_all, server, batches[u], random.Random(u)) for u in users]
        pool.submit(go_on)
        try:
            for _ in range(kills):
                asking = threading.Thread(target=ask, args=(server,))
                asking.start()
                time.sleep(chance.uniform(0.05, 1.0))
                server.kill()
                asking.join()
                server.start()
            for future in done:
                future.result()
            answer = httpx.delete(f"{server.url}/v1/users/{GONE}", timeout=60)
        finally:
            over.set()
    assert (answer.status_code, answer.json()["pending"]) == (200, [])
    assert httpx.get(f"{server.url}/v1/users/{GONE}").status_code == 410
    until(lambda: not Tombstones(server.settings.state).unfinished())
    assert searching.found(server.settings.home, [GONE]) == []
    server.stop()
    exactly_once(server.settings, [e for events in sent.values() for e in events], users)
    assert searching.found(server.settings.home, [GONE]) == []


def ask(server: Server) -> None:
    try:
        httpx.delete(f"{server.url}/v1/users/{GONE}", timeout=60)
    except httpx.TransportError:
        return  # it was killed
