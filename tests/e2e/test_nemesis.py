"""A random history of sends, kills, restarts, clock jumps, compactions, erasures and promotions, as Jepsen makes them.

households (households.py) send, ask and erase ─┐
the nemesis kills, restarts, compacts, …  ──────┴─► a service of its own process ─► held to the oracle after each part

What differs is printed with the seed and the whole history; FIRSTMILE_NEMESIS_SEED=<seed> makes the same plans again.
The threads of the households and the moments of the kills do not repeat exactly.
"""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import ibis
import numpy as np
import pandas as pd
import pytest

from feature_repo.contract.events import ANONYMOUS
from feature_repo.feature_store.backfill import backfill
from feature_repo.feature_store.materialize import materialize
from feature_repo.feature_store.store import feature_store, read_online
from feature_repo.lake import lake_index
from feature_repo.lake.lake import Lake
from feature_repo.lake.log_to_lake import drain
from feature_repo.lake.quarantine import Quarantine
from feature_repo.settings import Settings
from feature_repo.storage import BusyError
from feature_repo.stream.embedded import Embedded
from feature_repo.vocabulary import DAY, HOUR, MINUTE, SECOND
from monitoring.distributed import environment
from monitoring.parity import parity
from serving import decision_log, replay
from serving.features import VALID_UNTIL
from tests import searching
from tests.e2e.households import Household, counting, differing, features, rfc3339, sender_of
from tests.e2e.processes import ROOT, SAAS, Warm, until
from training import dataset, registry, tracking
from training.calibration import Sigmoid
from training.candidates import LightGBM
from training.model import EngagementModel

JUMPS = (0, SECOND, MINUTE, 3 * HOUR, DAY, 2 * DAY, -MINUTE, -2 * HOUR)
"""How far the service's clock may jump at a restart, µs."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of state with two small models in the registry; version 1 is the champion."""
    Warm.warm_up()
    settings = Settings(home=tmp_path_factory.mktemp("models"), domain="saas")
    feast_mlflow = tracking.feast_mlflow(settings, feature_store(settings))
    experiment = tracking.experiment(settings)
    for seed in (1, 2):
        with feast_mlflow.start_run(run_name=f"seed {seed}", experiment_id=experiment):
            assert registry.register(settings, feast_mlflow, SAAS, model(seed), {}) == seed
    registry.move_champion(settings, 1)
    return settings.home


def model(seed: int) -> EngagementModel:
    """A model that has learnt from noise."""
    chance, inputs, names = np.random.default_rng(seed), dataset.inputs(SAAS), [s.name for s in SAAS.segments]
    text = [i for i in inputs if SAAS.feature_types.get(i) == "string"]
    rows = pd.DataFrame({i: chance.choice(["a", "b"], 60) if i in text else chance.normal(size=60) for i in inputs})
    candidate = LightGBM(categorical=dataset.categorical(SAAS, inputs), seed=seed, trees=5, leaf_rows=5)
    candidate.fit(rows, chance.integers(0, 2, 60).astype(np.int8))
    cutoffs = [(n + 1) / len(names) for n in range(len(names) - 1)]
    return EngagementModel(
        dataset.service_name(SAAS), dataset.feature_names(SAAS), inputs, candidate, Sigmoid(1.0, 0.0), names, cutoffs,
        SAAS.label.done, SAAS.label.done_segment,
    )  # fmt: skip


@dataclass
class Size:
    """parts: how often everything is checked. deeds: what the nemesis does in each."""

    parts: int
    deeds: int
    households: int = 3


