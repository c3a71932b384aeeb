"""The entity graph by itself: what it costs to append an edge, to gather a neighbourhood, to hold a node and to grow;
and how fast history becomes training rows through it.

The log is random: ten identifiers an application, two of them of few hubs, as dealers are.
"""

import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench import history, machine, world
from bench.serving import SECRET
from features.events import APPLICATION, EVENT, EVENT_VERSION, LABEL_UNCHANGED, Events
from features.graph import EntityGraph
from features.graph_kernels import NODE, PLACE, ROW
from features.replay import replay
from features.schema import SLOTS_MAX
from features.tokens import Tokenizer

SLOTS, HUBS, HUB_ENTITIES = 10, 2, 500
CHUNK, BATCH, GATHERED = 8192, 64, 4096
GAP_MS = 1_000
SEED = 11
WORLD, REPLAYS = 20_000, 5
_NONE = np.empty(0, dtype=np.int64)


def events(rng: np.random.Generator, first: int, count: int, pool: int, start_ms: int = 0) -> Events:
    """Applications numbered from `first`, whose identifiers are of `pool` a slot, hubs of fewer."""
    fields = np.zeros(count, dtype=EVENT)
    fields["version"], fields["kind"] = EVENT_VERSION, APPLICATION
    fields["fraud"] = fields["default"] = LABEL_UNCHANGED
    fields["schema"], fields["amount"] = 1, rng.integers(1_000, 100_000, count)
    fields["sequence"] = np.arange(first, first + count)
    for slot in range(SLOTS):
        among = HUB_ENTITIES if slot >= SLOTS - HUBS else pool
        fields["tokens"][:, slot] = (slot + 1) * 10_000_000_000 + rng.integers(1, among + 1, count)
    return Events(fields, start_ms + GAP_MS * np.arange(first, first + count))


def run(nodes: int) -> dict[str, object]:
    """Figures of the last line, at about so many nodes."""
    machine.move_here(machine.SERVER_CORE)
    graph, rng = EntityGraph(), np.random.default_rng(SEED)
    pool = max(nodes // (SLOTS - HUBS), 1)
    _observe(graph, events(rng, 1, BATCH, pool), 0)  # compiled
    seconds = applications = 0.0
    while graph.nodes < 0.8 * nodes:
        some = events(rng, graph.sequence + 1, CHUNK, pool)
        seconds = _observe(graph, some, 0)
        applications += CHUNK
    append, gather, stalls = list[float](), list[float](), list[float]()
    for _ in range(GATHERED // BATCH):
        append.append(_observe(graph, events(rng, graph.sequence + 1, BATCH, pool), 0))
        both = _observe(graph, events(rng, graph.sequence + 1, BATCH, pool), BATCH)
        gather.append(both - append[-1])
    held = graph.nodes * NODE.itemsize + len(graph._state.key) * PLACE.itemsize  # what applications take is said apart
    figures: dict[str, object] = {
        "nodes": graph.nodes, "applications": graph.applications,
        "append_ns_per_edge": round(1e9 * float(np.median(append)) / BATCH / SLOTS, 1),
        "append_ns_per_edge_in_chunks": round(1e9 * seconds / CHUNK / SLOTS, 1),
        "gather_us_per_application": round(1e6 * float(np.median(gather)) / BATCH, 2),
        "bytes_per_node": round(held / graph.nodes, 1), "bytes_per_application": ROW.itemsize,
    }  # fmt: skip
    place = len(graph._state.uses)
    while len(graph._state.uses) == place and len(stalls) < 200_000:
        stalls.append(_observe(graph, events(rng, graph.sequence + 1, BATCH, 100 * pool), 0))
    figures["longest_stall_ms"] = round(1e3 * max(stalls), 1)
    figures |= replayed_per_second()
    _show(figures)
    return {**figures, **machine.facts()}


def replayed_per_second() -> dict[str, object]:
    """Applications of a world that become training rows in a second of one core, the best of some times; and how many
    profiles a second are put into columns, which a history does once.
    """
    of_product, tokenizer = history.schemas_by_product(), Tokenizer(SECRET.encode())
    made = world.build(SEED, WORLD)
    profiles = history.profiles(made.profiles, of_product, tokenizer)
    past = history.history(made.events, profiles, of_product, tokenizer)
    began = time.process_time()
    found = sum(len(some) for some in past.profiles.values()) if past.profile_table else 0
    seconds, indexed = list[float](), time.process_time() - began
    for _ in range(REPLAYS):
        began = time.process_time()
        replay(past)
        seconds.append(time.process_time() - began)
    return {"replayed_per_second": round(WORLD / min(seconds)), "profiles_indexed_per_second": round(found / indexed)}


def _observe(graph: EntityGraph, some: Events, own: int) -> float:
    """Seconds that it takes to record events, of which the last `own` are looked at."""
    sequences: NDArray[np.int64] = some.fields["sequence"][len(some) - own :].astype(np.int64) if own else _NONE
    links = np.zeros((len(sequences), SLOTS_MAX), dtype=np.bool_)
    links[:, : SLOTS - HUBS] = True
    began = time.perf_counter()
    graph.observe(some, sequences, links)
    return time.perf_counter() - began


def _show(figures: dict[str, object]) -> None:
    table = Table(*figures)
    table.add_row(*(str(value) for value in figures.values()))
    Console().print(table)
