"""What `feast apply` reads: the Feast objects of the product whose feature_store.yaml is in effect."""

from feature_repo.domains import load
from feature_repo.feature_store.definitions import objects
from feature_repo.feature_store.store import settings_in_effect

settings = settings_in_effect()
settings.features.mkdir(parents=True, exist_ok=True)  # Feast makes no folder above the registry's own
globals().update({found.name: found for found in objects(load(settings.domain), settings)})