class Nemesis:
    """A service, households that use it, and everything that happens to it."""

    def __init__(self, home: Path, seed: int, size: Size) -> None:
        self.chance, self.size, self.began_s = random.Random(seed), size, time.monotonic()
        self.history, self.writing = list[str](), threading.Lock()
        self.settings, self.ahead_us, self.most_ahead_us = Settings(home=home, domain="saas"), 0, 0
        self.server = Warm(self.settings)
        self.households = [
            Household(f"h{n}", self.server.url, self.now_us, random.Random(f"{seed} {n}"), self.tell)
            for n in range(size.households)
        ]
        self.deeds: Counter[str] = Counter()

    def tell(self, *words: Any) -> None:
        with self.writing:
            self.history.append(f"{time.monotonic() - self.began_s:7.2f} " + " ".join(map(str, words)))

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self.ahead_us

    def run(self) -> None:
        self.start()
        try:
            for part in range(self.size.parts):
                self.part()
                self.check(last=part == self.size.parts - 1)
                self.afterwards()
        finally:
            self.server.kill()

    def part(self) -> None:
        """The households live, and the nemesis does its deeds."""
        if not self.server.forked.is_alive():
            self.start()
        with ThreadPoolExecutor(len(self.households)) as pool:
            over = threading.Event()
            lives = [pool.submit(h.live, over) for h in self.households]
            deeds = ["kill", *self.chance.choices(self.DEEDS, k=self.size.deeds - 1)]
            self.chance.shuffle(deeds)
            try:
                for deed in deeds:
                    time.sleep(self.chance.uniform(0.1, 1.5))
                    self.do(deed, lives)
                time.sleep(1)
            finally:
                over.set()
            for life in lives:
                life.result()

    DEEDS = ("kill", "kill", "stop", "compact", "compact and kill that", "backfill", "promote")

    def do(self, deed: str, lives: list["Future[None]"]) -> None:
        """One deed; where a household has failed, that is said instead."""
        if failed := [life for life in wait(lives, 0).done if life.exception()]:
            failed[0].result()
        self.tell("nemesis:", deed)
        self.deeds[deed] += 1
        try:
            if deed in ("kill", "stop"):
                self.server.kill() if deed == "kill" else self.server.stop()
                self.jump()
                self.start()
            elif deed == "compact":
                lake_index.compact(self.settings, progress=False)
            elif deed == "compact and kill that":
                self.kill_while("compact")
            elif deed == "backfill":
                self.backfill()
            else:
                registry.move_champion(self.settings, self.chance.choice([1, 2]))
        except BusyError as busy:
            self.tell("nemesis: busy:", busy)

    def start(self) -> None:
        started = self.settings.replace(now=datetime.fromisoformat(rfc3339(self.now_us())), poll_seconds=0.2)
        self.server.settings = started
        self.server.start()
        self.tell("nemesis: started at", rfc3339(self.now_us()))

    def jump(self) -> None:
        """Another clock at the next start; never more than some hours behind the latest one."""
        self.ahead_us = max(self.ahead_us + self.chance.choice(JUMPS), self.most_ahead_us - 4 * HOUR)
        self.most_ahead_us = max(self.most_ahead_us, self.ahead_us)

    def kill_while(self, command: str) -> None:
        """A command that does not come to its end."""
        words = [sys.executable, "-m", "feature_repo", command]
        process = subprocess.Popen(words, cwd=ROOT, env=environment(self.settings), stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.chance.uniform(0.5, 4.0))
        process.kill()
        process.wait()

    def backfill(self) -> None:
        with suppress(ValueError):  # there is nothing in the lake yet
            backfill(self.settings, progress=False)
            materialize(self.settings, self.now_us(), progress=False)

    # checks

    def check(self, last: bool) -> None:
        """Stop the service, one way or the other, and hold everything to the oracle."""
        if last:
            time.sleep(1)  # the decision log is behind by less than that
            self.ahead_us = self.most_ahead_us
        stopped = self.chance.choice(["kill", "stop"])
        self.tell("nemesis:", stopped, "to look")
        self.server.kill() if stopped == "kill" else self.server.stop()
        self.lake()
        self.refused()
        self.online()
        self.forgotten()
        served = decision_log.read(self.settings.decisions).to_pylist()
        logged = {row["decision_id"]: row for row in served}
        assert len(logged) == len(served)
        seen = sum(h.as_served(logged) for h in self.households)
        self.tell("check: decisions as defined:", seen)
        if last:
            self.offline()
            compared = parity(self.settings, progress=False, clock=self.now_us)
            assert compared.wrong == 0, compared.examples
            made_again = replay.replayer(self.settings).all(replay.rows(self.settings.decisions))
            assert made_again.different == 0, made_again.differences
            self.tell("check: parity of", compared.vectors, compared.because)
            self.tell("check: replay of", made_again.equal, made_again.not_replayable)
            assert compared.vectors > 0 and made_again.equal > 0
            self.lake()
            self.forgotten()

    def afterwards(self) -> None:
        """What one does while no service runs."""
        if self.chance.random() < 0.5:
            self.do(self.chance.choice(["compact", "backfill", "compact and kill that"]), [])

    def lake(self) -> None:
        """Each event that was acknowledged, and not erased, is there once, as it was sent; and no other."""
        drain(self.settings)
        fields = ("message_id", "type", "name", "user_id", "anonymous_id", "ts_us", "properties", "traits", "context")
        found = Lake(self.settings.lake).events(ibis.duckdb.connect()).select(*fields).to_pyarrow().to_pylist()
        keys = [(sender_of(row), row["message_id"]) for row in found]
        assert len(keys) == len(set(keys)), [k for k, n in Counter(keys).items() if n > 1]
        for household in self.households:
            household.told(set(keys))
        wanted = [{f: row[f] for f in fields} for h in self.households for row in counting(h.rows)]
        lost, strange = [r for r in wanted if r not in found], [r for r in found if r not in wanted]
        assert not lost and not strange, (lost, strange)

    def refused(self) -> None:
        """Each event that was refused, and is of nobody erased, is in the quarantine."""
        held = "\n".join(str(q.raw) for q in Quarantine(self.settings.quarantine).read())
        lost = [m for h in self.households for m in h.refused if f'"{m}"' not in held]
        assert not lost, lost

    def online(self) -> None:
        """Everybody's online row is what the definition gives at this moment."""
        if self.ahead_us < self.most_ahead_us:  # rows of a later hour stay: they are ordered by their events' times
            return
        at_us = self.now_us()
        live = Embedded(self.settings, lambda: at_us).start()
        try:
            keys = [key for h in self.households for key in h.keys]
            until(lambda: not live.pending.of(keys) and not live.pending.history.waiting(at_us), 120)
            assert not live.set_aside, live.set_aside
            names = [*SAAS.feature_types, VALID_UNTIL]
            found = read_online(feature_store(self.settings, lineage=False), SAAS, keys, names)
        finally:
            live.close()
        held = {key: in_force(key, row, at_us) for key, row in zip(keys, found, strict=True)}
        for household in self.households:
            for key in household.keys:
                wanted = features(household.rows, key, at_us)
                assert held[key] == wanted, ("online", key, at_us, differing(held[key], wanted))

    def offline(self) -> None:
        """Everybody's offline row in force now is what the definition gives."""
        at_us = self.now_us()
        self.backfill()
        names = ", ".join(SAAS.feature_types)
        rows = duckdb.sql(
            f"""SELECT user_id, {names} FROM read_parquet('{self.settings.features}/*.parquet')
                WHERE epoch_us(event_timestamp) <= {at_us} AND coalesce(valid_until_us > {at_us}, true)
                QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY event_timestamp DESC, created DESC) = 1"""
        )
        found = {row.pop("user_id"): row for row in rows.to_arrow_table().to_pylist()}
        for household in self.households:
            for key in household.keys:
                wanted = features(household.rows, key, at_us)
                assert found.get(key) == wanted, ("offline", key, at_us, differing(found.get(key), wanted))

    def forgotten(self) -> None:
        """Nobody who was erased is in any file."""
        if ids := [i for h in self.households for i in h.forgotten()]:
            assert searching.found(self.settings.home, ids) == []


