"""Simulated people into the lake: once for each state folder."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from feature_repo.domain import Ingested
from feature_repo.domains.saas import truth
from feature_repo.domains.saas.experiment import Experiment
from feature_repo.domains.saas.people import Effects
from feature_repo.domains.saas.simulator import DAYS, simulate
from feature_repo.lake.intake import take_in
from feature_repo.settings import Settings, now_us
from feature_repo.vocabulary import HOUR

DONE = "simulation.json"
"""What was simulated and what came of it; written last: while it is missing, the lake holds no finished simulation."""
BEGUN = "simulation.begun.json"
"""Written first: what the lake holds is the beginning of this simulation, and may be thrown away."""


def ingest(
    settings: Settings,
    data: Path | None = None,
    *,
    users: int = 5000,
    seed: int = 7,
    end_us: int | None = None,
    days: int = DAYS,
    effects: Effects | None = None,
    assignment: Mapping[str, float] | None = None,
    experiment: Experiment | None = None,
    progress: bool = True,
) -> Ingested:
    """Simulates people up to `end_us` (UTC microseconds; default: the last full hour) and fills lake and quarantine.

    A second call with the same parameters does nothing and gives the recorded counts, whatever the time is, unless
    another `end_us` is asked for. After a crash the next call starts over from an empty lake.

    Raises:
        ValueError: this state folder holds another simulation, its lake lost events or holds some that no simulation
            wrote, or `data` is given.
    """
    if data is not None:
        raise ValueError(f"saas: its people are simulated, expected no data; came {data}. Leave DATA out")
    asked = {"users": users, "seed": seed, "days": days, "effects": _plain(effects), "assignment": _plain(assignment)}
    asked["experiment"] = asdict(experiment) if experiment else None
    if recorded := _recorded(settings):
        return _same(settings, recorded, asked, end_us)
    if end_us is None:
        end_us = now_us() // HOUR * HOUR
    _start_over(settings, asked | {"end_us": end_us})
    from feature_repo.domains.saas import DOMAIN

    simulation = simulate(users, seed, end_us, days, effects, assignment, experiment)
    ingested = take_in(settings, DOMAIN, simulation, len(simulation), progress)
    pq.write_table(simulation.truth, settings.state / truth.FILE)
    result = {"accepted": ingested.accepted, "refused": dict(ingested.refused)}
    _write(settings.state / DONE, asked | {"end_us": end_us} | result)
    (settings.state / BEGUN).unlink()
    return ingested


def experiment(settings: Settings) -> Experiment | None:
    """The experiment among the simulated people of this state folder; None: there is none, or no simulation."""
    recorded = (_recorded(settings) or {}).get("experiment")
    return Experiment(**recorded) if recorded else None


def _plain(value: Mapping[str, Any] | None) -> Any:
    """The value as it comes back from JSON, so that it can be compared with what was recorded."""
    return json.loads(json.dumps(value or {}, default=dict))


def _recorded(settings: Settings) -> dict[str, Any] | None:
    path = settings.state / DONE
    return json.loads(path.read_text()) if path.exists() else None


def _same(settings: Settings, recorded: dict[str, Any], asked: dict[str, Any], end_us: int | None) -> Ingested:
    """The counts of the simulation that is here, if it is the one that was asked for."""
    if end_us is not None:
        asked = asked | {"end_us": end_us}
    if other := [k for k in asked if asked[k] != recorded.get(k)]:
        was = ", ".join(f"{k}={recorded.get(k)}" for k in other)
        now = ", ".join(f"{k}={asked[k]}" for k in other)
        raise ValueError(
            f"{settings.state / DONE}: expected the simulation that is here ({was}); asked for {now}. "
            "Choose another STATE folder, or `make clean` to begin again"
        )
    _still_there(settings, recorded["accepted"])
    return Ingested(recorded["accepted"], recorded["refused"])


def _still_there(settings: Settings, accepted: int) -> None:
    """Raises ValueError where the lake has lost what was simulated into it."""
    from feature_repo.lake.lake import Lake

    if (position := Lake(settings.lake).last_position()) < accepted:
        raise ValueError(
            f"{settings.lake}: expected the {accepted} events of {settings.state / DONE}; "
            f"it ends at position {position}. Is it another lake? `make clean` to begin again"
        )


def _start_over(settings: Settings, parameters: dict[str, Any]) -> None:
    """Empties what an unfinished simulation left, and nothing else."""
    from feature_repo.lake.lake import Lake

    lake = Lake(settings.lake)
    begun = settings.state / BEGUN
    if lake.last_position() and not begun.exists():
        raise ValueError(
            f"{settings.lake}: expected an empty lake; it holds events that no simulation wrote. "
            "Choose another STATE folder, or `make clean` to begin again"
        )
    settings.state.mkdir(parents=True, exist_ok=True)
    _write(begun, parameters)
    lake.clear()
    if settings.quarantine.exists():
        shutil.rmtree(settings.quarantine)


def _write(path: Path, value: dict[str, Any]) -> None:
    """Writes JSON that is whole or not there."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
