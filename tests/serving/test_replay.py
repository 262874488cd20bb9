"""Decisions made again: all equal, also after model, rules and policy have moved on; what was changed is found."""

import asyncio
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from feature_repo.settings import Settings
from serving import decision_log, playbook, replay
from serving.commands import replay as command
from serving.decide import Model, Situation, Snapshot
from serving.decision_log import DecisionLog
from serving.engine import Engine
from serving.models import Champion
from serving.playbook import Playbook, Shelf
from serving.policy import ElementFeedback, Feedback
from serving.policy.feedback import Exposure
from serving.replay import Difference, NotReplayable, Replayer
from serving.rules import Membership, Rules, State
from tests.serving.why.people import NOW, SAAS, make_people, model

PEOPLE = {f"u{n}": values for n, values in enumerate(make_people(500, seed=3))}
BOOK = playbook.for_domain(SAAS)
HOUR = 3_600_000_000


def with_other_rules(book: Playbook) -> Playbook:
    """Half of the rules, the others with another reason."""
    kept = list(book.rules.declared.values())[::2]
    return Playbook(
        book.policy,
        Rules("saas", [msgspec.structs.replace(s, why=f"{s.why}!") for s in kept]),
        book.experiments,
        book.label,
    )


def with_other_policy(book: Playbook) -> Playbook:
    narrow = msgspec.structs.replace(book.policy.boundaries, at_once=1)
    policy = msgspec.structs.replace(book.policy, boundaries=narrow, order=("engagement", "rules", "personas"))
    return Playbook(policy, book.rules, book.experiments, book.label)


class Reader:
    """People in a dict; some of them nobody has seen, some with a note; with `down` the store does not answer."""

    local = True
    down = False

    set_aside: Mapping[str, str] = {}

    def lag(self) -> int | None:
        return 0

    def pending(self, user_ids: Any, after: str | None = None) -> bool:
        return False

    def read(self, user_ids: Any, now_us: int) -> list[Snapshot | None]:
        if self.down:
            raise ConnectionError("down")
        return [self._one(u, now_us) for u in user_ids]

    def _one(self, user: str, now_us: int) -> Snapshot | None:
        if user not in PEOPLE:
            return None
        note = "features as of yesterday" if user.endswith("7") else None
        return Snapshot(PEOPLE[user], now_us - HOUR, 12, note=note)

    def ended(self, row: Snapshot, now_us: int) -> bool:
        return False

    def in_force(self, rows: Mapping[str, Snapshot], now_us: int, patient: bool = True) -> dict[str, Snapshot]:
        return {}


