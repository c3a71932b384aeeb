"""Who lends an approved amount (R4): funders in the order of their table, each up to its share of the loan and its cap.

A funder that asks more a year than the borrower pays is passed over. Where all together cannot lend the amount, the
most that they can is found; shares then follow the smaller amount. A share is a whole number of minor units, rounded
down, and up only where nobody else takes what is then left.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from policy import program as at
from policy.kernel import FALSE, HIT, LIMIT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TERMS = ("share_max", "cap_minor", "funder_rate")
NOISE = 1e-6  # of a minor unit: 0.3 × 100 000 is 30 000, the rest is binary


@dataclass(frozen=True)
class Offer:
    """A row of the funders' table that holds. share_max: of one loan, 0 to 1; cap_minor: of all its loans together."""

    funder: str
    mode: str
    share_max: float
    cap_minor: int
    funder_rate: float


class Share(NamedTuple):
    """A funder's part of a loan, minor units."""

    offer: Offer
    amount_minor: int


class Offers:
    """The rows of a funders' table: what they offer, by which row of the program, and where those terms stand in memory
    that are computed. Of two rows of one funder the first counts, also if it only may hold: then that funder does not
    lend, for what is missing must not choose the better of the two.
    """

    def __init__(self, rows: Sequence[tuple[int, Offer, Mapping[str, int]]]) -> None:
        self._rows = rows
        self.funders = tuple(dict.fromkeys(offer.funder for _, offer, _ in rows))
        self._row = np.array([row for row, _, _ in rows], dtype=np.int64)
        self._funder = np.array([self.funders.index(offer.funder) for _, offer, _ in rows], dtype=np.int64)
        self._terms = np.array([[getattr(offer, t) for t in TERMS] for _, offer, _ in rows], dtype=np.float64)
        self._slots = np.array([[slots.get(t, -1) for t in TERMS] for _, _, slots in rows], dtype=np.int64)
        self._caps = [(offer.funder, offer.cap_minor) for _, offer, slots in rows if "cap_minor" not in slots]

    def scarce(self, lent: Mapping[str, int], amount_minor: int) -> bool:
        """Whether loans of so much together might come up against a cap: then it counts who comes first."""
        if len(self._caps) < len(self._rows):  # one is computed
            return True
        return any([0 < cap_minor - lent.get(funder, 0) < amount_minor for funder, cap_minor in self._caps])

    def fund(
        self, judged: at.Judged, places: Ints, lent: Mapping[str, int], fund_less: Callable[[int, int], bool]
    ) -> Ints:
        """int64 [B, rows]: each offer's part of what is approved, in the order of the batch.

        fund_less(i, funded) decides application `i` anew where that is less than its amount; whether it is lent.
        """
        parts = np.zeros((judged.ints.shape[1], len(self._rows)), dtype=np.int64)
        so_far = np.array([lent.get(name, 0) for name in self.funders], dtype=np.int64)
        i = -1
        while (i := _fund(
            self._row, self._funder, self._terms, self._slots, judged.status, judged.memory, judged.ints,
            judged.floats[at.RATE], places[at.ROUNDING], so_far, parts, i + 1,
        )) < len(parts):  # fmt: skip
            if fund_less(i, int(parts[i].sum())):
                np.add.at(so_far, self._funder, parts[i])
            else:
                parts[i] = 0
        return parts

    def standing(self, status: NDArray[np.int8], memory: Floats, i: int) -> tuple[Offer, ...]:
        """Of application `i`, what each funder offers. status and memory: of the program, see policy.kernel."""
        stands = np.zeros(len(self._rows), dtype=np.bool_)
        _standing(self._row, self._funder, status, i, np.zeros(len(self.funders), dtype=np.bool_), stands)
        return tuple(_filled(*row[1:], i, memory.item) for row, holds in zip(self._rows, stands, strict=True) if holds)

    def shares(self, i: int, parts: Sequence[int], item: Callable[[int, int], float]) -> tuple[Share, ...]:
        """Of application `i`, with its parts and what stands in memory."""
        return tuple(
            [Share(_filled(*row[1:], i, item), part) for row, part in zip(self._rows, parts, strict=True) if part]
        )


