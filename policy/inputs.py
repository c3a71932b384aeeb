"""What a policy sees of a batch: what is asked for, and every input by name as one matrix of numbers.

Serving and `policy simulate` fill it here, so both decide on the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import chain

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
                a.monthly_fee_minor, a.human_review_requested,
            )
            for a in applications
        ]  # fmt: skip
        numbers = np.fromiter(chain.from_iterable(rows), np.int64, _ASKED * len(rows))
        return cls(*np.ascontiguousarray(numbers.reshape(-1, _ASKED).T))

    def __len__(self) -> int:
        return len(self.amount_minor)

    def take(self, rows: NDArray[np.int64]) -> "Asked":
        """Of some of the rows."""
        return Asked(*(getattr(self, f.name)[rows] for f in fields(self)))


_ASKED = len(fields(Asked))


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

    def take(self, rows: NDArray[np.int64]) -> "Known":
        """Of some of the rows."""
        return Known(*(getattr(self, f.name)[rows] for f in fields(self)))


_KNOWN = (
    "amount_minor", "term_months", "repayment", "human_review_requested", "fraud_probability", "default_probability",
    "residual_low", "exposure_minor", *(f"listed_{kind}" for kind in LISTS),
)  # fmt: skip


@lru_cache(maxsize=64)
def _places(schema: Schema, columns: tuple[str, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of columns, int64 [n, 2] the place and which of _KNOWN and then of the sources' states it is, and of the others
    int64 [m, 2] the place and the feature.
    """
    known = {name: i for i, name in enumerate((*_KNOWN, *(f"{source}_state" for source in schema.sources)))}
    told = [(i, known[name]) for i, name in enumerate(columns) if name in known]
    others = [(i, schema.column[name]) for i, name in enumerate(columns) if name not in known]
    return np.array(told, dtype=np.int64).reshape(-1, 2), np.array(others, dtype=np.int64).reshape(-1, 2)


def input_values(
    schema: Schema, columns: Mapping[str, Column], snapshot: Snapshot, asked: Asked, known: Known
) -> NDArray[np.float64]:
    """float64 [B, len(columns)]: the inputs `columns`; strings as the index of their value, NaN where missing."""
    told, others = _places(schema, tuple(columns))
    values, plain = np.empty((len(asked), len(columns))), np.ascontiguousarray
    _tell(
        told, plain(asked.amount_minor), plain(asked.term_months), plain(asked.repayment),
        plain(asked.human_review_requested), plain(known.fraud_probability), plain(known.default_probability),
        plain(known.residual_low), plain(known.exposure_minor), plain(known.listed), plain(snapshot.source_state),
        values,
    )  # fmt: skip
    features = plain(snapshot.features)
    for row, k in _decimals(features, others, values):
        values[row, others[k, 0]] = float(str(features[row, others[k, 1]]))
    return values


@njit(cache=True, nogil=True)
def _tell(  # type: ignore[no-untyped-def]
    told, amount_minor, term_months, repayment, human_review, fraud, default, residual_low, exposure_minor, listed,
    source_state, values,
):  # fmt: skip
    """Fill what is no feature."""
    for i in range(len(values)):
        numbers = (
            np.float64(amount_minor[i]), np.float64(term_months[i]), np.float64(repayment[i]),
            np.float64(human_review[i]), fraud[i], default[i], residual_low[i], np.float64(exposure_minor[i]),
        )  # fmt: skip
        lists = len(numbers) + listed.shape[1]
        for k in range(len(told)):
            which = told[k, 1]
            if which < len(numbers):
                values[i, told[k, 0]] = numbers[which]
            elif which < lists:
                values[i, told[k, 0]] = listed[i, which - len(numbers)]
            else:
                values[i, told[k, 0]] = source_state[i, which - lists]


def decimal(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64, as many: the shortest decimal that each float32 stands for; a limit of 0.7 must hold for 0.7."""
    row, found = np.ascontiguousarray(numbers, dtype=np.float32).reshape(1, -1), np.empty((1, numbers.size))
    places = np.repeat(np.arange(numbers.size), 2).reshape(-1, 2)
    for _, k in _decimals(row, places, found):
        found[0, k] = float(str(row[0, k]))
    return found.reshape(numbers.shape)


@njit(cache=True, nogil=True, error_model="numpy")
def _decimals(features, places, found):  # type: ignore[no-untyped-def]
    """Fill the places of rows with the decimals of features; int64 [n, 2] row and place of those that are left."""
    left = [(0, 0) for _ in range(0)]
    for i in range(len(features)):
        for k in range(len(places)):
            decimal, fits = _shortest(features[i, places[k, 1]])
            found[i, places[k, 0]] = decimal
            if not fits:
                left.append((i, k))
    return left


@njit(cache=True, nogil=True, error_model="numpy")
def _shortest(number):  # type: ignore[no-untyped-def]
    """The shortest decimal of a float32, and whether it was found: below 1e-4 or from 1e9 on it is not.

    Of the decimals with 6, then more digits that lie next to a number, the first that rounds to it; 6 digits always
    differ in float32. Scaled by up to 10^12, 24 bits are still exact in 53, so is which decimal lies below.
    """
    number = np.float64(number)
    size = abs(number)
    if not np.isfinite(number) or (size < 16_777_216 and size == np.floor(size)):
        return number, True
    if size < 1e-4 or size >= 1e9:
        return number, False
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
            return (nearest if number > 0 else -nearest), True
    return number, True
