"""What training keeps of a person goes, and of everybody else it stays."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import domains
from feature_repo.settings import Settings
from tests import searching
from training import erasure, registry, tracking

CANARY = "canary-of-a-person"
SAAS = domains.load("saas")


def features(n: int, source: str) -> dict[str, object]:
    """A person's stored features, all of them."""
    kinds = {"int64": n, "float64": n / 3, "string": source}
    return {name: kinds[kind] for name, kind in SAAS.feature_types.items()} | {"clicks": None if n % 4 else n}


def test_rows_that_only_a_person_can_have_given_leave_every_reference_sample(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    mine, others = [features(n, CANARY) for n in (1, 2)], [features(n, "web") for n in range(5)]
    same = features(3, "web")  # the person was once as somebody else is
    settings.features.mkdir(parents=True)
    rows = [{"user_id": u, **f} for u, f in [("me", mine[0]), ("me", mine[1]), ("me", same), ("you", others[0])]]
    pq.write_table(pa.Table.from_pylist(rows), settings.features / "0000.parquet")
    sample = pd.DataFrame([*mine, *others, same]).astype(
        {n: "float64" for n, t in SAAS.feature_types.items() if t != "string"}
    )
    sample = sample.drop(columns=["plan"]).assign(offset_us=86_400, score=0.5, since_signup=np.arange(8.0))
    c, experiment = tracking.client(settings), tracking.experiment(settings)
    runs = [c.create_run(experiment, run_name=f"train saas {n}").info.run_id for n in range(2)]
    file = tmp_path / "away" / registry.REFERENCE
    file.parent.mkdir()
    for run in runs:
        sample.to_parquet(file, index=False)
        c.log_artifact(run, str(file))
    c.create_run(experiment, run_name="train without a sample")
    file.unlink()
    assert len(searching.found(tmp_path / "mlartifacts", [CANARY])) == 2 * 2  # each as bytes and as Parquet
    found = erasure.feature_rows(settings, ["me"])
    assert len(found) == 3
    assert erasure.erase(settings, found) == 2 * 2
    assert searching.found(tmp_path / "mlartifacts", [CANARY]) == []
    for run in runs:
        kept = pd.read_parquet(c.download_artifacts(run, registry.REFERENCE))
        pd.testing.assert_frame_equal(kept, sample[2:].reset_index(drop=True))
    assert erasure.erase(settings, found) == 0


def test_without_a_training_there_is_nothing_to_do(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, domain="saas")
    assert erasure.feature_rows(settings, ["me"]).empty
    assert erasure.erase(settings, pd.DataFrame([features(1, CANARY)])) == 0
    assert list(tmp_path.iterdir()) == []