def _filled(offer: Offer, slots: Mapping[str, int], i: int, item: Callable[[int, int], float]) -> Offer:
    if not slots:
        return offer
    terms: dict[str, Any] = {term: item(slot, i) for term, slot in slots.items()}
    if "cap_minor" in terms:
        terms["cap_minor"] = int(terms["cap_minor"])
    return replace(offer, **terms)


def split(
    amount_minor: int, annual_rate: float, rounding_minor: int, offers: Sequence[Offer], lent: Mapping[str, int]
) -> tuple[Share, ...]:
    """Shares that sum to the amount, or to the greatest smaller multiple of rounding_minor that can be lent.

    lent: minor units that each funder has lent already. None where nothing can be lent.
    """
    willing = [offer for offer in offers if offer.funder_rate <= annual_rate]
    share = np.array([offer.share_max for offer in willing], dtype=np.float64)
    room = np.array([offer.cap_minor - lent.get(offer.funder, 0) for offer in willing], dtype=np.int64)
    parts = np.zeros(len(willing), dtype=np.int64)
    _divide(amount_minor, rounding_minor, share, room, parts)
    return tuple(Share(offer, part) for offer, part in zip(willing, parts.tolist(), strict=True) if part)


@njit(cache=True, nogil=True)
def _fund(row, funder, terms, slots, status, memory, ints, rates, rounding_at, lent, parts, begin):  # type: ignore[no-untyped-def]
    """int: the first application from `begin` on that gets less than its amount, its parts filled; else how many."""
    share, room = np.empty(len(row)), np.empty(len(row), dtype=np.int64)
    asked, stands, now = np.empty(len(lent), dtype=np.bool_), np.empty(len(row), dtype=np.bool_), np.empty(3)
    for i in range(begin, len(parts)):
        if ints[at.OUTCOME, i] > LIMIT:
            continue
        _standing(row, funder, status, i, asked, stands)
        share[:], room[:] = 0.0, 0
        for k in range(len(row)):
            if not stands[k]:
                continue
            for t in range(3):
                now[t] = terms[k, t] if slots[k, t] < 0 else memory[slots[k, t], i]
            if now[2] <= rates[i]:
                share[k], room[k] = now[0], int(now[1]) - lent[funder[k]]
        amount = ints[at.AMOUNT, i]
        if _divide(amount, int(memory[rounding_at, i]), share, room, parts[i]) < amount:
            return i
        for k in range(len(row)):
            lent[funder[k]] += parts[i, k]
    return len(parts)


@njit(cache=True, nogil=True)
def _standing(row, funder, status, i, asked, stands):  # type: ignore[no-untyped-def]
    """Fills `stands`: the rows by which funders offer, of each funder its first that is not false, where that holds."""
    asked[:] = False
    for k in range(len(row)):
        said = status[row[k], i]
        stands[k] = said == HIT and not asked[funder[k]]
        asked[funder[k]] |= said != FALSE


@njit(cache=True, nogil=True)
def _divide(amount, rounding, share, room, parts):  # type: ignore[no-untyped-def]
    """int: what is lent, in `parts`."""
    if not _lendable(amount, share, room):
        low, high = 0, -(-amount // rounding)  # low can be lent, high cannot: what can is an interval
        while high - low > 1:
            middle = (low + high) // 2
            if _lendable(middle * rounding, share, room):
                low = middle
            else:
                high = middle
        amount = low * rounding
    left = amount
    for k in range(len(share)):
        parts[k] = max(min(math.floor(share[k] * amount + NOISE), room[k], left), 0)
        left -= parts[k]
    for k in range(len(share)):  # what nobody lends within a share of whole minor units
        more = max(min(_part(share[k], amount) - parts[k], room[k] - parts[k], left), 0)
        parts[k] += more
        left -= more
    return amount - left


@njit(cache=True, nogil=True)
def _lendable(amount, share, room):  # type: ignore[no-untyped-def]
    total = 0
    for k in range(len(share)):
        total += max(min(_part(share[k], amount), room[k]), 0)
    return total >= amount


@njit(cache=True, nogil=True)
def _part(share, amount):  # type: ignore[no-untyped-def]
    """The most that a share may come to: rounded up, so that shares of 0.7 and 0.3 sum to the whole."""
    return math.ceil(share * amount - NOISE)
