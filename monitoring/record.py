"""Which steps of a run are done, and from what: so that a run goes on where it stopped.

inputs of a step ─► the same as recorded? ─► outputs still there? ─► its recorded result
                             └─ no: do it ◄───────── no ─┘   └► steps.json, replaced at once after the step succeeded
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = "steps.json"
FORMAT = 1
Json = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A step that succeeded. inputs, result: plain JSON values. at: RFC 3339. seconds: how long it took."""

    inputs: Json
    result: Json
    at: str
    seconds: float


class Record:
    """The steps that are done in a state folder, in a file that is whole or not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._steps: dict[str, Done] = {}
        self.damaged = False
        """Whether the file could not be read: then no step counts as done."""
        if path.exists():
            self._read()

    def unchanged(self, step: str, inputs: Mapping[str, Any]) -> Done | None:
        """The step as it was done, if it was done from these inputs."""
        done = self._steps.get(step)
        return done if done is not None and done.inputs == _plain(inputs) else None

    def last(self, step: str) -> Json:
        """The result of the step when it was done last, from whatever inputs; empty if it never was."""
        return self._steps[step].result if step in self._steps else {}

    def changed(self, step: str, inputs: Mapping[str, Any]) -> list[str]:
        """The names of the inputs that are other ones than when the step was done; empty if it never was."""
        done, now = self._steps.get(step), _plain(inputs)
        if done is None:
            return []
        return sorted(name for name in done.inputs.keys() | now.keys() if done.inputs.get(name) != now.get(name))

    def write(self, step: str, inputs: Mapping[str, Any], result: Mapping[str, Any], seconds: float) -> Done:
        """A step has succeeded; returns it as a later run will read it."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        done = Done(_plain(inputs), _plain(result), at, seconds)
        self._save(self._steps | {step: done})
        return done

    def clear(self) -> None:
        """No step counts as done any more."""
        self._save({})

    def _save(self, steps: dict[str, Done]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        with part.open("w") as file:
            json.dump({"format": FORMAT, "steps": {name: asdict(done) for name, done in steps.items()}}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        self._steps = steps

    def _read(self) -> None:
        try:
            held = json.loads(self._path.read_text())
            if held["format"] == FORMAT:
                self._steps = {name: Done(**done) for name, done in held["steps"].items()}
        except (ValueError, TypeError, LookupError, AttributeError):
            self.damaged = True


def _plain(values: Mapping[str, Any]) -> Json:
    """The values as they come back from JSON, so that they can be compared."""
    plain: Json = json.loads(json.dumps(dict(values)))
    return plain
