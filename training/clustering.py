"""The candidates for personas: scikit-learn's clusterings, each fitted to a shape that can be kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.cluster import DBSCAN, HDBSCAN, KMeans
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from training.shapes import NOISE, Centres, Cores, Gaussians, Shape

MOST = 8
"""Groups that a method is asked for at most: more of them nobody tells apart."""


class Method(Protocol):
    """A way to find groups."""

    @property
    def name(self) -> str:
        """Unique among the methods, its setting included."""
        ...

    def fit(self, Z: np.ndarray, seed: int) -> Shape:
        """Groups of the points Z (n, q); a shape without groups where there are none."""
        ...


@dataclass(frozen=True)
class KMeansOf:
    """K-Means (Lloyd), the best of three starts."""

    k: int

    @property
    def name(self) -> str:
        """Its name with k."""
        return f"kmeans {self.k}"

    def fit(self, Z: np.ndarray, seed: int) -> Shape:
        """k centres."""
        found = KMeans(self.k, n_init=3, random_state=seed).fit(Z)
        return Centres(np.ascontiguousarray(found.cluster_centers_.T))


@dataclass(frozen=True)
class MixtureOf:
    """A mixture of Gaussians, each with its own full covariance, started from K-Means."""

    k: int

    @property
    def name(self) -> str:
        """Its name with k."""
        return f"gaussian mixture {self.k}"

    def fit(self, Z: np.ndarray, seed: int) -> Shape:
        """k Gaussians; what does not converge in 100 steps is taken as it is, and has to be stable like the others."""
        found = GaussianMixture(self.k, reg_covar=1e-3, random_state=seed).fit(Z)
        factor = np.asarray(found.precisions_cholesky_)  # (k, q, q)
        means = np.einsum("ki,kij->jk", found.means_, factor).ravel()
        heights = np.log(found.weights_) + np.log(factor.diagonal(axis1=1, axis2=2)).sum(axis=1)
        return Gaussians(np.ascontiguousarray(factor.transpose(1, 2, 0)).reshape(Z.shape[1], -1), means, heights)


@dataclass(frozen=True)
class DbscanOf:
    """DBSCAN; eps is the quantile `reach` of the distances to the 2q-th neighbour (the k-distance graph of Ester 1996).

    2q points within eps make a core point, q being the number of coordinates (Sander et al. 1998).
    """

    reach: float

    @property
    def name(self) -> str:
        """Its name with the quantile."""
        return f"dbscan {self.reach:g}"

    def fit(self, Z: np.ndarray, seed: int) -> Shape:
        """The core points, each reaching eps far: DBSCAN's own rule."""
        least = min(2 * Z.shape[1], len(Z) - 1)
        distances = NearestNeighbors(n_neighbors=least).fit(Z).kneighbors()[0][:, -1]
        eps = float(max(np.quantile(distances, self.reach), 1e-9))
        found = DBSCAN(eps=eps, min_samples=least).fit(Z)
        at = found.core_sample_indices_
        return Cores(np.ascontiguousarray(Z[at].T), found.labels_[at], np.full(len(at), eps * eps))


@dataclass(frozen=True)
class HdbscanOf:
    """HDBSCAN (Campello et al. 2013); the smallest cluster is the share `smallest` of the points."""

    smallest: float

    @property
    def name(self) -> str:
        """Its name with the share."""
        return f"hdbscan {self.smallest:g}"

    def fit(self, Z: np.ndarray, seed: int) -> Shape:
        """The members of the clusters, each reaching as far as the members of its cluster lie apart at most."""
        found = HDBSCAN(min_cluster_size=max(5, round(self.smallest * len(Z))), min_samples=10, copy=True).fit(Z)
        inside = np.flatnonzero(found.labels_ > NOISE)
        points, group, reach = Z[inside], found.labels_[inside], np.zeros(len(inside))
        for g in np.unique(group):
            own = group == g
            apart = NearestNeighbors(n_neighbors=1).fit(points[own]).kneighbors()[0][:, -1]
            reach[own] = apart.max() ** 2
        return Cores(np.ascontiguousarray(points.T), group.astype(np.int64), reach)


def methods(most: int = MOST) -> Iterator[Method]:
    """Every candidate."""
    yield from (KMeansOf(k) for k in range(2, most + 1))
    yield from (MixtureOf(k) for k in range(2, most + 1))
    yield from (HdbscanOf(s) for s in (0.05, 0.1))
    yield from (DbscanOf(r) for r in (0.5, 0.7, 0.9))
