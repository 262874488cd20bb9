"""The Bento: what `bentoml build` puts in it, and what a running service knows of the Bento it is in.

    MLflow @champion -> BentoML model store -> Bento (sources of three rooms, requirements, that one model)

The champion is fetched when the Bento is built, by `ChampionModel`, so plain `bentoml build` works as its docs say.
"""

import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from bentoml.models import BentoModel

from feature_repo.settings import SOURCE, Settings

BENTO_YAML = Path(__file__).resolve().parents[2] / "bento.yaml"
"""Where Bento describes itself, if this file is the copy in a Bento (<bento>/src/serving/bento.py)."""


@lru_cache
def description() -> dict[str, Any] | None:
    """The description of the Bento that this code runs in; None in a checkout or an installed wheel."""
    if BENTO_YAML.parent / "src" != SOURCE or not BENTO_YAML.is_file():
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the file holds the whole lock file: 20 times faster in C
    found = yaml.load(BENTO_YAML.read_text(encoding="utf-8"), loader)
    return found if isinstance(found, dict) else None


def settings() -> Settings:
    """The settings; in a Bento the domain is the one it was built for, unless the environment says another."""
    found, bento = Settings(), description()
    if bento and "domain" not in found.model_fields_set:
        return found.replace(domain=bento["labels"]["domain"])
    return found


def labels() -> dict[str, str]:
    """What the Bento says about itself."""
    return {"domain": settings().domain}


def bento_name(of: Settings) -> str:
    """Name under which `python -m serving build` stores the Bento."""
    return f"firstmile_{of.domain}"


def mode(of: Settings) -> str:
    """`bundled` in a Bento, `registry` elsewhere; FIRSTMILE_MODE says otherwise."""
    return of.mode or ("bundled" if description() else "registry")


class ChampionModel(BentoModel):
    """The champion as a part of the service: in the Bento, the model that was saved in it."""

    def to_info(self, alias: str | None = None) -> Any:
        """Called by `bentoml build`: saves the registry's champion in the model store and names exactly that one."""
        return BentoModel(save_champion(settings())).to_info(alias)

    def resolve(self, base_path: Any = None, global_model_store: Any = None) -> Any:
        """The stored model; None outside of a Bento, where the registry gives the model."""
        if description() is None:
            return None
        store = {} if global_model_store is None else {"global_model_store": global_model_store}
        return super().resolve(base_path, **store)


def champion_model() -> ChampionModel:
    """The model to declare in the service."""
    if bento := description():
        return ChampionModel(bento["services"][0]["models"][0]["tag"])
    return ChampionModel(f"{settings().domain}-engagement:latest")


def champion_folder() -> Path | None:
    """Folder of the Bento's own champion; None outside of a Bento."""
    stored = champion_model().resolve()
    return Path(stored.path) if stored is not None else None


def champion_digest() -> str:
    """The first half of the SHA-256 of the Bento's own champion: it is in the model's tag, which the Bento names."""
    return str((description() or {})["services"][0]["models"][0]["tag"]).rsplit("-", 1)[1]


def save_champion(of: Settings) -> str:
    """Save the registry's champion in BentoML's model store; gives its tag, the same for the same model.

    Raises:
        LookupError: there is no champion.
    """
    import bentoml

    from training import registry
    from training.model import HALF, digest

    version = registry.champion_version(of)
    if version is None:
        raise LookupError(f"no champion for {of.domain} in {of.tracking_uri}: train and promote a model first")
    model = registry.load(of, version)
    with tempfile.TemporaryDirectory() as folder:
        content = model.save(Path(folder)).read_bytes()
        tag = f"{model.name}:{version}-{digest(content)[:HALF]}"  # a tag has 63 characters at most
        try:
            return str(bentoml.models.get(tag).tag)
        except bentoml.exceptions.NotFound:
            given = {"domain": of.domain, "model_version": str(version), "feature_service": model.feature_service}
            with bentoml.models.create(tag, labels=given) as stored:
                model.save(Path(stored.path))
            return str(stored.tag)


def build(of: Settings) -> str:
    """Build the Bento of a domain from this checkout, with the champion of now; gives its tag.

    Raises:
        LookupError: there is no champion. FileNotFoundError: this is no checkout.
    """
    if not (SOURCE / "pyproject.toml").is_file():
        raise FileNotFoundError(f"{SOURCE} holds no pyproject.toml: build from a checkout, where the sources are")
    os.environ.update(of.environment())
    import bentoml

    with warnings.catch_warnings():  # Bento's own use of what its libraries call deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        return str(bentoml.bentos.build_bentofile(name=bento_name(of), build_ctx=str(SOURCE)).tag)
