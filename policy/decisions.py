"""What is decided: a batch as arrays, and each Decision of it with its reasons when asked for (R2, R22, R24)."""

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.application import Reason
from policy.funding import Share
from policy.kernel import LIMIT
from policy.program import AMOUNT, GRADED, OUTCOME, Ints, Judged
from policy.specs import GRADES, MODEL_OF
from policy.wording import Wording


class Outcome(IntEnum):
    """What is decided; a greater one is worse for the applicant, and votes are combined with max."""

    UNSPECIFIED = 0
    APPROVE = 1
    LIMIT = 2
    REVIEW = 3
    DECLINE = 4


_OUTCOMES = tuple(Outcome)
_GRADES = (*GRADES, "")  # -1 is the last
_EXPLAIN = ((), (MODEL_OF["fraud"],), (MODEL_OF["grade"],), (MODEL_OF["fraud"], MODEL_OF["grade"]))


class Decision(NamedTuple):
    """Amounts in minor units, rates a year; 0 unless APPROVE or LIMIT. Reasons: the worst vote's first, at least one.

    `explain` names the models, fraud or default, whose probability voted against the applicant or set the cap: their
    features belong among the reasons (R22). `degraded` lists sources as "source:bureau:missing". shares: who lends
    the amount, empty where the product has no funders' table. exposure_max_minor: what the borrower may have been
    approved for in all, None without such a cap; it holds when the decision is stored.
    """

    outcome: Outcome
    approved_amount_minor: int
    annual_rate: float
    all_in_rate: float
    grade: str
    reasons: tuple[Reason, ...]
    degraded: tuple[str, ...]
    explain: tuple[str, ...]
    shares: tuple[Share, ...] = ()
    exposure_max_minor: int | None = None


_tuple = tuple.__new__  # a fourth of the time that a NamedTuple takes to check its arguments
_CHUNK = 64


class Decisions:
    """Decisions on a batch. outcome: int8 [B]; approved_amount_minor: int64 [B]; annual_rate, all_in_rate: float64 [B];
    grade: int8 [B], index of policy.specs.GRADES, -1 for none. `decisions[i]` is the Decision of one, with reasons;
    it is made when asked for, with some beside it.
    """

    def __init__(
        self, judged: Judged, human_review: Ints, shares: Mapping[int, tuple[Share, ...]], wording: Wording,
        exposure_at: int,
    ) -> None:  # fmt: skip
        self.approved_amount_minor = judged.ints[AMOUNT]
        self.annual_rate, self.all_in_rate = judged.floats
        self._judged, self._human_review, self._shares, self._wording = judged, human_review, shares, wording
        self._exposure_at, self._begin, self._made = exposure_at, 0, list[Decision]()

    @property
    def outcome(self) -> NDArray[np.int8]:
        return np.asarray(self._judged.ints[OUTCOME], dtype=np.int8)

    @property
    def grade(self) -> NDArray[np.int8]:
        return np.asarray(self._judged.ints[GRADED], dtype=np.int8)

    def __len__(self) -> int:
        return len(self.approved_amount_minor)

    def __getitem__(self, row: int) -> Decision:
        at = row - self._begin
        if not 0 <= at < len(self._made):
            row = range(len(self))[row]
            self._begin = row - row % _CHUNK
            self._made = self._make(self._begin, min(self._begin + _CHUNK, len(self)))
            at = row - self._begin
        return self._made[at]

    def _make(self, begin: int, end: int) -> list[Decision]:
        memory, status, votes, ints, floats = self._judged
        outcomes, counts, amounts, grades, explains, lost, _ = ints[:, begin:end].tolist()
        exposure_max = [math.nan] * (end - begin)
        if self._exposure_at >= 0:
            exposure_max = memory[self._exposure_at, begin:end].tolist()
        every = zip(
            votes[begin:end, : max(counts)].tolist(), counts, outcomes, amounts, *floats[:, begin:end].tolist(), grades,
            explains, lost, exposure_max, self._human_review[begin:end].tolist(), strict=True,
        )  # fmt: skip
        wording, item, shares, made = self._wording, memory.item, self._shares, []
        degraded = wording.lost
        for i, (cast, count, outcome, amount, rate, all_in, grade, explain, gone, most, person) in enumerate(
            every, begin
        ):
            reasons = [wording.asked_for_a_person] if person else []
            for vote in cast[:count]:
                reason = wording[vote]
                reasons.append(reason if reason.__class__ is Reason else reason(item, i, status))  # type: ignore[operator]
            made.append(_tuple(Decision, (
                _OUTCOMES[outcome], amount, rate, all_in, _GRADES[grade], tuple(reasons), degraded[gone],
                _EXPLAIN[explain], shares.get(i, ()), int(most) if outcome <= LIMIT and most == most else None,
            )))  # fmt: skip
        return made
