"""The deep graph network: an application through its entities, these through up to 32 recent applications each, and
each of these through what its own entities had seen by its own time (two hops, after TGAT, Xu et al. 2020).

It takes the ragged lists of features.hops as they are: an item is worked on once, wherever it stands, and what belongs
together is fetched by place, so nothing is scattered and a sum has one order. Built of the parts of models/gnn.py, for
a GPU; on a CPU a decision takes many times as long as the small network's.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from features.application import Snapshot
from features.hops import INPUTS as HOP_INPUTS
from features.schema import Schema
from models.gnn import GAP_COLUMN, TIME_SCALES_HOURS, Attention, Intake, compressed, own_columns, slot_types
from models.networks import GraphNetwork

SNAPSHOT_INPUTS = ("features", "entity_state")
SCALE_ROWS = 1000  # rows whose neighbours say mean and spread: all of them would be most of the memory


@dataclass(frozen=True)
class DeepConfig:
    """Shapes from the schema, and sizes. Fields as of models.gnn.GNNConfig; far_width: of an item of the second hop, of
    which there are most; layers: of the head.
    """

    slot_types: tuple[int, ...]
    own_columns: tuple[int, ...]
    entity_stats: int
    neighbor_columns: int
    width: int = 128
    far_width: int = 32
    heads: int = 4
    layers: int = 3
    dropout: float = 0.1
    epochs: int = 8
    patience: int = 3
    batch: int = 128
    part: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    threads: int = 1

    @classmethod
    def of(cls, schema: Schema, label: str, snapshot: Snapshot) -> "DeepConfig":
        """The configuration for a label; ValueError where `own_columns` has none."""
        own = own_columns(schema, label)
        if not own:
            raise ValueError(f"label {label}: no unconstrained column of the request for the graph network")
        return cls(slot_types(schema), own, snapshot.entity_state.shape[-1], snapshot.neighbor_state.shape[-1])


class Item(nn.Module):
    """An application of the neighbourhood, raw [n, C] → [n, width]: its numbers, and how long ago at learned decays."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.intake = Intake(columns, width)
        self.decay = nn.Parameter(-torch.log(torch.tensor(TIME_SCALES_HOURS)))
        self.recency = nn.Linear(len(TIME_SCALES_HOURS), width, bias=False)

    def forward(self, state: Tensor) -> Tensor:
        """Before the activation."""
        numbers, missing = compressed(state)
        decays = torch.exp(state[:, GAP_COLUMN : GAP_COLUMN + 1] @ -self.decay.exp().unsqueeze(0))
        weight, bias = self.intake.weights()
        both = torch.cat([numbers, missing, decays], -1)
        made: Tensor = nn.functional.linear(both, torch.cat([weight, self.recency.weight], -1), bias)
        return made


class Layer(nn.Module):
    """One residual layer of the head."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width] → the same."""
        added: Tensor = self.dropout(self.narrow(self.wide(self.norm(x)).relu()))
        return x + added


