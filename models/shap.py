"""Exact contributions of features to a forest's margin (R2, R22).

Path-dependent TreeSHAP (Lundberg et al. 2020): a leaf's value is shared among the features on its path. A tree is cut
into blocks, each a subtree of at most 3 levels with the splits above it; for every answer to a block's splits the
contributions are computed once, when the tables are built, so that explaining a row is one lookup a block.
Invariant: contributions and `bias` sum to the margin.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

DEPTH_MAX = 6
BLOCK_LEVELS = 3

Ints = NDArray[np.int32]
Indices = NDArray[np.uint32]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Forest:
    """Trees as flat arrays over all nodes.

    roots: int32 [trees]. left, right: int32 [nodes], -1 at a leaf. feature: int32 [nodes], column of the row.
    threshold: float32 [nodes]; x < threshold goes left, NaN goes left where default_left, bool [nodes].
    value: float32 [nodes], log-odds of a leaf. cover: float32 [nodes], training weight. base: log-odds of no tree.
    """

    roots: Ints
    left: Ints
    right: Ints
    feature: Ints
    threshold: Floats
    default_left: NDArray[np.bool_]
    value: Floats
    cover: Floats
    base: float

    def pack(self) -> bytes:
        """As a compressed .npz."""
        packed = io.BytesIO()
        np.savez_compressed(packed, **vars(self))
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "Forest":
        """What `pack` packed."""
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "base": float(fields["base"])})


class Explainer:
    """Tables of a forest; ValueError if a tree is deeper than 6 or a threshold is no finite number."""

    def __init__(self, forest: Forest, columns: int) -> None:
        self._columns = columns
        blocks = [b for root in forest.roots for b in _blocks(forest, int(root), ())]
        self._splits = _starts([len(b.splits) for b in blocks])
        self._nodes = nodes = np.array([n for b in blocks for n in b.splits], dtype=np.int64)
        self._threshold = forest.threshold[nodes]
        if not np.isfinite(self._threshold).all():
            raise ValueError("a threshold is no finite number")
        self._asked = (2 * forest.feature[nodes] + forest.default_left[nodes]).astype(np.uint32)  # see _explain
        uniques = [sorted({int(forest.feature[n]) for n in b.splits}) for b in blocks]
        self._columns_at = _starts([len(u) for u in uniques])
        self._column = np.array([c for u in uniques for c in u], dtype=np.uint32)
        self._tables_at = _starts([len(u) << len(b.splits) for b, u in zip(blocks, uniques, strict=True)])
        self._table = np.zeros(int(self._tables_at[-1]), dtype=np.float32)
        self.bias = forest.base
        for i, (block, unique) in enumerate(zip(blocks, uniques, strict=True)):
            table = self._table[self._tables_at[i] : self._tables_at[i + 1]].reshape(-1, max(len(unique), 1))
            self.bias += _fill_block(forest, block, unique, table)

    @property
    def tables(self) -> dict[str, NDArray[Any]]:
        """What `contributions` reads, by block: its splits (nodes of the forest), the columns they test, its table.

        A table [answers, columns] has a line for each combination of answers, a bit each split, 1 where it goes left.
        """
        return {
            "split_at": self._splits, "split": self._nodes, "columns_at": self._columns_at, "column": self._column,
            "table_at": self._tables_at, "table": self._table,
        }  # fmt: skip

    def contributions(self, rows: Floats) -> Doubles:
        """float64 [B, n] log-odds each feature of float32 [B, n] rows adds to the margin."""
        out = np.zeros((len(rows), self._columns))
        _explain(
            np.ascontiguousarray(rows), self._splits, self._asked, self._threshold, self._columns_at, self._column,
            self._tables_at, self._table, out,
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class _Block:
    """The splits of a block, nodes from the root down, and its leaves: each the (bit of split, goes left) above it."""

    splits: tuple[int, ...]
    leaves: tuple[tuple[int, tuple[tuple[int, bool], ...]], ...]


def _starts(sizes: Sequence[int]) -> Indices:
    """Where each of some parts in a row begins, and the end."""
    return np.cumsum([0, *sizes], dtype=np.uint32)  # unsigned: an index that may be negative costs a test each


def _height(forest: Forest, node: int) -> int:
    if forest.left[node] < 0:
        return 0
    return 1 + max(_height(forest, int(forest.left[node])), _height(forest, int(forest.right[node])))


def _blocks(forest: Forest, node: int, above: tuple[tuple[int, bool], ...]) -> list[_Block]:
    height = _height(forest, node)
    if len(above) + height > DEPTH_MAX:
        raise ValueError(f"a tree is deeper than {DEPTH_MAX}")
    if height <= BLOCK_LEVELS:
        splits = [n for n, _ in above]
        leaves: list[tuple[int, tuple[tuple[int, bool], ...]]] = []
        _walk(forest, node, tuple((i, left) for i, (_, left) in enumerate(above)), splits, leaves)
        return [_Block(tuple(splits), tuple(leaves))]
    left, right = int(forest.left[node]), int(forest.right[node])
    return [*_blocks(forest, left, (*above, (node, True))), *_blocks(forest, right, (*above, (node, False)))]


def _walk(
    forest: Forest, node: int, path: tuple[tuple[int, bool], ...], splits: list[int],
    leaves: list[tuple[int, tuple[tuple[int, bool], ...]]],
) -> None:  # fmt: skip
    if forest.left[node] < 0:
        leaves.append((node, path))
        return
    bit = len(splits)
    splits.append(node)
    _walk(forest, int(forest.left[node]), (*path, (bit, True)), splits, leaves)
    _walk(forest, int(forest.right[node]), (*path, (bit, False)), splits, leaves)


def _fill_block(forest: Forest, block: _Block, unique: list[int], table: Floats) -> float:
    """Add the contributions of a block's leaves to its table [answers, features]; returns their mean, the bias."""
    place = {column: i for i, column in enumerate(unique)}
    mean = 0.0
    for leaf, path in block.leaves:
        bits = np.array([bit for bit, _ in path], dtype=np.int64)
        goes_left = np.array([left for _, left in path], dtype=np.bool_)
        features = [int(forest.feature[block.splits[bit]]) for bit in bits]
        on_path = list(dict.fromkeys(features))
        owner = np.array([on_path.index(f) for f in features], dtype=np.int64)
        ratios = np.ones(len(on_path))
        for step, (bit, left) in enumerate(path):
            node = block.splits[bit]
            child = forest.left[node] if left else forest.right[node]
            ratios[owner[step]] *= float(forest.cover[child]) / float(forest.cover[node])
        shares = _shares(ratios) * float(forest.value[leaf])
        _add_leaf(table, bits, goes_left, owner, np.array([place[f] for f in on_path], dtype=np.int64), shares)
        mean += float(forest.value[leaf]) * float(np.prod(ratios))
    return mean


