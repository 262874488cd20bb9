"""The picture of an experiment: its interval over the days."""

from typing import TYPE_CHECKING

import numpy as np

from monitoring.comparison import LEVEL
from monitoring.experiments import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1c58a0", "#2f9e6b", "#b8671d", "#7a4fa3")


def plot(result: Result, truth: float | None = None) -> "Figure":
    """The confidence sequence of each treatment over the days, and in grey that without the covariate.

    truth: the true effect, where it is known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve, colour in zip(result.overall, COLOURS * len(result.overall), strict=False):
        days = curve.looks_us.astype("datetime64[us]")
        axes.fill_between(days, 100 * curve.plain_low, 100 * curve.plain_high, color="grey", alpha=0.15, linewidth=0)  # type: ignore[arg-type]
        axes.fill_between(days, 100 * curve.low, 100 * curve.high, color=colour, alpha=0.25, linewidth=0)  # type: ignore[arg-type]
        axes.plot(days, 100 * curve.effect, color=colour, label=curve.treatment)  # type: ignore[arg-type]
        if np.isnan(curve.effect).all():
            axes.text(0.5, 0.5, "too few people yet", ha="center", transform=axes.transAxes)
    axes.axhline(0, color="black", linewidth=0.8)
    if truth is not None:
        axes.axhline(100 * truth, color="#b3261e", linestyle="--", linewidth=1, label="truth of the simulator")
    title = f"{result.experiment.name}: {result.experiment.metric} against {result.experiment.control}"
    axes.set(title=title, ylabel=f"percentage points, {1 - LEVEL:.0%} at all times at once")
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure
