"""What training keeps of a person: rows in the reference samples, which hold features and nobody's id.

A sample's row counts as the person's where its stored features are those of a row that the person had, and no other
row of the sample has the same: what several rows have in common says nothing of one person. What a model has learnt
of everybody stays in it: a category is known to it only if ten rows had it.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow.parquet as pq

from feature_repo import domains
from feature_repo.settings import Settings
from training import registry, tracking

OFFSET = "offset_us"


def feature_rows(settings: Settings, persons: list[str]) -> pd.DataFrame:
    """Every offline row that these persons have, stored features only, each once. Empty where there are none."""
    names = list(domains.load(settings.domain).feature_types)
    files = sorted(settings.features.glob("*.parquet"))
    wanted = [("user_id", "in", persons)]
    frames = [pq.read_table(f, columns=names, filters=wanted, partitioning=None).to_pandas() for f in files]
    found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=names)
    return found.drop_duplicates(ignore_index=True)


def erase(settings: Settings, rows: pd.DataFrame) -> int:
    """Remove these rows (see `feature_rows`) from the reference sample of every training; returns how many went."""
    if rows.empty or not tracking.exists(settings):
        return 0
    return sum(_erase(settings, run_id, rows) for run_id in _trainings(settings))


def _trainings(settings: Settings) -> Iterator[str]:
    """Ids of the runs that have a reference sample."""
    c = tracking.client(settings)
    if (experiment := c.get_experiment_by_name(tracking.model_name(settings))) is None:
        return
    token = None
    while True:
        page = c.search_runs([experiment.experiment_id], "attributes.run_name LIKE 'train %'", page_token=token)
        for run in page:
            if any(a.path == registry.REFERENCE for a in c.list_artifacts(run.info.run_id)):
                yield run.info.run_id
        if not (token := page.token):
            return


def _erase(settings: Settings, run_id: str, rows: pd.DataFrame) -> int:
    c = tracking.client(settings)
    with TemporaryDirectory() as folder:
        file = Path(c.download_artifacts(run_id, registry.REFERENCE, folder))
        sample = pd.read_parquet(file)
        kept = sample[~theirs(sample, rows)]
        if len(kept) < len(sample):
            replaced = Path(folder) / "new" / registry.REFERENCE
            replaced.parent.mkdir()
            kept.to_parquet(replaced, index=False)
            c.log_artifact(run_id, str(replaced))
    return len(sample) - len(kept)


def theirs(sample: pd.DataFrame, rows: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of a reference sample only these people can have given.

    >>> sample = pd.DataFrame({"clicks": [1.0, 2.0, 2.0, None], "offset_us": 5, "score": 0.5})
    >>> theirs(sample, pd.DataFrame({"clicks": [2, None], "other": 0})).tolist()
    [False, False, False, True]
    """
    names = [n for n in rows.columns if n in sample.columns]
    had = set(_keys(rows[names]))
    mine = pd.Series([key in had for key in _keys(sample[names])], index=sample.index, dtype=bool)
    return mine & ~sample.duplicated([*names, OFFSET], keep=False)


def _keys(rows: pd.DataFrame) -> list[tuple[object, ...]]:
    """Each row as a value that equals another's where all numbers, strings and nulls are the same."""
    plain = [[None if pd.isna(v) else v if isinstance(v, str) else float(v) for v in rows[n]] for n in rows.columns]
    return list(zip(*plain, strict=True))
