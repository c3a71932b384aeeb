"""Value objects of the feature side: Application, Profile, Report, Snapshot and Reason, and the checks that make them.

Both ways in, the wire and a table, build an Application here, so a field is checked and an identifier turned into a
token in one place only (R20, R21).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.schema import SLOTS_MAX, Schema
from features.tokens import Tokenizer

ENTITIES_MAX = 64
REPAYMENT_METHODS = ("equal_instalment", "equal_principal", "interest_only", "bullet")


class InvalidFieldError(ValueError):
    """A field of a request, row or profile that cannot be used. `field` is its path, `reason` what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Application:
    """A checked application.

    tokens: uint64 [16], one per entity slot of the schema, 0 where absent. numbers: the schema's application and
    request features by name, categories as the index of their value. Amounts in minor units. `event_time_ms` is 0
    unless the log is being replayed.
    """

    application_id: str
    tenant: str
    schema: Schema
    product: str
    amount_minor: int
    term_months: int
    tokens: NDArray[np.uint64]
    numbers: Mapping[str, float]
    repayment: str = "equal_instalment"
    upfront_fee_minor: int = 0
    monthly_fee_minor: int = 0
    human_review_requested: bool = False
    event_time_ms: int = 0
    body_hash: bytes = b""


@dataclass(frozen=True)
class Profile:
    """What an external source knew at `fetched_at_ms`. numbers: float32 [n] in the order of the source's features."""

    source: str
    fetched_at_ms: int
    numbers: NDArray[np.float32]


@dataclass(frozen=True)
class Report:
    """An outcome reported for an application: one of schema.OUTCOME_KINDS."""

    outcome_id: str
    application_id: str
    kind: str
    event_time_ms: int = 0


@dataclass(frozen=True)
class Snapshot:
    """All that the models see of B applications of one schema, each strictly before itself.

    features: float32 [B, F], NaN where missing, columns `schema.feature_names`.
    entity_state: float32 [B, E, len(ENTITY_STATS)], NaN where unknown or the slot is empty.
    neighbor_state: float32 [B, E, K, C], the K most recent applications of each entity, newest first, 0 where masked;
    columns features.graph.NEIGHBOR_COLUMNS then the schema's record.
    neighbor_mask: bool [B, E, K], True where there is a neighbour.
    source_state: uint8 [B, S], SOURCE_FRESH, SOURCE_STALE or SOURCE_MISSING, order of `schema.sources`.
    """

    features: NDArray[np.float32]
    entity_state: NDArray[np.float32]
    neighbor_state: NDArray[np.float32]
    neighbor_mask: NDArray[np.bool_]
    source_state: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64] | slice) -> "Snapshot":
        """The snapshot of some of the rows."""
        return Snapshot(
            self.features[rows], self.entity_state[rows], self.neighbor_state[rows],
            self.neighbor_mask[rows], self.source_state[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class Reason:
    """Why, in words: a policy row (contribution 0) or a feature that moved a model's log-odds by `contribution`."""

    code: str
    zh: str
    en: str
    contribution: float = 0.0
    evidence: str = ""
    legal_source: str = ""


@dataclass(frozen=True)
class RawApplication:
    """An application as it came, identifiers in clear; lives only until `build` made tokens of them."""

    application_id: str
    tenant: str
    product: str
    amount_minor: int
    applicant_id: str
    term_months: int = 0
    entities: Iterable[tuple[str, str]] = ()
    consents: frozenset[str] = frozenset()
    features: Mapping[str, float | str] = field(default_factory=dict)
    application_features: Mapping[str, float | str] = field(default_factory=dict)


def check_text(name: str, text: str, longest: int) -> str:
    """`text` if it is 1 to `longest` bytes of UTF-8 without control characters; InvalidFieldError otherwise."""
    if not text:
        raise InvalidFieldError(name, "is missing")
    if len(text.encode()) > longest:
        raise InvalidFieldError(name, f"is longer than {longest} bytes")
    if not text.isprintable():
        raise InvalidFieldError(name, "has control characters")
    return text


def feature_number(schema: Schema, name: str, value: float | str, key: str) -> float:
    """float of a feature's value, checked against its range or categories. `key` names it in errors."""
    feature = schema.features[schema.column[name]]
    if feature.values:
        if not isinstance(value, str) or value not in feature.values:
            raise InvalidFieldError(key, f"must be one of {', '.join(feature.values)}")
        return float(feature.values.index(value))
    if isinstance(value, str):
        raise InvalidFieldError(key, "must be a number")
    if not math.isfinite(value):
        raise InvalidFieldError(key, "must be a finite number")
    if feature.range is not None and not feature.range[0] <= value <= feature.range[1]:
        raise InvalidFieldError(key, f"must be from {feature.range[0]:g} to {feature.range[1]:g}, is {value:g}")
    return float(value)
