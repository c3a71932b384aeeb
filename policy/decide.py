"""Policy: an application and what is known of it become a Decision (R2, R6–R8, R16, R22, R24).

Every table votes and the worst vote wins, so no rule hides a worse one. What is missing, undecided or not foreseen
votes REVIEW at least; only a row of the `sources` table that names a source and its state may accept a missing source.
Whoever asks for a person gets REVIEW, whatever the votes.
Pure and deterministic: the same application, values and policy file give the same Decision.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from features.application import REPAYMENT_METHODS, Reason
from features.schema import Schema
from policy.cells import Column, Value
from policy.funding import Offer, Share, split
from policy.inputs import Asked
from policy.jdm import PolicyError
from policy.rates import all_in_rate
from policy.reasons import REASONS_PATH, reason_texts
from policy.specs import (
    AUTHORITY,
    CAP,
    CODES,
    EXPOSURE,
    GRADES,
    MODEL_OF,
    SPECS,
    Capacity,
    capacities,
    check_tables,
    policy_columns,
)
from policy.tables import Hit, Table, Values, load_tables

POLICY = "policy.json"
HUMAN_REVIEW = "HUMAN_REVIEW_REQUESTED"
HUMAN_REVIEW_LAW = "个人信息保护法 第24条"


class Outcome(IntEnum):
    """What is decided; a greater one is worse for the applicant, and votes are combined with max."""

    UNSPECIFIED = 0
    APPROVE = 1
    LIMIT = 2
    REVIEW = 3
    DECLINE = 4


_OUTCOMES = {outcome.name.lower(): outcome for outcome in Outcome}


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
    grade: int8 [B], index of policy.specs.GRADES, -1 for none. `decisions[i]` is the Decision of one, with reasons.
    """

    def __init__(self, every: Sequence[Decision]) -> None:
        self._every = every
        self.outcome = np.array([d.outcome for d in every], dtype=np.int8)
        self.approved_amount_minor = np.array([d.approved_amount_minor for d in every], dtype=np.int64)
        self.annual_rate = np.array([d.annual_rate for d in every], dtype=np.float64)
        self.all_in_rate = np.array([d.all_in_rate for d in every], dtype=np.float64)
        self.grade = np.array([GRADES.index(d.grade) if d.grade else -1 for d in every], dtype=np.int8)

    def __len__(self) -> int:
        return len(self._every)

    def __getitem__(self, row: int) -> Decision:
        return self._every[row]


