"""The one place where policy meets models: `policy simulate` scores with bundles. The server never loads it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from features.application import Snapshot
from features.place import HERE, Place
from features.schema import Schema
from models.bundle import Bundle
from models.bundle import BundleError as BundleError
from models.history_scorer import HistoryScorer
from policy.scoring import Scored


@dataclass(frozen=True)
class BundleScore:
    """The scoring of the bundle in a folder, on the CPU or at a place with a device; a process loads it when it first
    scores.
    """

    folder: Path
    version: str
    schema: Schema
    place: Place | None = None

    @property
    def alone(self) -> bool:
        """A device is not shared: this process scores on it, and no other."""
        return self.place is not None

    def __call__(self, snapshot: Snapshot) -> Scored:
        """Raises BundleError where the bundle does not load here."""
        scorer = _scorer(self.folder, self.version, self.place)
        scores = scorer.score(snapshot)
        return Scored(scores.fraud_probability, scores.default_probability, scorer.residual_value(snapshot)[:, 0])


def by_schema(folders: Iterable[Path], place: Place = HERE) -> dict[str, BundleScore]:
    """The bundles of some folders, to score at a place, by the name of their schema. Raises BundleError, also where
    two are of one or a network looks at two hops.
    """
    there = None if place.device is None else place
    found: dict[str, BundleScore] = {}
    for folder in folders:
        bundle = Bundle.open(folder)
        if bundle.deep:
            raise BundleError(f"{folder}: its network looks at two hops, which a simulation does not gather")
        if bundle.schema.name in found:
            raise BundleError(f"{folder}: is a second bundle of schema {bundle.schema.name}")
        found[bundle.schema.name] = BundleScore(folder, bundle.version, bundle.schema, there)
    return found


@lru_cache(maxsize=4)
def _scorer(folder: Path, version: str, place: Place | None) -> HistoryScorer:
    bundle = Bundle.open(folder)
    if bundle.version != version:
        raise BundleError(f"{folder}: was {version} and is {bundle.version}")
    return HistoryScorer(bundle, place or HERE)
