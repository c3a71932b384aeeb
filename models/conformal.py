"""Quantiles made to hold: conformalised quantile regression (Romano, Patterson & Candès 2019), each quantile by itself.

A model's quantiles are shifted, group by group, until of later rows, which it has not learned from, the share below
each is what it says. Their asymmetric form: money is lent against the lower one, which must hold alone.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.1, 0.5, 0.9)
GROUP_MIN = 100  # rows from which a group is shifted by itself, and without which it is not known

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Conformal:
    """offsets: by group, what is added to each of QUANTILES; None for a group that is not known."""

    offsets: tuple[tuple[float, ...] | None, ...]

    def __call__(self, quantiles: Doubles, groups: Ints) -> Doubles:
        """float64 [N, 3] of a model's [N, 3], in ascending order; NaN where the group, int64 [N], is not known.

        Sorting keeps monotone what is monotone.
        """
        shifted = quantiles + self._table[groups]
        shifted.sort(axis=1)
        return shifted

    @cached_property
    def _table(self) -> Doubles:
        unknown = (np.nan,) * len(QUANTILES)
        return np.array([unknown if known is None else known for known in self.offsets])


def fit(quantiles: Doubles, given: Doubles, groups: Ints, known: NDArray[np.bool_]) -> Conformal:
    """The shifts that make quantiles [N, 3] hold of the numbers given [N]; known: bool [groups].

    A known group of few rows is shifted as all of them together.
    """
    offsets: list[tuple[float, ...] | None] = [None] * len(known)
    for group in np.flatnonzero(known):
        mine = groups == group
        some = mine if mine.sum() >= GROUP_MIN else np.isin(groups, np.flatnonzero(known))
        offsets[group] = _offsets(quantiles[some], given[some])
    return Conformal(tuple(offsets))


def _offsets(quantiles: Doubles, given: Doubles) -> tuple[float, ...]:
    """Of n errors the one that a further row's lies beyond no more often than said: of n + 1, rounded to be safe."""
    errors, count = np.sort(given[:, None] - quantiles, axis=0), len(given)
    ranks = [np.floor(q * (count + 1)) if q < 0.5 else np.ceil(q * (count + 1)) for q in QUANTILES]
    return tuple(float(errors[int(np.clip(rank, 1, count)) - 1, i]) for i, rank in enumerate(ranks))
