"""A stream of anonymous visitors through the whole of it: files, training, the gate, the service, parity, the report.

Half of the visitors identify, a day after their first observation; some identities come in a second file; some users
had ordered before they landed; on some devices two users identify, one after the other. What comes out is held against
plain loops over what was made up (tests/feature_repo/oracle.py and test_outcomes.py), not against the product.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from feature_repo import domains
from feature_repo.domain import Domain, Label, Segment
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import materialize
from feature_repo.lake.jsonl import take_in_files
from feature_repo.lake.log_to_lake import ingest
from feature_repo.lake.outcomes import outcomes_of_events
from feature_repo.settings import Settings, now_us
from feature_repo.vocabulary import DAY, HOUR, Column, Count, Elapsed, Feature, Last, LastTime, Sum, where
from monitoring.parity import parity
from monitoring.report import report
from serving.times import rfc3339
from tests.feature_repo import oracle
from tests.feature_repo.test_outcomes import defined
from tests.serving.test_users import Service, until
from training import dataset
from training.plan import Plan
from training.promote import promote
from training.train import train

LANDED, ORDERED, HORIZON = where(name="Landing", type="page"), where(name="Ordered"), 7 * DAY
VISITORS, EARLY, SHARED = 360, 5, 8
DOMAIN = Domain(
    name="visits",
    title="Visitors of a shop",
    columns=(Column("colour", "properties.colour"), Column("cents", "properties.cents", "int64")),
    events={"Ordered": {"cents": "int64"}, "Looked": {"cents": "int64"}},
    features=(
        Feature("orders", Count(ORDERED), "orders"),
        Feature("colour", Last("colour"), "the last colour"),
        Feature("pages", Count(where(type="page")), "pages", since=2),
        Feature("looks_24h", Count(where(name="Looked"), window=DAY), "looks in the last 24 hours", since=2),
        Feature("cents", Sum("cents", where(name="Looked")), "sum of the prices looked at", "cents", since=2),
        Feature("last_us", LastTime(), "last event", "µs since 1970 UTC"),
    ),
    elapsed=(Elapsed("since_last", "last_us", "since the last event"),),
    horizon=HORIZON,
    label=Label("order", "orders within 7 days", good=True, done="orders", done_segment="customer"),
    observations=(DAY, 3 * DAY),
    segments=(Segment("cold", ""), Segment("warm", "")),
    slices=("colour",),
    ingest=lambda settings, data=None, **options: take_in_files(settings, DOMAIN, data),
    outcomes=partial(outcomes_of_events, anchor=LANDED, outcome=ORDERED, horizon=HORIZON),
)  # fmt: skip


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
            send(*(("track", at, known, "Looked") if chance.random() < 0.7 else ("page", at, known, "Catalogue")),
                 cents=chance.randint(100, 9_999), colour=colour)  # fmt: skip
        if user:
            send("identify", begin + 2 * DAY, user, late=n % 10 == 1)
        if chance.random() < (0.85 if eager else 0.1):
            send("track", begin + 3 * DAY + chance.randrange(1, 3 * DAY), user, "Ordered", cents=1_000)
    for n in range(EARLY):
        begin = now - (30 + n) * DAY
        made.event(f"early{n}", "track", begin - DAY, f"early{n}", "Ordered", cents=500)
        made.event(f"early{n}", "page", begin, f"early{n}", "Landing")
    for n in range(SHARED):
        begin, send = now - (40 + n) * DAY, partial(made.event, f"s{n}", device=f"shared{n}")
        send("page", begin, None, "Landing")
        send("identify", begin + DAY // 2, f"first{n}")
        send("page", begin + 2 * DAY, None, "Landing")
        send("track", begin + 2 * DAY + HOUR, None, "Ordered", cents=700)  # the first user's until the next line
        send("identify", begin + 2 * DAY + 2 * HOUR, f"second{n}")
        send("track", begin + 4 * DAY, None, "Looked", cents=300)
    return made


@pytest.fixture
def visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(domains, "names", lambda: [DOMAIN.name])
    monkeypatch.setitem(sys.modules, f"{domains.__name__}.{DOMAIN.name}", sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
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
    anonymous = 0
    for row in rows.to_dict("records"):
        wanted = oracle.row(made.groups[group[row["user_id"]]], DOMAIN, row["user_id"], row["now_us"])
        assert wanted is not None and {n: row[n] for n in wanted} == wanted, row
        anonymous += row["user_id"].startswith("anon:")
    assert anonymous > 50 and rows["orders"].eq(0).all()


def live(settings: Settings) -> int:
    """Visitors of this hour, four of whom identify half way; returns how many decisions were about somebody seen."""
    service, now = Service(settings), now_us()
    seen = 0
    try:
        for n in range(8):
            at = {"timestamp": rfc3339(now - HOUR)}
            page = {"type": "page", "name": "Landing", "anonymousId": f"live{n}", "properties": {"colour": "red"}}
            service.send(page | at | {"messageId": f"live{n}-1"}, page | at | {"messageId": f"live{n}-2"})
            decision = service.ask("POST", "/v1/decide", json={"anonymousId": f"live{n}"}).json()
            assert (decision["known"], decision["anonymousId"], decision["userId"]) == (True, f"live{n}", None)
            seen += 1
            if n % 2:
                link = {
                    "type": "identify",
                    "userId": f"joined{n}",
                    "anonymousId": f"live{n}",
                    "messageId": f"live{n}-3",
                }
                service.send(link | {"timestamp": rfc3339(now - HOUR // 2)})
                for asked in ({"anonymousId": f"live{n}"}, {"userId": f"joined{n}"}):
                    decision = service.ask("POST", "/v1/decide", json=asked).json()
                    assert (decision["known"], decision["userId"]) == (True, f"joined{n}") and decision["model"]
                    seen += 1
        until(lambda: not service.engine.log or not service.engine.log.waiting)
    finally:
        service.close()
    return seen


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