class _Ballot:
    """The votes of one decision, each with its reason; of a personal input the reason has the name only (R21)."""

    def __init__(self, texts: Mapping[str, tuple[str, str]], values: Values, private: Set[str]) -> None:
        self._texts, self._values, self._private = texts, values, private
        self._votes: list[tuple[Outcome, Reason]] = []
        self.outcome = Outcome.APPROVE
        self.explain: list[str] = []

    def vote(self, outcome: Outcome, code: str, evidence: str, legal: str = "") -> None:
        zh, en = self._texts[code]
        self._votes.append((outcome, Reason(code, zh, en, 0.0, evidence, legal)))
        self.outcome = max(self.outcome, outcome)

    def vote_row(self, hit: Hit, table: str) -> bool:
        """The vote of a row; False where it is to approve."""
        outcome = _OUTCOMES[str(hit.outputs["outcome"])]
        if code := str(hit.outputs.get("reason", "")):
            grade = f"grade={hit.outputs['grade']}, " if "grade" in hit.outputs else ""
            evidence = f"{grade}{self.facts(hit.tested)} ({table}.{hit.row})"
            self.vote(outcome, code, evidence, str(hit.outputs.get("legal", "")))
        return outcome > Outcome.APPROVE

    def facts(self, names: Iterable[str]) -> str:
        """The inputs `names` with their values."""
        return ", ".join([self.fact(name, name, self._values.get(name)) for name in names])

    def fact(self, name: str, key: str, value: Value | None) -> str:
        """`name` with its value, unless the input or output `key` is personal."""
        return name if key in self._private else f"{name}={_shown(value)}"

    def result(self, to_a_person: bool) -> tuple[Outcome, tuple[Reason, ...]]:
        """The worst vote, or REVIEW where the applicant asks for a person, whatever the votes; the reasons for it."""
        votes = sorted(self._votes, key=lambda vote: -vote[0])
        if self.outcome > Outcome.APPROVE or to_a_person:
            votes = [vote for vote in votes if vote[0] > Outcome.APPROVE]
        reasons = tuple([reason for _, reason in votes])
        if not to_a_person:
            return self.outcome, reasons
        zh, en = self._texts[HUMAN_REVIEW]
        asked = Reason(HUMAN_REVIEW, zh, en, 0.0, "human_review_requested=true", HUMAN_REVIEW_LAW)
        return Outcome.REVIEW, (asked, *reasons)


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
        self._tables, self._texts = tables, texts
        self._sources = tuple((name, f"{name}_state") for name in schema.sources)
        self._minor_per_major = schema.minor_per_major
        self._capacities = capacities(tables)
        names = {name for table in tables.values() for name in table.inputs if "." not in name}
        names.update(state for _, state in self._sources)
        names.update(name for capacity in self._capacities for name in capacity.inputs)
        if "limit" in tables and EXPOSURE.output in tables["limit"].outputs:
            names.update(EXPOSURE.inputs)
        self.inputs = tuple(sorted(names - {AUTHORITY}))
        self.columns = {name: columns[name] for name in self.inputs}
        rows = tables["funders"].rows if "funders" in tables else ()
        self.funders = tuple(dict.fromkeys(str(row.literals["funder"]) for row in rows))
        self._private = {feature.name for feature in schema.features if feature.personal}
        for table in tables.values():  # an output computed from what is personal is personal
            for row in table.rows:
                if not self._private.isdisjoint(row.reads):
                    self._private.update(f"{table.name}.{field}" for field in row.computed)

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
        version = hashlib.sha256(raw + b"\0" + raw_words).hexdigest()
        return cls(product, version, schema, tables, texts, inputs)

    def decide(
        self, asked: Asked, values: NDArray[np.float64], lent: Mapping[str, int] = MappingProxyType({})
    ) -> Decisions:
        """Decisions on B applications, in their order: an earlier one's shares count as lent for a later one.

        values: float64 [B, len(inputs)], policy.inputs.input_values of `columns`. lent: minor units that each of
        `funders` has lent already.
        """
        lent, every = dict(lent), []
        for row in range(len(asked)):
            decision = self._decide(asked.take(np.array([row])), self._named(values[row]), lent)
            for share in decision.shares:
                lent[share.offer.funder] = lent.get(share.offer.funder, 0) + share.amount_minor
            every.append(decision)
        return Decisions(every)

    def _named(self, row: NDArray[np.float64]) -> dict[str, Value | None]:
        named: dict[str, Value | None] = {}
        for (name, column), number in zip(self.columns.items(), row.tolist(), strict=True):
            if math.isnan(number):
                named[name] = None
            elif column.kind == "string":
                named[name] = column.values[int(number)]
            else:
                named[name] = bool(number) if column.kind == "boolean" else number
        return named

    def _decide(self, application: Asked, values: Values, lent: Mapping[str, int]) -> Decision:
        ballot = _Ballot(self._texts, values, self._private)
        for knockout in self._collect("knockouts", ballot, values):
            ballot.vote_row(knockout, "knockouts")
        degraded = self._vote_sources(ballot, values)
        earlier: dict[str, Mapping[str, Value]] = {}
        for table, model in MODEL_OF.items():
            hit = self._first(table, ballot, values, earlier)
            if hit is not None and ballot.vote_row(hit, table):
                ballot.explain.append(model)
        amount, annual_rate, all_in = 0, 0.0, 0.0
        shares: tuple[Share, ...] = ()
        if ballot.outcome < Outcome.DECLINE:  # nothing can be worse, and a limit is no reason to decline
            amount = self._amount(ballot, application, values, earlier)
            annual_rate, all_in = self._price(ballot, application, amount, values, earlier)
        if "funders" in self._tables and ballot.outcome <= Outcome.LIMIT and not application.human_review_requested[0]:
            shares = self._fund(ballot, amount, annual_rate, values, earlier, lent)
            if (funded := sum(share.amount_minor for share in shares)) < amount:
                amount = funded
                annual_rate, all_in = self._price(ballot, application, amount, values, earlier)
        outcome, reasons = ballot.result(bool(application.human_review_requested[0]))
        approved = outcome <= Outcome.LIMIT
        return Decision(
            outcome,
            amount if approved else 0,
            annual_rate if approved else 0.0,
            all_in if approved else 0.0,
            str(earlier["grade"]["grade"]) if "grade" in earlier else "",
            reasons,
            degraded,
            tuple(dict.fromkeys(ballot.explain)),
            shares if approved else (),
            self._exposure_max(earlier) if approved else None,
        )

    def _exposure_max(self, earlier: Mapping[str, Mapping[str, Value]]) -> int | None:
        most = earlier.get("limit", {}).get(EXPOSURE.output)
        return None if most is None else int(float(most))

    def _fund(
        self, ballot: _Ballot, amount: int, annual_rate: float, values: Values,
        earlier: Mapping[str, Mapping[str, Value]], lent: Mapping[str, int],
    ) -> tuple[Share, ...]:  # fmt: skip
        """Who lends the amount; less votes LIMIT, too little REVIEW. A row that may or may not hold does not lend."""
        offers: dict[str, Offer] = {}
        for hit in self._tables["funders"].evaluate(values, earlier).hits:
            terms = hit.outputs
            name, cap = str(terms["funder"]), int(float(terms["cap_minor"]))
            offer = Offer(name, str(terms["mode"]), float(terms["share_max"]), cap, float(terms["funder_rate"]))
            offers.setdefault(name, offer)
        rounding, minimum = int(float(earlier["limit"]["rounding_minor"])), float(earlier["limit"]["minimum_minor"])
        shares = split(amount, annual_rate, rounding, list(offers.values()), lent)
        funded = sum(share.amount_minor for share in shares)
        if funded < minimum:
            ballot.vote(Outcome.REVIEW, "NO_FUNDER", f"amount_minor={amount} (funders)")
            return ()
        if funded < amount:
            ballot.vote(Outcome.LIMIT, "LIMIT_BY_FUNDERS", f"fundable_minor={funded} (funders)")
        return shares

    def _collect(self, name: str, ballot: _Ballot, values: Values) -> tuple[Hit, ...]:
        """The rows of a collect table that hold; those that may hold vote REVIEW together."""
        if name not in self._tables:
            return ()
        hits, undecided = self._tables[name].evaluate(values, {})
        if undecided:
            missing = dict.fromkeys(n for row in undecided for n in row.missing)
            ballot.vote(Outcome.REVIEW, "INPUT_MISSING", f"{', '.join(missing)} ({name})")
        return hits

    def _first(self, name: str, ballot: _Ballot, values: Values, earlier: dict[str, Mapping[str, Value]]) -> Hit | None:
        """The row of a first table, its outputs then in `earlier`; a gap or an undecided row votes REVIEW."""
        if name not in self._tables:
            return None
        hits, undecided = self._tables[name].evaluate(values, earlier)
        if hits:
            earlier[name] = hits[0].outputs
            return hits[0]
        for row in undecided:
            # an output is missing where its table did not decide, and that voted already
            missing = [n for n in row.missing if "." not in n or n.split(".")[0] in earlier]
            if missing:
                ballot.vote(Outcome.REVIEW, "INPUT_MISSING", f"{', '.join(missing)} ({name}.{row.row})")
        if not undecided:
            known = [n for n in self._tables[name].inputs if "." not in n]
            ballot.vote(Outcome.REVIEW, "POLICY_GAP", f"{ballot.facts(known)} ({name})")
        return None

    def _vote_sources(self, ballot: _Ballot, values: Values) -> tuple[str, ...]:
        """What is missing or stale; each votes REVIEW unless a row that holds names its state and says otherwise."""
        named: set[str] = set()
        for hit in self._collect("sources", ballot, values):
            ballot.vote_row(hit, "sources")
            named.update(hit.tested)
        degraded = []
        for source, key in self._sources:
            state = values.get(key)
            if state == "fresh":
                continue
            state = "stale" if state == "stale" else "missing"
            degraded.append(f"source:{source}:{state}")
            if key not in named:
                ballot.vote(Outcome.REVIEW, f"SOURCE_{state.upper()}", f"{key}={state}")
        return tuple(degraded)

    def _amount(
        self, ballot: _Ballot, application: Asked, values: Values, earlier: dict[str, Mapping[str, Value]]
    ) -> int:
        """What may be lent, minor units; 0 where that is not known or less than the least loan."""
        asked = int(application.amount_minor[0])
        if "limit" not in self._tables:
            return asked
        hit = self._first("limit", ballot, values, earlier)
        if hit is None:
            return 0
        terms = hit.outputs
        most, binding = float(terms["cap_minor"]), CAP
        for capacity in self._capacities:
            if capacity.output not in terms:  # blank: does not bind this row
                continue
            known = [_number(values.get(name)) for name in capacity.inputs]
            if missing := [name for name, value in zip(capacity.inputs, known, strict=True) if value is None]:
                ballot.vote(Outcome.REVIEW, "INPUT_MISSING", f"{', '.join(missing)} (limit.{hit.row})")
                return 0
            least = min([value for value in known if value is not None])
            # 0.7 × 100 000 is 70 000 and not one rounding step less: a thousandth of a fen is binary noise
            carries = least * float(terms[capacity.output]) * self._minor_per_major + 0.001
            if carries < most:
                most, binding = carries, capacity
        if EXPOSURE.output in terms:
            left = float(terms[EXPOSURE.output]) - (_number(values.get("exposure_minor")) or 0.0)
            if left < most:
                most, binding = max(left, 0.0), EXPOSURE
        rounding, minimum = int(terms["rounding_minor"]), float(terms["minimum_minor"])
        amount = asked if asked <= most else int(most // rounding) * rounding
        if amount < asked:
            self._vote_limit(ballot, hit, binding, amount < minimum)
        elif amount < minimum:
            evidence = f"amount_minor={asked}, minimum_minor={minimum:.0f} (limit.{hit.row})"
            ballot.vote(Outcome.DECLINE, "LIMIT_TOO_LOW", evidence)
        return amount if amount >= minimum else 0

    def _vote_limit(self, ballot: _Ballot, hit: Hit, binding: Capacity, too_low: bool) -> None:
        """What binds the amount: its reason and its law; a cap that follows from the grade asks why that grade."""
        name = binding.output
        bound = ballot.fact(name, f"limit.{name}", hit.outputs[name])
        evidence = ", ".join(filter(None, (ballot.facts(binding.inputs), bound)))
        outcome, code = (Outcome.DECLINE, "LIMIT_TOO_LOW") if too_low else (Outcome.LIMIT, binding.reason)
        ballot.vote(outcome, code, f"{evidence} (limit.{hit.row})", str(hit.outputs.get(binding.legal, "")))
        if binding is CAP and "grade.grade" in self._tables["limit"].inputs:
            ballot.explain.append(MODEL_OF["grade"])

    def _price(
        self, ballot: _Ballot, application: Asked, amount: int, values: Values,
        earlier: dict[str, Mapping[str, Value]],
    ) -> tuple[float, float]:  # fmt: skip
        """Annual and all-in rate; above the cap votes REVIEW (R7)."""
        hit = self._first("price", ballot, values, earlier)
        if hit is None or amount == 0:
            return 0.0, 0.0
        annual_rate, cap_rate = float(hit.outputs["annual_rate"]), float(hit.outputs["cap_rate"])
        all_in = all_in_rate(
            amount, annual_rate, int(application.term_months[0]), REPAYMENT_METHODS[int(application.repayment[0])],
            int(application.upfront_fee_minor[0]), int(application.monthly_fee_minor[0]),
        )  # fmt: skip
        if all_in > cap_rate:
            cap = ballot.fact("cap_rate", "price.cap_rate", cap_rate)
            evidence = f"all_in_rate={all_in:.4f}, {cap} (price.{hit.row})"
            ballot.vote(Outcome.REVIEW, "ALL_IN_RATE_ABOVE_CAP", evidence, str(hit.outputs.get("legal", "")))
        return annual_rate, all_in


def _number(value: Value | None) -> float | None:
    return value if isinstance(value, float | int) and math.isfinite(value) else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PolicyError(path, f"cannot be read: {error.strerror}") from None


def _shown(value: Value | None) -> str:
    if value is None or value != value:
        return "missing"
    return value if isinstance(value, str) else f"{value:g}"
