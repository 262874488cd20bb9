"""The models that compete, behind one small interface in scikit-learn's terms.

A candidate is fitted on a frame of features and gives, for encoded rows (n, p), the log odds (n,) of the label. One
row and many go through the same code, so they give the same bits; each uses one thread, for the same result anywhere
(and because OpenMP threads that share two busy cores were measured 50 times slower than one).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

from training.encode import Encoder
from training.preprocess import Dense

if TYPE_CHECKING:
    from optuna import Trial

EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1."""


def log_odds(p: float) -> float:
    """log(p / (1 - p)), with p kept off the edges.

    >>> log_odds(0.5)
    0.0
    """
    p = min(max(p, EDGE), 1 - EDGE)
    return math.log(p / (1 - p))


def probability(odds: float) -> float:
    """The inverse of `log_odds`, within [0, 1] for any float."""
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))


class Candidate(ClassifierMixin, BaseEstimator):
    """What every competitor can do. Subclasses give `_fit`, `margins`, `_gains` and, to be tuned, `suggest`."""

    kind: ClassVar[str]
    microseconds: ClassVar[float] = math.inf
    """About how long it takes to score one person. Of candidates that predict equally well the quickest is chosen."""
    categorical: Sequence[str]
    seed: int

    def fit(self, X: pd.DataFrame, y: Any) -> Self:
        """Learn from features X (a column each; null allowed) and labels y (0 or 1). X is left as it was."""
        self.classes_ = np.array([0, 1])
        self.encoder_ = Encoder(self.categorical).fit(X)
        self._fit(self.encoder_.transform(X), np.asarray(y, dtype=np.int8))
        return self

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        """(n, 2) probabilities of label 0 and 1, before calibration."""
        p = np.array([probability(m) for m in self.margins(self.encoder_.transform(X)).tolist()])
        return np.column_stack([1 - p, p])

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        """(n,) the likelier label."""
        return (self.predict_proba(X)[:, 1] >= 0.5).astype(np.int8)

    def importance(self) -> dict[str, float]:
        """Share of each feature in what the model uses, largest first; empty where it uses none."""
        gains = self._gains()
        total = gains.sum()
        order = np.argsort(-gains, kind="stable")
        return {self.encoder_.names_[i]: float(gains[i] / total) for i in order} if total > 0 else {}

    @classmethod
    def suggest(cls, trial: "Trial") -> dict[str, Any]:
        """The parameters of one Optuna trial; none where there is nothing to tune."""
        return {}

    def margins(self, M: np.ndarray) -> np.ndarray:
        """(n,) log odds of encoded rows (n, p)."""
        raise NotImplementedError

    def _fit(self, M: np.ndarray, y: np.ndarray) -> None:
        raise NotImplementedError

    def _gains(self) -> np.ndarray:
        """(p,) what each input column is worth to the model, any unit."""
        raise NotImplementedError

    def _categories(self) -> list[tuple[int, int]]:
        return [(i, len(codes)) for i, codes in self.encoder_.codes_.items()]


class BaseRate(Candidate):
    """The share of the label in training, for everybody: what a model must beat."""

    kind = "base_rate"
    microseconds = 1

    def __init__(self, categorical: Sequence[str] = (), seed: int = 0) -> None:
        self.categorical = categorical
        self.seed = seed

    def _fit(self, M: np.ndarray, y: np.ndarray) -> None:
        self.margin_ = log_odds(float(y.mean()))

    def margins(self, M: np.ndarray) -> np.ndarray:
        """(n,) the same log odds."""
        return np.full(len(M), self.margin_)

    def _gains(self) -> np.ndarray:
        return np.zeros(len(self.encoder_.names_))