class Keeper:
    """Remembers something of everybody, by chance."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def known(self, person: str, row: Snapshot, at_us: int) -> Any:
        seed = self._random
        held = {
            s: Membership(seed.choice(["in", "excluded", "waiting"]), at_us - seed.randrange(HOUR))
            for s in BOOK.rules.segments
            if seed.random() < 0.3
        }
        elements = {
            e.name: ElementFeedback(
                seed.randrange(3), seed.randrange(4), seed.randrange(9), at_us - seed.randrange(9 * HOUR)
            )
            for e in BOOK.policy.elements
            if seed.random() < 0.3
        }
        seen = {e: Exposure("control", at_us - HOUR) for e in BOOK.experiments.experiments if seed.random() < 0.2}
        feedback = Feedback(elements, at_us - HOUR, seed.randrange(20), seed.randrange(40), seen)
        document = SimpleNamespace(state=State(held))
        return SimpleNamespace(document=document, feedback=lambda at: feedback)

    def note(self, *_: Any) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


class World:
    """A state folder in which decisions were made in four eras: a promotion, other rules, another policy."""

    def __init__(self, home: Path, decisions: int) -> None:
        self.settings = Settings(home=home, domain="saas")
        self.models: dict[int, Model] = {1: model(), 2: model(version=2, seed=2)}
        self.books = [BOOK, BOOK, with_other_rules(BOOK), with_other_policy(with_other_rules(BOOK))]
        self._at = NOW
        log = DecisionLog(self.settings.decisions, capacity=10**6).start()
        champion = Champion(lambda: None, self.models.__getitem__, poll_s=None)
        consent = SimpleNamespace(opted_out=lambda user: user.endswith("9"))
        reader, chance = Reader(), random.Random(5)
        engine = Engine(
            reader, champion, BOOK, log, Keeper(1), consent,  # type: ignore[arg-type]
            paused=lambda: ("help_early",) if self._at % 3 == 0 else (),
            clock=self._now,
            chance=lambda: chance.getrandbits(62),
        )  # fmt: skip
        for era, (book, version) in enumerate(zip(self.books, (1, 2, 2, 2), strict=True)):
            Shelf(self.settings).keep(book)
            engine.playbook, champion.model = book, self.models[version]
            self._decide(engine, decisions // 4, f"era {era}")
        champion.model = None
        self._decide(engine, 5, "no model")
        reader.down = True
        self._decide(engine, 5, "no store")
        engine.close()

    def _now(self) -> int:
        self._at += 1_000_003
        return self._at

    def _decide(self, engine: Engine, number: int, era: str) -> None:
        who = random.Random(era)
        for start in range(0, number, 500):
            users = [f"u{who.randrange(560)}" for _ in range(min(500, number - start))]
            asyncio.run(engine.decide_many(users))

    def load(self, name: str, version: int) -> Model:
        if version not in self.models:
            raise NotReplayable(replay.NO_MODEL)
        return self.models[version]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [dict(r) for r in replay.rows(self.settings.decisions)]

    def replayer(self) -> Replayer:
        return Replayer(Shelf(self.settings), self.load)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"), 300)


@pytest.fixture
def own_world(tmp_path: Path) -> World:
    return World(tmp_path, 80)


def check_all_equal(world: World, decisions: int) -> None:
    outcome = world.replayer().all(replay.rows(world.settings.decisions))
    assert outcome.differences == {}
    assert (outcome.equal, outcome.different, outcome.not_replayable.total()) == (decisions + 10, 0, 0)


def test_all_are_equal_after_everything_moved_on(world: World) -> None:
    check_all_equal(world, 300)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_are_equal(tmp_path: Path) -> None:
    check_all_equal(World(tmp_path, 100_000), 100_000)


def test_the_world_holds_every_kind_of_decision(world: World) -> None:
    """Else the tests above would prove little."""
    rows = world.rows
    assert {(r["playbook"], r["model_version"]) for r in rows} >= {
        (b.version, v) for b, v in zip(world.books, (1, 2, 2, 2), strict=True)
    }
    assert len({b.version for b in world.books}) == 3
    situations = [msgspec.json.decode(r["situation"], type=Situation) for r in rows]
    for there_is in (
        any(s.opted_out for s in situations),
        any(s.paused for s in situations),
        any(s.state.segments for s in situations),
        any(s.feedback.exposures for s in situations),
        any(r["note"] for r in rows),
        any(r["unavailable"] for r in rows),
        any(r["model_version"] is None for r in rows),
        any(not r["known"] for r in rows),
        any(r["dropped"] != "[]" for r in rows),
        any(r["variants"] != "[]" for r in rows),
        any(r["holdout"] for r in rows),
        any(r["segments"] for r in rows),
    ):
        assert there_is


def scored_row(world: World) -> dict[str, Any]:
    return next(r for r in world.rows if r["score"] is not None and r["dropped"] != "[]" and r["variants"] != "[]")


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "score": lambda r: r["score"] + 1e-12,
    "segment": lambda r: "racing" if r["segment"] != "racing" else "at_risk",
    "segments": lambda r: [*r["segments"], "more"],
    "elements": lambda r: [*r["elements"], "more"],
    "reasons": lambda r: ["more", *r["reasons"]],
    "dropped": lambda r: "[]",
    "variants": lambda r: "[]",
    "holdout": lambda r: not r["holdout"],
    "persona": lambda r: "somebody",
    "policy_version": lambda r: "0" * 12,
    "feature_service": lambda r: "saas_v0",
    "model_name": lambda r: "other",
    "known": lambda r: not r["known"],
}


@pytest.mark.parametrize("column", sorted(CHANGES))
def test_a_changed_receipt_is_found(world: World, column: str) -> None:
    row = scored_row(world)
    row[column] = CHANGES[column](row)
    found = world.replayer().differences(row)
    assert [d.field for d in found] == [column]


def test_changed_features_are_found(world: World) -> None:
    row = scored_row(world)
    features = json.loads(row["features"])
    features |= {"uploads": features["uploads"] + 5, "features_used": 9}
    row["features"] = json.dumps(features)
    assert "score" in [d.field for d in world.replayer().differences(row)]


def test_another_time_is_found(world: World) -> None:
    row = next(r for r in world.rows if "cool_down" in r["dropped"] and r["known"])
    row["at_us"] += 40 * HOUR
    assert "dropped" in [d.field for d in world.replayer().differences(row)]


def test_another_playbook_is_found(world: World) -> None:
    row = next(r for r in world.rows if r["playbook"] == BOOK.version and len(r["elements"]) > 1)
    row["playbook"] = world.books[-1].version
    assert {"elements", "policy_version"} <= {d.field for d in world.replayer().differences(row)}


def outcome_of(world: World) -> replay.Outcome:
    return world.replayer().all(replay.rows(world.settings.decisions))


def test_erased_decisions_are_counted_as_such(own_world: World) -> None:
    users = {r["user_id"] for r in own_world.rows}
    gone, touched = [u for u in users if u.endswith("1")], [u for u in users if u.endswith("2")]
    left = [r for r in own_world.rows if r["user_id"] in touched]
    removed = [r for r in own_world.rows if r["user_id"] in gone]
    decision_log.erase(own_world.settings.decisions, gone, touched)
    outcome = outcome_of(own_world)
    assert removed and left
    assert dict(outcome.not_replayable) == {replay.ERASED: len(left)}
    assert (outcome.different, outcome.count) == (0, 90 - len(removed))


def test_a_model_that_is_gone(own_world: World) -> None:
    del own_world.models[1]
    outcome = outcome_of(own_world)
    assert dict(outcome.not_replayable) == {replay.NO_MODEL: 20} and outcome.different == 0


def test_a_playbook_that_is_gone_or_unreadable(own_world: World) -> None:
    folder = own_world.settings.state / playbook.FOLDER
    (folder / f"{own_world.books[2].version}.json").unlink()
    (folder / f"{own_world.books[3].version}.json").write_text('{"policy": 1}')
    outcome = outcome_of(own_world)
    assert dict(outcome.not_replayable) == {replay.NO_PLAYBOOK: 20, replay.UNREADABLE: 30}


def test_a_log_of_an_earlier_version(own_world: World) -> None:
    for path in own_world.settings.decisions.glob("*.parquet"):
        held = pq.read_table(path)
        pq.write_table(held.drop_columns(["situation", "playbook", "note", "dropped", "variants"]), path)
    assert dict(outcome_of(own_world).not_replayable) == {replay.OLD: 90}


def test_a_document_of_another_shape_is_no_difference(world: World) -> None:
    row = scored_row(world)
    row["situation"] = '{"state": 7}'
    with pytest.raises(NotReplayable, match="kept less"):
        world.replayer().differences(row)


def test_features_that_have_moved_on_change_nothing(world: World) -> None:
    """What the catalogue no longer has stays in the receipt, and what it has gained meanwhile is not asked for."""
    row = scored_row(world)
    features = json.loads(row["features"])
    unread = set(features) - {*model().features, *BOOK.rules.needs, *world.books[-1].rules.needs}
    row["features"] = json.dumps({k: v for k, v in features.items() if k not in unread} | {"of_old": 1.5})
    assert world.replayer().differences(row) == ()


def test_only_the_first_differences_are_kept(world: World) -> None:
    changed = ({**r, "decision_id": f"{n:032x}", "policy_version": "x"} for n, r in enumerate(world.rows))
    outcome = world.replayer().all(changed)
    assert outcome.different == 310 and len(outcome.differences) == replay.TOLD
    assert outcome.differences[f"{0:032x}"] == (Difference("policy_version", "x", BOOK.policy.version),)


def test_out_of_the_registry(own_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stands in for anything: later versions do not change what earlier ones decided."""
    from training import registry, tracking

    settings = own_world.settings
    load = replay.from_registry(settings)
    with pytest.raises(NotReplayable, match="not in the registry"):
        load("saas-engagement", 1)
    mlflow = tracking.connect(settings)
    for n in (1, 2):
        with mlflow.start_run(experiment_id=tracking.experiment(settings)):
            assert registry.register(settings, mlflow, SAAS, model(seed=n), {}) == n
    for name, version in (("saas-engagement", 3), ("oulad-engagement", 1)):
        with pytest.raises(NotReplayable, match="not in the registry"):
            load(name, version)
    monkeypatch.setenv("FIRSTMILE_HOME", str(settings.home))
    answer = CliRunner().invoke(command, ["--all", "--domain", "saas"])
    assert answer.exit_code == 0 and re.search(r"equal +90\n", answer.output), answer.output


