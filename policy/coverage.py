"""Which rows of a policy's tables its cases reach: what no case reaches, nobody has tried before it is published."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.schema import Schema
from policy.cases import Case
from policy.cells import Column, Value
from policy.decide import POLICY, Decision, Outcome
from policy.specs import MODEL_OF, SPECS, policy_columns
from policy.tables import Hit, Table, load_tables

NOT_DECIDING = ("authority",)  # says who may resolve a review: no decision reaches it


@dataclass(frozen=True)
class Coverage:
    """How many cases reach what: `rows` by table and row, `reasons` by each code that the tables or a decision say."""

    rows: Mapping[str, Mapping[str, int]]
    reasons: Mapping[str, int]


def coverage(folder: Path, schema: Schema, cases: Sequence[Case], decisions: Sequence[Decision]) -> Coverage:
    """Of the policy in a folder, which decided the cases so."""
    columns = policy_columns(schema)
    every = load_tables(folder / POLICY, (folder / POLICY).read_bytes(), columns, SPECS)
    tables = {name: table for name, table in every.items() if name not in NOT_DECIDING}
    rows = {name: {row.id: 0 for row in table.rows} for name, table in tables.items()}
    reasons = Counter(code for decision in decisions for code in {reason.code for reason in decision.reasons})
    for case, decision in zip(cases, decisions, strict=True):
        for name, hits in _hits(tables, _named(case.values, columns), decision).items():
            for hit in hits:
                rows[name][hit.row] += 1
    said = {str(row.literals["reason"]) for table in tables.values() for row in table.rows if "reason" in row.literals}
    return Coverage(rows, {code: reasons[code] for code in sorted(said | set(reasons))})


def _hits(
    tables: Mapping[str, Table], values: Mapping[str, Value | None], decision: Decision
) -> dict[str, tuple[Hit, ...]]:
    """The rows that hold in the tables that the decision came to: no limit once declined, funders for what is lent."""
    found: dict[str, tuple[Hit, ...]] = {}
    earlier: dict[str, Mapping[str, Value]] = {}

    def look(*names: str) -> None:
        for name in names:
            if name in tables:
                found[name] = tables[name].evaluate(values, earlier).hits
                if found[name] and SPECS[name].hit_policy == "first":
                    earlier[name] = found[name][0].outputs

    look("knockouts", "sources", *MODEL_OF)
    if not any(hit.outputs.get("outcome") == "decline" for hits in found.values() for hit in hits):
        look("limit", "price")
        if decision.outcome <= Outcome.LIMIT or any(reason.code == "NO_FUNDER" for reason in decision.reasons):
            look("funders")
    return found


def _named(values: Mapping[str, float], columns: Mapping[str, Column]) -> dict[str, Value | None]:
    named: dict[str, Value | None] = {}
    for name, number in values.items():
        if math.isnan(number):
            named[name] = None
        elif name in columns:
            column = columns[name]
            named[name] = column.values[int(number)] if column.kind == "string" else number
            if column.kind == "boolean":
                named[name] = bool(number)
    return named
