"""What a policy sees of a batch: what is asked for, and every input by name as one matrix of numbers.

Serving and `policy simulate` fill it here, so both decide on the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import REPAYMENT_METHODS, Application, Snapshot
from features.schema import Schema
from policy.cells import Column
from policy.specs import LISTS


@dataclass(frozen=True)
class Asked:
    """What B applications ask for; all int64 [B]. Amounts in minor units, repayment an index of REPAYMENT_METHODS,
    human_review_requested 0 or 1.
    """

    amount_minor: NDArray[np.int64]
    term_months: NDArray[np.int64]
    repayment: NDArray[np.int64]
    upfront_fee_minor: NDArray[np.int64]
    monthly_fee_minor: NDArray[np.int64]
    human_review_requested: NDArray[np.int64]

    @classmethod
    def of(cls, applications: Sequence[Application]) -> "Asked":
        """Of some applications."""
        rows = [
            (
                a.amount_minor, a.term_months, REPAYMENT_METHODS.index(a.repayment), a.upfront_fee_minor,
                a.monthly_fee_minor, int(a.human_review_requested),
            )
            for a in applications
        ]  # fmt: skip
        return cls(*np.array(rows, dtype=np.int64).reshape(-1, len(fields(cls))).T)

    def __len__(self) -> int:
        return len(self.amount_minor)

    def take(self, rows: NDArray[np.int64]) -> "Asked":
        """Of some of the rows."""
        return Asked(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class Known:
    """What is known of B applications beside their feature rows.

    fraud_probability, default_probability: float64 [B], NaN where there is no model. residual_low: float64 [B], the
    low quantile of what the vehicle fetches, in the currency, NaN where that is not known. exposure_minor: int64 [B],
    what the borrower has been approved for and not yet repaid. listed: int64 [B, 3], how many of the application's
    identifiers are on each of policy.specs.LISTS.
    """

    fraud_probability: NDArray[np.float64]
    default_probability: NDArray[np.float64]
    residual_low: NDArray[np.float64]
    exposure_minor: NDArray[np.int64]
    listed: NDArray[np.int64]


def input_values(
    schema: Schema, columns: Mapping[str, Column], snapshot: Snapshot, asked: Asked, known: Known
) -> NDArray[np.float64]:
    """float64 [B, len(columns)]: the inputs `columns`; strings as the index of their value, NaN where missing."""
    given: dict[str, NDArray[np.generic]] = {
        "amount_minor": asked.amount_minor,
        "term_months": asked.term_months,
        "repayment": asked.repayment,
        "human_review_requested": asked.human_review_requested,
        "fraud_probability": known.fraud_probability,
        "default_probability": known.default_probability,
        "residual_low": known.residual_low,
        "exposure_minor": known.exposure_minor,
    }
    given.update({f"listed_{kind}": known.listed[:, i] for i, kind in enumerate(LISTS)})
    given.update({f"{source}_state": snapshot.source_state[:, s] for s, source in enumerate(schema.sources)})
    values = np.empty((len(asked), len(columns)))
    places = [(i, schema.column[name]) for i, name in enumerate(columns) if name not in given]
    for i, name in enumerate(columns):
        if name in given:
            values[:, i] = given[name]
    values[:, [i for i, _ in places]] = decimal(snapshot.features[:, [feature for _, feature in places]])
    return values


def decimal(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64, as many: the shortest decimal that each float32 stands for; a limit of 0.7 must hold for 0.7."""
    found = np.empty(numbers.size)
    for i in _shortest(np.ascontiguousarray(numbers, dtype=np.float32).ravel(), found):
        found[i] = float(str(numbers.flat[i]))
    return found.reshape(numbers.shape)


@njit(cache=True, nogil=True, error_model="numpy")
def _shortest(numbers: NDArray[np.float32], found: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fills `found`; the places of those that are left, below 1e-4 or from 1e9 on.

    Of the decimals with 6, then more digits that lie next to a number, the first that rounds to it; 6 digits always
    differ in float32. Scaled by up to 10^12, 24 bits are still exact in 53, so is which decimal lies below.
    """
    left, count = np.empty(len(numbers), dtype=np.int64), 0
    for i in range(len(numbers)):
        number = np.float64(numbers[i])
        size = abs(number)
        found[i] = number
        if not np.isfinite(number) or (size < 16_777_216 and size == np.floor(size)):
            continue
        if size < 1e-4 or size >= 1e9:
            left[count] = i
            count += 1
            continue
        power = 9  # of ten: places after the point for 6 digits
        least = 1e-4
        while size >= least * 10 and power > -4:
            least *= 10
            power -= 1
        for places in range(power, power + 4):
            scale = 10.0 ** abs(places)
            scaled = size * scale if places >= 0 else size / scale
            low = np.floor(scaled)
            below = low / scale if places >= 0 else low * scale
            above = (low + 1) / scale if places >= 0 else (low + 1) * scale
            fits_below, fits_above = np.float32(below) == np.float32(size), np.float32(above) == np.float32(size)
            if fits_below or fits_above:
                is_low = scaled - low < 0.5 or (scaled - low == 0.5 and low % 2 == 0)
                nearest = below if (is_low if fits_below and fits_above else fits_below) else above
                found[i] = nearest if number > 0 else -nearest
                break
    return left[:count]