class LightGBM(Candidate):
    """Gradient-boosted trees; nulls and categories are native to it."""

    kind = "lightgbm"
    microseconds = 30

    def __init__(
        self,
        categorical: Sequence[str] = (),
        seed: int = 0,
        trees: int = 600,
        learning_rate: float = 0.03,
        leaves: int = 3,
        leaf_rows: int = 30,
        columns: float = 0.2,
        rows: float = 0.9,
        l2: float = 10.0,
    ) -> None:
        self.categorical = categorical
        self.seed = seed
        self.trees = trees
        self.learning_rate = learning_rate
        self.leaves = leaves
        self.leaf_rows = leaf_rows
        self.columns = columns
        self.rows = rows
        self.l2 = l2

    @classmethod
    def suggest(cls, trial: "Trial") -> dict[str, Any]:
        """Size and pace of the trees, and how much of the data each one sees."""
        return {
            "trees": trial.suggest_int("trees", 200, 800, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.06, log=True),
            "leaves": trial.suggest_int("leaves", 3, 12, log=True),
            "leaf_rows": trial.suggest_int("leaf_rows", 20, 150, log=True),
            "columns": trial.suggest_float("columns", 0.1, 0.5),
            "rows": trial.suggest_float("rows", 0.5, 1.0),
            "l2": trial.suggest_float("l2", 1.0, 50.0, log=True),
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True,
            "seed": self.seed, "learning_rate": self.learning_rate, "num_leaves": self.leaves,
            "min_data_in_leaf": self.leaf_rows, "feature_fraction": self.columns, "bagging_fraction": self.rows,
            "bagging_freq": 1, "lambda_l2": self.l2, "max_bin": 127, "max_cat_to_onehot": 32,
        }  # fmt: skip

    def _fit(self, M: np.ndarray, y: np.ndarray) -> None:
        import lightgbm

        data = lightgbm.Dataset(M, y, categorical_feature=list(self.encoder_.codes_), free_raw_data=True)
        self.booster_ = lightgbm.train(self._settings(), data, self.trees)

    def margins(self, M: np.ndarray) -> np.ndarray:
        """(n,) log odds: the sum of the leaves."""
        return np.asarray(self.booster_.predict(M, raw_score=True, num_threads=1))

    def contributions(self, M: np.ndarray) -> np.ndarray:
        """(n, p) what each input column added to the log odds (TreeSHAP, https://arxiv.org/abs/1802.03888)."""
        return np.asarray(self.booster_.predict(M, pred_contrib=True, num_threads=1))[:, :-1]

    def _gains(self) -> np.ndarray:
        return np.asarray(self.booster_.feature_importance("gain"), dtype=np.float64)


