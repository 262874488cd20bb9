"""What an experiment is, and the experiments of a domain as one value that a receipt can be replayed with."""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property

import msgspec


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One arm: its weight among the arms, and what it does to the elements that the policy chose."""

    weight: float
    show: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From a time (µs since 1970 UTC) on, the share of the experiment's slice that is in."""

    at_us: int
    share: float


class Guardrail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a treatment may cost: it pauses once `metric` is surely worse than control's by more than `worse_than`.

    metric: the domain's label, or the name of an event. The share of people to whom it happens after the exposure, by
    the end of their onboarding or `within_us` after the exposure. good: whether more of it is better.
    """

    metric: str
    worse_than: float
    good: bool
    within_us: int | None = None


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question that is answered by showing people different things, by chance.

    buckets: its slice of the layer, [from, to) within [0, 1]. start_us, end_us: [start, end), end null: open.
    ramp: in time order; before the first step nobody is in. segments: who may enter; empty: everybody.
    variants: the first one is the control. kill: nobody is in, whatever else is said.
    """

    name: str
    question: str
    layer: str
    buckets: tuple[float, float]
    start_us: int
    end_us: int | None
    ramp: tuple[Step, ...]
    variants: Mapping[str, Variant]
    metric: str
    segments: tuple[str, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    kill: bool = False

    @property
    def control(self) -> str:
        """Name of the variant that the others are compared with."""
        return next(iter(self.variants))

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each variant."""
        return {name: v.weight for name, v in self.variants.items()}

    def runs(self, at_us: int) -> bool:
        """Whether it has begun and not ended, killed or not."""
        return self.start_us <= at_us and (self.end_us is None or at_us < self.end_us)

    def share(self, at_us: int) -> float:
        """The share of its slice that is in at that time, [0, 1]."""
        step = bisect_right(self.ramp, at_us, key=lambda s: s.at_us)
        return self.ramp[step - 1].share if step and self.runs(at_us) else 0.0


class Experiments(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """All experiments of a domain.

    holdout: the share of people who never get any treatment, by their own salt. layers: salt of each layer.
    experiments: by name, in the file's order.
    """

    domain: str
    holdout: float = 0.0
    holdout_salt: str = "holdout"
    layers: Mapping[str, str] = {}
    experiments: Mapping[str, Experiment] = {}

    @classmethod
    def from_content(cls, content: str) -> "Experiments":
        """The experiments of which this is the content.

        Raises:
            ValueError: it is no content of experiments, or of ones with more to them than this version knows.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except msgspec.DecodeError as e:
            raise ValueError(f"no content of experiments: {e}; expected what `Experiments.content` gives") from e

    @cached_property
    def content(self) -> str:
        """Canonical JSON, from which `from_content` makes the same experiments; order is kept, for it has a meaning."""
        return msgspec.json.encode(self).decode()

    @cached_property
    def version(self) -> str:
        """12 hex digits of the SHA-256 of `content`: equal for equal behaviour and words, whatever the comments."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:12]
