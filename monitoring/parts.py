"""Which scored observations the report looks at: the newest week, and the labels matured since training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from feature_repo.vocabulary import SECOND, WEEK
from monitoring.words import date, listed, span

SINCE = "scored since the training period"
INSIDE = "scored inside the training period, so flattering: none has matured since"
UNKNOWN = "scored in or after the training period: which is not known, so possibly flattering"


@dataclass(frozen=True)
class Champion:
    """The model that is reported on, and what its training left behind.

    train_end_us: every label it learnt from was known by then; None: its tags do not say. holdout_auc: its AUC on the
    newest holdout when it was trained; None: its tags do not say.
    """

    name: str
    version: int
    train_end_us: int | None
    holdout_auc: float | None

    @classmethod
    def of(cls, name: str, version: int, tags: Mapping[str, str]) -> "Champion":
        """From the tags of the model version, see training.train.facts."""
        end, auc = tags.get("known_by_us"), tags.get("holdout.roc_auc")  # 1413331200000000, 0.7307 [0.6914, 0.7765]
        return cls(name, version, int(end) if end else None, float(auc.split()[0]) if auc else None)


@dataclass(frozen=True)
class Parts:
    """reference: a sample of what the champion learnt from; current: the newest week, which ends at week_end_us.

    matured: rows whose label is known, those since the training period where there are any; labels_words says which.
    """

    reference: pd.DataFrame
    current: pd.DataFrame
    matured: pd.DataFrame
    labels_words: str
    week_end_us: int


def divide(observed: pd.DataFrame, reference: pd.DataFrame, at_us: int, train_end_us: int | None) -> Parts:
    """Divide scored observations, see training.dataset.OBSERVED; of the reference the ages that the newest week has.

    In a domain where everybody comes on one day, a week holds one age only: comparing it with all ages would call
    every feature drifted.
    """
    end = week_end(observed, at_us)
    current = observed[(observed["now_us"] > end - WEEK) & (observed["now_us"] <= end)]
    known = observed[observed["matured"].astype(bool)]
    since = known if train_end_us is None else known[known["now_us"] >= train_end_us]
    words = UNKNOWN if train_end_us is None else SINCE if len(since) else INSIDE
    same_ages = reference[reference["offset_us"].isin(current["offset_us"].unique())]
    return Parts(same_ages, current, since if len(since) else known, words, end)


def week_end(observed: pd.DataFrame, at_us: int) -> int:
    """`at_us`, or as many whole weeks before it as it takes until the week holds an observation."""
    return at_us - (at_us - int(observed["now_us"].max())) // WEEK * WEEK


def compared(parts: Parts) -> str:
    """Which two sets of people the drift compares, in words."""
    first, last = date(int(parts.current["now_us"].min())), date(int(parts.current["now_us"].max()))
    offsets = sorted(int(offset) for offset in parts.current["offset_us"].unique())
    return (
        f"{len(parts.current):,} observations of {first if first == last else f'{first} to {last}'} against "
        f"{len(parts.reference):,} that the champion learnt from. On both sides people are taken {ages(offsets)} "
        "after they came, so that a difference is not one of age."
    )


def ages(offsets: Sequence[int]) -> str:
    """Ages in words."""
    return listed([span(offset / SECOND) for offset in offsets])
