"""The model as it travels: the feature service's rows in, probability, segment and persona out.

The same object is MLflow's pyfunc (`_load_pyfunc`), the monitor's model (`predict`) and the service's fast path
(`score_one`, `persona_one`), which gives the same bits as `predict`.
"""

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from training import calibration
from training.calibration import Calibration
from training.candidates import Candidate
from training.personas import Personas
from training.segments import segment_of

FILE = "engagement.pkl"


HALF = 32
"""Hexadecimal digits of half a digest."""


class ChangedModel(ValueError):
    """A saved model is not the one that was registered."""


@dataclass
class EngagementModel:
    """A fitted candidate, its calibration and its segments.

    name, version: of the registry; "" and 0 before it is registered.
    feature_service: the Feast feature service whose rows it takes.
    features: the service's features, stored then elapsed. inputs: those the candidate uses, a subset in this order.
    cutoffs: rising; the first segment is below the first, and so on (one less than segments).
    done, done_segment: where feature `done` is above 0 the outcome has happened: the segment is `done_segment`, and the
        score, which then has no meaning, is still the candidate's. None: no feature says so.
    discovered: the personas found beside the segments; None: none were found, looked for, or known to this version.
    """

    feature_service: str
    features: list[str]
    inputs: list[str]
    candidate: Candidate
    calibration: Calibration
    segments: list[str]
    cutoffs: list[float]
    done: str | None = None
    done_segment: str | None = None
    name: str = ""
    version: int = 0
    discovered: Personas | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            ValueError: an input is no feature, or the cut-offs do not fit the segments.
        """
        behaviour = self.discovered.inputs if self.discovered else []
        if missing := [i for i in (*self.inputs, *behaviour) if i not in self.features]:
            raise ValueError(f"inputs that {self.feature_service} does not have: {', '.join(missing)}")
        if len(self.cutoffs) != len(self.segments) - 1 or any(
            b <= a for a, b in zip(self.cutoffs, self.cutoffs[1:], strict=False)
        ):
            raise ValueError(f"{len(self.segments)} segments need one rising cut-off fewer, got {self.cutoffs}")
        self._used = [self.features.index(i) for i in self.inputs]
        self._behaviour = [self.features.index(i) for i in behaviour]
        self._done_at = self.features.index(self.done) if self.done in self.features else None

    @property
    def reads(self) -> list[str]:
        """The features that score, segment or persona depend on, in the order of `features`."""
        used = {*self._used, *self._behaviour, self._done_at}
        return [name for at, name in enumerate(self.features) if at in used]

    def probabilities(self, rows: pd.DataFrame) -> np.ndarray:
        """(n,) calibrated probabilities of feature rows.

        Raises:
            ValueError: a feature that the model uses is missing.
        """
        matrix = self.candidate.encoder_.transform(rows)
        return calibration.apply(self.calibration, self.candidate.margins(matrix)) if len(rows) else np.empty(0)

    def predict(self, rows: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Feature rows → `score` (float64) and `segment` (string), a row each, with the index of `rows`."""
        scores = self.probabilities(rows)
        done = self._done(rows)
        named = [self._segment(s, d) for s, d in zip(scores.tolist(), done.tolist(), strict=True)]
        return pd.DataFrame({"score": scores, "segment": pd.Series(named, dtype=object).to_numpy()}, index=rows.index)

    def _done(self, rows: pd.DataFrame) -> np.ndarray:
        if self.done is None or self.done not in rows.columns:
            return np.zeros(len(rows), dtype=bool)
        return pd.to_numeric(rows[self.done]).to_numpy(dtype=np.float64, na_value=np.nan) > 0

    def _segment(self, score: float, done: bool) -> str:
        return self.done_segment if done and self.done_segment else segment_of(score, self.segments, self.cutoffs)

    def score_one(self, values: Sequence[Any]) -> tuple[float, str]:
        """(score, segment) of one person: `values` in the order of `features`, None for null."""
        used = [values[i] for i in self._used]
        odds = self.candidate.margins(self.candidate.encoder_.row(used)).item()
        score = self.calibration(odds)
        done = values[self._done_at] if self._done_at is not None else None
        return score, self._segment(score, done is not None and done > 0)

    @property
    def personas(self) -> tuple[str, ...]:
        """Names of the personas; none where none were found."""
        return self.discovered.names if self.discovered else ()

    def persona_one(self, values: Sequence[Any]) -> str | None:
        """Persona of one person, `values` as in `score_one`; None: nobody like that was learnt from, or no personas."""
        return self.discovered.one([values[i] for i in self._behaviour]) if self.discovered else None

    def save(self, folder: Path) -> Path:
        """Write the model into a folder, return the file."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        path.write_bytes(pickle.dumps(self, protocol=pickle.HIGHEST_PROTOCOL))
        return path

    @classmethod
    def read(cls, path: Path | str, sha256: str | None = None) -> "EngagementModel":
        """Read what `save` wrote; `path` is the file or its folder.

        sha256: what `digest` gave when it was written, or the first half of it. Reading a pickle runs code, so that a
            changed one is not read. None: whoever asks trusts the file.

        Raises:
            ChangedModel: the file has another digest. ValueError: it holds something else.
        """
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        content = file.read_bytes()
        if sha256 is not None and digest(content) not in (sha256, sha256 + digest(content)[HALF:]):
            raise ChangedModel(
                f"{file}: expected the model that was registered, with SHA-256 {sha256}; came {digest(content)}. "
                "It was not loaded. Find out who changed it, then train and promote again, or bring the file back."
            )
        model = pickle.loads(content)
        if not isinstance(model, cls):
            raise ValueError(f"{file} holds a {type(model).__name__}, expected an {cls.__name__}")
        return cast(EngagementModel, model)


def digest(content: bytes) -> str:
    """The SHA-256 of a saved model, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _load_pyfunc(path: str) -> EngagementModel:
    """MLflow's protocol of a loader module: the object whose `predict` is called."""
    return EngagementModel.read(path)
