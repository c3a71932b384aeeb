"""Categories become numbers that trees can split: their order, how often they go bad, or both.

Target encoding is smoothed (Micci-Barreca 2001) and, for the rows it is learned from, made out of fold, so no row sees
its own label. Learned in training, stored in the bundle, applied by the scorer: numpy only. An unseen category is
missing to an order and the mean to a target.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import Schema

KINDS = ("order", "target", "both")
ORDER_MAX = 64  # categories of an open feature above which an order says nothing
SMOOTHING = 20.0  # rows of the mean that a category starts with
FOLDS = 5

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Lookup:
    """One column of the trees made from a category. codes: float32 [k], ascending; values: float32 [k]."""

    column: int
    codes: Floats
    values: Floats
    missing: float
    unseen: float

    def __call__(self, given: Floats) -> Floats:
        """float32 [N] of the codes float32 [N] of a feature, NaN where missing."""
        out = np.full(len(given), self.unseen, dtype=np.float32)
        if len(self.codes):
            at = np.minimum(np.searchsorted(self.codes, given), len(self.codes) - 1)
            out = np.where(self.codes[at] == given, self.values[at], out)
        return np.where(np.isnan(given), np.float32(self.missing), out).astype(np.float32)


@dataclass(frozen=True)
class Encoding:
    """Columns of the trees: the model's n columns, of which `own` are replaced, then those of `extra`."""

    columns: int
    own: tuple[Lookup, ...] = ()
    extra: tuple[Lookup, ...] = ()

    @property
    def owner(self) -> NDArray[np.int64]:
        """int64 [m]: the model's column that each column of the trees comes from."""
        return np.array([*range(self.columns), *(x.column for x in self.extra)], dtype=np.int64)

    def __call__(self, rows: Floats) -> Floats:
        """float32 [N, m] of the model's columns float32 [N, n]."""
        if not self.own and not self.extra:
            return rows
        out = np.empty((len(rows), self.columns + len(self.extra)), dtype=np.float32)
        out[:, : self.columns] = rows
        for lookup in self.own:
            out[:, lookup.column] = lookup(rows[:, lookup.column])
        for i, lookup in enumerate(self.extra):
            out[:, self.columns + i] = lookup(rows[:, lookup.column])
        return out

    def pack(self) -> bytes:
        """As a compressed .npz."""
        packed = io.BytesIO()
        arrays: dict[str, Any] = {"columns": np.array(self.columns)}
        for kind, lookups in (("own", self.own), ("extra", self.extra)):
            for i, x in enumerate(lookups):
                arrays[f"{kind}_{i}"] = np.stack([x.codes, x.values])
                arrays[f"{kind}_{i}_rest"] = np.array([x.column, x.missing, x.unseen])
        np.savez_compressed(packed, **arrays)
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "Encoding":
        """What `pack` packed."""
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            lookups: dict[str, list[Lookup]] = {"own": [], "extra": []}
            for kind, found in lookups.items():
                while f"{kind}_{len(found)}" in arrays:
                    table, rest = arrays[f"{kind}_{len(found)}"], arrays[f"{kind}_{len(found)}_rest"]
                    found.append(Lookup(int(rest[0]), table[0], table[1], float(rest[1]), float(rest[2])))
            return cls(int(arrays["columns"]), tuple(lookups["own"]), tuple(lookups["extra"]))


class Categories:
    """The category columns of one label's model and how their texts are ordered.

    names: by feature, the text of every code of an open category that is known. `any` is False where there is no
    category to encode.
    """

    def __init__(self, schema: Schema, label: str, names: Mapping[str, Mapping[int, str]]) -> None:
        columns = schema.columns(label)
        self._width = len(columns)
        self._columns = [j for j, i in enumerate(columns) if schema.features[i].category]
        self._orders: dict[int, Lookup] = {}
        for j in self._columns:
            feature = schema.features[columns[j]]
            texts = names.get(feature.name, {})
            if not feature.values and 0 < len(texts) <= ORDER_MAX:
                in_order = sorted(texts, key=lambda code: _sort_key(texts[code]))
                codes = np.array(sorted(texts), dtype=np.float32)
                ranks = np.array([in_order.index(code) for code in sorted(texts)], dtype=np.float32)
                self._orders[j] = Lookup(j, codes, ranks, np.nan, np.nan)
        self._ordered = {j for j in self._columns if schema.features[columns[j]].values or j in self._orders}
        # A direction is kept over the order of the values: how often one goes bad would not keep it.
        self._bound = {j for j in self._columns if schema.features[columns[j]].monotone.get(label)}
        self.any = bool(self._columns)

    def fit(self, kind: str, rows: Floats, labels: NDArray[np.int8], seed: int) -> tuple[Encoding, Floats]:
        """An encoding of `kind` learned from rows float32 [N, n], and these encoded [N, m], targets out of fold."""
        targets = [j for j in self._columns if j not in self._bound and (kind != "order" or j not in self._ordered)]
        extra = [j for j in targets if kind == "both" and j in self._ordered]
        keep = {j for j in self._ordered if kind != "target" or j in self._bound}

        def learned(chosen: NDArray[np.bool_]) -> Encoding:
            prior = (labels[chosen].sum() + 0.5) / (chosen.sum() + 1.0)
            target = {j: _target(j, rows[chosen, j], labels[chosen], prior) for j in targets}
            own = [self._orders[j] for j in keep if j in self._orders]
            own += [target[j] for j in targets if j not in keep]
            return Encoding(self._width, tuple(own), tuple(target[j] for j in extra))

        encoding = learned(np.ones(len(rows), dtype=np.bool_))
        encoded = encoding(rows)
        if targets:
            fold = np.random.default_rng(seed).permutation(len(rows)) % FOLDS
            for k in range(FOLDS):
                encoded[fold == k] = learned(fold != k)(rows[fold == k])
        return encoding, encoded


def _target(column: int, given: Floats, labels: NDArray[np.int8], prior: float) -> Lookup:
    """Log-odds of each category, drawn to the mean by SMOOTHING rows."""

    def log_odds(bad: NDArray[Any], count: NDArray[Any]) -> NDArray[np.float64]:
        rate = (bad + SMOOTHING * prior) / (count + SMOOTHING)
        return np.asarray(np.log(rate / (1 - rate)))

    missing = np.isnan(given)
    codes, at = np.unique(given[~missing], return_inverse=True)
    count = np.bincount(at, minlength=len(codes)).astype(np.float64)
    bad = np.bincount(at, weights=labels[~missing], minlength=len(codes))
    of_missing = log_odds(labels[missing].sum(keepdims=True), missing.sum(keepdims=True))
    mean = float(np.log(prior / (1 - prior)))
    return Lookup(column, codes, log_odds(bad, count).astype(np.float32), float(of_missing[0]), mean)


def _sort_key(text: str) -> tuple[int, float, str]:
    """Numbers as numbers, before texts."""
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text
