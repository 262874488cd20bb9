"""The champion that the service holds, and how a new one takes its place with no failed request.

    registry: [every few seconds, one thread] alias -> load -> warm up -> swap one reference
    bundled:  the model saved in the Bento, once

A decision reads `model` once and works with that one to its end, so a swap in between changes nothing for it.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from feature_repo.settings import Settings
from serving.decide import Model, ModelFault, scored

POLL_S = 3.0
WARM_UPS = 20

_log = logging.getLogger(__name__)


class Champion:
    """Holds the model that decisions are made with.

    model: the one in use; None until one could be loaded. error: why the newest champion is not in use, or None.
    swaps: how often a model was put in place.
    """

    def __init__(
        self,
        version: Callable[[], int | None],
        load: Callable[[int], Model],
        poll_s: float | None = POLL_S,
        fits: Callable[[Model], str | None] = lambda _: None,
    ) -> None:
        """version: which model is the champion now (None: there is none yet). poll_s: None to ask once only.

        fits: raises ModelFault for a model that the rest of the service cannot work with; gives what to say of one that
        it can work with, where there is something.
        """
        self.model: Model | None = None
        self.error: str | None = None
        self.swaps = 0
        self._version = version
        self._load = load
        self._poll_s = poll_s
        self.fits = fits
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="champion", daemon=True)

    def start(self) -> "Champion":
        """Load the champion now if there is one, then keep looking. Never raises: `error` says what is wrong."""
        self.poll()
        if self._poll_s is not None:
            self._thread.start()
        return self

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def poll(self) -> bool:
        """Look once; True if another model was put in place. A model that cannot be loaded leaves the old one."""
        try:
            version = self._version()
            if version is None:
                self._note("there is no champion yet: train and promote one")
                return False
            if self.model is not None and self.model.version == version:
                self.error = None
                return False
            model = self._load(version)
            remark = self.fits(model)
            warm_up(model)
        except Exception as e:  # the registry is another system: whatever it does, the old champion goes on
            self._note(f"{type(e).__name__}: {e}")
            return False
        self.model, self.error = model, None
        self.swaps += 1
        _log.info("champion: %s version %s, feature service %s", model.name, model.version, model.feature_service)
        if remark:
            _log.warning("champion: %s", remark)
        return True

    def _note(self, error: str) -> None:
        if error != self.error:
            kept = f"version {self.model.version} stays" if self.model else "every decision is the default journey"
            _log.warning("champion: %s; %s", error, kept)
        self.error = error

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.poll()


def warm_up(model: Model) -> None:
    """Score a person of whom nothing is known a few times, so that the first real one is as fast as the rest.

    Raises:
        ModelFault: the model cannot score.
    """
    nothing = dict.fromkeys(model.features)
    for _ in range(WARM_UPS):
        scored(model, nothing)


def from_registry(settings: Settings, poll_s: float = POLL_S) -> Champion:
    """Follows the @champion alias in the MLflow registry."""
    from training import registry

    return Champion(
        lambda: registry.champion_version(settings), lambda version: registry.load(settings, version), poll_s
    )


def from_folder(folder: Path, sha256: str) -> Champion:
    """The model saved in a folder, for good: what a Bento carries. sha256: see EngagementModel.read."""
    from training.model import EngagementModel

    return Champion(lambda: 0, lambda _: EngagementModel.read(folder, sha256), poll_s=None)


__all__ = ["Champion", "ModelFault", "from_folder", "from_registry", "warm_up"]