class Logistic(Candidate):
    """Logistic regression on prepared columns; `l1` is the share of L1 in the penalty (0: L2, 1: L1)."""

    kind = "logistic"
    microseconds = 60

    def __init__(
        self,
        categorical: Sequence[str] = (),
        seed: int = 0,
        C: float = 0.1,
        l1: float = 0.5,
        imputation: str = "median",
    ) -> None:
        self.categorical = categorical
        self.seed = seed
        self.C = C
        self.l1 = l1
        self.imputation = imputation

    @classmethod
    def suggest(cls, trial: "Trial") -> dict[str, Any]:
        """Strength and kind of the penalty, and the imputation."""
        return {
            "C": trial.suggest_float("C", 1e-3, 3.0, log=True),
            "l1": trial.suggest_categorical("l1", [0.0, 0.5, 1.0]),
            "imputation": trial.suggest_categorical("imputation", ["median", "most_frequent", "knn"]),
        }

    def _fit(self, M: np.ndarray, y: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        self.dense_ = Dense(self._categories(), self.imputation, self.seed)
        Z = self.dense_.fit_transform(M)
        model = LogisticRegression(
            C=self.C, l1_ratio=self.l1, solver="saga", tol=1e-3, max_iter=500, random_state=self.seed
        ).fit(Z, y)
        self.weights_, self.intercept_ = model.coef_[0].copy(), float(model.intercept_[0])
        self.deviations_ = Z.std(axis=0)

    def margins(self, M: np.ndarray) -> np.ndarray:
        """(n,) log odds: the weighted sum, rounded once so that it does not depend on the number of rows."""
        weighted = (self.dense_.transform(M) * self.weights_).tolist()
        return np.array([math.fsum(row) + self.intercept_ for row in weighted])

    def _gains(self) -> np.ndarray:
        gains = np.zeros(len(self.encoder_.names_))
        np.add.at(gains, self.dense_.sources_, np.abs(self.weights_) * self.deviations_)
        return gains


class RandomForest(Candidate):
    """A random forest; scored from flat arrays, because scikit-learn needs milliseconds for one row."""

    kind = "random_forest"
    microseconds = 200

    def __init__(
        self,
        categorical: Sequence[str] = (),
        seed: int = 0,
        trees: int = 100,
        depth: int = 9,
        leaf_rows: int = 15,
        columns: float = 0.25,
        imputation: str = "median",
    ) -> None:
        self.categorical = categorical
        self.seed = seed
        self.trees = trees
        self.depth = depth
        self.leaf_rows = leaf_rows
        self.columns = columns
        self.imputation = imputation

    @classmethod
    def suggest(cls, trial: "Trial") -> dict[str, Any]:
        """Depth and size of the leaves, how many columns a split looks at, and the imputation."""
        return {
            "depth": trial.suggest_int("depth", 5, 12),
            "leaf_rows": trial.suggest_int("leaf_rows", 5, 60, log=True),
            "columns": trial.suggest_float("columns", 0.1, 0.5),
            "imputation": trial.suggest_categorical("imputation", ["median", "most_frequent"]),
        }

    def _fit(self, M: np.ndarray, y: np.ndarray) -> None:
        from sklearn.ensemble import RandomForestClassifier

        self.dense_ = Dense(self._categories(), self.imputation, self.seed)
        Z = self.dense_.fit_transform(M)
        forest = RandomForestClassifier(
            self.trees, max_depth=self.depth, min_samples_leaf=self.leaf_rows, max_features=self.columns,
            max_samples=0.5, n_jobs=1, random_state=self.seed,
        ).fit(Z, y)  # fmt: skip
        self.gains_ = np.zeros(len(self.encoder_.names_))
        np.add.at(self.gains_, self.dense_.sources_, forest.feature_importances_)
        self._flatten([e.tree_ for e in forest.estimators_])

    def _flatten(self, trees: list[Any]) -> None:
        """All trees in one set of arrays; a leaf leads to itself, so that every walk has the same length."""
        self.roots_ = np.cumsum([0, *(t.node_count for t in trees[:-1])])
        own = np.arange(sum(t.node_count for t in trees))
        start = np.repeat(self.roots_, [t.node_count for t in trees])
        leaf = np.concatenate([t.children_left for t in trees]) < 0
        self.left_ = np.where(leaf, own, np.concatenate([t.children_left for t in trees]) + start)
        self.right_ = np.where(leaf, own, np.concatenate([t.children_right for t in trees]) + start)
        self.split_ = np.where(leaf, 0, np.concatenate([t.feature for t in trees]))
        self.threshold_ = np.concatenate([t.threshold for t in trees])
        self.share_ = np.concatenate([t.value[:, 0, 1] for t in trees])
        self.steps_ = max(t.max_depth for t in trees)

    def margins(self, M: np.ndarray) -> np.ndarray:
        """(n,) log odds of the mean share of label 1 in the leaves."""
        Z = self.dense_.transform(M).astype(np.float32)
        return np.concatenate([self._walk(Z[i : i + 2048]) for i in range(0, len(Z), 2048)] or [np.empty(0)])

    def _walk(self, Z: np.ndarray) -> np.ndarray:
        rows = np.arange(len(Z))[:, None]
        node = np.broadcast_to(self.roots_, (len(Z), len(self.roots_)))
        for _ in range(self.steps_):
            node = np.where(Z[rows, self.split_[node]] <= self.threshold_[node], self.left_[node], self.right_[node])
        return np.array([log_odds(math.fsum(leaves) / len(self.roots_)) for leaves in self.share_[node].tolist()])

    def _gains(self) -> np.ndarray:
        return self.gains_


KINDS: tuple[type[Candidate], ...] = (BaseRate, Logistic, RandomForest, LightGBM)
"""Every candidate, from the simplest on."""


def by_name(kind: str) -> type[Candidate]:
    """The candidate class of that name.

    Raises:
        ValueError: there is none.
    """
    for cls in KINDS:
        if cls.kind == kind:
            return cls
    raise ValueError(f"no candidate {kind!r}: there are {', '.join(c.kind for c in KINDS)}")
