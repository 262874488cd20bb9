"""Which personas there are, if any: candidates judged by silhouette, stability and against nothing at all.

    learning rows → latest row of each person → points → every method → Tried
    → stable, not too small, not too much noise → clearest first → clearer than structureless points? → Personas

Stability: the mean adjusted Rand index of two clusterings, fitted on the halves of the people, each assigning all of
them (T. Lange, V. Roth, M. Braun, J. Buhmann, Neural Computation 16, 2004). Both measures like to cut any cloud in two,
so the winner must also be clearer than the same method on points without groups: one Gaussian (Y. Liu, D. Hayes,
A. Nobel, J. Marron, JASA 103, 2008) and a box along the axes (R. Tibshirani, G. Walther, T. Hastie, JRSS B 63, 2001).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from threadpoolctl import threadpool_limits

from feature_repo.domain import Domain
from training.clustering import Method, methods
from training.describe import described
from training.personas import KNOWN, Personas, Scale, behaviour, matrix
from training.progress import Progress
from training.shapes import NOISE, Shape


@dataclass(frozen=True)
class Limits:
    """What personas must show.

    stability: least mean adjusted Rand index over `splits` splits into halves. smallest: least share of the people in
    a persona. noise: largest share in none. equal: silhouette that is no difference: then the earlier candidate, the
    simpler one, is taken. margin: silhouette above the best of `draws` draws of either cloud without groups.
    fewest: people below whom nothing is looked for. most: people looked at, drawn by the seed. seen: of these the most
    whose silhouette is taken.
    """

    stability: float = 0.8
    smallest: float = 0.05
    noise: float = 0.2
    equal: float = 0.02
    margin: float = 0.02
    splits: int = 10
    draws: int = 10
    fewest: int = 100
    most: int = 2_000
    seen: int = 1_000


@dataclass(frozen=True)
class Tried:
    """A method and how it did; NaN: not looked at, since something before it was refused.

    groups: found. silhouette: mean over the people, 0 for who is in no group. stability: see above. smallest, noise:
    shares of the people. chance: best silhouette in points without groups. refused: why it was not taken, "" if it was.
    """

    method: str
    groups: int
    silhouette: float
    stability: float
    smallest: float
    noise: float
    chance: float
    refused: str


@dataclass(frozen=True)
class Discovered:
    """What came of the search.

    personas: None where nothing passed. people: looked at. points: (n, 2), their first axes. named: (n,) the persona of
    each of them, None for none. why: in words.
    """

    personas: Personas | None
    tried: tuple[Tried, ...]
    people: int
    points: np.ndarray
    named: list[str | None]
    why: str


def latest(rows: pd.DataFrame) -> pd.DataFrame:
    """The last row of each person, by user_id."""
    return rows.sort_values(["user_id", "now_us"], kind="stable").drop_duplicates("user_id", keep="last")


def discover(
    domain: Domain,
    rows: pd.DataFrame,
    version: int | None = None,
    seed: int = 7,
    limits: Limits = Limits(),
    progress: Progress = Progress(),
    candidates: Sequence[Method] | None = None,
) -> Discovered:
    """Look for personas in feature rows (user_id, now_us and the features); labels are not looked at.

    version: of the feature service. The order of the rows does not matter.
    """
    people = _drawn(latest(rows), limits.most, seed)
    docs = {f.name: f.doc for f in behaviour(domain, version)}
    names = _telling(people, list(docs))
    if len(people) < limits.fewest or len(names) < 2:
        why = f"{len(people)} people and {len(names)} features that differ: too little to find personas in"
        return Discovered(None, (), len(people), np.empty((0, 2)), [], why)
    X = matrix(people, names)
    scale = Scale.fit(X)
    Z = scale.points(X)
    with threadpool_limits(1):  # so few points are slower on several threads, and give other bits
        found = list(_tried(Z, list(candidates or methods()), seed, limits, progress))
        tried, shape = _choose(Z, found, seed, limits)
    if shape is None:
        why = f"no personas: of {len(tried)} clusterings none is stable and clearer than chance"
        return Discovered(None, tried, len(people), Z[:, :2], [None] * len(people), why)
    won = next(t for t in tried if not t.refused)
    personas = Personas(names, scale, shape, described(X, scale, shape.nearest(Z), names, docs), won.method)
    why = f"{won.groups} personas by {won.method}: silhouette {won.silhouette:.2f}, stability {won.stability:.2f}"
    return Discovered(personas, tried, len(people), Z[:, :2], personas.many(people), why)


def _drawn(people: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    if len(people) <= most:
        return people
    return people.iloc[np.sort(np.random.default_rng(seed).permutation(len(people))[:most])]


def _telling(people: pd.DataFrame, names: list[str]) -> list[str]:
    """The features that most people have and that differ between them."""
    X = matrix(people, names)
    return [n for n, c in zip(names, X.T, strict=True) if np.isfinite(c).mean() >= KNOWN and np.ptp(c[np.isfinite(c)])]


def _tried(
    Z: np.ndarray, candidates: Sequence[Method], seed: int, limits: Limits, progress: Progress
) -> Iterator[tuple[Method, Shape, Tried]]:
    """Fit every method and look at what costs nothing: the sizes of its groups, and how clear they are."""
    progress.expect(len(candidates))
    for method in candidates:
        shape = method.fit(Z, seed)
        sized = _sized(Z, method, shape, seed, limits)
        progress.step(f"{method.name}, silhouette {sized.silhouette:.2f}")
        yield method, shape, sized


def _sized(Z: np.ndarray, method: Method, shape: Shape, seed: int, limits: Limits) -> Tried:
    groups = shape.nearest(Z)
    sizes = np.bincount(groups[groups > NOISE], minlength=shape.groups) / len(Z)
    smallest, noise = float(sizes.min(initial=1.0)), float((groups == NOISE).mean())
    clear = silhouette(Z, groups, limits.seen, seed)
    seen = Tried(method.name, shape.groups, clear, np.nan, smallest, noise, np.nan, "")
    if shape.groups < 2:
        return replace(seen, refused="no two groups")
    if smallest < limits.smallest:
        return replace(seen, refused=f"smallest share {smallest:.3f} is below {limits.smallest:g}")
    if noise > limits.noise:
        return replace(seen, refused=f"share {noise:.2f} in no group is above {limits.noise:g}")
    return seen


def _choose(
    Z: np.ndarray, found: list[tuple[Method, Shape, Tried]], seed: int, limits: Limits
) -> tuple[tuple[Tried, ...], Shape | None]:
    """The clearest stable one that is clearer than chance. Stability and chance are looked at until it is known.

    Of those whose silhouette is within `limits.equal` of the clearest stable one, the earlier, simpler one is taken.
    """
    tried = [t for _, _, t in found]
    able = sorted((i for i, t in enumerate(tried) if not t.refused), key=lambda i: -tried[i].silhouette)
    best = next((tried[i].silhouette for i in able if _is_stable(Z, found, tried, i, seed, limits)), None)
    if best is None:
        return tuple(tried), None
    won: Shape | None = None
    for i in sorted(able, key=lambda i: (max(best - limits.equal - tried[i].silhouette, 0), i)):
        if tried[i].refused:
            continue
        if won is not None:
            tried[i] = replace(tried[i], refused="not as clear")
        elif _is_stable(Z, found, tried, i, seed, limits):
            method, shape, _ = found[i]
            clear = tried[i].silhouette
            by_chance = chance(Z, method, limits, seed, enough=clear - limits.margin)
            tried[i] = replace(tried[i], chance=by_chance)
            if clear > by_chance + limits.margin:
                won = shape
            else:
                why = f"silhouette {clear:.2f} is not {limits.margin:g} above {by_chance:.2f}, that of chance"
                tried[i] = replace(tried[i], refused=why)
    return tuple(tried), won


def _is_stable(
    Z: np.ndarray, found: list[tuple[Method, Shape, Tried]], tried: list[Tried], i: int, seed: int, limits: Limits
) -> bool:
    """Whether clustering `i` is stable; what came of it is noted in `tried`, and is not asked twice."""
    if np.isnan(tried[i].stability):
        agreed = stability(Z, found[i][0], limits.splits, seed, limits.stability)
        low = f"stability {agreed:.2f} is below {limits.stability:g}" if agreed < limits.stability else ""
        tried[i] = replace(tried[i], stability=agreed, refused=low)
    return not tried[i].refused


def silhouette(Z: np.ndarray, groups: np.ndarray, most: int, seed: int) -> float:
    """Mean silhouette of at most `most` points, 0 for noise (P. Rousseeuw 1987); -1 where there are no two groups."""
    some = np.sort(np.random.default_rng(seed).permutation(len(Z))[:most])
    Z, groups = Z[some], groups[some]
    inside = groups > NOISE
    kinds = len(np.unique(groups[inside]))
    if not 2 <= kinds < inside.sum():
        return -1.0
    return float(silhouette_samples(Z[inside], groups[inside]).sum() / len(Z))


def stability(Z: np.ndarray, method: Method, splits: int, seed: int, least: float = -1.0) -> float:
    """Mean adjusted Rand index of clusterings of the halves, each assigning everybody; noise is a group of its own.

    least: no further split is made once the mean over all of them cannot reach it, even if the rest agreed wholly; then
        it is the mean over those that were made, and below `least`.
    """
    agreed: list[float] = []
    for split in range(splits):
        order = np.random.default_rng([seed, split]).permutation(len(Z))
        halves = order[: len(Z) // 2], order[len(Z) // 2 :]
        one, other = (method.fit(Z[half], seed).nearest(Z) for half in halves)
        agreed.append(adjusted_rand_score(one, other))
        if (sum(agreed) + splits - len(agreed)) / splits < least:
            break
    return float(np.mean(agreed))


def chance(Z: np.ndarray, method: Method, limits: Limits, seed: int, enough: float = np.inf) -> float:
    """The best silhouette of the method in as many points without groups; no more are drawn once it is `enough`."""
    rng = np.random.default_rng([seed, limits.draws])
    spread, low, high = Z.std(axis=0), Z.min(axis=0), Z.max(axis=0)
    best = -1.0
    for _ in range(limits.draws):
        for cloud in (rng.normal(0, spread, Z.shape), rng.uniform(low, high, Z.shape)):
            best = max(best, silhouette(cloud, method.fit(cloud, seed).nearest(cloud), limits.seen, seed))
            if best >= enough:
                return best
    return best
