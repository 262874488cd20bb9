"""A stream of anonymous visitors through the whole of it: files, training, the gate, the service, parity, the report.

Half of the visitors identify, a day after their first observation; some identities come in a second file; some users
had ordered before they landed; on some devices two users identify, one after the other. Prices are decimals, some come
as text and some are none; whether something is on sale is a boolean. The service is the real one, in processes of its
own, asked over HTTP. What comes out is held against plain loops over what was made up (tests/feature_repo/oracle.py and
test_outcomes.py), not against the product.
"""

import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from feature_repo import domains
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import materialize
from feature_repo.lake.log_to_lake import ingest
from feature_repo.settings import SOURCE, Settings, now_us
from feature_repo.vocabulary import DAY, HOUR
from monitoring import children
from monitoring.live import free_port, service
from monitoring.parity import parity
from monitoring.report import report
from serving.times import rfc3339
from tests.e2e import visits as product
from tests.e2e.visits import DOMAIN, HORIZON, LANDED, ORDERED
from tests.feature_repo import oracle
from tests.feature_repo.test_outcomes import defined
from training import dataset
from training.plan import Plan
from training.promote import promote
from training.train import train

VISITORS, EARLY, SHARED, LIVE = 360, 5, 8, 8


@dataclass
class Made:
    """What was made up: the events of each group of ids that share a device, in the form of the oracle's rows."""

    groups: dict[str, list[oracle.Row]] = field(default_factory=dict)
    late: list[oracle.Row] = field(default_factory=list)

    def event(
        self, group: str, kind: str, at_us: int, user: str | None, name: str | None = None, device: str | None = None,
        late: bool = False, **properties: Any,
    ) -> None:  # fmt: skip
        rows = self.groups.setdefault(group, [])
        row = {
            "message_id": f"{group}-{len(rows)}", "type": kind, "name": name, "user_id": user, "anonymous_id": device,
            "ts_us": at_us, "properties": json.dumps(properties), "traits": "{}", "context": "{}",
        }  # fmt: skip
        rows.append(row)
        if late:
            self.late.append(row)

    @property
    def rows(self) -> list[oracle.Row]:
        return [row for rows in self.groups.values() for row in rows]


def line(row: oracle.Row) -> str:
    wire = {"type": row["type"], "messageId": row["message_id"], "timestamp": rfc3339(row["ts_us"])}
    ids = {"userId": row["user_id"], "anonymousId": row["anonymous_id"]}
    name = {("event" if row["type"] == "track" else "name"): row["name"]} if row["name"] else {}
    return json.dumps(wire | {k: v for k, v in ids.items() if v} | name | {"properties": json.loads(row["properties"])})


