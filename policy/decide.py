"""Policy: an application and what is known of it become a Decision (R2, R6–R8, R16, R22, R24).

Every table votes and the worst vote wins, so no rule hides a worse one. What is missing, undecided or not foreseen
votes REVIEW at least; only a row of the `sources` table that names a source and its state may accept a missing source.
Whoever asks for a person gets REVIEW, whatever the votes.
Pure and deterministic: the same application, values and policy file give the same Decision.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

import numpy as np

from features.application import Reason
from features.schema import Schema
from policy.cells import Column
from policy.checks import check_fraud
from policy.funding import Offer, Share, split
from policy.inputs import Asked
from policy.jdm import PolicyError
from policy.kernel import FUNDED_LESS, HIT, NO_FUNDER, close, judge
from policy.plan import offers_of, plan_of
from policy.program import Floats, Ints, Judged, assemble, slots
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
_EXPLAIN = ((), (MODEL_OF["fraud"],), (MODEL_OF["grade"],), (MODEL_OF["fraud"], MODEL_OF["grade"]))
_STATES = ("", "missing", "stale")


@dataclass(frozen=True)
class Decision:
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


class Decisions:
    """Decisions on a batch. outcome: int8 [B]; approved_amount_minor: int64 [B]; annual_rate, all_in_rate: float64 [B];
    grade: int8 [B], index of policy.specs.GRADES, -1 for none. `decisions[i]` is the Decision of one, with reasons,
    made when asked for.
    """

    def __init__(
        self, judged: Judged, all_in_rate: Floats, human_review: Ints, shares: Mapping[int, tuple[Share, ...]],
        wording: Wording, sources: Sequence[str], exposure_at: int,
    ) -> None:  # fmt: skip
        self.outcome, self.grade, self.all_in_rate = judged.outcome, judged.grade, all_in_rate
        self.approved_amount_minor, self.annual_rate = judged.amount, judged.annual_rate
        self._judged, self._human_review, self._shares, self._wording = judged, human_review, shares, wording
        self._sources, self._exposure_at = sources, exposure_at

    def __len__(self) -> int:
        return len(self.outcome)

    def __getitem__(self, row: int) -> Decision:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        judged, wording = self._judged, self._wording
        memory, status = judged.memory[row].tolist(), judged.status[row]
        reasons = tuple([wording[vote](memory, status) for vote in judged.votes[row, : judged.count[row]].tolist()])
        if self._human_review[row]:
            reasons = (wording.asked_for_a_person, *reasons)
        outcome, grade = _OUTCOMES[self.outcome.item(row)], self.grade.item(row)
        exposure_max = memory[self._exposure_at] if outcome <= Outcome.LIMIT and self._exposure_at >= 0 else math.nan
        decision = object.__new__(Decision)  # as fast as policy.wording makes a Reason
        decision.__dict__.update(
            outcome=outcome,
            approved_amount_minor=self.approved_amount_minor.item(row),
            annual_rate=self.annual_rate.item(row),
            all_in_rate=self.all_in_rate.item(row),
            grade=GRADES[grade] if grade >= 0 else "",
            reasons=reasons,
            degraded=_degraded(judged.degraded.item(row), self._sources),
            explain=_EXPLAIN[judged.explain.item(row)],
            shares=self._shares.get(row, ()),
            exposure_max_minor=None if math.isnan(exposure_max) else int(exposure_max),
        )
        return decision


def _degraded(bits: int, sources: Sequence[str]) -> tuple[str, ...]:
    if not bits:
        return ()
    named = (f"source:{source}:{_STATES[bits >> 2 * i & 3]}" for i, source in enumerate(sources) if bits >> 2 * i & 3)
    return tuple(named)


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
        self._sources = tuple(schema.sources)
        self._program = assemble(every, slot)
        self._plan = plan_of(every, slot, states, bounds, schema.minor_per_major)
        self._offers = offers_of(every, slot)
        shown = {f"{t.name}.{field}": c for t in every for field, c in t.outputs.items()}
        private = {feature.name for feature in schema.features if feature.personal}
        for table in every:  # an output computed from what is personal is personal
            for row in table.rows:
                if not private.isdisjoint(row.reads):
                    private.update(f"{table.name}.{field}" for field in row.computed)
        self._wording = Wording(tables, texts, slot, {**self.columns, **shown}, private, self._sources, bounds)

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
        judged = Judged.empty(len(asked), self._program, self._plan)
        judge(self._program, self._plan, np.ascontiguousarray(values), asked.amount_minor, judged)
        all_in = all_in_rates(
            judged.amount, judged.annual_rate, asked.term_months, asked.repayment, asked.upfront_fee_minor,
            asked.monthly_fee_minor,
        )  # fmt: skip
        close(self._plan, all_in, asked.human_review_requested, judged)
        shares = self._fund(asked, judged, all_in, dict(lent)) if self._offers else {}
        return Decisions(
            judged, all_in, asked.human_review_requested, shares, self._wording, self._sources, self._plan.terms[1]
        )

    def _fund(
        self, asked: Asked, judged: Judged, all_in: Floats, lent: dict[str, int]
    ) -> dict[int, tuple[Share, ...]]:
        """Who lends what is approved; less votes LIMIT, too little REVIEW. A row that may or may not hold does not lend.
        Adds to `lent`."""
        shares = {}
        for row in np.flatnonzero(judged.outcome <= Outcome.LIMIT).tolist():
            memory = judged.memory[row]
            rounding, minimum = int(memory[self._plan.terms[2]]), memory[self._plan.terms[3]]
            amount, annual_rate = int(judged.amount[row]), float(judged.annual_rate[row])
            found = split(amount, annual_rate, rounding, self._offered(judged, row), lent)
            if (funded := sum(share.amount_minor for share in found)) < amount:
                less = 0 if funded < minimum else funded
                self._fund_less(asked.take(np.array([row])), judged, all_in, row, less)
            if judged.outcome[row] <= Outcome.LIMIT:
                shares[row] = found
                for share in found:
                    lent[share.offer.funder] = lent.get(share.offer.funder, 0) + share.amount_minor
        return shares

    def _fund_less(self, asked: Asked, judged: Judged, all_in: Floats, row: int, less: int) -> None:
        """Decides an application anew where funders lend less; asked: its own, of one row."""
        one = Judged(*(array[row : row + 1] for array in judged))
        one.memory[0, self._plan.shown + 2 : self._plan.shown + 4] = one.amount[0], less
        vote = Outcome.LIMIT << 40 | FUNDED_LESS << 32 if less else Outcome.REVIEW << 40 | NO_FUNDER << 32
        one.votes[0, one.count[0]] = vote
        one.count[0] += 1
        one.amount[0] = less
        if not less:
            one.annual_rate[0] = math.nan
        rate = all_in_rates(
            one.amount, one.annual_rate, asked.term_months, asked.repayment, asked.upfront_fee_minor,
            asked.monthly_fee_minor,
        )  # fmt: skip
        close(self._plan, rate, asked.human_review_requested, one)
        all_in[row] = rate[0]

    def _offered(self, judged: Judged, row: int) -> list[Offer]:
        """The offers that hold for an application; of two by one funder the first."""
        offers: dict[str, Offer] = {}
        for at, offer, computed in self._offers:
            if judged.status[row, at] == HIT and offer.funder not in offers:
                now = {field: float(judged.memory[row, slot]) for field, slot in computed.items()}
                if "cap_minor" in now:
                    now["cap_minor"] = int(now["cap_minor"])
                offers[offer.funder] = replace(offer, **now) if now else offer
        return list(offers.values())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(path, f"cannot be read: {error.strerror}") from None
