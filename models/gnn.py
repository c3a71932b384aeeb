"""The graph network: an application seen through its entities, and each entity through its recent applications.

Two levels of typed attention over the dense neighbourhood of a Snapshot (after TGAT, Xu et al. 2020, and HGT, Hu et
al. 2020): neighbour applications → entity → application. Plain torch, so that it exports to ONNX; every input
transform is in the graph, which therefore takes raw Snapshot arrays. Columns the schema declares monotone for the
label are left to the trees, which guarantee it.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from features.application import Snapshot
from features.schema import Schema
from models.attention import Weights
from models.networks import GraphNetwork

INPUTS = ("features", "entity_state", "neighbor_state", "neighbor_mask")  # fields of Snapshot, in forward's order
FIT_ROWS = 1 << 16  # looked at in one go where mean and spread are taken: as float64 all would fill the memory
GAP_COLUMN = 0  # of neighbor_state: hours since that application
TIME_SCALES_HOURS = (1.0, 6.0, 24.0, 168.0, 720.0)  # where the learned decays start
SCORE_LIMIT = 15.0  # attention scores are clamped: exp stays finite in float32 without subtracting a maximum


@dataclass(frozen=True)
class GNNConfig:
    """Shapes from the schema, and sizes.

    slot_types: entity type of each slot, length E. own_columns: columns of `Snapshot.features` of the request itself.
    """

    slot_types: tuple[int, ...]
    own_columns: tuple[int, ...]
    entity_stats: int
    neighbor_columns: int
    width: int = 32
    heads: int = 2
    dropout: float = 0.1
    epochs: int = 24
    patience: int = 5
    batch: int = 256
    part: int = 4096
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    threads: int = 1  # see TreesConfig; one thread also gives the same network on a machine of more cores

    @classmethod
    def of(cls, schema: Schema, label: str, snapshot: Snapshot) -> "GNNConfig":
        """The configuration for a label; ValueError where `own_columns` has none."""
        own = own_columns(schema, label)
        if not own:
            raise ValueError(f"label {label}: no unconstrained column of the request for the graph network")
        return cls(slot_types(schema), own, snapshot.entity_state.shape[-1], snapshot.neighbor_state.shape[-1])


def slot_types(schema: Schema) -> tuple[int, ...]:
    """Entity type of each slot, length E."""
    return tuple(t for t, e in enumerate(schema.entities.values()) for _ in range(e.slots))


def own_columns(schema: Schema, label: str) -> tuple[int, ...]:
    """Columns of the request itself that the schema leaves unconstrained for the label."""
    counts = schema.counting()
    return tuple(int(i) for i in schema.columns(label) if not counts[i] and not schema.features[i].monotone.get(label))


class Intake(nn.Module):
    """Raw numbers [..., n], NaN where unknown → [..., width]: compressed, standardised, with is-missing flags."""

    mean: Tensor
    spread: Tensor

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.known = nn.Linear(columns, width)
        self.missing = nn.Linear(columns, width, bias=False)
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("spread", torch.ones(columns))

    def fit(self, numbers: Tensor) -> None:
        """Take mean and spread of each column of float32 [..., n], skipping NaN."""
        parts = torch.split(numbers.flatten(0, -2), FIT_ROWS)
        count = torch.stack([(~torch.isnan(part)).sum(0) for part in parts]).sum(0).clamp(min=1)
        mean = torch.stack([compress(part.double()).nansum(0) for part in parts]).sum(0) / count
        squares = torch.stack([((compress(part.double()) - mean) ** 2).nansum(0) for part in parts]).sum(0)
        variance = squares / count
        self.mean.copy_(mean)
        self.spread.copy_(torch.where(variance > 1e-8, variance.sqrt(), 1.0))

    def weights(self) -> tuple[Tensor, Tensor]:
        """[width, 2 n] for `compressed` numbers and their flags, and [width]. Standardising is folded in, which is
        computed once, as the network is exported; a missing number stands at -mean/spread, a constant that its flag's
        weight learns to undo.
        """
        weight = self.known.weight / self.spread
        return torch.cat([weight, self.missing.weight], -1), self.known.bias - weight @ self.mean


class Attention(nn.Module):
    """Attention of one query over n items, some absent. A null item of score 0 keeps the empty set defined.

    Keys and values are the items themselves: a linear map has just made them, so another adds little but time.
    """

    def __init__(self, width: int, heads: int, asking: int = 0) -> None:
        """`width` of the items, `asking` of the query, the same unless given."""
        super().__init__()
        self.shape = (heads, width)
        self.query = nn.Linear(asking or width, heads * width)

    def forward(self, query: Tensor, items: Tensor, present: Tensor) -> Tensor:
        """query [n, q], items [n, m, d], present float [n, 1, m], 1 or 0 → [n, H·d]."""
        asked = self.query(query).unflatten(-1, self.shape)  # [n, H, d]
        scores = (asked @ items.transpose(-1, -2)) / math.sqrt(self.shape[1])  # [n, H, m]
        weights = scores.clamp(-SCORE_LIMIT, SCORE_LIMIT).exp() * present
        # ONNX Runtime's sum takes vectors from where memory is aligned, so its last bit depends on where a row begins:
        # with this, at a multiple of 16 bytes.
        whole = nn.functional.pad(weights, (0, -items.shape[1] % 4))
        weights = weights / (1.0 + whole.sum(-1, keepdim=True))
        return torch.matmul(weights, items).flatten(-2)


class GNN(GraphNetwork):
    """Logits of one label. `slot_types` [E] and `own_columns` are constants of the exported graph."""

    inputs: ClassVar = {name: {0: "batch"} for name in INPUTS}
    slot_types: Tensor
    own_columns: Tensor

    def __init__(self, config: GNNConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.register_buffer("slot_types", torch.tensor(config.slot_types))
        self.register_buffer("own_columns", torch.tensor(config.own_columns))
        self.types = nn.Embedding(max(config.slot_types) + 1, width)
        self.ties = nn.Embedding(max(config.slot_types) + 1, config.heads * width)
        nn.init.ones_(self.ties.weight)
        self.decay = nn.Parameter(-torch.log(torch.tensor(TIME_SCALES_HOURS)))
        self.own = Intake(len(config.own_columns), width)
        self.entity = Intake(config.entity_stats, width)
        self.neighbor = Intake(config.neighbor_columns, width)
        self.recency = nn.Linear(len(TIME_SCALES_HOURS), width, bias=False)
        self.look = Attention(width, config.heads)
        self.gather = Attention(width, config.heads)
        self.entity_merge = nn.Linear(config.heads * width, width, bias=False)  # `entity` has one
        self.application_merge = nn.Linear(config.heads * width, width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, 1)

    def given(self, snapshot: Snapshot) -> tuple[Tensor, ...]:
        """As GraphNetwork.given."""
        return tuple(torch.from_numpy(np.ascontiguousarray(getattr(snapshot, name))) for name in INPUTS)

    def fit_scales(self, snapshot: Snapshot) -> None:
        """Standardise by the training rows."""
        self.own.fit(torch.from_numpy(snapshot.features[:, list(self.config.own_columns)]))
        self.entity.fit(torch.from_numpy(snapshot.entity_state))
        if snapshot.neighbor_mask.any():
            self.neighbor.fit(torch.from_numpy(snapshot.neighbor_state[snapshot.neighbor_mask]))

    def forward(self, features: Tensor, entity_state: Tensor, neighbor_state: Tensor, neighbor_mask: Tensor) -> Tensor:
        """Snapshot arrays: [B, F], [B, E, S], [B, E, K, C], bool [B, E, K] → logits [B]."""
        slots, stats, own_width = len(self.slot_types), entity_state.shape[-1], len(self.own_columns)
        given = torch.cat([features.index_select(1, self.own_columns), entity_state.flatten(1)], 1)
        # One made-up application goes along: ONNX Runtime multiplies a single row by another routine than several
        # rows, which would make the last bit of an answer depend on who else was in the batch. So below, B is one more.
        given = torch.cat([given, torch.zeros(1, own_width + slots * stats, device=given.device)])
        numbers, missing = compressed(given)  # together: to call an operator costs more than what it does to few rows
        both = torch.cat([numbers[:, :own_width], missing[:, :own_width]], 1)
        own = nn.functional.linear(both, *self.own.weights()).relu()  # [B, d]
        unknown = missing[:, own_width:].reshape(-1, stats)  # [B·E, S]
        both = torch.cat([numbers[:, own_width:].reshape(-1, stats), unknown], 1)
        weight, bias = self.entity.weights()
        around = own.unsqueeze(1) + (self.types(self.slot_types) + bias)  # [B, E, d]
        entity = torch.addmm(around.flatten(0, 1), both, weight.t())  # [B·E, d]
        entity = self._look(entity, neighbor_state.flatten(0, 1), neighbor_mask.flatten(0, 1))
        entity = self.dropout(entity.relu()).unflatten(0, (-1, slots))  # [B, E, d]
        present = 1.0 - unknown.amin(-1).reshape(-1, 1, slots)
        linked = self.gather(own, entity, present)
        application = self.norm(own + self.application_merge(linked))
        hidden = self.dropout(self.hidden(application).relu())
        logit: Tensor = self.head(hidden)
        return logit[:-1, 0]

    def _look(self, entity: Tensor, neighbor_state: Tensor, neighbor_mask: Tensor) -> Tensor:
        """Entities [n, d] and what they see of the neighbours [N, K, C], bool [N, K], of the first N of them. Most have
        none. The M that have are taken out, worked on and put back, and a made-up one with them, so that none is alone.
        """
        present = neighbor_mask.to(entity.dtype)
        some = torch.cat([present.amax(-1).nonzero().flatten(), torch.tensor([-1], device=entity.device)])
        state, mine = neighbor_state[some], entity[some]  # [M, K, C], [M, d]
        numbers, missing = compressed(state)
        decays = torch.exp(state[..., GAP_COLUMN : GAP_COLUMN + 1] @ -self.decay.exp().unsqueeze(0))  # [M, K, scales]
        weight, bias = self.neighbor.weights()
        both = torch.cat([numbers, missing, decays], -1).flatten(0, 1)
        neighbor = nn.functional.linear(both, torch.cat([weight, self.recency.weight], -1), bias).relu()
        neighbor = neighbor.reshape(*state.shape[:2], -1)  # [M, K, d]
        seen = self.look(mine, neighbor, present[some].unsqueeze(1))
        seen = seen * self.ties(self.slot_types)[some % len(self.slot_types)]
        return entity.index_put((some,), torch.addmm(mine, seen, self.entity_merge.weight.t()))


def compressed(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Of numbers [..., n]: compressed, 0 where NaN, and 1 where NaN."""
    missing = torch.isnan(numbers)
    return compress(torch.where(missing, 0.0, numbers)), missing.to(numbers.dtype)