def looked_at(chance: random.Random) -> dict[str, Any]:
    """What was looked at: now and then a value is none of its column's."""
    cents = chance.randint(100, 99_999)
    price = chance.choice([cents / 100, f"{cents / 100:.2f}", cents // 100])
    sale: Any = chance.random() < 0.3
    return {"price": price if chance.random() < 0.95 else "ask us", "sale": sale if chance.random() < 0.95 else "yes"}


def visitors(now: int) -> Made:
    chance, made = random.Random(5), Made()
    for n in range(VISITORS):
        begin = now - 80 * DAY + n * (60 * DAY // VISITORS) + chance.randrange(HOUR)
        group, device, user = f"v{n}", f"d{n}", f"u{n}" if n % 2 else None
        eager, colour = chance.random() < 0.4, chance.choice(["red", "green", "blue"])
        send = partial(made.event, group, device=device)
        send("page", begin, None, "Landing", colour=colour)
        for _ in range(chance.randint(8, 14) if eager else chance.randint(0, 4)):
            at = begin + chance.randrange(1, 3 * DAY)
            known = user if at >= begin + 2 * DAY else None
            what, name = ("track", "Looked") if chance.random() < 0.7 else ("page", "Catalogue")
            send(what, at, known, name, colour=colour, **looked_at(chance))
        if user:
            send("identify", begin + 2 * DAY, user, late=n % 10 == 1)
        if chance.random() < (0.85 if eager else 0.1):
            send("track", begin + 3 * DAY + chance.randrange(1, 3 * DAY), user, "Ordered", price=10)
    for n in range(EARLY):
        begin = now - (30 + n) * DAY
        made.event(f"early{n}", "track", begin - DAY, f"early{n}", "Ordered", price="5.00")
        made.event(f"early{n}", "page", begin, f"early{n}", "Landing")
    for n in range(SHARED):
        begin, send = now - (40 + n) * DAY, partial(made.event, f"s{n}", device=f"shared{n}")
        send("page", begin, None, "Landing")
        send("identify", begin + DAY // 2, f"first{n}")
        send("page", begin + 2 * DAY, None, "Landing")
        send("track", begin + 2 * DAY + HOUR, None, "Ordered", price=7.5)  # the first user's until the next line
        send("identify", begin + 2 * DAY + 2 * HOUR, f"second{n}")
        send("track", begin + 4 * DAY, None, "Looked", price=0.29, sale=True)
    return made


def with_the_product(tree: Path) -> Path:
    """The sources with one domain more, for processes: a domain is one file."""
    for room in ("feature_repo", "training", "serving", "monitoring"):
        shutil.copytree(SOURCE / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(str(product.__file__), tree / "feature_repo" / "domains")
    return tree


@pytest.fixture
def visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(domains, "names", lambda: [DOMAIN.name])
    monkeypatch.setitem(sys.modules, f"{domains.__name__}.{DOMAIN.name}", product)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(children, "SOURCE", with_the_product(tmp_path / "source"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "source"))
    yield Settings(home=tmp_path / "home", domain="visits")


def taken_in(settings: Settings, made: Made, folder: Path) -> None:
    """Two files: late identities come in the second one, with a line that is refused."""
    folder.mkdir()
    late = {row["message_id"] for row in made.late}
    first = [line(row) for row in made.rows if row["message_id"] not in late]
    (folder / "1.jsonl").write_text("\n".join(first) + "\n")
    assert ingest(settings, folder).accepted == len(first)
    (folder / "2.jsonl").write_text("\n".join([*map(line, made.late), '{"type": "page"}']) + "\n")
    ingested = ingest(settings, folder)
    assert (ingested.accepted, sum(ingested.refused.values())) == (len(made.rows), 1)
    sent = [json.loads(row["properties"]) for row in made.rows]
    wrong = Counter("properties.price" for p in sent if p.get("price") == "ask us")
    wrong.update("properties.sale" for p in sent if p.get("sale") == "yes")
    assert ingested.flagged == wrong and min(wrong.values()) > 10


def check_outcomes(settings: Settings, made: Made) -> dict[str, dict[str, Any]]:
    wanted: dict[str, dict[str, Any]] = {}
    for rows in made.groups.values():
        wanted |= defined(rows, LANDED, ORDERED, HORIZON)
    found = {row.pop("user_id"): row for row in DOMAIN.outcomes(settings).to_pylist()}
    assert all(row.pop("cohort") for row in found.values())
    assert found == wanted and len(found) == VISITORS + EARLY + 2 * SHARED
    return wanted


def check_features(settings: Settings, made: Made, now: int) -> None:
    """The rows that are learnt from are what the definition gives for whom they were at that moment."""
    observed = dataset.observations(settings, now)
    rows = dataset.with_features(settings, observed.sample(150, random_state=1))
    group = {}
    for name, events in made.groups.items():
        for event in events:
            group |= {key: name for key in (event["user_id"], f"anon:{event['anonymous_id']}") if key}
    anonymous, halves = 0, 0
    for row in rows.to_dict("records"):
        wanted = oracle.row(made.groups[group[row["user_id"]]], DOMAIN, row["user_id"], row["now_us"])
        assert wanted is not None and {n: None if pd.isna(row[n]) else row[n] for n in wanted} == wanted, row
        anonymous += row["user_id"].startswith("anon:")
        halves += wanted["price"] % 100 != 0 and wanted["on_sale"] > 0 and wanted["last_on_sale"] is not None
    assert anonymous > 50 and halves > 20 and rows["orders"].eq(0).all()


def live(settings: Settings) -> int:
    """Visitors of this hour, half of whom identify half way; returns how many decisions were about somebody seen."""
    now, made, chance, seen = now_us(), Made(), random.Random(6), 0
    port = free_port()
    with service(settings, port), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

        def send(*events: oracle.Row) -> None:
            answer = http.post(
                "/v1/batch", json={"batch": [json.loads(line(row)) for row in events]}
            ).raise_for_status()
            assert [r["status"] for r in answer.json()["receipts"]] == ["accepted"] * len(events)

        def decide(user: str | None, device: str | None, **asked: str) -> None:
            decision = http.post("/v1/decide", json=asked).raise_for_status().json()
            found = {n: decision[n] for n in ("known", "stale", "userId", "anonymousId")}
            assert found == {"known": True, "stale": False, "userId": user, "anonymousId": device}
            assert decision["model"] and decision["score"] is not None

        for n in range(LIVE):
            group, device, user = f"live{n}", f"live{n}", f"joined{n}"
            event = partial(made.event, group, device=device)
            event("page", now - HOUR, None, "Landing", colour="red")
            for minute in range(3):
                event("track", now - HOUR + (minute + 1) * HOUR // 60, None, "Looked", **looked_at(chance))
            send(*made.groups[group])
            decide(None, device, anonymousId=device)
            seen += 1
            if n % 2:
                event("identify", now - HOUR // 2, user)
                event("track", now - HOUR // 3, user, "Looked", **looked_at(chance))
                send(*made.groups[group][-2:])
                decide(user, None, anonymousId=device)
                decide(user, None, userId=user)
                seen += 2
            if n == 1:  # somebody else on that device
                event("identify", now - HOUR // 4, "second")
                event("track", now - HOUR // 5, None, "Looked", **looked_at(chance))
                send(*made.groups[group][-2:])
                decide("second", None, userId="second")
                decide("second", None, anonymousId=device)
                seen += 2
        check_live(http, made)
    return seen


def check_live(http: httpx.Client, made: Made) -> None:
    """The features that the service holds are what the definition gives; a device of somebody known has none."""
    now = now_us()
    for n in range(LIVE):
        rows = made.groups[f"live{n}"]
        users = {row["user_id"] for row in rows if row["user_id"]}
        for path, key in [(f"users/{u}", u) for u in users] or [(f"anonymous/live{n}", f"anon:live{n}")]:
            values = http.get(f"/v1/{path}").raise_for_status().json()["features"]["values"]
            wanted = oracle.row(rows, DOMAIN, key, now)
            assert wanted is not None and {name: values[name] for name in wanted} == wanted, key
        if users:
            assert http.get(f"/v1/anonymous/live{n}").status_code == 409


def test_anonymous_visitors_go_through_all_of_it(visits: Settings, tmp_path: Path) -> None:
    now = now_us()
    made = visitors(now)
    taken_in(visits, made, tmp_path / "data")
    wanted = check_outcomes(visits, made)
    backfill(visits, progress=False)
    materialize(visits, now)
    check_features(visits, made, now)

    plan = Plan(trials=1, folds=2, draws=50, timeout=5, personas=False)
    first = train(visits, now, Plan(**(plan.__dict__ | {"service": 1})))
    early = sorted(u for u, o in wanted.items() if o["outcome_us"] and o["outcome_us"] <= o["anchor_us"])
    assert sorted(first.left_out) == early == [f"early{n}" for n in range(EARLY)] and first.users == len(wanted)
    promote(visits, first.version, reason="to begin with")

    asked = live(visits)
    compared = parity(visits, progress=False)
    assert (compared.wrong, compared.vectors, compared.not_comparable) == (0, asked, 0), compared.because

    second = train(visits, now, plan)
    verdict = promote(visits)
    assert verdict.promoted and (verdict.standing, verdict.version) == (first.version, second.version), verdict.reason
    assert any(check.name == "parity" and check.passed for check in verdict.checks)

    backfill(visits, progress=False)
    written = report(visits)
    assert written.page.exists() and written.figures["served"]["wrong"] == 0
    assert written.figures["served"]["vectors"] == asked
