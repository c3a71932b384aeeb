"""Policy: an application and what is known of it become a Decision (R2, R6–R8, R16, R22, R24).

Every table votes and the worst vote wins, so no rule hides a worse one. What is missing, undecided or not foreseen
votes REVIEW at least; only a row of the `sources` table that names a source and its state may accept a missing source.
Whoever asks for a person gets REVIEW, whatever the votes.
Pure and deterministic: the same application, values and policy file give the same Decision.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.application import Reason
from features.schema import Schema
from policy.cells import Column
from policy.checks import check_fraud
from policy.funding import Offer, Share, split
from policy.inputs import Asked
from policy.jdm import PolicyError
from policy.kernel import FUNDED_LESS, HIT, LIMIT, NO_FUNDER, close, judge
from policy.plan import offers_of, plan_of, votes_max
from policy.program import (
    AMOUNT, COUNT, EXPOSURE_MAX, GRADED, MINIMUM, OUTCOME, RATE, ROUNDING, SHOWN_AT, Floats, Ints, Judged,
    assemble, slots,
)  # fmt: skip
from policy.rates import all_in_rates
from policy.reasons import REASONS_PATH, reason_texts
from policy.specs import CAP, CODES, EXPOSURE, GRADES, MODEL_OF, SPECS, capacities, check_tables, policy_columns
from policy.tables import Table, load_tables
from policy.wording import Wording

POLICY = "policy.json"


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
        return self._judged.ints[OUTCOME].astype(np.int8)

    @property
    def grade(self) -> NDArray[np.int8]:
        return self._judged.ints[GRADED].astype(np.int8)

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


class Policy:
    """The compiled policy of one product. `inputs` are the names it reads, `columns` what each holds.

    `version` is the SHA-256 of its file, a zero byte and the file of the reasons' words. `funders` are all that the
    table of funders names.
    """

    def __init__(
        self, product: str, version: str, schema: Schema, tables: Mapping[str, Table],
        texts: Mapping[str, tuple[str, str]], columns: Mapping[str, Column],
    ) -> None:  # fmt: skip
        self.product, self.version = product, version
        bounds = (CAP, EXPOSURE, *capacities(tables))
        states = [f"{name}_state" for name in schema.sources]
        names = {name for table in tables.values() for name in table.inputs if "." not in name}
        names.update(states, *(bound.inputs for bound in bounds[2:]))
        if "limit" in tables and EXPOSURE.output in tables["limit"].outputs:
            names.update(EXPOSURE.inputs)
        self.inputs = tuple(sorted(names))
        self.columns = {name: columns[name] for name in self.inputs}
        rows = tables["funders"].rows if "funders" in tables else ()
        self.funders = tuple(dict.fromkeys(str(row.literals["funder"]) for row in rows))
        every, slot = list(tables.values()), slots(list(tables.values()), self.inputs)
        self._program = assemble(every, slot)
        self._plan = plan_of(every, slot, states, bounds[2:], schema.minor_per_major)
        self._votes_max = votes_max(every, states)
        self._offers = offers_of(every, slot)
        shown = {f"{t.name}.{field}": c for t in every for field, c in t.outputs.items()}
        private = {feature.name for feature in schema.features if feature.personal}
        for table in every:  # an output computed from what is personal is personal
            for row in table.rows:
                if not private.isdisjoint(row.reads):
                    private.update(f"{table.name}.{field}" for field in row.computed)
        self._wording = Wording(tables, texts, slot, {**self.columns, **shown}, private, tuple(schema.sources), bounds)

    @classmethod
    def load(cls, folder: Path, product: str, schema: Schema) -> "Policy":
        """The policy in `policy.json` of a folder, checked against the schema. Raises PolicyError.

        Its reasons' words are those of `reasons.yaml` beside it, or the shipped ones.
        """
        path, words = folder / POLICY, folder / REASONS_PATH.name
        raw, raw_words = _read(path), _read(words if words.exists() else REASONS_PATH)
        if product not in schema.products:
            raise PolicyError(path, f"schema {schema.name} has no product {product!r}")
        inputs = policy_columns(schema)
        tables = load_tables(path, raw, inputs, SPECS)
        texts = reason_texts(words, raw_words, CODES)
        check_tables(path, schema, tables, inputs, texts)
        check_fraud(path, tables)
        version = hashlib.sha256(raw + b"\0" + raw_words).hexdigest()
        return cls(product, version, schema, tables, texts, inputs)

    def decide(
        self, asked: Asked, values: Floats, lent: Mapping[str, int] = MappingProxyType({})
    ) -> Decisions:
        """Decisions on B applications, in their order: an earlier one's shares count as lent for a later one.

        values: float64 [B, len(inputs)], policy.inputs.input_values of `columns`. lent: minor units that each of
        `funders` has lent already.
        """
        judged = Judged.empty(len(asked), self._program, self._votes_max)
        judge(self._program, self._plan, np.ascontiguousarray(values), asked.amount_minor, judged)
        self._close(asked, judged, 0, len(asked))
        shares = self._fund(asked, judged, dict(lent)) if self._offers else {}
        return Decisions(
            judged, asked.human_review_requested, shares, self._wording, int(self._plan.places[EXPOSURE_MAX])
        )

    def _close(self, asked: Asked, judged: Judged, begin: int, end: int) -> None:
        """What some of the loans cost, and what all votes on them come to."""
        annual_rate, all_in = judged.floats
        all_in_rates(
            judged.ints[AMOUNT], annual_rate, asked.term_months, asked.repayment, asked.upfront_fee_minor,
            asked.monthly_fee_minor, all_in, begin, end,
        )  # fmt: skip
        close(self._plan, asked.human_review_requested, judged, begin, end)

    def _fund(self, asked: Asked, judged: Judged, lent: dict[str, int]) -> dict[int, tuple[Share, ...]]:
        """Who lends what is approved; less votes LIMIT, too little REVIEW. A row that may or may not hold does not
        lend. Adds to `lent`.
        """
        shares, outcome = {}, judged.ints[OUTCOME]
        for row in np.flatnonzero(outcome <= Outcome.LIMIT).tolist():
            rounding, minimum = (judged.memory.item(place, row) for place in self._plan.places[ROUNDING : MINIMUM + 1])
            amount, annual_rate = judged.ints.item(AMOUNT, row), judged.floats.item(RATE, row)
            found = split(amount, annual_rate, int(rounding), self._offered(judged, row), lent)
            if (funded := sum(share.amount_minor for share in found)) < amount:
                self._fund_less(asked, judged, row, 0 if funded < minimum else funded)
            if outcome[row] <= Outcome.LIMIT:
                shares[row] = found
                for share in found:
                    lent[share.offer.funder] = lent.get(share.offer.funder, 0) + share.amount_minor
        return shares

    def _fund_less(self, asked: Asked, judged: Judged, row: int, less: int) -> None:
        """Decides an application anew where funders lend less."""
        ints, shown = judged.ints, self._plan.places[SHOWN_AT]
        judged.memory[shown + 2 : shown + 4, row] = ints[AMOUNT, row], less
        outcome, kind = (Outcome.LIMIT, FUNDED_LESS) if less else (Outcome.REVIEW, NO_FUNDER)
        judged.votes[row, ints[COUNT, row]] = outcome << 40 | kind << 32
        ints[[COUNT, OUTCOME, AMOUNT], row] = ints[COUNT, row] + 1, max(ints[OUTCOME, row], outcome), less
        if not less:
            judged.floats[RATE, row] = math.nan
        self._close(asked, judged, row, row + 1)

    def _offered(self, judged: Judged, row: int) -> list[Offer]:
        """The offers that hold for an application; of two by one funder the first."""
        offers: dict[str, Offer] = {}
        for at, offer, computed in self._offers:
            if judged.status[at, row] == HIT and offer.funder not in offers:
                now = {field: judged.memory.item(slot, row) for field, slot in computed.items()}
                if "cap_minor" in now:
                    now["cap_minor"] = int(now["cap_minor"])
                offers[offer.funder] = replace(offer, **now) if now else offer
        return list(offers.values())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(path, f"cannot be read: {error.strerror}") from None
