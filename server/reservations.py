"""Steps 4 and 5 of a decision: what the policy says under the borrower's exposure and the funders' totals, stored
together with what it takes of them.

The totals were read when the batch began; whoever took room since makes the store refuse, with the totals of now. Then
the policy alone decides again. After REFUSALS_MAX refusals a person must look: others are quicker, and no caller waits
for ever. Within a batch an earlier application counts for a later one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features import evidence
from features.application import REPAYMENT_METHODS, Application, Reason, Snapshot
from features.reservations import Proposal, Reservation
from features.store import Store
from models.scorer import Scores
from policy.decide import Decision, Decisions, Outcome
from policy.inputs import Asked, Known
from server.clock import Clock
from server.products import Product
from server.replies import Place, decision_replies

REFUSALS_MAX = 2
_EXPOSURE = "exposure_minor"
_OUTCOMES, _REPAYMENTS = np.array([o.name for o in Outcome], "S"), np.array(REPAYMENT_METHODS, "S")


@dataclass(frozen=True)
class Scored:
    """B applications of one product, at `indices` of their batch, ready for its policy.

    values: float64 [B, C], the policy's inputs; exposure is filled in when it decides. fetched_at_ms: int64 [B,
    sources]. time_ms: as evidence.Facts keep it, int64 [B].
    """

    product: Product
    indices: Sequence[int]
    applications: Sequence[Application]
    borrowers: Sequence[str]
    snapshot: Snapshot
    scores: Scores
    asked: Asked
    known: Known
    values: NDArray[np.float64]
    fetched_at_ms: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    place: Place

    def take(self, rows: NDArray[np.int64]) -> "Scored":
        """Some of the rows, as they are encoded."""
        epoch, *places = self.place
        return replace(
            self, snapshot=self.snapshot.take(rows), asked=self.asked.take(rows), known=self.known.take(rows),
            fetched_at_ms=self.fetched_at_ms[rows], time_ms=self.time_ms[rows],
            place=Place(epoch, *(column[rows] for column in places)),
        )  # fmt: skip


@dataclass(frozen=True)
class Totals:
    """Minor units that borrowers have and funders have lent; grow with what is proposed."""

    exposure_minor: dict[str, int]
    lent: dict[str, int]

    def add(self, borrower: str, decision: Decision) -> None:
        """Count an approval."""
        self.exposure_minor[borrower] += decision.approved_amount_minor
        for share in decision.shares:
            self.lent[share.offer.funder] = self.lent.get(share.offer.funder, 0) + share.amount_minor


class _Proposed(NamedTuple):
    """A decision on row `row` of `scored`, the features that moved the models, exposure and funders' totals before it,
    and as it is to be stored.
    """

    scored: Scored
    row: int
    decision: Decision
    model_reasons: Sequence[Reason]
    before: tuple[int, list[int]]
    proposal: Proposal


async def settle(store: Store, batch: Sequence[Scored], totals: Totals, clock: Clock) -> tuple[dict[int, bytes], bool]:
    """By index in the batch the decision that is stored, and whether all are of this batch.

    Raises StoreError.
    """
    funders = list(dict.fromkeys(funder for scored in batch for funder in scored.product.policy.funders))
    proposed = _proposals([(scored, range(len(scored.indices))) for scored in batch], totals, clock)
    stored: dict[int, bytes] = {}
    own = True
    for refusals in range(1, REFUSALS_MAX + 2):
        committed = await store.commit([p.proposal for p in proposed], funders)
        clock.mark("commit")
        refused, fresh = [], Totals({}, dict(committed.lent))
        for p, body, exposure in zip(proposed, committed.decisions, committed.exposure_minor, strict=True):
            if body is None:
                refused.append(p)
                fresh.exposure_minor[p.scored.borrowers[p.row]] = exposure
            else:
                stored[p.scored.indices[p.row]] = body
                own = own and body == p.proposal.decision
        if not refused:
            break
        if refusals < REFUSALS_MAX:
            again = [(scored, [p.row for p in refused if p.scored is scored]) for scored in batch]
            proposed = _proposals(again, fresh, clock)
        else:
            proposed = [_contended(p, fresh) for p in refused]
    return stored, own


def model_reasons(scored: Scored, rows: NDArray[np.int64], decisions: Decisions) -> list[list[Reason]]:
    """For each decision, on `rows`, the features behind the models whose policy rows fired, most important first."""
    explain = [decisions[i].explain for i in range(len(decisions))]
    reasons: list[list[Reason]] = [[] for _ in explain]
    for label in scored.product.schema.labels:
        told = [i for i, labels in enumerate(explain) if label in labels]
        if told:
            some, scorer = rows[told], scored.product.scorer
            found = scorer.reasons(label, scored.snapshot.take(some), scored.scores.take(some))
            for i, moved in zip(told, found, strict=True):
                reasons[i] += moved
    return [sorted(some, key=lambda r: -r.contribution) if some else some for some in reasons]


_Rows = tuple[Scored, Sequence[int]]


def _proposals(batch: Sequence[_Rows], totals: Totals, clock: Clock) -> list[_Proposed]:
    """What the policies decide on some rows of each; approvals are added to `totals`."""
    asked_minor = sum(scored.applications[row].amount_minor for scored, rows in batch for row in rows)
    if any(scored.product.policy.scarce(totals.lent, asked_minor) for scored, _ in batch):
        batch = _in_order(batch)
    return [p for scored, rows in batch for p in _propose(scored, rows, totals, clock)]


def _in_order(batch: Sequence[_Rows]) -> list[_Rows]:
    """The same rows in the order of the log, in runs of one product that no borrower is in twice."""
    runs: list[tuple[Scored, list[int]]] = []
    borrowers: set[str] = set()
    every = [(scored.indices[row], row, scored) for scored, rows in batch for row in rows]
    for _, row, scored in sorted(every, key=lambda of: of[0]):
        borrower = scored.borrowers[row]
        if not runs or runs[-1][0] is not scored or borrower in borrowers:
            runs.append((scored, []))
            borrowers.clear()
        runs[-1][1].append(row)
        borrowers.add(borrower)
    return list(runs)


def _propose(scored: Scored, rows: Sequence[int], totals: Totals, clock: Clock) -> list[_Proposed]:
    """What the policy decides on some rows; approvals are added to `totals`."""
    policy, out = scored.product.policy, []
    for turn in _turns(scored, rows):
        borrowers = [scored.borrowers[row] for row in turn.tolist()]
        asked = scored.asked if len(turn) == len(scored.indices) else scored.asked.take(turn)
        values = scored.values[turn]
        if _EXPOSURE in policy.columns:
            values[:, policy.inputs.index(_EXPOSURE)] = [totals.exposure_minor[b] for b in borrowers]
        decisions = policy.decide(asked, values, totals.lent)
        reasons = model_reasons(scored, turn, decisions)
        clock.mark("policy")
        made = [decisions[i] for i in range(len(turn))]
        before: list[tuple[int, list[int]]] = []
        for borrower, decision in zip(borrowers, made, strict=True):
            lent = [totals.lent.get(funder, 0) for funder in policy.funders]
            before.append((totals.exposure_minor[borrower], lent))
            if decision.approved_amount_minor:
                totals.add(borrower, decision)
        out += _encoded(scored, turn, made, reasons, before)
        clock.mark("encode")
    return out


def _turns(scored: Scored, rows: Sequence[int]) -> list[NDArray[np.int64]]:
    """The rows, a borrower in each turn once at most where the policy asks for the exposure."""
    if _EXPOSURE not in scored.product.policy.columns:
        return [np.array(rows, dtype=np.int64)]
    turns: list[list[int]] = []
    taken: dict[str, int] = {}
    for row in rows:
        borrower = scored.borrowers[row]
        turn = taken[borrower] = taken.get(borrower, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(row)
    return [np.array(turn, dtype=np.int64) for turn in turns]


def _encoded(
    scored: Scored, rows: NDArray[np.int64], decisions: Sequence[Decision], reasons: Sequence[Sequence[Reason]],
    before: Sequence[tuple[int, list[int]]],
) -> list[_Proposed]:  # fmt: skip
    """Decisions on some rows; before: what the borrower had of exposure, and each funder had lent."""
    product, whole = scored.product, scored if len(rows) == len(scored.indices) else scored.take(rows)
    known, place, asked = whole.known, whole.place, vars(whole.asked)
    outcome, amount, rate, _, grade, *_ = zip(*decisions, strict=True)
    exposure, lent = zip(*before, strict=True)
    shared = evidence.Shared(
        product.bundle_version, product.policy.version, product.schema.hash, place.epoch, tuple(product.schema.sources),
        product.policy.funders,
    )  # fmt: skip
    columns = evidence.Columns(
        place.sequence, place.as_of, whole.time_ms, whole.fetched_at_ms, _OUTCOMES.take(outcome),
        known.fraud_probability, known.default_probability, amount, rate, grade,
        asked | {"repayment": _REPAYMENTS.take(asked["repayment"])}, exposure, lent, known.residual_low, known.listed,
        ["\0".join([r.code for r in d.reasons]) for d in decisions],
    )  # fmt: skip
    packed = evidence.pack(shared, columns, whole.snapshot.features)
    bodies = decision_replies(product, decisions, reasons, known.fraud_probability, known.default_probability, place)
    proposed = []
    for i, (row, number, decision) in enumerate(zip(rows.tolist(), place.sequence.tolist(), decisions, strict=True)):
        reservation = None
        if decision.outcome <= Outcome.LIMIT:
            shares = tuple([(s.offer.funder, s.amount_minor, s.offer.cap_minor) for s in decision.shares])
            most = decision.exposure_max_minor
            reservation = Reservation(scored.borrowers[row], decision.approved_amount_minor, most, shares)
        proposal = Proposal(
            scored.applications[row].application_id, bodies[i], packed[i], reservation,
            decision.outcome == Outcome.REVIEW, f"{place.epoch}:{number}",
        )  # fmt: skip
        proposed.append(_Proposed(scored, row, decision, reasons[i], before[i], proposal))
    return proposed


def _contended(refused: _Proposed, now: Totals) -> _Proposed:
    """REVIEW in place of an approval for which others left no room."""
    decision, borrower = refused.decision, refused.scored.borrowers[refused.row]
    found = {f"lent.{s.offer.funder}": now.lent[s.offer.funder] for s in decision.shares}
    if decision.exposure_max_minor is not None:
        found |= {_EXPOSURE: now.exposure_minor[borrower], "exposure_max_minor": decision.exposure_max_minor}
    told = ", ".join(f"{name}={minor}" for name, minor in found.items())
    decision = refused.scored.product.policy.contended(decision, told)
    rows = np.array([refused.row])
    (proposed,) = _encoded(refused.scored, rows, [decision], [refused.model_reasons], [refused.before])
    return proposed
