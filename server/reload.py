"""Takes over what the registry says while decisions go on: a promoted or rolled back champion, other challengers.

Bundles load, and a champion decides a made-up application, beside the event loop; then one step of the loop swaps all
products of the schema. A batch has taken its product before and keeps it, so no reply mixes two versions. What does not
load leaves the old one serving and is tried again: where a registry is a mirror, roles may come before their bundle.
"""

import asyncio
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog

from features.application import Application
from features.assemble import assemble
from features.events import finish, pack_application, unpack
from features.graph import EntityGraph
from features.neighborhood import join
from features.schema import SLOTS_MAX
from models import registry
from policy.inputs import Asked, input_values
from server.products import Product, load_scorers

POLL_SECONDS = 0.2
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 300.0  # doubled each time until the roles change

log = structlog.get_logger()


async def follow(products: dict[str, Product], bundles: Path) -> None:
    """Swap in `products` what changes in the registry `bundles`. Runs until cancelled."""
    seen: dict[str, tuple[int, int] | None] = {}
    retries: dict[str, tuple[float, float]] = {}  # of what was refused: when it is due, and after what pause
    while True:
        for name in {p.schema.name for p in products.values()}:
            file = bundles / name / registry.ROLES
            state = await asyncio.to_thread(_state, file)  # beside the loop: a hung mount holds up no decision
            due, pause = retries.get(name, (math.inf, 0.0))
            changed = state != seen.get(name, ())
            if not changed and time.monotonic() < due:
                continue
            pause = RETRY_SECONDS if changed else min(2 * pause, RETRY_SECONDS_MAX)
            seen[name] = state
            mine, refused = [p for p in products.values() if p.schema.name == name], True
            try:
                new, refused = await asyncio.to_thread(_reloaded, mine, bundles / name)
            except Exception as error:  # whatever a new bundle has against it, what serves goes on serving
                log.error("bundle_refused", schema=name, problem=f"{type(error).__name__}: {error}")
            else:
                products.update({p.name: p for p in new})
                _log_roles(new[0])
            retries[name] = (time.monotonic() + pause, pause) if refused else (math.inf, 0.0)
        await asyncio.sleep(POLL_SECONDS)


def rehearse(product: Product) -> None:
    """One made-up application through every step that needs no store: what is compiled on first use is compiled
    before the first caller waits for it, and a bundle or policy that cannot decide fails at start.
    """
    schema = product.schema
    tokens = np.zeros(SLOTS_MAX, dtype=np.uint64)
    tokens[: schema.slots] = np.arange(1, schema.slots + 1)
    application = Application("", "", schema, product.name, schema.amount_minor[0], schema.term_months[0], tokens, {})
    graph, own, links = EntityGraph(), np.array([1]), np.ones((1, SLOTS_MAX), dtype=np.bool_)
    view = graph.observe(unpack([finish(pack_application(application), 0, 1)], [1]), own, links)
    view = join(view, graph.review(own, links))
    snapshot = assemble(schema, [application] * 2, [{}, {}], view, np.arange(2))
    scores = product.scorer.score(snapshot)
    for label in schema.labels:
        product.scorer.reasons(label, snapshot)
    asked = Asked.of([application] * 2)
    values = input_values(schema, product.policy.columns, snapshot, asked, product.known(snapshot, scores))
    product.policy.decide(asked, values)


def _reloaded(mine: Sequence[Product], folder: Path) -> tuple[list[Product], bool]:
    """The products of one schema as its folder says, a new champion rehearsed; whether a challenger was refused."""
    old = mine[0]
    champion, scorers, refused = load_scorers(folder, old.schema, {**old.challengers, old.bundle_version: old.scorer})
    scorer = scorers.pop(champion)
    new = [replace(p, bundle_version=champion, scorer=scorer, challengers=scorers) for p in mine]
    if champion != old.bundle_version:
        for product in new:
            rehearse(product)
    return new, refused


def _log_roles(product: Product) -> None:
    log.info(
        "roles", schema=product.schema.name, champion=product.bundle_version, challengers=sorted(product.challengers)
    )


def _state(file: Path) -> tuple[int, int] | None:
    """What differs when the file was replaced; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