def compress(numbers: Tensor) -> Tensor:
    """Signed eighth root of 1 + |x|, less 1: close to a logarithm over the range of money, counts and hours.

    IEEE 754 rounds a square root exactly. A logarithm it does not: ONNX Runtime's differs in the last bit between the
    vectorised body of an array and its tail, so with where in the batch a row stands.
    """
    return torch.sign(numbers) * ((1.0 + torch.abs(numbers)).sqrt().sqrt().sqrt() - 1.0)


def weights_of(model: GNN) -> Weights:
    """Its parameters, for models.attention."""
    intakes = {name: getattr(model, name).weights() for name in ("own", "entity", "neighbor")}
    given = {
        "own": intakes["own"][0].t(), "own_bias": intakes["own"][1], "entity": intakes["entity"][0].t(),
        "slot_bias": model.types(model.slot_types) + intakes["entity"][1],
        "neighbor": torch.cat([intakes["neighbor"][0], model.recency.weight], -1).t(),
        "neighbor_bias": intakes["neighbor"][1], "decay": -model.decay.exp(),
        "look": model.look.query.weight.t(), "look_bias": model.look.query.bias,
        "ties": model.ties(model.slot_types), "entity_merge": model.entity_merge.weight.t(),
        "gather": model.gather.query.weight.t(), "gather_bias": model.gather.query.bias,
        "merge": model.application_merge.weight.t(), "merge_bias": model.application_merge.bias,
        "norm": model.norm.weight, "norm_bias": model.norm.bias, "norm_epsilon": torch.tensor([model.norm.eps]),
        "hidden": model.hidden.weight.t(), "hidden_bias": model.hidden.bias, "head": model.head.weight[0],
        "head_bias": model.head.bias, "score_limit": torch.tensor([SCORE_LIMIT]),
    }  # fmt: skip
    arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in given.items()}
    return Weights(own_columns=model.own_columns.numpy(), **arrays)