@pytest.fixture
def run(own_world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """The command over the world's folder, with its models for the registry's."""
    monkeypatch.setenv("FIRSTMILE_HOME", str(own_world.settings.home))
    monkeypatch.setattr(replay, "from_registry", lambda settings: own_world.load)
    yield lambda *arguments: CliRunner().invoke(command, [*arguments, "--domain", "saas"])


def change_one(world: World) -> str:
    """Change the segment of one logged decision; its id."""
    path = next(world.settings.decisions.glob("*.parquet"))
    rows = pq.read_table(path).to_pylist()
    rows[3]["score"], rows[3]["segment"] = 0.5, "nowhere"
    pq.write_table(pa.Table.from_pylist(rows, decision_log.SCHEMA), path)
    return str(rows[3]["decision_id"])


def test_one_decision_by_id(own_world: World, run: Callable[..., Any]) -> None:
    one = own_world.rows[0]["decision_id"]
    assert f"equal: {one}" in run(one).output
    changed = change_one(own_world)
    answer = run(changed)
    assert answer.exit_code == 1 and f"different: {changed}" in answer.output
    assert "segment: logged 'nowhere', replayed" in answer.output
    unknown = run("0" * 32)
    assert unknown.exit_code == 1 and "no decision" in unknown.output


def test_all_decisions(own_world: World, run: Callable[..., Any]) -> None:
    answer = run("--all")
    assert answer.exit_code == 0, answer.output
    assert "equal" in answer.output and "90" in answer.output
    change_one(own_world)
    worse = run("--all")
    assert worse.exit_code == 1 and "nowhere" in worse.output


def test_a_sample(run: Callable[..., Any]) -> None:
    assert " 7\n" in run("--all", "--sample", "7").output
    assert " 90\n" in run("--all", "--sample", "1000").output


def test_either_an_id_or_all(run: Callable[..., Any]) -> None:
    assert run().exit_code == 2 and run("0" * 32, "--all").exit_code == 2


def test_an_empty_log_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTMILE_HOME", str(tmp_path))
    answer = CliRunner().invoke(command, ["--all", "--domain", "saas"])
    assert answer.exit_code == 1 and "no decisions" in answer.output
