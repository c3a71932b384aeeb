"""How many of the world's rings the communities of its graph find: the first as many of them as there are rings.

A ring is found where one of those communities holds at least half of its members. Labels are those reported by the
end of the world, so some members have none, or a good one: how many of them lie in those communities is told apart.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import history, world
from bench.serving import SECRET
from bench.world import Truth
from features.tokens import Tokenizer
from models.communities import Community, backend, communities
from models.linked import Linked, from_history

HALF = 0.5


def run(seed: int, applications: int) -> dict[str, Any]:
    """Figures of the last line, printed as a table too."""
    made, of_product = world.build(seed, applications), history.schemas_by_product()
    linked = from_history(history.history(made.events, [], of_product, Tokenizer(SECRET.encode())), "fraud")
    start = time.perf_counter()
    found = communities(linked)
    figures: dict[str, Any] = {
        "seed": seed,
        "applications": applications,
        "backend": backend(),
        "seconds": time.perf_counter() - start,
    }
    figures |= judged(linked, found, made.truth)
    printed = Table(
        "kind", "rings", "found", title=f"{figures['communities']} communities, the first {figures['rings']}"
    )
    for kind, (rings, seen) in figures["by_kind"].items():
        printed.add_row(kind, str(rings), str(seen))
    Console(stderr=True).print(printed)
    return figures


def judged(linked: Linked, found: Sequence[Community], truth: Mapping[str, Truth]) -> dict[str, Any]:
    """`precision` and `recall` of ring members among the applications of the first communities, as many as there are
    rings; `found` of them; `unlabelled_recall` of members who are not labelled bad; all of it `by_kind`."""
    ring = np.array([truth[name].ring for name in linked.ids])
    members: dict[int, set[int]] = defaultdict(set)
    for row in np.flatnonzero(ring >= 0).tolist():
        members[int(ring[row])].add(row)
    first = [set(c.rows.tolist()) for c in found[: len(members)]]
    inside = np.zeros(len(linked), dtype=np.bool_)
    inside[[row for rows in first for row in rows]] = True
    rings, seen = Counter[str](), Counter[str]()
    for of_it in members.values():
        kind = truth[linked.ids[next(iter(of_it))]].fraud_kind
        rings[kind] += 1
        seen[kind] += any(len(of_it & rows) >= HALF * len(of_it) for rows in first)
    quiet = (ring >= 0) & (linked.bad != 1)
    return {
        "communities": len(found), "rings": len(members), "found": seen.total(),
        "precision": float((ring[inside] >= 0).mean()) if inside.any() else 0.0,
        "recall": float(inside[ring >= 0].mean()), "unlabelled_recall": float(inside[quiet].mean()),
        "by_kind": {kind: [rings[kind], seen[kind]] for kind in sorted(rings)},
    }  # fmt: skip
