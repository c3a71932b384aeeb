"""Value objects of the feature side: Application, Profile, Report, Snapshot and Reason, and the checks that make them.

Both ways in, the wire and a table, build an Application here, so a field is checked and an identifier turned into a
token in one place only (R20, R21).
"""

import hashlib
import math
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from features.schema import SLOTS_MAX, Schema
from features.specs import MISSING_CODE
from features.tokens import Tokenizer, plain

if TYPE_CHECKING:
    from features.hops import Hops

ENTITIES_MAX = 64
NO_TOKENS = np.zeros(SLOTS_MAX, dtype=np.uint64)
NO_TOKENS.flags.writeable = False
REPAYMENT_METHODS = ("equal_instalment", "equal_principal", "interest_only", "bullet")


class InvalidFieldError(ValueError):
    """A field of a request, row or profile that cannot be used. `field` is its path, `reason` what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Application(NamedTuple):  # one a request: see Reason
    """A checked application.

    tokens: uint64 [16], one per entity slot of the schema, 0 where absent. numbers: the schema's application and
    request features by name, categories as the index of their value. Amounts in minor units. `event_time_ms` is 0
    unless the log is being replayed. shared_tokens: uint64 [16], of the same identifiers under the consortium's secret,
    0 where there is none. consents: by purpose, when it was last given, ms.
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
    consents: Mapping[str, int] = MappingProxyType({})
    shared_tokens: NDArray[np.uint64] = NO_TOKENS

    @property
    def borrower(self) -> str:
        """Whose exposure it adds to."""
        return borrower(self.schema, self.tokens.item(0))


@dataclass(frozen=True)
class Profile:
    """What an external source knew at `fetched_at_ms`. numbers: float32 [n] in the order of the source's features."""

    source: str
    fetched_at_ms: int
    numbers: NDArray[np.float32]


@dataclass(frozen=True)
class Report:
    """An outcome reported for an application: one of specs.OUTCOME_KINDS. amount_minor: of principal repaid, else 0."""

    outcome_id: str
    application_id: str
    kind: str
    event_time_ms: int = 0
    amount_minor: int = 0


@dataclass(frozen=True)
class Snapshot:
    """All that the models see of B applications of one schema, each strictly before itself.

    features: float32 [B, F], NaN where missing, columns `schema.feature_names`.
    entity_state: float32 [B, E, len(ENTITY_STATS)], NaN where unknown or the slot is empty.
    neighbor_state: float32 [B, E, K, C], the K most recent applications of each entity, newest first, 0 where masked;
    columns features.neighborhood.NEIGHBOR_COLUMNS then the schema's record.
    neighbor_mask: bool [B, E, K], True where there is a neighbour.
    source_state: uint8 [B, S], SOURCE_FRESH, SOURCE_STALE or SOURCE_MISSING, order of `schema.sources`.
    hops: two of them, where the graph was asked for them.
    """

    features: NDArray[np.float32]
    entity_state: NDArray[np.float32]
    neighbor_state: NDArray[np.float32]
    neighbor_mask: NDArray[np.bool_]
    source_state: NDArray[np.uint8]
    hops: "Hops | None" = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64] | slice) -> "Snapshot":
        """The snapshot of some of the rows."""
        return Snapshot(
            self.features[rows], self.entity_state[rows], self.neighbor_state[rows],
            self.neighbor_mask[rows], self.source_state[rows], None if self.hops is None else self.hops.take(rows),
        )  # fmt: skip

    @staticmethod
    def join(parts: Sequence["Snapshot"]) -> "Snapshot":
        """The rows of some snapshots of one schema, in order."""
        names = [f.name for f in fields(Snapshot) if f.name != "hops"]
        arrays: Any = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        joined = Snapshot(*arrays)
        hops = [part.hops for part in parts if part.hops is not None]
        return replace(joined, hops=hops[0].join(hops)) if len(hops) == len(parts) > 0 else joined


class Reason(NamedTuple):  # a decision has many, and a tuple is made six times as fast as a frozen dataclass
    """Why, in words: a policy row (contribution 0) or a feature that moved a model's log-odds by `contribution`."""

    code: str
    zh: str
    en: str
    contribution: float = 0.0
    evidence: str = ""
    legal_source: str = ""


def borrower(schema: Schema, applicant: int) -> str:
    """Whose exposure counts as one: an applicant's, by token, over the products of a schema. What somebody owes on a
    car leaves their consumer credit as it is.
    """
    return f"{schema.name}:{applicant:016x}"


def check_text(name: str, text: str, longest: int) -> str:
    """`text` if it is 1 to `longest` bytes of UTF-8 without control characters; InvalidFieldError otherwise."""
    if text.isascii() and text.isprintable() and 0 < len(text) <= longest:
        return text  # as nearly all are
    if not text:
        raise InvalidFieldError(name, "is missing")
    if len(text.encode()) > longest:
        raise InvalidFieldError(name, f"is longer than {longest} bytes")
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise InvalidFieldError(name, "has control characters")
    return text


