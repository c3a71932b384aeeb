"""Who lends an approved amount (R4): funders in the order of their table, each up to its share of the loan and its cap.

A funder that asks more a year than the borrower pays is passed over. Where all together cannot lend the amount, the
most that they can is found; shares then follow the smaller amount.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """A row of the funders' table that holds. share_max: of one loan, 0 to 1; cap_minor: of all its loans together."""

    funder: str
    mode: str
    share_max: float
    cap_minor: int
    funder_rate: float


@dataclass(frozen=True)
class Share:
    """A funder's part of a loan, minor units."""

    offer: Offer
    amount_minor: int


def split(
    amount_minor: int, annual_rate: float, rounding_minor: int, offers: Sequence[Offer], lent: Mapping[str, int]
) -> tuple[Share, ...]:
    """Shares that sum to the amount, or to the greatest smaller multiple of rounding_minor that can be lent.

    lent: minor units that each funder has lent already. None where nothing can be lent.
    """
    willing = [offer for offer in offers if offer.funder_rate <= annual_rate]
    most = [offer.cap_minor - lent.get(offer.funder, 0) for offer in willing]
    if not _lendable(amount_minor, willing, most):
        low, high = 0, -(-amount_minor // rounding_minor)  # low can be lent, high cannot: what can is an interval
        while high - low > 1:
            middle = (low + high) // 2
            if _lendable(middle * rounding_minor, willing, most):
                low = middle
            else:
                high = middle
        amount_minor = low * rounding_minor
    shares, left = [], amount_minor
    for offer, room in zip(willing, most, strict=True):
        take = min(_part(offer, amount_minor), room, left)
        if take > 0:
            shares.append(Share(offer, take))
            left -= take
    return tuple(shares)


def _lendable(amount_minor: int, offers: Sequence[Offer], most: Sequence[int]) -> bool:
    parts = (max(min(_part(offer, amount_minor), room), 0) for offer, room in zip(offers, most, strict=True))
    return sum(parts) >= amount_minor


def _part(offer: Offer, amount_minor: int) -> int:
    """Rounded up, so that shares of 0.7 and 0.3 sum to the whole; 0.3 × 100 000 is 30 000, the rest binary noise."""
    return math.ceil(offer.share_max * amount_minor - 1e-6)