@njit(cache=True)
def _shares(ratios: Doubles) -> Doubles:
    """Shapley values of one leaf of value 1 for every set of satisfied path features.

    ratios: float64 [m], share of training weight that each path feature lets through when it is unknown. The game:
    v(S) = Π over S of (1 if satisfied else 0) · Π over the rest of its ratio. Result float64 [2^m, m].
    """
    m = len(ratios)
    shares = np.zeros((1 << m, m))
    for satisfied in range(1 << m):
        for i in range(m):
            for subset in range(1 << m):  # features known before i
                if subset >> i & 1 or subset & ~satisfied:
                    continue
                size, worth = 0, 1.0
                for j in range(m):
                    if subset >> j & 1:
                        size += 1
                    elif j != i:
                        worth *= ratios[j]
                weight = math.gamma(size + 1) * math.gamma(m - size) / math.gamma(m + 1)
                shares[satisfied, i] += weight * worth * ((satisfied >> i & 1) - ratios[i])
    return shares


@njit(cache=True)
def _add_leaf(
    table: Floats, bits: NDArray[np.int64], goes_left: NDArray[np.bool_], owner: NDArray[np.int64],
    place: NDArray[np.int64], shares: Doubles,
) -> None:  # fmt: skip
    for answers in range(len(table)):
        satisfied = (1 << len(place)) - 1
        for step in range(len(bits)):
            if (answers >> bits[step] & 1 == 1) != goes_left[step]:
                satisfied &= ~(1 << owner[step])
        for i in range(len(place)):
            table[answers, place[i]] += shares[satisfied, i]


@njit(cache=True, nogil=True)
def _explain(
    rows: Floats, splits: Indices, asked: Indices, threshold: Floats, columns_at: Indices, column: Indices,
    tables_at: Indices, table: Floats, out: Doubles,
) -> None:  # fmt: skip
    # what a missing number answers is settled once a row: +inf is below no threshold, -inf below each
    known = np.empty(2 * rows.shape[1], np.float32)
    lines = np.empty(len(tables_at) - 1, np.uint32)
    for row in range(len(rows)):
        for i in range(rows.shape[1]):
            x = rows[row, i]
            known[2 * i] = np.inf if x != x else x
            known[2 * i + 1] = -np.inf if x != x else x
        for block in range(len(lines)):  # all lines first, so that the table's memory is waited for together
            first, answers = splits[block], np.uint32(0)
            for split in range(first, splits[block + 1]):
                answers |= np.uint32(known[asked[split]] < threshold[split]) << np.uint32(split - first)
            lines[block] = tables_at[block] + answers * (columns_at[block + 1] - columns_at[block])
        for block in range(len(lines)):
            here = columns_at[block]
            for i in range(columns_at[block + 1] - here):
                out[row, column[here + i]] += table[lines[block] + np.uint32(i)]
