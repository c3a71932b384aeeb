"""Policy: an application and what is known of it become a Decision (R2, R6–R8, R16, R22, R24).

Every table votes and the worst vote wins, so no rule hides a worse one. What is missing, undecided or not foreseen
votes REVIEW at least; only a row of the `sources` table that names a source and its state may accept a missing source.
Whoever asks for a person gets REVIEW, whatever the votes.
Pure and deterministic: the same application, values and policy file give the same Decision.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np

from features.schema import Schema
from policy import program as at
from policy.cells import Column
from policy.checks import check_fraud, check_missing
from policy.decisions import Decision as Decision
from policy.decisions import Decisions as Decisions
from policy.decisions import Outcome as Outcome
from policy.errors import PolicyError, cannot_read
from policy.inputs import Asked
from policy.kernel import FUNDED_LESS, NO_FUNDER, close, judge
from policy.plan import offers_of, plan_of, votes_max
from policy.program import Compiled, Floats, Ints, Judged, Plan, Program, assemble, slots
from policy.rates import all_in_rates
from policy.reasons import REASONS_PATH, reason_texts
from policy.rows import Table
from policy.specs import (
    AUTHORITY,
    CAP,
    CODES,
    EXPOSURE,
    SPECS,
    capacities,
    check_tables,
    policy_columns,
)
from policy.tables import load_tables
from policy.wording import Wording

POLICY = "policy.json"
Judge = Callable[[Program, Plan, Floats, Ints, Judged], None]  # as policy.kernel.judge


class Policy:
    """The compiled policy of one product. `inputs` are the names it reads, `columns` what each holds.

    `version` is the SHA-256 of its file, a zero byte and the file of the reasons' words. `funders` are all that the
    table of funders names. `tables` are all by name, also those that decide nothing; `rows` are those of the others,
    each with its table's name. `judge` runs the tables: policy.kernel's, unless policy.device puts its own there.
    """

    def __init__(
        self, product: str, version: str, schema: Schema, tables: Mapping[str, Table],
        texts: Mapping[str, tuple[str, str]], columns: Mapping[str, Column],
    ) -> None:  # fmt: skip
        self.product, self.version = product, version
        bounds = (CAP, EXPOSURE, *capacities(tables))
        states = [f"{name}_state" for name in schema.sources]
        self.tables = tables
        deciding = [table for name, table in tables.items() if name != AUTHORITY]
        self.rows = tuple((table.name, row) for table in deciding for row in table.rows)
        names = {name for table in deciding for name in table.inputs if "." not in name}
        names.update(states, *(bound.inputs for bound in bounds[2:]))
        if "limit" in tables and EXPOSURE.output in tables["limit"].outputs:
            names.update(EXPOSURE.inputs)
        self.inputs = tuple(sorted(names))
        self.columns = {name: columns[name] for name in self.inputs}
        slot = slots(deciding, self.inputs)
        self._program = assemble(deciding, slot)
        self._plan = plan_of(deciding, slot, states, bounds[2:], schema.minor_per_major)
        self._names, self.judge = tuple(table.name for table in deciding), cast(Judge, judge)
        self._exposure_at = int(self._plan.places[at.EXPOSURE_MAX])
        self._votes_max = votes_max(deciding, states)
        self._offers = offers_of(deciding, slot)
        self.funders = self._offers.funders if self._offers is not None else ()
        shown = {f"{t.name}.{field}": c for t in deciding for field, c in t.outputs.items()}
        private = {feature.name for feature in schema.features if feature.personal}
        for table in deciding:  # an output computed from what is personal is personal
            for row in table.rows:
                if not private.isdisjoint(row.reads):
                    private.update(f"{table.name}.{field}" for field in row.computed)
        self._wording = Wording(
            deciding, texts, slot, {**self.columns, **shown}, private, tuple(schema.sources), bounds
        )

    @classmethod
    def load(cls, folder: Path, product: str, schema: Schema) -> "Policy":
        """The policy in `policy.json` of a folder, checked against the schema. Raises PolicyError.

        Its reasons' words are those of `reasons.yaml` beside it, or the shipped ones.
        """
        path, words = folder / POLICY, folder / REASONS_PATH.name
        raw, raw_words = _read(path), _read(words if words.exists() else REASONS_PATH)
        if product not in schema.products:
            zh = f"schema {schema.name} 没有产品 {product!r}"
            raise PolicyError(path, f"schema {schema.name} has no product {product!r}", zh=zh)
        inputs = policy_columns(schema)
        tables = load_tables(path, raw, inputs, SPECS)
        texts = reason_texts(words, raw_words, CODES)
        check_tables(path, schema, tables, inputs, texts)
        check_fraud(path, tables)
        check_missing(path, tables)
        version = hashlib.sha256(raw + b"\0" + raw_words).hexdigest()
        return cls(product, version, schema, tables, texts, inputs)

    @property
    def compiled(self) -> Compiled:
        """Its tables as numbers."""
        return Compiled(self._program, self._plan, self._names, self._votes_max)

    def decide(self, asked: Asked, values: Floats, lent: Mapping[str, int] = MappingProxyType({})) -> Decisions:
        """Decisions on B applications, in their order: an earlier one's shares count as lent for a later one.

        values: float64 [B, len(inputs)], policy.inputs.input_values of `columns`. lent: minor units that each of
        `funders` has lent already.
        """
        judged = Judged.empty(len(asked), self._program, self._votes_max)
        self.judge(self._program, self._plan, np.ascontiguousarray(values), asked.amount_minor, judged)
        self._close(asked, judged, 0, len(asked))
        parts = None
        if self._offers is not None:
            parts = self._offers.fund(judged, self._plan.places, lent, partial(self._fund_less, asked, judged))
        return Decisions(judged, asked.human_review_requested, self._wording, self._exposure_at, self._offers, parts)

    def scarce(self, lent: Mapping[str, int], amount_minor: int) -> bool:
        """Whether funders that have lent so much might not do for loans of amount_minor together."""
        return self._offers is not None and self._offers.scarce(lent, amount_minor)

    def contended(self, decision: Decision, evidence: str) -> Decision:
        """REVIEW in place of an approval whose room others took at the same time; `evidence`: what they have now."""
        limits = decision.reasons if decision.outcome is Outcome.LIMIT else ()  # an approval's are not a review's
        return decision._replace(
            outcome=Outcome.REVIEW, approved_amount_minor=0, annual_rate=0.0, all_in_rate=0.0,
            reasons=(self._wording.reason("CONTENDED", evidence), *limits), shares=(), exposure_max_minor=None,
        )  # fmt: skip

    def _close(self, asked: Asked, judged: Judged, begin: int, end: int) -> None:
        """What some of the loans cost, and what all votes on them come to."""
        annual_rate, all_in = judged.floats
        all_in_rates(
            judged.ints[at.AMOUNT], annual_rate, asked.term_months, asked.repayment, asked.upfront_fee_minor,
            asked.monthly_fee_minor, all_in, begin, end,
        )  # fmt: skip
        close(self._plan, asked.human_review_requested, judged, begin, end)

    def _fund_less(self, asked: Asked, judged: Judged, row: int, funded: int) -> bool:
        """Decides an application anew where funders lend less: LIMIT, or REVIEW where that is too little; whether it is
        still approved.
        """
        ints, shown, minimum = judged.ints, self._plan.places[at.SHOWN_AT], self._plan.places[at.MINIMUM]
        enough = funded >= judged.memory[minimum, row]
        judged.memory[shown + 2 : shown + 4, row] = ints[at.AMOUNT, row], funded
        outcome, kind = (Outcome.LIMIT, FUNDED_LESS) if enough else (Outcome.REVIEW, NO_FUNDER)
        judged.votes[row, ints[at.COUNT, row]] = outcome << 40 | kind << 32
        ints[at.COUNT, row] += 1
        ints[at.OUTCOME, row] = max(ints[at.OUTCOME, row], outcome)
        ints[at.AMOUNT, row] = funded
        if not enough:
            judged.floats[at.RATE, row] = math.nan
        self._close(asked, judged, row, row + 1)
        return bool(ints[at.OUTCOME, row] <= Outcome.LIMIT)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None
