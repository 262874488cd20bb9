import io
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from training import plots


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall, plots.calibration])
def test_curves(draw: Callable[..., Figure]) -> None:
    y = np.array([0, 1, 0, 1, 1, 0])
    figure = draw(y, {"lightgbm": np.linspace(0, 1, 6), "base_rate": np.full(6, 0.5)})
    legend = figure.axes[0].get_legend()
    assert legend is not None
    names = [t.get_text() for t in legend.get_texts()]
    assert [n.split()[0] for n in names] == ["lightgbm", "base_rate"]
    assert png(figure)


def test_importance_names_the_largest() -> None:
    figure = plots.importance("lightgbm", {f"f{i}": 1 / (i + 1) for i in range(30)}, most=5)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["f4", "f3", "f2", "f1", "f0"]
    assert png(figure)


def png(figure: Figure) -> bool:
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue().startswith(b"\x89PNG")
