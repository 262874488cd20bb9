"""The bench of the live part: that it runs, that it would notice a wrong feature, and its own arithmetic."""

import sys
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import pytest
from rich.console import Console

from feature_repo import domains
from feature_repo.contract.events import Event, parse
from feature_repo.lake.lake import Lake
from feature_repo.settings import SOURCE, Settings, now_us
from feature_repo.stream.embedded import Embedded
from tests.bench import document, live
from tests.bench.figures import lowest
from tests.bench.live import giant, ingest, naive, one_event, profile, traffic
from tests.bench.live.sender import Plan, send
from tests.bench.live.service import Service
from tests.bench.options import PARTS, Options

SAAS = domains.load("saas")
TINY = {"rounds": 1, "seconds": 0.2, "events": 300, "histories": (5, 20), "crowds": (150, 200),
        "waiting": (10, 20), "giant": 500}  # fmt: skip
IN_PROCESS, SERVED = ("cost", "waiting", "profile", "oulad"), ("one_event", "giant", "decisions", "oulad")


@pytest.mark.parametrize(
    "parts", [IN_PROCESS, SERVED, pytest.param(PARTS, marks=pytest.mark.soak)], ids=["in process", "served", "all"]
)
def test_the_section_runs_in_its_tiny_form(tmp_path: Path, parts: tuple[str, ...]) -> None:
    settings = Settings(home=tmp_path / "served", domain="saas", online="sqlite")
    SAAS.ingest(settings, None, users=30)
    options = Options(tmp_path, Console(quiet=True), small=True, parts=parts, **TINY)  # type: ignore[arg-type]
    found = live.run(options, settings)
    assert {r["part"] for r in found.rounds} == set(parts) - {"oulad"}
    text = document.markdown(document.Bench({"live": found}))
    assert all(f"{table.title}:" in text for table in found.tables)
    assert len(found.tables) == len(set(parts) - {"oulad"})
    assert "it needs OULAD's tables" in text
    assert "was not measured" not in text


def settled(settings: Settings, events: list[Event]) -> Service:
    """A service that is gone again, after it has taken these events."""
    settings.state.mkdir(parents=True)
    running = Embedded(settings).start()
    running.append(events).result()
    while running.pending.of(["u"]):
        pass
    running.close()
    return Service(settings, 0, httpx.Client())


def test_a_feature_that_is_not_the_definitions_is_noticed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas", online="sqlite")
    service = settled(settings, [traffic.clicked("u", "m1"), traffic.clicked("u", "m2")])
    service.exact(["u"], {"u": ["u"]})
    Lake(settings.lake).append([traffic.clicked("u", "m3")])
    with pytest.raises(RuntimeError, match=r"the features of u are not those of its 3 events: .*clicks=2 for 3"):
        service.exact(["u"], {"u": ["u"]})


def test_what_is_sent_is_what_the_contract_accepts_and_some_of_it_is_late(tmp_path: Path) -> None:
    sent = list(traffic.events("run", traffic.crowd("run", 5), 250))
    assert all(isinstance(parse(event, SAAS, now_us()), Event) for event in sent)
    assert traffic.write_bodies(tmp_path / "bodies", iter(sent)) == 3
    lines = (tmp_path / "bodies").read_bytes().splitlines()
    assert [event for line in lines for event in msgspec.json.decode(line)["batch"]] == sent
    late = [e for e in sent if parse(e, SAAS, now_us()).ts_us < now_us() - 3_600_000_000]  # type: ignore[union-attr]
    assert 0 < len(late) < 25


def test_a_past_is_as_long_as_asked_for_and_ends_before_its_time() -> None:
    past = list(traffic.past("u", 100, now_us()))
    assert len({e.message_id for e in past}) == 100
    assert now_us() - 13 * traffic.DAY_US < past[0].ts_us < past[-1].ts_us < now_us()


def test_the_counters_by_hand_are_right_while_nothing_is_late_or_twice() -> None:
    by_hand, row = naive.ByHand(SAAS), {}
    for n in range(2, 30):
        row = by_hand.row(traffic.wire("u", n, 1_800_000_000_000_000 + n * 60_000_000, f"m{n}"))
    names = [traffic.wire("u", n, 0, "").get("event", "page") for n in range(2, 30)]
    assert row["clicks"] == names.count("Clicked") == 12
    assert (row["pages"], row["uploads"], row["sessions"]) == (names.count("page"), names.count("File Uploaded"), 1)
    assert row["session_time"] == 27 * 60_000
    assert set(SAAS.feature_types) < set(row)


def test_feast_by_itself_gives_back_what_was_pushed(tmp_path: Path) -> None:
    feast, by_hand = naive.Feast(tmp_path / "naive", SAAS), naive.ByHand(SAAS)
    feast.push([by_hand.row(traffic.click("a", "m1"))])
    feast.write([by_hand.row(traffic.click("b", m)) for m in ("m1", "m2")])
    assert (feast.clicks("a"), feast.clicks("b"), feast.clicks("c")) == (1, 2, None)


def test_a_sender_that_is_refused_says_what_came(tmp_path: Path) -> None:
    (tmp_path / "bodies").write_bytes(b"{}\n")
    with pytest.raises(RuntimeError, match=r"sending to /v1/batch failed"):
        send(Plan(9, "/v1/batch", str(tmp_path / "bodies"), 1))  # port 9: nobody listens


def test_targets_are_held_against_the_medians() -> None:
    rounds: list[one_event.Round] = [
        {"which": which, "events_s": rate, "busy": 0.1}
        for which, rate in {"embedded": 3_000.0, "redis": 5_999.0, "push": 60.0, "write": 300.0, "batches": 1e4}.items()
    ]
    met = {c.name: c.met for c in ingest._shown(rounds, 1_000).checks}
    assert ingest.AIMS == {"embedded": 3_000, "redis": 6_000}
    assert one_event.AIM_MS == 10
    assert met["ingest with exact features, embedded"] is True
    assert met["ingest with exact features, redis"] is False
    assert lowest("n", [1.0], 2.0, "").met is False
    beside = [{"which": w, "p50_ms": 10.1, "p99_ms": 20.0} for w in ("giant", "ordinary", "own")]
    assert [c.met for c in giant._shown(beside, 5).checks] == [False, None, None, None]  # type: ignore[arg-type]


def test_a_sample_counts_for_the_innermost_of_ours() -> None:
    seen: list[str | None] = []
    call = {"look": lambda: seen.append(profile.stage_of(sys._getframe())), "Path": Path}
    for name in ("feature_repo/history/x.py", "serving/collect/door.py", "feature_repo/brand_new.py"):
        exec(compile("look()", str(SOURCE / name), "exec"), call)
    exec(compile("look()", "/usr/lib/python3/threading.py", "exec"), call)
    assert seen == ["history: add, read, note", "door: receipts", "feature_repo/brand_new.py", None]
    assert all((SOURCE / path).exists() for path in profile.STAGES)
    assert replace(Options(Path(), Console())).parts == PARTS
