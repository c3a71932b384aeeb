"""torch-geometric as a peer of graph and network: the same events, neighbours, fan-out, widths, heads and device.

It works as its own example of temporal graphs does (examples/tgn.py of its repository): LastNeighborLoader keeps the
most recent interactions of each node on the device, TransformerConv attends over them with their age and content, and a
second one over an application's entities. NeighborLoader samples by time only with pyg-lib, and on the CPU. Where it
differs, it does less: it sees what came before the batch and not what came before each row; an entity that several rows
name is embedded once; it counts nothing, and has the entities' statistics given; it runs no trees and calibrates
nothing, which ours does in the same time. Weights are its own: attention with a null item, as ours, is none of its
layers.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.gpu_streams import random_log
from bench.gpu_times import WARM_ROUNDS, Clock, Report, batch_of, fresh_rows
from bench.gpu_trees import demo_bundles
from features.events import Events
from features.neighborhood import FANOUT, N_ENTITY, NEIGHBOR_COLUMNS
from features.schema import RECORD_MAX, SLOTS_MAX
from gpu_kernels.device import Device
from gpu_kernels.gather import View
from gpu_kernels.graph import DeviceGraph
from models.device import CPU
from models.device_scorer import DeviceScorer, fetched
from models.scorer import Scorer

OF_EACH_SLOT = 20_000  # identifiers
LOADED = 4096  # applications of the history inserted in one call: none of them more than FANOUT times to one entity
WIDTH, HEADS, TIME_WIDTH = 32, 2, 16  # as of models.gnn.GNNConfig
MESSAGE = 1 + RECORD_MAX  # amount and record of a neighbour
AMOUNT = NEIGHBOR_COLUMNS.index("amount")


class AbsentError(RuntimeError):
    """torch-geometric is not installed, or its torch has no such device."""


def peer_times(device: Device, clock: Clock, sizes: Sequence[int], rounds: int, history: int, on: str) -> Report:
    """p50 of both by batch size and `over_torch_geometric`, how many times as fast ours is; `same_neighbors`: whether
    both saw the same applications at every entity that no earlier row of the batch names, `not_seen`: share of the
    entities of rows where an earlier one does, and torch-geometric does not see it.

    on: where torch runs, "cuda" or "cpu". Only {"absent": reason} where it cannot.
    """
    try:
        applications = history + sum(sizes) * (rounds + WARM_ROUNDS)
        log, node = _log(applications)
        bundle = next(found for found in demo_bundles() if found.schema.name == "consumer")
        peer = Peer(SLOTS_MAX * OF_EACH_SLOT, applications, len(bundle.schema.features), torch.device(on))
    except AbsentError as error:
        return {"absent": str(error)}
    scorer, there = DeviceScorer(bundle.schema, Scorer(bundle).models), DeviceGraph(device)
    scorer.enter(CPU, device)
    rng = np.random.default_rng(12)
    for start in range(0, history, LOADED):
        end = min(start + LOADED, history)
        there.observe(*batch_of(log, start, end, own=False))
        peer.insert(peer.given(node, log, start, end))
    found, start = [], history
    for size in sizes:
        spans: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(rounds + WARM_ROUNDS):
            end, features = start + size, fresh_rows(rng, size, len(bundle.schema.features))
            batch = batch_of(log, start, end, own=True)
            began = clock.mark()
            with device.deciding():
                view = there.observe(*batch)
                asked = scorer.ask(view, features)
                _, answers = fetched(device, view, {"": asked})
            scorer.scores(asked, answers[""])
            spans["ours"].append(clock.ms(began, clock.mark()))
            began = clock.mark()
            given = peer.given(node, log, start, end)
            logits = peer.logits(given, torch.from_numpy(features).to(peer.device)).cpu()
            peer.insert(given)
            spans["peer"].append(clock.ms(began, clock.mark()))
            start = end
        if not bool(torch.isfinite(logits).all()):
            raise RuntimeError("torch-geometric's logits are not finite")
        same, not_seen = compared(device, view, node[start - size : start], peer.seen)
        ours, theirs = (np.array(spans[name][WARM_ROUNDS:]) for name in ("ours", "peer"))
        found.append({
            "batch": size, "p50_ms": float(np.median(theirs)), "p99_ms": float(np.percentile(theirs, 99)),
            "ours_p50_ms": float(np.median(ours)),
            "over_torch_geometric": float(np.median(theirs) / np.median(ours)),
            "same_neighbors": same, "not_seen": not_seen,
        })  # fmt: skip
    return {"version": version("torch-geometric"), "on": on, "sizes": found}


def _log(applications: int) -> tuple[Events, NDArray[np.int64]]:
    """Applications alone, and int64 [n, 16] their entities' nodes, -1 where none: an identifier stands in one slot, and
    an application's amount is its number from 1 on, which its neighbours then show.
    """
    rng = np.random.default_rng(13)
    log = random_log(rng, applications, 10, forgets=0.0, reports=0.0)
    node = rng.integers(0, OF_EACH_SLOT, (applications, SLOTS_MAX)) + np.arange(SLOTS_MAX) * OF_EACH_SLOT
    node[log.fields["tokens"] == 0] = -1
    log.fields["tokens"] = np.where(node < 0, 0, (node + 1).astype(np.uint64) << np.uint64(32))
    log.fields["amount"] = np.arange(1, applications + 1)
    log.fields["record"] = np.nan_to_num(log.fields["record"])
    return log, node


def compared(device: Device, view: View, node: NDArray[np.int64], seen: tuple[Tensor, Tensor]) -> tuple[bool, float]:
    """`same_neighbors` and `not_seen` of a batch. seen: node and application of every interaction it attended to."""
    amount = device.host(view.neighbor_state)[..., AMOUNT].astype(np.int64)
    mask = device.host(view.neighbor_mask).astype(np.bool_)
    theirs: dict[int, set[int]] = {}
    for entity, application in zip(*(some.tolist() for some in seen), strict=True):
        theirs.setdefault(entity, set()).add(application + 1)
    same, named, again, before = True, 0, 0, set[int]()
    for row, entities in enumerate(node.tolist()):
        for slot, entity in enumerate(entities):
            if entity < 0:
                continue
            named += 1
            if entity in before:
                again += 1
            else:
                same &= set(amount[row, slot][mask[row, slot]].tolist()) == theirs.get(entity, set())
        before.update(entities)
    return same, again / max(named, 1)


@dataclass(frozen=True)
class Given:
    """Applications on torch's device. first: number of the first; nodes: int64 [B, 16], -1 absent; time_ms: int64 [B];
    message: float32 [B, MESSAGE]. rows, slots: int64 [P], where an entity is named."""

    first: int
    nodes: Tensor
    time_ms: Tensor
    message: Tensor
    rows: Tensor
    slots: Tensor = field(repr=False)


class Peer:
    """LastNeighborLoader and the network. Raises AbsentError."""

    def __init__(self, entities: int, applications: int, columns: int, device: torch.device) -> None:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise AbsentError(f"torch {torch.__version__} has no CUDA here")
        parts = _torch_geometric()
        self.device, self._entities = device, entities
        self._loader = parts["LastNeighborLoader"](entities + applications, FANOUT, device)
        self._place = torch.empty(entities + applications, dtype=torch.long, device=device)
        self._time = torch.zeros(applications, dtype=torch.long, device=device)
        self._message = torch.zeros(applications, MESSAGE, device=device)
        self._application = torch.zeros(applications * SLOTS_MAX, dtype=torch.long, device=device)  # by interaction
        self._edges = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._state = torch.randn(entities, N_ENTITY).to(device)  # what ours counts; here it is given
            self._network = Network(parts, columns).to(device).eval()
        self.seen = torch.empty(0), torch.empty(0)

    def given(self, node: NDArray[np.int64], log: Events, start: int, end: int) -> Given:
        """Some applications of the log, brought to the device."""
        fields = log.fields[start:end]
        message = np.concatenate([np.log1p(fields["amount"])[:, None], fields["record"]], 1).astype(np.float32)
        nodes, time_ms, sent = (
            torch.from_numpy(some).to(self.device) for some in (node[start:end], log.time_ms[start:end], message)
        )
        return Given(start, nodes, time_ms, sent, *(nodes >= 0).nonzero(as_tuple=True))

    def insert(self, given: Given) -> None:
        """Record the applications."""
        last = given.first + len(given.nodes)
        self._time[given.first : last], self._message[given.first : last] = given.time_ms, given.message
        applications = given.rows + given.first
        self._application[self._edges : self._edges + len(applications)] = applications
        self._edges += len(applications)
        self._loader.insert(applications + self._entities, given.nodes[given.rows, given.slots])

    @torch.no_grad()
    def logits(self, given: Given, features: Tensor) -> Tensor:
        """float32 [B] of applications not yet recorded, and float32 [B, F] of their own columns."""
        named = given.nodes[given.rows, given.slots]
        node, edges, interaction = self._loader(torch.unique(named))
        self._place[node] = torch.arange(len(node), device=self.device)
        applications = self._application[interaction]
        self.seen = node[edges[1]], applications
        is_entity = node < self._entities
        entity, neighbor = node[is_entity], node[~is_entity] - self._entities
        hours = (given.time_ms[-1] - self._time[applications]).float() / 3.6e6
        found: Tensor = self._network(
            torch.nan_to_num(features), is_entity, self._state[entity], entity // OF_EACH_SLOT,
            self._message[neighbor], edges, hours, self._message[applications], self._place[named], given.rows,
            given.slots,
        )  # fmt: skip
        return found


class Network(nn.Module):
    """Neighbour applications → entity → application, by TransformerConv."""

    def __init__(self, parts: Mapping[str, Any], columns: int) -> None:
        super().__init__()
        self.types = nn.Embedding(SLOTS_MAX, WIDTH)
        self.own, self.entity, self.neighbor = (nn.Linear(n, WIDTH) for n in (columns, N_ENTITY, MESSAGE))
        self.time = parts["TimeEncoder"](TIME_WIDTH)
        self.look = parts["TransformerConv"](WIDTH, WIDTH, heads=HEADS, edge_dim=TIME_WIDTH + MESSAGE)
        self.gather = parts["TransformerConv"]((WIDTH, WIDTH), WIDTH, heads=HEADS, edge_dim=WIDTH)
        self.entity_merge, self.application_merge = (nn.Linear(HEADS * WIDTH, WIDTH) for _ in range(2))
        self.norm, self.hidden, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(
        self, features: Tensor, is_entity: Tensor, state: Tensor, kind: Tensor, record: Tensor, edges: Tensor,
        hours: Tensor, message: Tensor, named: Tensor, rows: Tensor, slots: Tensor,
    ) -> Tensor:  # fmt: skip
        """features [B, F]; n nodes, of which `is_entity` have `state` [u, S] and `kind` [u], the others `record`; e
        `edges` [2, e] from neighbour to entity, `hours` old and with `message` [e, M]; P places `named` of entities
        among the nodes by `rows` in their `slots` → [B]."""
        x = features.new_zeros(len(is_entity), WIDTH)
        x[is_entity] = (self.entity(state) + self.types(kind)).relu()
        x[~is_entity] = self.neighbor(record).relu()
        entity = self.entity_merge(self.look(x, edges, torch.cat([self.time(hours), message], -1))).relu()
        own = self.own(features).relu()
        linked = self.gather((entity, own), torch.stack([named, rows]), self.types(slots))
        logit: Tensor = self.head(self.hidden(self.norm(own + self.application_merge(linked))).relu())
        return logit[:, 0]


def _torch_geometric() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it uses of torch, as it is imported
        try:
            from torch_geometric.nn import TransformerConv
            from torch_geometric.nn.models.tgn import LastNeighborLoader, TimeEncoder
        except ImportError as error:
            raise AbsentError(f"torch-geometric is not installed (extra peer): {error}") from error
    return {"TransformerConv": TransformerConv, "LastNeighborLoader": LastNeighborLoader, "TimeEncoder": TimeEncoder}
