"""The graph network on the CPU: one application after another through a compiled loop.

ONNX Runtime takes longer to call a hundred operators than they take for a few rows; and of an application most slots
and neighbours are empty, which a loop passes over. The network is that of models/gnn.py, which says what it computes;
its ONNX stays in the bundle, for a device and to be compared with.
Invariant: a row's answer does not depend on the batch it came in.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
_LOOP = {"reassoc", "nsz", "contract"}  # sums may be taken in vectors; NaN and infinity keep their meaning


@dataclass(frozen=True)
class Weights:
    """A GNN's parameters, float32 but for own_columns, int64 [n]. d is its width, H its heads, E slots, S statistics, C
    columns of a neighbour, T time scales; a map of m numbers and their is-missing flags has 2 m rows.

    own [2 n, d], own_bias [d]; entity [2 S, d], slot_bias [E, d]; neighbor [2 C + T, d], neighbor_bias [d], decay [T];
    look, gather [d, H d], look_bias, gather_bias [H d]; ties [E, H d]; entity_merge, merge [H d, d], merge_bias [d];
    norm, norm_bias [d]; hidden [d, d], hidden_bias [d]; head [d]; norm_epsilon, score_limit, head_bias [1].
    """

    own_columns: NDArray[np.int64]
    own: Floats
    own_bias: Floats
    entity: Floats
    slot_bias: Floats
    neighbor: Floats
    neighbor_bias: Floats
    decay: Floats
    look: Floats
    look_bias: Floats
    ties: Floats
    entity_merge: Floats
    gather: Floats
    gather_bias: Floats
    merge: Floats
    merge_bias: Floats
    norm: Floats
    norm_bias: Floats
    norm_epsilon: Floats
    hidden: Floats
    hidden_bias: Floats
    head: Floats
    head_bias: Floats
    score_limit: Floats

    def pack(self) -> bytes:
        """As a compressed .npz."""
        packed = io.BytesIO()
        np.savez_compressed(packed, **vars(self))
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> "Weights":
        """What `pack` packed. Raises ValueError where the shapes do not fit together."""
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            weights = cls(**{name: np.ascontiguousarray(arrays[name]) for name in cls.__dataclass_fields__})
        weights._check()
        return weights

    def _check(self) -> None:
        d, wide, slots, scales = len(self.own_bias), len(self.look_bias), len(self.slot_bias), len(self.decay)
        shapes = {
            "own_columns": (len(self.own_columns),), "own": (2 * len(self.own_columns), d), "own_bias": (d,),
            "entity": (len(self.entity) // 2 * 2, d), "slot_bias": (slots, d),
            "neighbor": ((len(self.neighbor) - scales) // 2 * 2 + scales, d), "neighbor_bias": (d,),
            "decay": (scales,), "look": (d, wide), "look_bias": (wide,), "ties": (slots, wide),
            "entity_merge": (wide, d), "gather": (d, wide), "gather_bias": (wide,), "merge": (wide, d),
            "merge_bias": (d,), "norm": (d,), "norm_bias": (d,), "norm_epsilon": (1,), "hidden": (d, d),
            "hidden_bias": (d,), "head": (d,), "head_bias": (1,), "score_limit": (1,),
        }  # fmt: skip
        for name, shape in shapes.items():
            array, dtype = getattr(self, name), np.int64 if name == "own_columns" else np.float32
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name}: {array.dtype} {array.shape}, must be {np.dtype(dtype)} {shape}")
        if wide % d or self.own_columns.min(initial=0) < 0:
            raise ValueError("look: its width is no multiple of the network's, or own_columns: one is below 0")


class Attention:
    """A graph network ready to be asked, as models.device.Network is. inputs: names, as of fields of Snapshot."""

    inputs = ("features", "entity_state", "neighbor_state", "neighbor_mask")

    def __init__(self, weights: Weights) -> None:
        self._weights = tuple(vars(weights).values())
        self._columns = int(weights.own_columns.max(initial=-1)) + 1
        self._slots, self._stats = len(weights.slot_bias), len(weights.entity) // 2
        self._neighbor = (len(weights.neighbor) - len(weights.decay)) // 2

    def run(self, given: Mapping[str, NDArray[Any]]) -> Doubles:
        """float64 [B] logits of arrays [B, F], [B, E, S], [B, E, K, C] and bool [B, E, K] by name. Raises ValueError
        for other shapes.
        """
        arrays = [given[name] for name in self.inputs]
        features, _, state, _ = [array.shape for array in arrays]
        rows, fanout = features[0], state[2]
        wanted = [
            (rows, max(features[1], self._columns)), (rows, self._slots, self._stats),
            (rows, self._slots, fanout, self._neighbor), (rows, self._slots, fanout),
        ]  # fmt: skip
        for name, array, shape in zip(self.inputs, arrays, wanted, strict=True):
            if array.shape != shape:
                raise ValueError(f"{name}: shape {array.shape}, must be {shape}")
        # another layout, or memory that may not be written, would be compiled anew, in the middle of a batch
        plain = [array if array.flags.carray else array.copy() for array in arrays]
        out = np.empty(rows)
        _forward(*plain, self._weights, out)  # type: ignore[call-arg]
        return out


@njit(cache=True, nogil=True, fastmath=_LOOP)
def _forward(features, entity_state, neighbor_state, neighbor_mask, weights, out):  # type: ignore[no-untyped-def]
    (
        own_columns, own_map, own_bias, entity_map, slot_bias, neighbor_map, neighbor_bias, decay, look, look_bias,
        ties, entity_merge, gather, gather_bias, merge, merge_bias, norm, norm_bias, norm_epsilon, hidden_map,
        hidden_bias, head, head_bias, score_limit,
    ) = weights  # fmt: skip
    width, wide, limit = len(own_bias), len(look_bias), score_limit[0]
    slots, stats = entity_state.shape[1:]
    fanout, columns = neighbor_state.shape[2:]
    own, entity, neighbor = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    asked, linking = np.empty(wide, np.float32), np.empty(wide, np.float32)
    seen, linked = np.empty(wide, np.float32), np.empty(wide, np.float32)
    seen_weight, linked_weight = np.empty(wide // width, np.float32), np.empty(wide // width, np.float32)
    for row in range(len(features)):
        own[:] = own_bias
        for n in range(len(own_columns)):
            _take(features[row, own_columns[n]], n, len(own_columns), own_map, own)
        _relu(own)
        linking[:] = gather_bias
        _flow(own, gather, linking)
        linked[:], linked_weight[:] = 0, 0
        for slot in range(slots):
            known = False
            for s in range(stats):
                known = known or entity_state[row, slot, s] == entity_state[row, slot, s]
            if not known:  # nobody is there
                continue
            for i in range(width):
                entity[i] = own[i] + slot_bias[slot, i]
            for s in range(stats):
                _take(entity_state[row, slot, s], s, stats, entity_map, entity)
            seen[:], seen_weight[:] = 0, 0
            looked = False
            for k in range(fanout):
                if not neighbor_mask[row, slot, k]:
                    continue
                if not looked:
                    asked[:], looked = look_bias, True
                    _flow(entity, look, asked)
                neighbor[:] = neighbor_bias
                for c in range(columns):
                    _take(neighbor_state[row, slot, k, c], c, columns, neighbor_map, neighbor)
                gap = neighbor_state[row, slot, k, 0]
                for t in range(len(decay)):
                    _add(np.exp(gap * decay[t]), neighbor_map[2 * columns + t], neighbor)
                _relu(neighbor)
                _attend(asked, neighbor, limit, seen, seen_weight)
            if looked:
                _settle(seen, seen_weight, width)
                for i in range(wide):
                    seen[i] *= ties[slot, i]
                _flow(seen, entity_merge, entity)
            _relu(entity)
            _attend(linking, entity, limit, linked, linked_weight)
        _settle(linked, linked_weight, width)
        for i in range(width):
            own[i] += merge_bias[i]
        _flow(linked, merge, own)
        mean = variance = 0.0
        for i in range(width):
            mean += own[i] / width
        for i in range(width):
            variance += (own[i] - mean) ** 2 / width
        scale = 1 / np.sqrt(variance + norm_epsilon[0])
        for i in range(width):
            own[i] = (own[i] - mean) * scale * norm[i] + norm_bias[i]
        neighbor[:] = hidden_bias
        _flow(own, hidden_map, neighbor)
        _relu(neighbor)
        logit = np.float64(head_bias[0])
        for i in range(width):
            logit += neighbor[i] * head[i]
        out[row] = logit


@njit(inline="always")
def _take(number, n, count, weights, out):  # type: ignore[no-untyped-def]
    """Add what number `n` of `count` says: compressed as models.gnn.compress does, or that it is missing."""
    if number == number:
        root = np.sqrt(np.sqrt(np.sqrt(np.float32(1) + abs(number)))) - np.float32(1)
        if root != 0:
            _add(root if number > 0 else -root, weights[n], out)
    else:
        _add(np.float32(1), weights[count + n], out)


@njit(inline="always")
def _add(x, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] += x * weights[i]


@njit(inline="always")
def _flow(items, weights, out):  # type: ignore[no-untyped-def]
    for i in range(len(items)):
        if items[i] != 0:  # as many are behind a relu
            _add(items[i], weights[i], out)


@njit(inline="always")
def _relu(out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = max(out[i], np.float32(0))


@njit(inline="always")
def _attend(asked, item, limit, total, weight):  # type: ignore[no-untyped-def]
    """Add an item to what each head sees, and its weight."""
    width = len(item)
    for head in range(len(weight)):
        score = np.float32(0)
        for i in range(width):
            score += asked[head * width + i] * item[i]
        score = min(max(score / np.float32(np.sqrt(width)), -limit), limit)
        w = np.float32(np.exp(score))
        weight[head] += w
        for i in range(width):
            total[head * width + i] += w * item[i]


@njit(inline="always")
def _settle(total, weight, width):  # type: ignore[no-untyped-def]
    """A weighted mean, with a null item of score 0."""
    for i in range(len(total)):
        total[i] /= np.float32(1) + weight[i // width]
