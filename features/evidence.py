"""What is stored beside a decision so that it can be shown and recomputed years later (R23).

Profiles live outside the log, so the feature row that was scored is kept whole; the log gives the rest: replayed up to
`as_of` it yields the same velocity and graph features. Layout: uint32 length, JSON facts, float32 [F] feature row.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from features.application import Application

_LENGTH, _FLOAT = struct.Struct("<I").pack, np.dtype("<f4")


class Facts(NamedTuple):  # one a decision: see application.Reason
    """Versions (hashes), place in the log, the time that gaps were counted from and fetch times of profiles, ms.

    What was decided stands here too, for readers that know no wire, and what the policy saw beside the feature row;
    evidence of before has neither. outcome: name of a policy.decide.Outcome. asked: amount_minor, term_months,
    repayment, upfront_fee_minor, monthly_fee_minor, human_review_requested. lent: minor units by funder before this
    decision. residual_low: in the currency. listed: identifiers on the black, grey and white list. reasons: codes of
    the policy's, the worst vote's first.
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


def asked(application: Application) -> dict[str, int | str]:
    """What an application asks for, as Facts keep it."""
    return {
        "amount_minor": application.amount_minor, "term_months": application.term_months,
        "repayment": application.repayment, "upfront_fee_minor": application.upfront_fee_minor,
        "monthly_fee_minor": application.monthly_fee_minor,
        "human_review_requested": int(application.human_review_requested),
    }  # fmt: skip


def known(probability: float) -> float | None:
    """A probability as Facts keep it: None where there is no model of it, since JSON has no NaN."""
    return None if math.isnan(probability) else probability


def pack(facts: Facts, features: NDArray[np.float32]) -> bytes:
    """The stored form of a decision's evidence; features: float32 [F]."""
    text = orjson.dumps(dict(zip(Facts._fields, facts, strict=True)))
    return b"".join((_LENGTH(len(text)), text, features.astype(_FLOAT, copy=False).tobytes()))


def unpack(blob: bytes) -> tuple[Facts, NDArray[np.float32]]:
    """The facts and the float32 [F] feature row of stored evidence."""
    (length,) = struct.unpack_from("<I", blob)
    return Facts(**orjson.loads(blob[4 : 4 + length])), np.frombuffer(blob, dtype="<f4", offset=4 + length)
