"""The model registry: versions of `<domain>-engagement`, and @champion, the one that serves."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from feature_repo.domain import Domain
from feature_repo.settings import Settings
from training import tracking
from training.model import FILE, ChangedModel, EngagementModel, digest

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CHAMPION = "champion"
DIGEST = "sha256"
"""The tag of a version that holds the digest of its file."""
REFERENCE = "reference.parquet"
NEEDED = ("lightgbm", "mlflow", "numpy", "pandas", "scikit-learn")

Model = EngagementModel


class NoModelError(LookupError):
    """There is no such model version."""


def champion_version(settings: Settings) -> int | None:
    """The version that @champion is on, None where there is none. Creates nothing."""
    if not tracking.exists(settings):
        return None
    c = tracking.client(settings)
    from mlflow.exceptions import MlflowException

    try:
        return int(c.get_model_version_by_alias(tracking.model_name(settings), CHAMPION).version)
    except MlflowException as absent:
        if absent.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def newest_version(settings: Settings) -> int | None:
    """The version that was registered last, None where there is none."""
    return max(versions(settings), default=None)


def versions(settings: Settings) -> list[int]:
    """Every registered version, ascending."""
    if not tracking.exists(settings):
        return []
    found = tracking.client(settings).search_model_versions(f"name = '{tracking.model_name(settings)}'")
    return sorted(int(v.version) for v in found)


def load(settings: Settings, version: int | None = None) -> EngagementModel:
    """The model of a version (default: @champion), without the pyfunc around it.

    Raises:
        NoModelError: there is no such version, or no champion yet. ChangedModel: its file is not the one registered.
    """
    wanted = version if version is not None else champion_version(settings)
    if wanted is None:
        raise NoModelError(f"no champion of {tracking.model_name(settings)}: run `make train` and `make promote`")
    sha256 = _details(settings, wanted).tags.get(DIGEST)
    if not sha256:
        raise ChangedModel(
            f"version {wanted} of {tracking.model_name(settings)}: expected the tag {DIGEST!r}, which every version is "
            "registered with; there is none. It was not loaded: train and promote again."
        )
    mlflow = tracking.connect(settings)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{tracking.model_name(settings)}/{wanted}"))
    files = sorted(folder.rglob(FILE))
    if not files:
        raise NoModelError(f"version {wanted} of {tracking.model_name(settings)} holds no {FILE}: {folder}")
    return replace(EngagementModel.read(files[0], sha256), name=tracking.model_name(settings), version=wanted)


def held(settings: Settings, version: int) -> bool:
    """Whether a version is registered and can be loaded: its files may have been deleted."""
    from mlflow.exceptions import MlflowException

    try:
        load(settings, version)
    except (NoModelError, MlflowException, OSError):
        return False
    return True


def tags(settings: Settings, version: int) -> dict[str, str]:
    """The tags of a version.

    Raises:
        NoModelError: there is no such version.
    """
    return dict(_details(settings, version).tags)


def tag(settings: Settings, version: int, values: Mapping[str, str]) -> None:
    """Set tags of a version."""
    c = tracking.client(settings)
    for key, value in values.items():
        c.set_model_version_tag(tracking.model_name(settings), str(version), key, value)


def reference(settings: Settings, version: int | None = None) -> pd.DataFrame:
    """A sample of the rows a version was trained on: its features, `score`, `segment`, `label`; no user ids.

    Raises:
        NoModelError: there is no such version, or no champion yet.
    """
    wanted = version if version is not None else champion_version(settings)
    if wanted is None:
        raise NoModelError(f"no champion of {tracking.model_name(settings)}: run `make train` and `make promote`")
    run_id = _details(settings, wanted).run_id
    path = tracking.connect(settings).artifacts.download_artifacts(run_id=run_id, artifact_path=REFERENCE)
    return pd.read_parquet(path)


def move_champion(settings: Settings, version: int) -> None:
    """Put @champion on a version."""
    tracking.client(settings).set_registered_model_alias(tracking.model_name(settings), CHAMPION, str(version))


def register(
    settings: Settings, feast_mlflow: Any, domain: Domain, model: EngagementModel, values: Mapping[str, str]
) -> int:
    """Log the model in the active run, register it with its feature service (by Feast), tag it; the new version."""
    mlflow = tracking.connect(settings)
    name = tracking.model_name(settings)
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # MLflow tells stderr of its success
        saved = model.save(Path(folder))
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="training.model",
            data_path=str(saved),
            signature=signature(domain, model.features),
            pip_requirements=[f"{package}=={installed(package)}" for package in NEEDED],
            metadata={"feature_service": model.feature_service, "segments": model.segments, "cutoffs": model.cutoffs},
        )
        version = int(feast_mlflow.register_model(info.model_uri, name).version)
        tag(settings, version, {DIGEST: digest(saved.read_bytes()), **values})
    return version


def signature(domain: Domain, features: Sequence[str]) -> "ModelSignature":
    """Feature rows in, score and segment out. Every feature may be null.

    Whole numbers are of type `any`: Feast gives them as int64 where none is null and as float64 elsewhere, and MLflow
    refuses either where the signature names the other.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    kinds: dict[str, Any] = {"string": DataType.string, "float64": DataType.double, "int64": AnyType()}
    types = domain.feature_types
    columns: list[Any] = [ColSpec(kinds[types.get(f, "float64")], f, required=False) for f in features]
    answer: list[Any] = [ColSpec(DataType.double, "score"), ColSpec(DataType.string, "segment")]
    return ModelSignature(Schema(columns), Schema(answer))


def _details(settings: Settings, version: int) -> Any:
    """MLflow's entry of a version."""
    if not tracking.exists(settings):
        raise NoModelError(f"no model yet in {settings.home}: run `make train`")
    c = tracking.client(settings)
    from mlflow.exceptions import MlflowException

    try:
        return c.get_model_version(tracking.model_name(settings), str(version))
    except MlflowException as absent:
        if absent.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise NoModelError(
            f"{tracking.model_name(settings)} has no version {version}: there are {versions(settings)}"
        ) from absent
