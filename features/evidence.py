"""What is stored beside a decision so that it can be shown and recomputed years later (R23).

Profiles live outside the log, so the feature row that was scored is kept whole; the log gives the rest: replayed up to
`as_of` it yields the same velocity and graph features. Layout: uint32 length, JSON facts, float32 [F] feature row.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Facts:
    """Versions (hashes), place in the log, the time that gaps were counted from and fetch times of profiles, ms.

    What was decided stands here too, for readers that know no wire; evidence of before has neither outcome nor
    probabilities. outcome: name of a policy.decide.Outcome.
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


def known(probability: float) -> float | None:
    """A probability as Facts keep it: None where there is no model of it, since JSON has no NaN."""
    return None if math.isnan(probability) else float(probability)


def pack(facts: Facts, features: NDArray[np.float32]) -> bytes:
    """The stored form of a decision's evidence; features: float32 [F]."""
    text = json.dumps(asdict(facts)).encode()
    return struct.pack("<I", len(text)) + text + features.astype("<f4").tobytes()


def unpack(blob: bytes) -> tuple[Facts, NDArray[np.float32]]:
    """The facts and the float32 [F] feature row of stored evidence."""
    (length,) = struct.unpack_from("<I", blob)
    return Facts(**json.loads(blob[4 : 4 + length])), np.frombuffer(blob, dtype="<f4", offset=4 + length)