def check_person(name: str, text: str, longest: int) -> str:
    """As check_text, of a person's name: something of it shows."""
    if not plain(check_text(name, text, longest)).strip():
        raise InvalidFieldError(name, "is nobody's name")
    return text


def category_code(text: str) -> float:
    """The number of an open category's text: 24 bits of BLAKE2b, exact in float32; equal for equal text everywhere."""
    return float(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=3).digest(), "little"))


def feature_number(schema: Schema, name: str, value: float | str, key: str) -> float:
    """float of a feature's value, checked against its range or categories. `key` names it in errors."""
    feature = schema.features[schema.column[name]]
    if feature.category:
        if not isinstance(value, str) or (feature.values and value not in feature.values):
            raise InvalidFieldError(
                key, f"must be one of {', '.join(feature.values)}" if feature.values else "must be text"
            )
        return float(feature.values.index(value)) if feature.values else category_code(value)
    if isinstance(value, str):
        raise InvalidFieldError(key, "must be a number")
    if not math.isfinite(value):
        raise InvalidFieldError(key, "must be a finite number")
    if feature.range is not None and not feature.range[0] <= value <= feature.range[1] and value not in feature.missing:
        raise InvalidFieldError(key, f"must be from {feature.range[0]:g} to {feature.range[1]:g}")
    return float(value)


def feature_entry(schema: Schema, name: str, value: float | str, key: str) -> tuple[str, float]:
    """The column that a feature's value fills, and with what: a missing code fills the column of missing codes."""
    number = feature_number(schema, name, value, key)
    missing = schema.features[schema.column[name]].missing
    return (f"{name}{MISSING_CODE}" if missing and number in missing else name), number


def entity_tokens(
    schema: Schema,
    tokenizer: Tokenizer,
    applicant_id: str,
    entities: Iterable[tuple[str, str]],
    consents: Collection[str],
) -> NDArray[np.uint64]:
    """uint64 [16] tokens by slot, 0 where absent; the first entity of the schema is the applicant.

    An entity whose consent is not on record is left out (R20). Raises InvalidFieldError.
    """
    tokens = [0] * SLOTS_MAX
    applicant = next(iter(schema.entities.values()))
    tokens[0] = _token(tokenizer, applicant.name, applicant_id, "applicant_id")
    for i, (kind, identifier) in enumerate(entities):
        entity = schema.entities.get(kind)
        if entity is None or entity.of or entity is applicant:
            raise InvalidFieldError(f"entities[{i}].type", f"is no entity type of {schema.name}")
        token = _token(tokenizer, kind, identifier, "entities[{}].id", i)
        if entity.consent and entity.consent not in consents:
            continue
        for slot in range(entity.first_slot, entity.first_slot + entity.slots):
            if tokens[slot] == token:
                break
            if not tokens[slot]:
                tokens[slot] = token
                break
        else:
            raise InvalidFieldError(f"entities[{i}]", f"at most {entity.slots} of type {kind}")
    for entity in schema.compounds:
        parts = tuple([tokens[schema.entities[part].first_slot] for part in entity.of])
        if all(parts) and (not entity.consent or entity.consent in consents):
            tokens[entity.first_slot] = tokenizer.compound(entity.name, parts)
    return np.array(tokens, dtype=np.uint64)


def _token(tokenizer: Tokenizer, kind: str, identifier: str, key: str, place: int = 0) -> int:
    """`key` with `place` filled in names the identifier in errors."""
    try:
        plain = identifier.isascii() and identifier.isprintable() and 0 < len(identifier) <= 256
        return tokenizer.token(kind, identifier if plain else check_text(key, identifier, 256))
    except InvalidFieldError as error:
        raise InvalidFieldError(key.format(place), error.reason) from None
    except ValueError:
        raise InvalidFieldError(key.format(place), f"is no {kind}") from None


def tokens_of(rows: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """uint64 [B, 16] of B applications' tokens."""
    buffers = cast("Iterable[bytes]", rows)  # as all arrays are
    return np.frombuffer(bytearray().join(buffers), np.uint64).reshape(-1, SLOTS_MAX)


def subject_token(schema: Schema, tokenizer: Tokenizer, source: str, subject_id: str) -> int:
    """uint64 token of whom or what a source knows. Raises InvalidFieldError naming `source` or `subject_id`."""
    if source not in schema.sources:
        raise InvalidFieldError("source", f"must be one of {', '.join(schema.sources) or 'none'}")
    slot = schema.sources[source].slot
    entity = next(e for e in schema.entities.values() if e.first_slot == slot)
    return _token(tokenizer, entity.name, subject_id, "subject_id")


def make_profile(schema: Schema, source: str, fetched_at_ms: int, numbers: Mapping[str, float]) -> Profile:
    """The Profile of checked numbers by feature name. Raises InvalidFieldError where there are none."""
    if not numbers:
        raise InvalidFieldError("features", "is empty: a source that knows nothing is not reported")
    names = schema.sources[source].features
    return Profile(source, fetched_at_ms, np.array([numbers.get(name, np.nan) for name in names], dtype=np.float32))
