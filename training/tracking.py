"""The connection to MLflow: where it is, what it may say, and how runs are written quickly."""

import logging
import os
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from feature_repo.settings import Settings
from training import artifacts

if TYPE_CHECKING:
    from feast import FeatureStore
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

TALKATIVE = ("mlflow.store.db.utils", "mlflow.tracking._model_registry.fluent", "alembic.runtime.migration", "alembic")


def _quiet() -> None:
    """No telemetry, no progress bars of single files, no news of tables created."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*input example was not provided.*", category=UserWarning)
    warnings.filterwarnings("ignore", message=".*noload.*", category=DeprecationWarning)  # SQLAlchemy, of MLflow's code


def connect(settings: Settings) -> Any:
    """The `mlflow` module, pointed at the tracking address of the settings."""
    _quiet()
    settings.home.mkdir(parents=True, exist_ok=True)
    artifacts.follow(settings)
    import mlflow

    mlflow.set_tracking_uri(settings.tracking_uri)
    mlflow.set_registry_uri(settings.tracking_uri)
    return mlflow


def client(settings: Settings) -> "MlflowClient":
    """MLflow's client for the tracking address of the settings."""
    mlflow = connect(settings)
    return mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)


def exists(settings: Settings) -> bool:
    """Whether anything was ever tracked; looking does not create the SQLite file."""
    uri = settings.tracking_uri
    return not uri.startswith("sqlite:///") or os.path.exists(uri.removeprefix("sqlite:///"))


def model_name(settings: Settings) -> str:
    """Name of the domain's model in the registry, and of its experiment."""
    return f"{settings.domain}-engagement"


def experiment(settings: Settings) -> str:
    """Id of the domain's experiment, created if need be; artifacts go to the state folder unless MLflow is a server."""
    c = client(settings)
    if (found := c.get_experiment_by_name(model_name(settings))) is not None:
        return str(found.experiment_id)
    local = settings.tracking_uri.startswith("sqlite:")
    folder = artifacts.folder(settings) if local else None
    return str(c.create_experiment(model_name(settings), artifact_location=folder))


def feast_mlflow(settings: Settings, store: "FeatureStore") -> Any:
    """`feast.mlflow` bound to the store: runs and model versions that carry the feature service.

    Raises:
        RuntimeError: by Feast, on first use, where the store's configuration does not enable `mlflow`.
    """
    connect(settings)
    import feast.mlflow

    feast.mlflow.init(store)
    return feast.mlflow


class Child:
    """A run below another one, written in a few calls: everything is collected, `close` sends it."""

    def __init__(
        self, c: "MlflowClient", experiment_id: str, parent: str, name: str, start_ms: int | None = None
    ) -> None:
        tags = {"mlflow.parentRunId": parent}
        self._client = c
        self.run_id = str(c.create_run(experiment_id, start_ms, tags=tags, run_name=name).info.run_id)

    def log(
        self, metrics: Mapping[str, float] | None = None, params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Metrics (those that are a number), parameters and tags in one call."""
        log_batch(self._client, self.run_id, metrics or {}, params or {}, tags or {})

    def picture(self, figure: "Figure", name: str) -> None:
        """A picture, as PNG."""
        self._client.log_figure(self.run_id, figure, name)

    def text(self, text: str, name: str) -> None:
        """A text file."""
        self._client.log_text(self.run_id, text, name)

    def close(self, status: str = "FINISHED", end_ms: int | None = None) -> None:
        """End the run."""
        self._client.set_terminated(self.run_id, status, end_ms)


def log_batch(
    c: "MlflowClient", run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any], tags: Mapping[str, str]
) -> None:
    """Everything in one call; NaN, which not every tracking store takes, is left out."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    c.log_batch(
        run_id,
        [Metric(k, float(v), now, 0) for k, v in metrics.items() if v == v],
        [Param(k, str(v)) for k, v in params.items()],
        [RunTag(k, v) for k, v in tags.items()],
    )