def in_force(key: str, row: dict[str, Any] | None, at_us: int) -> dict[str, Any] | None:
    """An online row; a row of an anonymous user that ended without another one is of nobody any more."""
    until_us = row and row.pop(VALID_UNTIL)
    return None if until_us and until_us <= at_us and key.startswith(ANONYMOUS) else row


def seeds(of: list[int]) -> list[int]:
    asked = os.environ.get("FIRSTMILE_NEMESIS_SEED")
    return [int(asked)] if asked else of


def lived_through(home: Path, models: Path, seed: int, size: Size) -> Nemesis:
    shutil.copytree(models, home)
    nemesis = Nemesis(home, seed, size)
    try:
        nemesis.run()
    except BaseException:
        print(f"FIRSTMILE_NEMESIS_SEED={seed}, and what happened:", *nemesis.history, sep="\n")
        print((home / "server.log").read_text()[-5_000:])
        raise
    return nemesis


@pytest.mark.parametrize("seed", seeds([1]))
def test_whatever_happens_everything_is_as_the_oracle_says(tmp_path: Path, models: Path, seed: int) -> None:
    nemesis = lived_through(tmp_path / "home", models, seed, Size(parts=2, deeds=4))
    assert nemesis.deeds["kill"] >= 2


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", seeds([*range(100, 120)]))
def test_whatever_happens_in_long_everything_is_as_the_oracle_says(tmp_path: Path, models: Path, seed: int) -> None:
    lived_through(tmp_path / "home", models, seed, Size(parts=5, deeds=10, households=4))
