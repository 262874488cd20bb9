"""A copied state folder stands alone: MLflow's artifacts are its own, and the original is neither read nor written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from feature_repo.settings import Settings
from tests.serving.test_service import make_model
from training import artifacts, registry, tracking
from training.model import FILE


def add_version(state: SimpleNamespace, settings: Settings, reference: Path) -> tuple[int, str]:
    """Register a model in a run that holds a reference sample; the version and the run's id."""
    from feature_repo.feature_store.store import feature_store

    feast_mlflow = tracking.feast_mlflow(settings, feature_store(settings))
    with feast_mlflow.start_run(run_name="one", experiment_id=tracking.experiment(settings)) as run:
        tracking.client(settings).log_artifact(run.info.run_id, str(reference))
        return registry.register(settings, feast_mlflow, state.domain, make_model(state, 1), {}), run.info.run_id


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def copied(make_state: Callable[[], SimpleNamespace], tmp_path: Path) -> SimpleNamespace:
    """A state folder with one version of a model, and a copy of the folder. sample: the version's reference."""
    state = make_state()
    sample = tmp_path / registry.REFERENCE
    pd.DataFrame({"score": [0.25]}).to_parquet(sample)
    add_version(state, state.settings, sample)
    home = tmp_path / "a copy"  # a space is %20 in an address
    shutil.copytree(state.settings.home, home)
    return SimpleNamespace(state=state, copy=state.settings.replace(home=home), sample=sample)


@pytest.mark.parametrize("moved", [False, True])
def test_a_copy_uses_artifacts_of_its_own(copied: SimpleNamespace, tmp_path: Path, moved: bool) -> None:
    original, copy = copied.state.settings.home, copied.copy
    before = content(original / "mlartifacts")
    if moved:
        original.rename(tmp_path / "away")
    else:
        for file in original.rglob(FILE):  # an unpickled file of the original would be seen as changed
            file.write_bytes(b"changed")
        before = content(original / "mlartifacts")
    assert registry.load(copy, 1).version == 1
    assert registry.reference(copy, 1)["score"].tolist() == [0.25]
    assert tracking.connect(copy).pyfunc.load_model("models:/" + tracking.model_name(copy) + "/1")
    registry.move_champion(copy, 1)
    version, _ = add_version(copied.state, copy, copied.sample)
    assert version == 2 and registry.load(copy).version == 1 and registry.load(copy, 2).version == 2
    assert len(list((copy.home / "mlartifacts").rglob(FILE))) == 2
    if moved:
        assert not original.exists()
    else:
        assert content(original / "mlartifacts") == before
        assert registry.versions(copied.state.settings) == [1]


def test_addresses_are_rewritten_once_and_foreign_ones_stay(copied: SimpleNamespace) -> None:
    copy, bucket = copied.copy, "s3://bucket/mlartifacts"
    original = copied.state.settings
    tracking.client(original)  # what a copy does must not depend on who used MLflow last
    shutil.copy(original.home / "mlflow.db", copy.home / "mlflow.db")
    assert artifacts.follow(copy) == 1 and artifacts.follow(copy) == 0
    c = tracking.client(copy)
    c.create_experiment("elsewhere", artifact_location=bucket)
    beside = f"{original.home.as_uri()}/mlartifacts-of-others"
    c.create_experiment("beside", artifact_location=beside)
    assert artifacts.follow(copy) == 0
    assert c.get_experiment_by_name("elsewhere").artifact_location == bucket
    assert c.get_experiment_by_name("beside").artifact_location == beside


def test_a_tracking_database_elsewhere_is_left_alone(copied: SimpleNamespace, tmp_path: Path) -> None:
    shared = tmp_path / "shared.db"
    shutil.copy(copied.copy.home / "mlflow.db", shared)
    before = shared.read_bytes()
    assert artifacts.follow(copied.copy.replace(tracking_uri=f"sqlite:///{shared}")) == 0
    assert shared.read_bytes() == before
