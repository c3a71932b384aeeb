"""A worse economy (R17, 压力测试): the same applications with lower incomes, lost jobs, cheaper cars, scored again.

Incomes and valuations fall by a share. Whoever loses work, a seeded share of the applicants, has incomes and months of
employment of 0, as a source would report it; what was missing stays missing. Crosses follow by the schema's own
expressions; what the graph counts stays. Neighbours' recorded incomes fall with the rest, but who of them lost work is
not known there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from features.application import Snapshot
from features.neighborhood import NEIGHBOR_COLUMNS
from features.schema import Schema
from features.specs import Spec
from policy.inputs import Known
from policy.records import Part, Records

STRESS_PATH = Path(__file__).parent / "stress.yaml"
INCOME, EMPLOYMENT, COLLATERAL = GROUPS = ("income", "employment", "collateral")
Share = Annotated[float, Field(ge=0, le=1)]
GIVEN = ("application", "request", "source")


class StressError(ValueError):
    """A file of stresses that cannot be used; the message names the file, the key and the reason."""


@dataclass(frozen=True)
class Scenario:
    """Shares, 0 to 1: by which incomes fall, of applicants who lose their work, by which cars fetch less."""

    name: str
    income: float = 0.0
    unemployment: float = 0.0
    collateral: float = 0.0


@dataclass(frozen=True)
class Stresses:
    """A checked file: scenarios, and for each schema by name the group of each feature that moves."""

    path: Path
    scenarios: tuple[Scenario, ...]
    features: Mapping[str, Mapping[str, str]]

    def columns(self, schema: Schema) -> dict[str, NDArray[np.int64]]:
        """int64 columns of each of GROUPS. Raises StressError where the schema does not bear them out."""
        if schema.name not in self.features:
            raise StressError(f"{self.path}: features.{schema.name}: is missing: nobody says what its incomes are")
        for name in self.features[schema.name]:
            feature = schema.features[schema.column[name]] if name in schema.column else None
            if feature is None or feature.category or feature.origin not in GIVEN:
                place = f"{self.path}: features.{schema.name}.{name}"
                raise StressError(f"{place}: is no number that {schema.name} takes from a request or a source")
        found = self.features[schema.name].items()
        return {g: np.array([schema.column[n] for n, of in found if of == g], dtype=np.int64) for g in GROUPS}


class _Shares(Spec):
    income: Share = 0.0
    unemployment: Share = 0.0
    collateral: Share = 0.0


class _File(Spec):
    features: dict[str, dict[str, Literal["income", "employment", "collateral"]]] = Field(default_factory=dict)
    scenarios: dict[str, _Shares]


def load(path: Path) -> Stresses:
    """The stresses of a YAML file; one without `features` moves those of the shipped file. Raises StressError."""
    try:
        read = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise StressError(f"{path}: cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(place) for place in first["loc"])
        raise StressError(f"{path}: {key}: {first['msg']}, is {first['input']!r}") from None
    scenarios = tuple(Scenario(name, **shares.model_dump()) for name, shares in read.scenarios.items())
    return Stresses(path, scenarios, read.features or load(STRESS_PATH).features)


def unemployed(applicant: NDArray[np.uint64], share: float, seed: int) -> NDArray[np.bool_]:
    """bool [N]: who loses work, the same in every scenario and whoever it is of a greater share too."""
    people, of = np.unique(applicant, return_inverse=True)
    lost: NDArray[np.bool_] = np.random.default_rng(seed).random(len(people))[of] < share
    return lost


def moved(
    schema: Schema, columns: Mapping[str, NDArray[np.int64]], scenario: Scenario, snapshot: Snapshot,
    lost: NDArray[np.bool_],
) -> Snapshot:  # fmt: skip
    """The snapshot under a scenario; columns as of `Stresses.columns`, lost: bool [B], who loses work."""
    features = snapshot.features.astype(np.float64)
    features[:, columns[INCOME]] *= 1 - scenario.income
    features[:, columns[COLLATERAL]] *= 1 - scenario.collateral
    ended = np.concatenate([columns[INCOME], columns[EMPLOYMENT]])
    place = np.ix_(np.flatnonzero(lost), ended)
    features[place] = np.where(np.isnan(features[place]), np.nan, 0.0)
    changed = {schema.feature_names[column] for group in columns.values() for column in group}
    for i, expression in schema.crosses:
        if not changed.isdisjoint(expression.names):
            features[:, i] = expression(lambda name: features[:, schema.column[name]])
            changed.add(schema.feature_names[i])
    neighbors = snapshot.neighbor_state
    if neighbors.size and scenario.income:
        incomes = {schema.feature_names[column] for column in columns[INCOME]}
        told = [len(NEIGHBOR_COLUMNS) + i for i, name in enumerate(schema.record) if name in incomes]
        neighbors = neighbors.copy()
        neighbors[..., told] *= np.float32(1 - scenario.income)
    return replace(snapshot, features=features.astype(np.float32), neighbor_state=neighbors)


def stressed(
    records: Records, parts: tuple[Part, ...], stresses: Stresses, scenario: Scenario, seed: int
) -> tuple[Part, ...]:
    """The rows of all schemas under a scenario. Raises StressError."""
    lost = unemployed(records.applicant, scenario.unemployment, seed)
    return tuple(
        Part(p.schema, p.rows, moved(p.schema, stresses.columns(p.schema), scenario, p.snapshot, lost[p.rows]))
        for p in parts
    )


def cheaper(known: Known, scenario: Scenario) -> Known:
    """What is known, with what cars fetch under a scenario."""
    return replace(known, residual_low=known.residual_low * (1 - scenario.collateral))
