"""A model whose file was changed after its registration is not unpickled: that would run whatever was put there."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving import wiring
from serving.models import from_folder
from tests.serving.test_service import make_model
from training import registry, tracking
from training.model import FILE, HALF, ChangedModel, EngagementModel, digest


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.fixture(scope="module")
def registered(make_state: Callable[[], SimpleNamespace]) -> SimpleNamespace:
    """A state folder with a champion."""
    from feature_repo.feature_store.store import feature_store

    state = make_state()
    feast_mlflow = tracking.feast_mlflow(state.settings, feature_store(state.settings))
    with feast_mlflow.start_run(run_name="one", experiment_id=tracking.experiment(state.settings)):
        registry.register(state.settings, feast_mlflow, state.domain, make_model(state, 1), {})
    registry.move_champion(state.settings, 1)
    return state


def test_the_champion_of_the_registry(
    registered: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = registered.settings
    (file,) = settings.home.rglob(FILE)
    content = file.read_bytes()
    assert registry.tags(settings, 1)[registry.DIGEST] == digest(content)
    assert wiring.champion(settings, None).poll()
    for changed in (pickle.dumps(Attack(tmp_path / "run")), content + b"\0", content[:-1]):
        file.write_bytes(changed)
        with pytest.raises(ChangedModel, match=f"{file}: expected the model that was registered"):
            registry.load(settings)
        holder = wiring.champion(settings, None)
        assert not holder.poll() and holder.model is None and "every decision is the default journey" in caplog.text
    assert not (tmp_path / "run").exists()
    file.write_bytes(content)
    assert wiring.champion(settings, None).poll()
    tracking.client(settings).delete_model_version_tag(tracking.model_name(settings), "1", registry.DIGEST)
    with pytest.raises(ChangedModel, match="expected the tag 'sha256'"):
        registry.load(settings)


def test_the_champion_that_a_bento_carries(registered: SimpleNamespace, tmp_path: Path) -> None:
    file = make_model(registered, 1).save(tmp_path)
    half = digest(file.read_bytes())[:HALF]
    assert from_folder(tmp_path, half).start().model is not None
    with pytest.raises(ChangedModel):
        EngagementModel.read(tmp_path, half[:-1])
    file.write_bytes(pickle.dumps(Attack(tmp_path / "run")))
    holder = from_folder(tmp_path, half).start()
    assert holder.model is None and "was not loaded" in str(holder.error)
    assert not (tmp_path / "run").exists()
