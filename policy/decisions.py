"""What is decided: a batch as arrays, and each Decision of it with its reasons when asked for (R2, R22, R24)."""

from collections.abc import Iterable
from enum import IntEnum
from functools import partial
from itertools import accumulate, repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.application import Reason
from policy.funding import Offers, Share
from policy.kernel import BY_ROW, HIT, LIMIT
from policy.program import ALL_IN, AMOUNT, COUNT, GRADED, OUTCOME, RATE, Floats, Ints, Judged
from policy.specs import GRADES, MODEL_OF
from policy.wording import Wording, votes_heard


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


_DECISION = partial(tuple.__new__, Decision)  # a fourth of the time that a NamedTuple takes for its arguments
_CHUNK = 64


class Decisions:
    """Decisions on a batch. outcome: int8 [B]; approved_amount_minor: int64 [B]; annual_rate, all_in_rate: float64 [B];
    grade: int8 [B], index of policy.specs.GRADES, -1 for none. `decisions[i]` is the Decision of one, with reasons;
    it is made when asked for, with some beside it.
    """

    def __init__(
        self, judged: Judged, human_review: Ints, wording: Wording, exposure_at: int, offers: Offers | None,
        parts: Ints | None,
    ) -> None:  # fmt: skip
        self._judged, self._human_review, self._wording = judged, human_review, wording
        self._offers, self._parts = offers, parts
        self._exposure_at, self._begin, self._made = exposure_at, 0, list[Decision]()

    @property
    def held(self) -> NDArray[np.bool_]:
        """Which of policy.decide.Policy.rows held in the tables that a decision came to: bool [rows, B]."""
        return np.asarray(self._judged.status == HIT)

    @property
    def outcome(self) -> NDArray[np.int8]:
        return np.asarray(self._judged.ints[OUTCOME], dtype=np.int8)

    @property
    def approved_amount_minor(self) -> Ints:
        return np.asarray(self._judged.ints[AMOUNT])

    @property
    def annual_rate(self) -> Floats:
        return np.asarray(self._judged.floats[RATE])

    @property
    def all_in_rate(self) -> Floats:
        return np.asarray(self._judged.floats[ALL_IN])

    @property
    def grade(self) -> NDArray[np.int8]:
        return np.asarray(self._judged.ints[GRADED], dtype=np.int8)

    def __len__(self) -> int:
        return len(self._human_review)

    def __getitem__(self, row: int) -> Decision:
        at = row - self._begin
        if not 0 <= at < len(self._made):
            row = range(len(self))[row]
            self._begin = row - row % _CHUNK
            self._made = self._make(self._begin, min(self._begin + _CHUNK, len(self)))
            at = row - self._begin
        return self._made[at]

    def _make(self, begin: int, end: int) -> list[Decision]:
        memory, _, _, ints, floats = self._judged
        outcomes, counts, amounts, grades, explains, lost, _ = ints[:, begin:end].tolist()
        exposures: Iterable[int | None] = repeat(None)
        if self._exposure_at >= 0:
            most = zip(outcomes, memory[self._exposure_at, begin:end].tolist(), strict=True)
            exposures = [int(x) if outcome <= LIMIT and x == x else None for outcome, x in most]
        shares: Iterable[tuple[Share, ...]] = repeat(())
        if self._offers is not None and self._parts is not None:
            of, item, parts = self._offers.shares, memory.item, self._parts[begin:end].tolist()
            shares = [of(i, some, item) if any(some) else () for i, some in enumerate(parts, begin)]
        degraded = map(self._wording.lost.__getitem__, lost)
        every = zip(
            map(_OUTCOMES.__getitem__, outcomes), amounts, *floats[:, begin:end].tolist(),
            map(_GRADES.__getitem__, grades), self._reasons(begin, end, counts), degraded,
            map(_EXPLAIN.__getitem__, explains), shares, exposures, strict=False,
        )  # fmt: skip
        return list(map(_DECISION, every))

    def _reasons(self, begin: int, end: int, counts: list[int]) -> list[tuple[Reason, ...]]:
        """Of each, in the order of its votes."""
        wording, judged = self._wording, self._judged
        item, status = judged.memory.item, judged.status
        counted = judged.ints[COUNT, begin:end]
        cast = votes_heard(judged.votes, counted, BY_ROW, wording.shown, judged.memory, begin)
        made = [
            wording[vote][x] if x == x else wording[vote].whole(item, i, status)
            for vote, x, i in zip(*(column.tolist() for column in cast), strict=True)
        ]
        ends = list(accumulate(counts))
        every = [tuple(made[start:stop]) for start, stop in zip([0, *ends], ends, strict=False)]
        if any(persons := self._human_review[begin:end].tolist()):
            asked = wording.asked_for_a_person
            every = [(asked, *reasons) if person else reasons for person, reasons in zip(persons, every, strict=True)]
        return every
