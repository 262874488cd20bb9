"""The promises of the live part, over HTTP: nothing lost, nothing twice, and a decision knows what came before it."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pyarrow.parquet as pq
import pytest

from tests.e2e.processes import Server, exactly_once, send_all, wire


@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=pytest.mark.soak)])
def test_kill_9_loses_nothing_and_counts_nothing_twice(server: Server, kills: int) -> None:
    chance = random.Random(kills)
    users = [f"u{i}" for i in range(12)]
    sent = {u: [wire(u, n, chance) for n in range(40 if kills < 10 else 1_500)] for u in users}
    batches = {u: [events[i : i + 4] for i in range(0, len(events), 4)] for u, events in sent.items()}
    server.start()
    with ThreadPoolExecutor(len(users)) as pool:
        done = [pool.submit(send_all, server, batches[u], random.Random(u)) for u in users]
        for _ in range(kills):
            time.sleep(chance.uniform(0.01, 0.6))
            server.kill()
            server.start()
        for future in done:
            future.result()
    server.kill()
    exactly_once(server.settings, [e for events in sent.values() for e in events], users)


def test_sigterm_under_load_finishes_what_was_answered(server: Server) -> None:
    chance = random.Random(1)
    users = [f"u{i}" for i in range(6)]
    sent = {u: [wire(u, n, chance) for n in range(40)] for u in users}
    server.start()
    threads = [
        threading.Thread(target=send_all, args=(server, [[e] for e in events], chance)) for events in sent.values()
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    server.stop()
    server.start()
    for thread in threads:
        thread.join()
    server.stop()
    exactly_once(server.settings, [e for events in sent.values() for e in events], users)


@pytest.mark.parametrize("pairs", [400, pytest.param(10_000, marks=pytest.mark.soak)])
def test_a_decision_knows_every_event_answered_before_it(server: Server, pairs: int) -> None:
    server.start()
    asked: dict[str, int] = {}

    def person(number: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for n in range(1, pairs // 8 + 1):
                event = {"type": "track", "event": "Clicked", "messageId": f"{number}-{n}", "userId": f"p{number}"}
                at = {"timestamp": datetime.now(UTC).isoformat()}
                assert client.post("/v1/batch", json={"batch": [event | at]}).status_code == 200
                answer = client.post("/v1/decide", json={"userId": f"p{number}"}).json()
                assert answer["known"] and not answer["stale"], answer
                asked[answer["decisionId"]] = n

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(person, range(8)))
    server.stop()
    logged = [r for f in server.settings.decisions.glob("*.parquet") for r in pq.read_table(f).to_pylist()]
    found = {r["decision_id"]: json.loads(r["features"])["clicks"] for r in logged}
    assert found == asked
