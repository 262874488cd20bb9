"""Groups of points as they are kept: centres, Gaussians or core points, each with its rule for a new point.

Every sum runs over the first axis in a fixed order, so that one point alone gets the group that it gets among
thousands.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

NOISE = -1
"""Group of a point that is in none."""


class Shape(Protocol):
    """Groups 0, 1, … of points with q coordinates."""

    @property
    def groups(self) -> int:
        """How many there are."""
        ...

    def nearest(self, Z: np.ndarray) -> np.ndarray:
        """(n,) int64: the group of each point of Z (n, q), or NOISE."""
        ...


@dataclass(frozen=True)
class Centres:
    """A group is who is nearest to its centre. centres: (q, k)."""

    centres: np.ndarray

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.centres.shape[1])

    def nearest(self, Z: np.ndarray) -> np.ndarray:
        """(n,) the centre with the least squared distance; equal ones: the first."""
        step = np.subtract(Z.T[:, :, None], self.centres[:, None, :], order="C")
        return np.add.reduce(step * step, axis=0).argmin(axis=1)


@dataclass(frozen=True)
class Gaussians:
    """A group is who is likeliest under its Gaussian, the groups' weights counted in.

    whitening: (q, q·k), the Cholesky factors of the precisions, of output coordinate j and group g in column j·k + g.
    means: (q·k,) the means through their whitening. heights: (k,) log of weight and of the factor's determinant.
    """

    whitening: np.ndarray
    means: np.ndarray
    heights: np.ndarray

    @property
    def groups(self) -> int:
        """How many there are."""
        return len(self.heights)

    def nearest(self, Z: np.ndarray) -> np.ndarray:
        """(n,) the group with the largest posterior."""
        white = np.add.reduce(np.multiply(Z.T[:, :, None], self.whitening[:, None, :], order="C"), axis=0) - self.means
        far = np.add.reduce((white * white).reshape(len(Z), -1, self.groups), axis=1)
        return (self.heights - 0.5 * far).argmax(axis=1)


@dataclass(frozen=True)
class Cores:
    """A group is who is near enough to one of its core points. points: (q, m). group: (m,). reach: (m,) squared."""

    points: np.ndarray
    group: np.ndarray
    reach: np.ndarray

    @property
    def groups(self) -> int:
        """How many there are."""
        return int(self.group.max(initial=NOISE)) + 1

    def nearest(self, Z: np.ndarray) -> np.ndarray:
        """(n,) the group of the nearest core point, NOISE beyond its reach."""
        if not len(self.group):
            return np.full(len(Z), NOISE, dtype=np.int64)
        return np.array([self._one(z) for z in Z], dtype=np.int64)

    def _one(self, z: np.ndarray) -> int:
        step = z[:, None] - self.points
        far = np.add.reduce(step * step, axis=0)
        at = far.argmin()
        return int(self.group[at]) if far[at] <= self.reach[at] else NOISE
