"""What an approval takes of a borrower's exposure and of funders' caps, and what an outcome gives back (R2, R4).

The store counts it together with the decision, or stores neither (functions.lua): a borrower's applications at two
replicas in one instant share one limit. Amounts are integers of minor units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from features.application import Report

# What functions.lua does with a reservation on an outcome; of principal repaid it is the amount that it gives back.
_GIVES_BACK = {
    "not_taken_up": "lapsed", "expired": "lapsed", "repaid": "all", "disbursed": "paid", "retracted": "none"
}  # fmt: skip


class Reservation(NamedTuple):
    """borrower: of features.application. exposure_max_minor: what the borrower may have in all, None where it is only
    counted. shares: (funder, minor units of this loan, what the funder may have lent in all).
    """

    borrower: str
    amount_minor: int
    exposure_max_minor: int | None
    shares: tuple[tuple[str, int, int], ...] = ()

    def packed(self) -> bytes:
        """As functions.lua reads it, and as it stands in the application's hash."""
        return orjson.dumps([self.borrower, self.amount_minor, self.exposure_max_minor, self.shares])

    @classmethod
    def unpack(cls, packed: bytes) -> "Reservation":
        """What stands in the application's hash."""
        borrower, amount, most, shares = orjson.loads(packed)
        return cls(borrower, amount, most, tuple((funder, minor, cap) for funder, minor, cap in shares))


class Proposal(NamedTuple):
    """A decision to store where none is. waits: whether it waits for a person; reservation: what it takes, if any.

    place: epoch and sequence number that it was decided at, with a colon between; it is stored there or nowhere. Empty
    where the application's is meant, whichever that is.
    """

    application_id: str
    decision: bytes
    evidence: bytes
    reservation: Reservation | None = None
    waits: bool = False
    place: str = ""


@dataclass(frozen=True)
class Committed:
    """For each proposal the decision that is stored, None where its reservation found no room.

    exposure_minor: for each of these what its borrower has now, 0 for the others. lent: by funder, where any was
    refused.
    """

    decisions: list[bytes | None]
    exposure_minor: list[int]
    lent: Mapping[str, int]


def commit_arguments(proposals: Sequence[Proposal], funders: Sequence[str]) -> list[bytes | str]:
    """The arguments of `commit`."""
    arguments: list[bytes | str] = [orjson.dumps(funders)]
    for p in proposals:
        reserved = "" if p.reservation is None else p.reservation.packed()
        arguments += [p.decision, p.evidence, reserved, "1" if p.waits else "", p.place]
    return arguments


def committed(
    proposals: Sequence[Proposal], replies: Sequence[bytes | int], lent: Sequence[int], funders: Sequence[str]
) -> Committed:
    """The replies of `commit`; an empty one says that what was proposed is stored."""
    return Committed(
        [r or p.decision if isinstance(r, bytes) else None for p, r in zip(proposals, replies, strict=True)],
        [r if isinstance(r, int) else 0 for r in replies],
        dict(zip(funders, lent, strict=False)),
    )


def given_back(report: Report) -> str:
    """What a reported outcome gives back of a reservation, as functions.lua reads it."""
    return str(report.amount_minor) if report.kind == "principal_repaid" else _GIVES_BACK.get(report.kind, "")
