"""What is stored beside a decision so that it can be shown and recomputed years later (R23).

Profiles live outside the log, so the feature row that was scored is kept whole; the log gives the rest: replayed up to
`as_of` it yields the same velocity and graph features. Layout: uint32 length, JSON of what Shared names; a record of
fixed width; uint32 length, codes of reasons; float32 [F] feature row.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

ASKED = (
    "amount_minor", "term_months", "repayment", "upfront_fee_minor", "monthly_fee_minor", "human_review_requested"
)  # fmt: skip
_LENGTH, _FLOAT = struct.Struct("<I").pack, np.dtype("<f4")


class Facts(NamedTuple):  # one a decision: see application.Reason
    """Versions (hashes), place in the log, the time that gaps were counted from and fetch times of profiles, ms.

    What was decided stands here too, for readers that know no wire, and what the policy saw beside the feature row;
    evidence of before has neither. outcome: name of a policy.decide.Outcome. asked: what ASKED names. lent: minor units
    by funder before this decision. residual_low: in the currency. listed: identifiers on the black, grey and white
    list. reasons: codes of the policy's, the worst vote's first.
    """

    bundle: str
    policy: str
    schema: str
    epoch: str
    sequence: int
    as_of: int
    time_ms: int
    profiles: Mapping[str, int]
    outcome: str | None = None
    fraud_probability: float | None = None
    default_probability: float | None = None
    approved_amount_minor: int | None = None
    annual_rate: float | None = None
    grade: str | None = None
    asked: Mapping[str, int | str] | None = None
    exposure_minor: int | None = None
    lent: Mapping[str, int] | None = None
    residual_low: float | None = None
    listed: Sequence[int] | None = None
    reasons: Sequence[str] | None = None


class Shared(NamedTuple):
    """What decisions on one product have in common: versions, epoch, and the names of sources and funders."""

    bundle: str
    policy: str
    schema: str
    epoch: str
    sources: tuple[str, ...]
    funders: tuple[str, ...]


class Columns(NamedTuple):
    """The rest of the Facts of B decisions, [B] each; NaN where Facts have None.

    asked: by name. profiles: int64 [B, sources], 0 where a source knows nothing. lent: [B, funders]. listed: int64 [B,
    3]. reasons: codes with a zero character between.
    """

    sequence: NDArray[np.int64]
    as_of: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    profiles: NDArray[np.int64]
    outcome: NDArray[np.bytes_]
    fraud_probability: NDArray[np.float64]
    default_probability: NDArray[np.float64]
    approved_amount_minor: Sequence[int]
    annual_rate: Sequence[float]
    grade: Sequence[str]
    asked: Mapping[str, NDArray[np.int64] | NDArray[np.bytes_]]
    exposure_minor: Sequence[int]
    lent: Sequence[Sequence[int]]
    residual_low: NDArray[np.float64]
    listed: NDArray[np.int64]
    reasons: Sequence[str]


def known(probability: float) -> float | None:
    """A probability as Facts keep it: None where there is no model of it."""
    return None if math.isnan(probability) else probability


def pack(shared: Shared, columns: Columns, features: NDArray[np.float32]) -> list[bytes]:
    """The stored form of the evidence of B decisions; features: float32 [B, F]."""
    record = np.empty(len(features), dtype=_record(len(shared.sources), len(shared.funders)))
    for name, column in {**columns._asdict(), **columns.asked}.items():
        if name not in ("asked", "reasons"):
            record[name] = column
    head, rows = _head(shared), np.ascontiguousarray(features, dtype=_FLOAT)
    facts, numbers, fact, number = record.tobytes(), rows.tobytes(), record.itemsize, rows.itemsize * rows.shape[1]
    return [
        b"".join((
            head, facts[i * fact : (i + 1) * fact], _LENGTH(len(codes)), codes.encode(),
            numbers[i * number : (i + 1) * number],
        ))
        for i, codes in enumerate(columns.reasons)
    ]  # fmt: skip


def unpack(blob: bytes) -> tuple[Facts, NDArray[np.float32]]:
    """The facts and the float32 [F] feature row of stored evidence."""
    (length,) = struct.unpack_from("<I", blob)
    at, shared = 4 + length, orjson.loads(blob[4 : 4 + length])
    if "sources" not in shared:  # as it was stored before: all facts are JSON
        return Facts(**shared), np.frombuffer(blob, dtype=_FLOAT, offset=at)
    shared = Shared(**shared)
    dtype = _record(len(shared.sources), len(shared.funders))
    record = np.frombuffer(blob, dtype=dtype, count=1, offset=at)[0]
    said = {name: _plain(record[name].tolist()) for name in dtype.names or ()}
    at += dtype.itemsize
    (length,) = struct.unpack_from("<I", blob, at)
    codes, at = blob[at + 4 : at + 4 + length].decode(), at + 4 + length
    fetched = zip(shared.sources, said.pop("profiles"), strict=True)
    said |= {
        "profiles": {source: ms for source, ms in fetched if ms}, "asked": {name: said.pop(name) for name in ASKED},
        "lent": dict(zip(shared.funders, said.pop("lent"), strict=True)), "reasons": codes.split("\0") if codes else [],
    }  # fmt: skip
    facts = Facts(shared.bundle, shared.policy, shared.schema, shared.epoch, **said)
    return facts, np.frombuffer(blob, dtype=_FLOAT, offset=at)


@lru_cache
def _record(sources: int, funders: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("sequence", "<i8"), ("as_of", "<i8"), ("time_ms", "<i8"), ("profiles", "<i8", (sources,)),
            ("outcome", "S8"), ("fraud_probability", "<f8"), ("default_probability", "<f8"),
            ("approved_amount_minor", "<i8"), ("annual_rate", "<f8"), ("grade", "S4"),
            *((name, "S32" if name == "repayment" else "<i8") for name in ASKED),
            ("exposure_minor", "<i8"), ("lent", "<i8", (funders,)), ("residual_low", "<f8"), ("listed", "<i8", (3,)),
        ]
    )  # fmt: skip


@lru_cache
def _head(shared: Shared) -> bytes:
    text = orjson.dumps(shared._asdict())
    return _LENGTH(len(text)) + text


def _plain(value: Any) -> Any:
    """As Facts have it."""
    if isinstance(value, bytes):
        return value.decode()
    return known(value) if isinstance(value, float) else value
