"""The pictures of a model: ROC, precision-recall, calibration, importance, personas."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from training.evaluate import bins, metrics, steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from training.discovery import Tried

Scores = Mapping[str, np.ndarray]
"""Name of a model → (n,) its probabilities."""


def _canvas(title: str, x: str, y: str, height: float = 4.2, left: float = 0.12) -> tuple["Figure", "Axes"]:
    """A figure that no window system is needed for. left: share of the width for what stands left of the axes.

    Margins are fixed: matplotlib's own layouts draw every figure twice.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, height), dpi=110)
    figure.subplots_adjust(left, 0.48 / height, 0.97, 1 - 0.32 / height)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)
    return figure, axes


def roc(y: np.ndarray, scores: Scores) -> "Figure":
    """ROC curves: caught positives against false alarms."""
    figure, axes = _canvas("ROC, newest holdout", "false positive rate", "true positive rate")
    for name, p in scores.items():
        hits, misses = steps(y, p, np.ones(len(y)))
        label = f"{name}  AUC {metrics(y, p)['roc_auc']:.3f}"
        axes.plot(np.append(0, misses) / misses[-1], np.append(0, hits) / hits[-1], label=label)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.legend(fontsize=8)
    return figure


def precision_recall(y: np.ndarray, scores: Scores) -> "Figure":
    """Precision against recall, in steps as average precision counts them."""
    figure, axes = _canvas("Precision and recall, newest holdout", "recall", "precision")
    for name, p in scores.items():
        hits, misses = steps(y, p, np.ones(len(y)))
        label = f"{name}  AP {metrics(y, p)['pr_auc']:.3f}"
        axes.step(hits / hits[-1], hits / (hits + misses), where="pre", label=label)
    axes.axhline(float(y.mean()), color="grey", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=8)
    return figure


def calibration(y: np.ndarray, scores: Scores) -> "Figure":
    """Share of label 1 against mean score, in ten bins of equal rows."""
    figure, axes = _canvas("Calibration, newest holdout", "mean score in the bin", "share of label 1")
    for name, p in scores.items():
        part = bins(p)
        count = np.maximum(np.bincount(part), 1)
        label = f"{name}  ECE {metrics(y, p)['ece']:.3f}"
        axes.plot(np.bincount(part, p) / count, np.bincount(part, y) / count, marker="o", markersize=4, label=label)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    axes.legend(fontsize=8)
    return figure


def importance(name: str, shares: Mapping[str, float], most: int = 20) -> "Figure":
    """The features that the model leans on most, as shares of all."""
    top = list(shares.items())[:most][::-1]
    figure, axes = _canvas(f"What {name} leans on", "share of importance", "", height=1.2 + 0.24 * len(top), left=0.42)
    axes.barh([k for k, _ in top], [v for _, v in top], color="#3b6ea5")
    axes.tick_params(axis="y", labelsize=8)
    return figure


def clusterings(tried: Sequence["Tried"]) -> "Figure":
    """How stable and how clear each clustering is that was looked at to the end."""
    figure, axes = _canvas("Clusterings tried for personas", "stability (adjusted Rand index)", "silhouette")
    for t in tried:
        if t.stability == t.stability:
            axes.plot(t.stability, t.silhouette, "o", color="#9aa5b1" if t.refused else "#c2410c")
            axes.annotate(t.method, (t.stability, t.silhouette), (4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlim(-0.05, 1.15)
    return figure


def personas(points: np.ndarray, named: Sequence[str | None]) -> "Figure":
    """People on their two first axes, by persona. points: (n, 2)."""
    figure, axes = _canvas("Personas", "first principal axis", "second principal axis")
    label = np.array([n or "in none" for n in named])
    for name in sorted(set(label.tolist())):
        own = points[label == name]
        axes.plot(own[:, 0], own[:, 1], ".", markersize=3, label=f"{name} ({len(own) / len(points):.0%})")
    axes.legend(fontsize=7)
    return figure
