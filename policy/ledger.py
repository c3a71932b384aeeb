"""What borrowers owe and funders have lent, as approvals and reports come: exposure as it would have developed (R4).

An approval reserves its amount. `repaid`, `not_taken_up` and `expired` release all of it, `principal_repaid` what it
says, `retracted` restores the whole; nothing falls below 0, and funders are released in proportion.
"""

from collections.abc import Sequence

from features.specs import OUTCOME_KINDS

RELEASING = frozenset(OUTCOME_KINDS.index(kind) for kind in ("repaid", "not_taken_up", "expired"))
PRINCIPAL = OUTCOME_KINDS.index("principal_repaid")
RETRACTED = OUTCOME_KINDS.index("retracted")
MOVING = RELEASING | {PRINCIPAL, RETRACTED}


class _Loan:
    """One approval: its amount, what of it is still reserved, and who lends it."""

    __slots__ = ("amount", "borrower", "left", "shares")

    def __init__(self, borrower: int, amount: int, shares: Sequence[tuple[str, int]]) -> None:
        self.borrower, self.amount, self.left, self.shares = borrower, amount, 0, tuple(shares)


class Ledger:
    """By borrower (a token) and by funder, minor units outstanding; loans by the row of their application."""

    def __init__(self) -> None:
        self.lent: dict[str, int] = {}
        self._owed: dict[int, int] = {}
        self._loans: dict[int, _Loan] = {}

    def exposure(self, borrower: int) -> int:
        """What a borrower was approved for and has not repaid."""
        return self._owed.get(borrower, 0)

    def approve(self, row: int, borrower: int, amount: int, shares: Sequence[tuple[str, int]]) -> None:
        """Reserve an approved amount; shares: funder and its part."""
        loan = self._loans[row] = _Loan(borrower, amount, shares)
        self._set(loan, amount)

    def holds(self, row: int) -> bool:
        """Whether a report on this row's application may move anything."""
        return row in self._loans

    def report(self, row: int, kind: int, amount: int) -> None:
        """A report on the application of a row: kind, an index of OUTCOME_KINDS, and the principal repaid."""
        loan = self._loans.get(row)
        if loan is None:
            return
        if kind in RELEASING:
            self._set(loan, 0)
        elif kind == PRINCIPAL:
            self._set(loan, max(loan.left - amount, 0))
        elif kind == RETRACTED:
            self._set(loan, loan.amount)

    def _set(self, loan: _Loan, left: int) -> None:
        before = _parts(loan, loan.left)
        for (funder, _), was, now in zip(loan.shares, before, _parts(loan, left), strict=True):
            self.lent[funder] = self.lent.get(funder, 0) + now - was
        self._owed[loan.borrower] = self._owed.get(loan.borrower, 0) + left - loan.left
        loan.left = left


def _parts(loan: _Loan, left: int) -> list[int]:
    """What each funder has of `left`: in proportion to its share, rounded down, the last one the rest."""
    parts = [left * share // loan.amount for _, share in loan.shares]
    if parts:
        parts[-1] = left - sum(parts[:-1])
    return parts
