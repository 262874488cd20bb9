"""What the service counts about itself, in Prometheus' text format. Bento's own metrics cost more than a decision."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping

BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """Counts of one process since it started. asked: further gauges, by name, asked when they are to be told."""

    def __init__(self) -> None:
        self.asked: dict[str, Callable[[], float]] = {}
        self.decisions: Counter[str] = Counter()
        self.responses: Counter[tuple[str, int]] = Counter()
        self._seconds = [0] * (len(BUCKETS_S) + 1)
        self._total_s = 0.0

    def decided(self, segment: str | None) -> None:
        """One decision; `default` stands for the default journey."""
        self.decisions[segment or "default"] += 1

    def responded(self, path: str, status: int, seconds: float) -> None:
        """One response of a decide route, and how long it took."""
        self.responses[path, status] += 1
        self._seconds[bisect_left(BUCKETS_S, seconds)] += 1
        self._total_s += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """The exposition; `gauges` are added as `firstmile_<name>`."""
        lines = ["# TYPE firstmile_decisions_total counter"]
        lines += [f'firstmile_decisions_total{{segment="{s}"}} {n}' for s, n in sorted(self.decisions.items())]
        lines += ["# TYPE firstmile_responses_total counter"]
        lines += [
            f'firstmile_responses_total{{path="{p}",status="{s}"}} {n}' for (p, s), n in sorted(self.responses.items())
        ]
        lines += ["# TYPE firstmile_response_seconds histogram", *self._histogram()]
        for name, value in {**gauges, **{name: ask() for name, ask in self.asked.items()}}.items():
            lines += [f"# TYPE firstmile_{name} gauge", f"firstmile_{name} {value:g}"]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> list[str]:
        count, lines = 0, []
        for bound, n in zip((*map(str, BUCKETS_S), "+Inf"), self._seconds, strict=True):
            count += n
            lines.append(f'firstmile_response_seconds_bucket{{le="{bound}"}} {count}')
        return [
            *lines,
            f"firstmile_response_seconds_sum {self._total_s:g}",
            f"firstmile_response_seconds_count {count}",
        ]
