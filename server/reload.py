"""Takes over what changes on disk while decisions go on: champions and challengers, and policies (R16, R19).

What is new loads, passes its cases and decides a made-up application beside the event loop; then one step of the loop
swaps the products made of it. A batch has taken its product before and keeps it, so no reply mixes two versions. What
does not load leaves the old one serving and is tried again: where a folder is a mirror, roles may come before what they
name. One change after another, so what is rehearsed together is what is swapped in.
"""

import asyncio
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from features.application import Application, make_profile
from features.assemble import assemble
from features.consent import as_logged
from features.events import finish, pack_application, unpack
from features.graph import EntityGraph
from features.neighborhood import join
from features.profiles import Layouts
from features.schema import SLOTS_MAX
from features.store import Begun, Started
from models import registry
from policy import versions
from policy.inputs import Asked, input_values
from server.placement import Placement
from server.products import Product, load_scorers
from server.settings import Settings

POLL_SECONDS = 0.2
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 300.0  # doubled each time until the roles change

log = structlog.get_logger()
_State = tuple[int, int] | None


async def follow(products: dict[str, Product], settings: Settings) -> None:
    """Swap in `products` what changes in the folders of bundles and policies. Runs until cancelled."""
    parts: list[_Scorers | _PolicyOf] = [
        _Scorers(name, settings.bundles / name, settings.deep_on_cpu)
        for name in {p.schema.name for p in products.values()}
    ]
    parts += [_PolicyOf(name, settings.policies / name) for name in products]
    seen: dict[_Scorers | _PolicyOf, tuple[_State, ...]] = {}
    retries: dict[_Scorers | _PolicyOf, tuple[float, float]] = {}  # what was refused: when it is due, after what pause
    while True:
        for part in parts:
            # beside the loop: a hung mount holds up no decision
            state = await asyncio.to_thread(lambda files: tuple(map(_state, files)), part.files)
            due, pause = retries.get(part, (math.inf, 0.0))
            changed = state != seen.get(part)
            if not changed and time.monotonic() < due:
                continue
            pause = RETRY_SECONDS if changed else min(2 * pause, RETRY_SECONDS_MAX)
            seen[part], refused = state, True
            try:
                new, refused = await asyncio.to_thread(part.reloaded, products)
            except Exception as error:  # whatever the new one has against it, what serves goes on serving
                log.error(f"{part.kind}_refused", **part.named, problem=f"{type(error).__name__}: {error}")
            else:
                products.update({p.name: p for p in new})
                log.info(part.event, **part.named, **part.serving(products))
            retries[part] = (time.monotonic() + pause, pause) if refused else (math.inf, 0.0)
        await asyncio.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class _Scorers:
    """What scores the products of the schema `name`: champion and challengers in a folder of the registry."""

    name: str
    folder: Path
    deep_on_cpu: str
    kind, event = "bundle", "roles"

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.folder / registry.ROLES,)

    @property
    def named(self) -> dict[str, str]:
        return {"schema": self.name}

    def reloaded(self, products: Mapping[str, Product]) -> tuple[list[Product], bool]:
        """The products as the folder says, a new champion rehearsed; whether a challenger was refused."""
        mine = [p for p in products.values() if p.schema.name == self.name]
        old = mine[0]
        known = {**old.challengers, old.bundle_version: old.scorer}
        champion, scorers, refused = load_scorers(self.folder, old.schema, known, old.scorer.device, self.deep_on_cpu)
        scorer = scorers.pop(champion)
        new = [replace(p, bundle_version=champion, scorer=scorer, challengers=scorers) for p in mine]
        if champion != old.bundle_version:
            for product in new:
                rehearse(product)
        return new, refused

    def serving(self, products: Mapping[str, Product]) -> dict[str, Any]:
        product = next(p for p in products.values() if p.schema.name == self.name)
        return {"champion": product.bundle_version, "challengers": sorted(product.challengers)}


@dataclass(frozen=True)
class _PolicyOf:
    """The policy of the product `name`: a working copy, or the published version that its roles name."""

    name: str
    folder: Path
    kind = event = "policy"

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in versions.WATCHED)

    @property
    def named(self) -> dict[str, str]:
        return {"product": self.name}

    def reloaded(self, products: Mapping[str, Product]) -> tuple[list[Product], bool]:
        """The product with the policy that the folder says, rehearsed; a policy is refused whole."""
        old = products[self.name]
        policy = versions.load(versions.in_service(self.folder), self.name, old.schema)
        if policy.version == old.policy.version:
            return [], False
        new = replace(old, policy=policy)
        rehearse(new)
        return [new], False

    def serving(self, products: Mapping[str, Product]) -> dict[str, Any]:
        return {"version": products[self.name].policy.version}


def rehearse(product: Product) -> None:
    """One made-up application through every step that needs no store: what is compiled on first use is compiled
    before the first caller waits for it, and a bundle or policy that cannot decide fails at start.
    """
    schema = product.schema
    tokens = np.zeros(SLOTS_MAX, dtype=np.uint64)
    tokens[: schema.slots] = np.arange(1, schema.slots + 1)
    application = Application("", "", schema, product.name, schema.amount_minor[0], schema.term_months[0], tokens, {})
    graph, own, links = EntityGraph(product.deep), np.array([1]), np.ones((1, SLOTS_MAX), dtype=np.bool_)
    events = unpack([finish(pack_application(application), 0, 1)], [1])
    view = graph.observe(events, own, links)
    view = join(view, graph.review(own, links))
    both, layouts = as_logged([application] * 2, view, np.arange(2)), Layouts([schema])
    later_ms = 2**40  # than the application: nothing is known at it
    known = [make_profile(schema, n, later_ms, dict.fromkeys(s.features, 0.0)) for n, s in schema.sources.items()]
    profiles, _ = layouts.read(schema, [layouts.pack(schema, profile) for profile in known] * 2, 2)
    snapshot = assemble(schema, both, profiles, view, np.arange(2))
    scores = product.scorer.score(snapshot)
    for label in schema.labels:
        product.scorer.reasons(label, snapshot, scores)
    asked = Asked.of(both)
    values = input_values(schema, product.policy.columns, snapshot, asked, product.known(snapshot, scores))
    product.policy.decide(asked, values)
    if product.scorer.there is not None:
        placement = Placement(product.scorer.device)
        placement.host.deep = product.deep
        placement.copy()
        begun = Started([Begun("NEW", 1, 1, b"")], {schema.name: profiles}, np.arange(1), events, [], [0], {})
        placement.decide({product.name: product}, [application], begun, own, [0])


def _state(file: Path) -> _State:
    """What differs when the file was replaced; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
