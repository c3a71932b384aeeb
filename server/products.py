"""What decides on a product: its schema, the models trained for that schema, and its policy. Loaded as one, or not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from features import schema as schemas
from features.application import Snapshot
from features.schema import Schema
from models import registry
from models.bundle import BundleError
from models.device import Device
from models.scorer import Scorer, Scores
from policy import versions
from policy.decide import Policy
from policy.inputs import Known
from policy.specs import LISTS
from proto.miaopi.v1 import decision_pb2 as pb
from server.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True)
class Product:
    """One product, ready to decide. challengers: by version, what is scored beside the champion and decides nothing."""

    name: str
    schema: Schema
    bundle_version: str
    scorer: Scorer
    policy: Policy
    challengers: Mapping[str, Scorer] = field(default_factory=dict)

    @property
    def deep(self) -> bool:
        """Whether its models, challengers too, look at two hops."""
        return self.scorer.deep or any(scorer.deep for scorer in self.challengers.values())

    @cached_property
    def versions(self) -> bytes:
        """What each of its replies says of versions, serialised."""
        versions = pb.Versions(bundle=self.bundle_version, policy=self.policy.version, schema=self.schema.hash)
        return pb.DecideResponse(versions=versions).SerializeToString()

    def known(self, snapshot: Snapshot, scores: Scores, listed: NDArray[np.int64] | None = None) -> Known:
        """What the policy sees of scored applications, as if they had no exposure, and unless `listed` says so, int64
        [B, 3], were on no list.
        """
        if listed is None:
            listed = np.zeros((len(snapshot), len(LISTS)), dtype=np.int64)
        return Known(
            scores.fraud_probability, scores.default_probability, self.scorer.residual_value(snapshot)[:, 0],
            np.zeros(len(snapshot), dtype=np.int64), listed,
        )  # fmt: skip


def load(settings: Settings) -> dict[str, Product]:
    """Products by name: one for each product of each schema that has a champion. The service and all engines share this
    one dict, in which server.reload swaps products.

    Raises DeviceError, or SchemaError, BundleError or PolicyError naming the file; nothing is served from a half-valid
    set.
    """
    products, device = {}, Device(settings.device)
    for path in sorted(settings.schemas.glob("*.yaml")):
        schema = schemas.load(path)
        folder = settings.bundles / schema.name
        if not (folder / registry.ROLES).exists():
            continue
        champion, scorers, _ = load_scorers(folder, schema, {}, device, settings.deep_on_cpu)
        scorer = scorers.pop(champion)
        for name in schema.products:
            policy = versions.load(versions.in_service(settings.policies / name), name, schema)
            products[name] = Product(name, schema, champion, scorer, policy, scorers)
    if not products:
        raise schemas.SchemaError(f"{settings.schemas}: no schema has a bundle in {settings.bundles}")
    return products


def load_scorers(
    folder: Path, schema: Schema, known: Mapping[str, Scorer], device: Device, deep_on_cpu: str
) -> tuple[str, dict[str, Scorer], bool]:
    """Who decides, by version the scorers of it and of the challengers, and whether one of these was refused.

    `known` ones are not loaded. Where the champion was made for another version of the schema, the last one before it
    that fits decides. A challenger that does not load is left out and logged: it must not keep the champion from
    deciding. So is one with a deep network, and a champion that has one refuses, where there is no GPU and unless
    `deep_on_cpu` is "slow". Raises BundleError where the roles or who decides do not load.
    """

    def load(version: str) -> Scorer:
        scorer = known.get(version) or registry.load(folder, version, schema, device)
        if scorer.deep and scorer.there is None and deep_on_cpu != "slow":
            raise BundleError(
                f"{folder / version}: its network looks at two hops, which is for a GPU, and there is none here; "
                "MIAOPI_DEEP_ON_CPU=slow serves it on the CPU, which takes several times as long"
            )
        return scorer

    roles = registry.read(folder)
    champion = registry.fitting(folder, roles, schema)
    if champion != roles.champion:
        log.warning("champion_of_another_schema", schema=schema.name, champion=roles.champion, serving=champion)
    scorers, refused = {champion: load(champion)}, False
    for version in roles.challengers:
        try:
            scorers[version] = load(version)
        except BundleError as error:
            log.error("challenger_refused", schema=schema.name, version=version, problem=str(error))
            refused = True
    return champion, scorers, refused
