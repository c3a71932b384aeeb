"""A bounded search for trees: candidates from a seeded list, screened on few folds, the best fitted on all.

Folds are of the rows given, nothing else is looked at: a test part outside cannot leak in. By time, each fold fits on
what is earlier than what it validates. The same rows and seed give the same trees, unless the time allowed runs out,
which the findings then say.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from models import trees
from models.encode import KINDS, Categories, Encoding
from models.evaluate import auc
from models.shap import Forest
from models.trees import TreesConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Pair = tuple[Ints, Ints]  # rows to fit on, rows to validate

FOLDS = 5
SMALL_ROWS = 12_000  # up to here a candidate is screened on every fold, beyond on two
SCREEN_ROWS = 30_000  # rows that screening fits on at most
RANDOM_CANDIDATES = 6
FINALISTS = 3
BLEND_GAIN = 0.0005  # AUC by which several candidates together must beat the best alone
REFIT_SEEDS = 3
WORKERS = min(2, os.cpu_count() or 1)

CANDIDATES = (
    TreesConfig(),
    TreesConfig(depth=3),
    TreesConfig(depth=2, learning_rate=0.08),
    TreesConfig(min_child_weight=0.3, row_share=0.9, column_share=0.8, l2=1.0),
    TreesConfig(depth=5, learning_rate=0.04, min_child_weight=20.0, column_share=0.4, l2=10.0),
    TreesConfig(depth=3, min_child_weight=1.0, row_share=0.6, column_share=0.3, l2=1.0),
)


STEPS_MAX = len(CANDIDATES) + RANDOM_CANDIDATES + 2 * (len(KINDS) - 1)


def _bounded(boosters: list[xgboost.Booster], trees_max: int) -> list[xgboost.Booster]:
    """The first boosters with at most that many trees together, one at least; all where there is no limit."""
    sizes = np.cumsum([booster.num_boosted_rounds() for booster in boosters])
    return boosters[: max(1, int((sizes <= trees_max).sum()))] if trees_max else boosters


@dataclass(frozen=True)
class Found:
    """The trees of one label over the columns of `encoding`.

    margins: float64 [N] log-odds of rows by trees that had not seen them, NaN of the others. configs: those that the
    forest was fitted with; findings: what the manifest says of the search.
    """

    encoding: Encoding
    forest: Forest
    margins: NDArray[np.float64]
    configs: tuple[TreesConfig, ...]
    findings: dict[str, Any]


def stratified_pairs(labels: NDArray[np.int8], seed: int) -> list[Pair]:
    """Each fold of `FOLDS` validated once; fewer where a class has fewer rows."""
    folds = max(2, min(FOLDS, int(labels.sum()), int((1 - labels).sum())))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    return [(np.asarray(fit, np.int64), np.asarray(validation, np.int64)) for fit, validation in split]


def forward_pairs(labels: NDArray[np.int8], times: NDArray[np.int64], bounds: Sequence[int]) -> list[Pair]:
    """The rows from each bound, a time, up to the next validated on all before; [] unless the last pair can be."""
    pairs: list[Pair] = []
    for start, end in pairwise(bounds):
        pair = np.flatnonzero(times < start), np.flatnonzero((times >= start) & (times < end))
        usable = all(len(np.unique(labels[part])) == 2 for part in pair)
        pairs = [*pairs, pair] if usable else pairs if end != bounds[-1] else []
    return pairs


class Search:
    """A search over one label's rows float32 [N, n] and labels int8 [N]."""

    def __init__(
        self, rows: Floats, labels: NDArray[np.int8], pairs: Sequence[Pair], categories: Categories,
        constraints: tuple[int, ...], seed: int, seconds: float, progress: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._rows, self._labels, self._pairs = rows, labels, list(pairs)
        self._categories, self._constraints, self._seed = categories, constraints, seed
        self._until, self._progress = time.monotonic() + seconds, progress
        self._matrices: dict[tuple[str, int, int], tuple[xgboost.DMatrix, xgboost.DMatrix, Floats]] = {}
        self.trials: list[dict[str, Any]] = []

    def run(
        self, learned: Ints | None = None, trees_max: int = 0, finalists: Sequence[TreesConfig] | None = None
    ) -> Found:
        """The best trees, fitted anew on the rows `learned`, int64 [n]; None: the folds' trees vote.

        With `learned` the margins are of all other rows by these trees, else of validated rows by the other folds'.
        `trees_max` (0: no limit) bounds how many trees are kept, one member's at least. `finalists`, of one encoding,
        are found by screening the candidates unless given.
        """
        finalists = finalists or self._screen()
        fitted = [self._fit_all(config) for config in finalists]
        order = sorted(range(len(fitted)), key=lambda i: -self._auc(fitted[i][1]))
        chosen = [order[0]]
        for count in range(2, len(order) + 1):
            together = np.mean([fitted[i][1] for i in order[:count]], axis=0)
            best = np.mean([fitted[i][1] for i in chosen], axis=0)
            if self._auc(together) >= self._auc(best) + BLEND_GAIN:
                chosen = order[:count]
        kind = finalists[0].encoding
        margins = np.mean([fitted[i][1] for i in chosen], axis=0)
        findings = {
            "trials": self.trials, "stopped_by_time": time.monotonic() > self._until, "auc": self._auc(margins),
        }  # fmt: skip
        rows = np.arange(len(self._rows)) if learned is None else learned
        encoding, encoded = self._categories.fit(kind, self._rows[rows], self._labels[rows], self._seed)
        boosters = [booster for i in chosen for booster in fitted[i][0]]
        if learned is not None:
            matrix, width = trees.matrix(encoded, self._labels[rows]), encoded.shape[1]
            boosters = [b for i in chosen for b in self._refit(finalists[i], fitted[i][0], matrix, width)]
            others = np.setdiff1d(np.arange(len(self._rows)), learned)
            later = encoding(self._rows[others])
            boosters = _bounded(boosters, trees_max)
            margins = np.full(len(self._rows), np.nan)
            margins[others] = np.mean([trees.margins(booster, later) for booster in boosters], axis=0)
        forest = trees.merge([trees.to_forest(b) for b in _bounded(boosters, trees_max)])
        return Found(encoding, forest, margins, tuple(finalists[i] for i in chosen), findings)

    def _screen(self) -> list[TreesConfig]:
        """The candidates worth fitting on all folds, the best first, all of one encoding."""
        kinds = KINDS if self._categories.any else KINDS[:1]
        first = [replace(config, encoding=kind) for kind in kinds for config in (CANDIDATES[0], CANDIDATES[3])]
        scored = [(self._screened(config), config) for config in first if self._may_go_on(bool(self.trials))]
        kind = max(scored, key=lambda pair: pair[0])[1].encoding
        random = np.random.default_rng(self._seed)
        others = [*CANDIDATES, *(_random_config(random) for _ in range(RANDOM_CANDIDATES))]
        for config in (replace(c, encoding=kind) for c in others):
            if self._may_go_on(True) and config not in first:
                scored.append((self._screened(config), config))
        best = sorted((pair for pair in scored if pair[1].encoding == kind), key=lambda pair: -pair[0])
        return [config for _, config in best[: FINALISTS if self._may_go_on(True) else 1]]

    def _may_go_on(self, has_one: bool) -> bool:
        return not has_one or time.monotonic() < self._until

    def _screened(self, config: TreesConfig) -> float:
        self._progress(f"candidate {len(self.trials) + 1}: {config}")
        pairs = range(len(self._pairs) if len(self._rows) <= SMALL_ROWS else min(2, len(self._pairs)))
        with ThreadPoolExecutor(WORKERS) as pool:
            found = list(pool.map(lambda i: self._fit(config, i, SCREEN_ROWS)[1], pairs))
        parts = [(self._labels[self._pairs[i][1]], margin) for i, margin in zip(pairs, found, strict=True)]
        figure = float(np.mean([auc(labels, margin) for labels, margin in parts]))
        self.trials.append({"config": asdict(config), "auc": figure})
        return figure

    def _fit_all(self, config: TreesConfig) -> tuple[list[xgboost.Booster], NDArray[np.float64]]:
        margins = np.full(len(self._rows), np.nan)
        with ThreadPoolExecutor(WORKERS) as pool:
            fitted = list(pool.map(lambda i: self._fit(config, i, len(self._rows)), range(len(self._pairs))))
        for (_, validation), (_, margin) in zip(self._pairs, fitted, strict=True):
            margins[validation] = margin
        return [booster for booster, _ in fitted], margins

    def _fit(self, config: TreesConfig, pair: int, rows_max: int) -> tuple[xgboost.Booster, NDArray[np.float64]]:
        """Trees of one fold and the margins of its validation rows."""
        fit, validation, later = self._matrix(config.encoding, pair, rows_max)
        booster = trees.fit(config, self._seed + pair, self._all_constraints(later.shape[1]), fit, validation)
        return booster, trees.margins(booster, later)

    def _matrix(self, kind: str, pair: int, rows_max: int) -> tuple[xgboost.DMatrix, xgboost.DMatrix, Floats]:
        fit, validation = self._pairs[pair]
        key = (kind, pair, min(rows_max, len(fit)))
        if key not in self._matrices:
            if len(fit) > rows_max:
                fit = np.sort(np.random.default_rng(self._seed).choice(fit, rows_max, replace=False))
            encoding, encoded = self._categories.fit(kind, self._rows[fit], self._labels[fit], self._seed)
            later = encoding(self._rows[validation])
            fitted = trees.matrix(encoded, self._labels[fit])
            self._matrices[key] = fitted, trees.matrix(later, self._labels[validation], fitted), later
        return self._matrices[key]

    def _refit(
        self, config: TreesConfig, fitted: list[xgboost.Booster], matrix: xgboost.DMatrix, width: int
    ) -> list[xgboost.Booster]:
        """Trees of a few seeds, as many as those the folds stopped at: there is nothing left to stop on."""
        rounds = float(np.mean([booster.num_boosted_rounds() for booster in fitted]))
        fixed, constraints = replace(config, rounds=max(1, round(rounds))), self._all_constraints(width)
        seeds = range(self._seed, self._seed + REFIT_SEEDS)
        with ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(lambda seed: trees.fit(fixed, seed, constraints, matrix), seeds))

    def _all_constraints(self, width: int) -> tuple[int, ...]:
        return self._constraints + (0,) * (width - len(self._constraints))

    def _auc(self, margins: NDArray[np.float64]) -> float:
        """Mean over the folds: margins of different folds do not compare where there are few trees."""
        parts = [validation for _, validation in self._pairs]
        return float(np.mean([auc(self._labels[part], margins[part]) for part in parts]))


def _random_config(random: np.random.Generator) -> TreesConfig:
    return TreesConfig(
        depth=int(random.integers(2, 6)),
        learning_rate=float(np.round(np.exp(random.uniform(np.log(0.03), np.log(0.1))), 4)),
        min_child_weight=float(np.round(np.exp(random.uniform(np.log(0.3), np.log(30))), 3)),
        row_share=float(np.round(random.uniform(0.5, 1.0), 2)),
        column_share=float(np.round(random.uniform(0.2, 1.0), 2)),
        l2=float(np.round(np.exp(random.uniform(np.log(0.5), np.log(30))), 3)),
    )
