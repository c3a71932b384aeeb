"""What borrowers owe and funders have lent, as approvals and reports come: exposure as it would have developed (R4).

An approval reserves its amount. `repaid`, `not_taken_up` and `expired` release all of it, `principal_repaid` what it
says, `retracted` restores the whole; nothing falls below 0, and funders are released in proportion.
"""

import math
from collections.abc import Sequence

from features.specs import OUTCOME_KINDS

RELEASING = frozenset(OUTCOME_KINDS.index(kind) for kind in ("repaid", "not_taken_up", "expired"))
PRINCIPAL = OUTCOME_KINDS.index("principal_repaid")
RETRACTED = OUTCOME_KINDS.index("retracted")
MOVING = RELEASING | {PRINCIPAL, RETRACTED}


Borrower = tuple[str, int]  # schema and token of the applicant, as features.application.borrower


class _Loan:
    """One approval: its amount, who lends it, and what of each share is still reserved."""

    __slots__ = ("amount", "borrower", "left", "open", "shares")

    def __init__(self, borrower: Borrower, amount: int, shares: Sequence[tuple[str, int]]) -> None:
        self.borrower, self.amount, self.shares = borrower, amount, tuple(shares)
        self.left, self.open = 0, [0 for _ in shares]


class Ledger:
    """By borrower and by funder, minor units outstanding; loans by the row of their application."""

    def __init__(self) -> None:
        self.lent: dict[str, int] = {}
        self._owed: dict[Borrower, int] = {}
        self._loans: dict[int, _Loan] = {}

    def exposure(self, borrower: Borrower) -> int:
        """What a borrower was approved for and has not repaid."""
        return self._owed.get(borrower, 0)

    def approve(self, row: int, borrower: Borrower, amount: int, shares: Sequence[tuple[str, int]]) -> None:
        """Reserve an approved amount; shares: funder and its part."""
        loan = self._loans[row] = _Loan(borrower, amount, shares)
        self._restore(loan)

    def holds(self, row: int) -> bool:
        """Whether a report on this row's application may move anything."""
        return row in self._loans

    def report(self, row: int, kind: int, amount: int) -> None:
        """A report on the application of a row: kind, an index of OUTCOME_KINDS, and the principal repaid."""
        loan = self._loans.get(row)
        if loan is None:
            return
        if kind in RELEASING:
            self._free(loan, loan.left)
        elif kind == PRINCIPAL:
            self._free(loan, min(loan.left, amount))
        elif kind == RETRACTED:
            self._restore(loan)

    def _restore(self, loan: _Loan) -> None:
        """Reserve all of it, whatever was free."""
        self._move(
            loan, loan.amount - loan.left, [share - o for (_, share), o in zip(loan.shares, loan.open, strict=True)]
        )

    def _free(self, loan: _Loan, freed: int) -> None:
        """In proportion to what is left of each share, in whole units that sum to it, as the store does: functions.lua,
        spread, whose numbers are doubles.
        """
        if freed == 0:
            return
        parts, rest = list[int](), freed if loan.open else 0
        for o in loan.open:
            parts.append(min(o, rest, math.floor(float(o) * freed / loan.left)))
            rest -= parts[-1]
        for n, o in enumerate(loan.open):
            more = min(rest, o - parts[n])
            parts[n], rest = parts[n] + more, rest - more
        self._move(loan, -freed, [-part for part in parts])

    def _move(self, loan: _Loan, amount: int, parts: Sequence[int]) -> None:
        loan.left += amount
        self._owed[loan.borrower] = self._owed.get(loan.borrower, 0) + amount
        for n, ((funder, _), part) in enumerate(zip(loan.shares, parts, strict=True)):
            loan.open[n] += part
            self.lent[funder] = self.lent.get(funder, 0) + part
