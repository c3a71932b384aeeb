"""Exact reasons: the contribution of every feature to the trees' margin, and the few that count, in words (R2, R22).

The graph network's part of the log-odds is one reason, beside the features and ranked with them.

Path-dependent TreeSHAP (Lundberg et al. 2020): a leaf's value is shared among the features on its path. A tree is cut
into blocks, each a subtree of at most 3 levels with the splits above it; for every answer to a block's splits the
contributions are computed once, when the tables are built, so that explaining a row is one lookup a block.
Invariant: contributions and `bias` sum to the margin.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Reason, Snapshot
from features.graph import NEIGHBOR_COLUMNS
from features.schema import Entity, Feature, Schema

DEPTH_MAX = 6
BLOCK_LEVELS = 3

Ints = NDArray[np.int32]
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
    """Tables of a forest; ValueError if a tree is deeper than 6."""

    def __init__(self, forest: Forest, columns: int) -> None:
        self._columns = columns
        blocks = [b for root in forest.roots for b in _blocks(forest, int(root), ())]
        self._splits = np.concatenate([[0], np.cumsum([len(b.splits) for b in blocks])]).astype(np.int64)
        nodes = np.array([n for b in blocks for n in b.splits], dtype=np.int64)
        self._feature, self._threshold = forest.feature[nodes], forest.threshold[nodes]
        self._default_left = forest.default_left[nodes]
        uniques = [sorted({int(forest.feature[n]) for n in b.splits}) for b in blocks]
        self._columns_at = np.concatenate([[0], np.cumsum([len(u) for u in uniques])]).astype(np.int64)
        self._column = np.array([c for u in uniques for c in u], dtype=np.int64)
        sizes = [len(u) << len(b.splits) for b, u in zip(blocks, uniques, strict=True)]
        self._tables_at = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._table = np.zeros(int(self._tables_at[-1]), dtype=np.float32)
        self.bias = forest.base
        for i, (block, unique) in enumerate(zip(blocks, uniques, strict=True)):
            table = self._table[self._tables_at[i] : self._tables_at[i + 1]].reshape(-1, max(len(unique), 1))
            self.bias += _fill_block(forest, block, unique, table)

    def contributions(self, rows: Floats) -> Doubles:
        """float64 [B, n] log-odds each feature of float32 [B, n] rows adds to the margin."""
        out = np.zeros((len(rows), self._columns))
        _explain(
            np.ascontiguousarray(rows), self._splits, self._feature, self._threshold, self._default_left,
            self._columns_at, self._column, self._tables_at, self._table, out,
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class _Block:
    """The splits of a block, nodes from the root down, and its leaves: each the (bit of split, goes left) above it."""

    splits: tuple[int, ...]
    leaves: tuple[tuple[int, tuple[tuple[int, bool], ...]], ...]


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
    rows: Floats, splits: NDArray[np.int64], feature: Ints, threshold: Floats, default_left: NDArray[np.bool_],
    columns_at: NDArray[np.int64], column: NDArray[np.int64], tables_at: NDArray[np.int64], table: Floats, out: Doubles,
) -> None:  # fmt: skip
    for block in range(len(splits) - 1):
        first, count = splits[block], splits[block + 1] - splits[block]
        here, width = columns_at[block], columns_at[block + 1] - columns_at[block]
        for row in range(len(rows)):
            answers = np.int64(0)
            for bit in range(count):
                x = rows[row, feature[first + bit]]
                goes_left = (x < threshold[first + bit]) | ((x != x) & default_left[first + bit])  # no branch to miss
                answers |= np.int64(goes_left) << bit
            line = tables_at[block] + answers * width
            for i in range(width):
                out[row, column[here + i]] += table[line + i]


# Units worth saying after a number, in Chinese; others are in the feature's own words.
_ZH_UNITS = {"CNY": "元", "CNY/month": "元/月", "months": "个月", "days": "天", "hours": "小时", "km": "公里"}
_FLAGS = (("否", "no"), ("是", "yes"))
TIES_MAX = 3  # named in the graph network's reason
_GAP, _SAME, _FRAUD = (NEIGHBOR_COLUMNS.index(name) for name in ("gap_hours", "same_applicant", "fraud"))
# Code and words of the graph network's reason.
GRAPH_PATTERN = ("GRAPH_PATTERN", "申请与其关联网络的模式异常", "unusual pattern of the application and its network")


def feature_reasons(
    schema: Schema, columns: NDArray[np.int64], contributions: Doubles, features_row: Floats, top: int = 4,
    label: str = "",
) -> list[Reason]:  # fmt: skip
    """At most `top` features of one application that moved it towards bad, the strongest first.

    columns: int64 [n] of features_row, float32 [F]; contributions: float64 [n], log-odds of the model of `label`, which
    the evidence names. The value of a personal feature appears nowhere: reasons end in logs and records (R21).
    """
    strongest = np.argsort(-contributions, kind="stable")[:top]
    return [
        _reason(schema.features[columns[i]], float(features_row[columns[i]]), float(contributions[i]), label)
        for i in strongest
        if contributions[i] > 0
    ]


def graph_reason(schema: Schema, contribution: float, snapshot: Snapshot, row: int, label: str) -> Reason:
    """The reason of a graph network that moved the log-odds of `label` of one row of a snapshot by `contribution`.

    It reads the application together with its network and shares its answer among no columns, so what is said is whom
    the application's own neighbours tie it to.
    """
    code, zh, en = GRAPH_PATTERN
    ties = _ties(schema, snapshot.neighbor_state[row], snapshot.neighbor_mask[row])
    if not ties:
        return Reason(code, zh, en, contribution, _evidence(label, "no applications of others are tied to it"))
    said_zh, said_en, facts = zip(*(tie.words() for tie in ties), strict=True)
    evidence = _evidence(label, "; ".join(facts))
    return Reason(code, f"{zh}: {'; '.join(said_zh)}", f"{en}: {'; '.join(said_en)}", contribution, evidence)


@dataclass(frozen=True)
class _Tie:
    """What the latest `seen` applications of an entity say: how many are of others, how many of these frauds."""

    entity: Entity
    seen: int
    others: int
    frauds: int
    latest_hours: float

    def words(self) -> tuple[str, str, str]:
        """In Chinese, in English, and bare."""
        hours, name = _decimal(self.latest_hours, 1), self.entity.name
        return (
            f"同一{self.entity.zh}近{self.seen}笔申请中他人{self.others}笔, 已确认欺诈{self.frauds}笔, "
            f"最近一笔在{hours}小时前",
            f"{self.entity.en}: {self.others} of its last {self.seen} applications by others, {self.frauds} confirmed "
            f"fraud, the latest {hours} hours ago",
            f"{name} others={self.others}/{self.seen} fraud={self.frauds} latest_hours={hours}",
        )


def _ties(schema: Schema, state: Floats, mask: NDArray[np.bool_]) -> list[_Tie]:
    """The strongest at most TIES_MAX ties to others of neighbours float32 [E, K, C], bool [E, K].

    A place that many share, as a mall's Wi-Fi, is one only where a fraud is among its latest.
    """
    others = mask & (state[..., _SAME] == 0)
    found = []
    for entity in schema.entities.values():
        ties = []
        for slot in range(entity.first_slot, entity.first_slot + entity.slots):
            mine = state[slot][others[slot]]
            frauds = int(mine[:, _FRAUD].sum())
            if len(mine) and (entity.link or frauds):
                ties.append(_Tie(entity, int(mask[slot].sum()), len(mine), frauds, float(mine[:, _GAP].min())))
        found += sorted(ties, key=lambda tie: (-tie.frauds, -tie.others))[:1]
    return sorted(found, key=lambda tie: (-tie.frauds, -tie.others))[:TIES_MAX]


def _reason(feature: Feature, value: float, contribution: float, label: str) -> Reason:
    code = feature.name.upper()
    nameless = feature.category and not feature.values  # an open category's number is a code that says nothing
    if (feature.personal or nameless) and not math.isnan(value):
        return Reason(code, feature.zh, feature.en, contribution, _evidence(label, feature.name))
    zh, en, plain = _words(feature, value)
    evidence = _evidence(label, f"{feature.name}={plain}")
    return Reason(code, f"{feature.zh}: {zh}", f"{feature.en}: {en}", contribution, evidence)


def _evidence(label: str, facts: str) -> str:
    return ": ".join(part for part in (label, facts) if part)


def _words(feature: Feature, value: float) -> tuple[str, str, str]:
    """A value in Chinese, in English, and bare."""
    if math.isnan(value):
        return "缺失", "missing", "missing"
    if feature.values:
        category = feature.values[int(value)]
        return category, category, category
    number = _decimal(value, 4)
    if feature.unit == "flag" and value in (0, 1):
        return (*_FLAGS[int(value)], number)
    if feature.unit == "rate":
        return (percent := f"{_decimal(100 * value, 2)}%"), percent, number
    if feature.unit in _ZH_UNITS:
        return number + _ZH_UNITS[feature.unit], f"{number} {feature.unit}", number
    return number, number, number


def _decimal(value: float, digits: int) -> str:
    return np.format_float_positional(round(value, digits), trim="-")