class DeepGNN(GraphNetwork):
    """Logits of one label. `slot_types` [E] and `own_columns` are constants of the exported graph."""

    inputs: ClassVar = {
        "features": {0: "batch"}, "entity_state": {0: "batch"}, "near_state": {0: "near"}, "near_place": {0: "batch"},
        "far_state": {0: "far"}, "far_slot": {0: "far"}, "far_place": {0: "near"},
    }  # fmt: skip
    slot_types: Tensor
    own_columns: Tensor

    def __init__(self, config: DeepConfig) -> None:
        super().__init__()
        self.config = config
        width, far, heads, types = config.width, config.far_width, config.heads, max(config.slot_types) + 1
        self.register_buffer("slot_types", torch.tensor(config.slot_types))
        self.register_buffer("own_columns", torch.tensor(config.own_columns))
        self.types, self.far_types = nn.Embedding(types, width), nn.Embedding(types, far)
        self.ties = nn.Embedding(types, heads * width)
        nn.init.ones_(self.ties.weight)
        self.own = Intake(len(config.own_columns), width)
        self.entity = Intake(config.entity_stats, width)
        self.near, self.far = Item(config.neighbor_columns, width), Item(config.neighbor_columns, far)
        self.look_far, self.look = Attention(far, heads, width), Attention(width, heads)
        self.gather = Attention(width, heads)
        self.near_merge = nn.Linear(heads * far, width, bias=False)
        self.entity_merge = nn.Linear(heads * width, width, bias=False)
        self.application_merge = nn.Linear(heads * width, width)
        self.layers = nn.Sequential(*(Layer(width, config.dropout) for _ in range(config.layers)))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.head = nn.Linear(width, 1)

    def given(self, snapshot: Snapshot) -> tuple[Tensor, ...]:
        """As GraphNetwork.given. Raises ValueError for a snapshot without hops."""
        if snapshot.hops is None:
            raise ValueError("the deep network needs a snapshot with two hops")
        arrays = [np.ascontiguousarray(getattr(snapshot, name)) for name in SNAPSHOT_INPUTS]
        hops = snapshot.hops.given()
        return tuple(torch.from_numpy(array) for array in (*arrays, *(hops[name] for name in HOP_INPUTS)))

    def fit_scales(self, snapshot: Snapshot) -> None:
        """Standardise by the training rows, of the neighbours by some of them."""
        self.own.fit(torch.from_numpy(snapshot.features[:, list(self.config.own_columns)]))
        self.entity.fit(torch.from_numpy(snapshot.entity_state))
        _, _, near, _, far, _, _ = self.given(snapshot.take(slice(None, None, -(-len(snapshot) // SCALE_ROWS))))
        for item, state in ((self.near, near), (self.far, far)):
            if len(state):
                item.intake.fit(state)

    def forward(
        self, features: Tensor, entity_state: Tensor, near_state: Tensor, near_place: Tensor, far_state: Tensor,
        far_slot: Tensor, far_place: Tensor,
    ) -> Tensor:  # fmt: skip
        """Snapshot arrays [B, F], [B, E, S], and features.hops.INPUTS → logits [B]."""
        slots, stats, own_width = len(self.slot_types), entity_state.shape[-1], len(self.own_columns)
        given = torch.cat([features.index_select(1, self.own_columns), entity_state.flatten(1)], 1)
        # as in GNN.forward, one made-up application goes along; so does one item of either hop, where -1 leads
        given = torch.cat([given, torch.zeros(1, own_width + slots * stats, device=given.device)])
        numbers, missing = compressed(given)
        both = torch.cat([numbers[:, :own_width], missing[:, :own_width]], 1)
        own = nn.functional.linear(both, *self.own.weights()).relu()  # [B, d]
        unknown = missing[:, own_width:].reshape(-1, stats)  # [B·E, S]
        both = torch.cat([numbers[:, own_width:].reshape(-1, stats), unknown], 1)
        weight, bias = self.entity.weights()
        around = own.unsqueeze(1) + (self.types(self.slot_types) + bias)  # [B, E, d]
        entity = torch.addmm(around.flatten(0, 1), both, weight.t())  # [B·E, d]
        near = self._near(near_state, far_state, far_slot, far_place)
        entity = self._look(entity, near, near_place.flatten(0, 1))
        entity = self.dropout(entity.relu()).unflatten(0, (-1, slots))  # [B, E, d]
        present = 1.0 - unknown.amin(-1).reshape(-1, 1, slots)
        application = own + self.application_merge(self.gather(own, entity, present))
        logit: Tensor = self.head(self.norm(self.layers(application)))
        return logit[:-1, 0]

    def _near(self, near_state: Tensor, far_state: Tensor, far_slot: Tensor, far_place: Tensor) -> Tensor:
        """[M + 1, d] of near applications, which have looked at the far ones; the last is made up."""
        type_of = self.slot_types.index_select(0, _with_one(far_slot))
        far = (self.far(_with_one(far_state)) + self.far_types(type_of)).relu()  # [N + 1, f]
        near: Tensor = self.near(_with_one(near_state)).relu()  # [M + 1, d]
        place = torch.cat([far_place, torch.full((1, far_place.shape[1]), -1, device=far_place.device)])
        items, present = _fetched(far, place)
        seen: Tensor = self.near_merge(self.look_far(near, items, present))
        return (near + seen).relu()

    def _look(self, entity: Tensor, near: Tensor, place: Tensor) -> Tensor:
        """Entities [n, d] and what they see of the near applications [M + 1, d] at `place` [n, NEAR]. Those that see
        any are taken out, worked on and put back, as in GNN._look.
        """
        seen = (place[:, 0] >= 0).nonzero().flatten()  # newest first: a first one, or none
        some = torch.cat([seen, torch.tensor([-1], device=entity.device)])
        place = torch.cat([place[seen], torch.full((1, place.shape[1]), -1, device=place.device)])
        mine = entity[some]
        items, present = _fetched(near, place)
        found = self.look(mine, items, present) * self.ties(self.slot_types)[some % len(self.slot_types)]
        told: Tensor = torch.addmm(mine, found, self.entity_merge.weight.t())
        whole: Tensor = entity.index_put((some,), told)
        return whole


def _with_one(items: Tensor) -> Tensor:
    """[n + 1, ...]: one of zeros more."""
    return torch.cat([items, torch.zeros((1, *items.shape[1:]), dtype=items.dtype, device=items.device)])


def _fetched(items: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """[n, m, d] of items [N + 1, d] at `place` [n, m], and [n, 1, m], 1 where there is one and 0 where it is -1."""
    there = place >= 0
    fetched = nn.functional.embedding(torch.where(there, place, items.shape[0] - 1), items)
    return fetched, there.to(items.dtype).unsqueeze(1)
