"""An experiment among the simulated people: half of them are shown an element, by the hash that serving uses too."""

from collections.abc import Mapping
from dataclasses import dataclass

from feature_repo.buckets import weighted

CONTROL = "control"


@dataclass(frozen=True)
class Experiment:
    """element: what the treated are shown. effects: kind -> what that shifts the logit of activating by.

    Its variants are `control` and the element, of equal weight. Everybody is exposed, at the moment when the element is
    shown, or would have been.
    """

    name: str
    element: str
    effects: Mapping[str, float]

    def shows(self, user_id: str) -> bool:
        """Whether that person is treated."""
        return weighted(f"{self.name}/variant", user_id, {CONTROL: 1, self.element: 1}) != CONTROL


TEMPLATES = Experiment("template_gallery", "template_gallery", {"explorer": 0.5, "hesitant": 0.7, "tourist": 0.2})
"""The one of `make simulate` and `make run`: templates help those who do not know how to begin."""
