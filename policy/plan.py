"""Where a policy's tables and their outputs stand in its program: what policy.kernel must know beside the tables."""

from collections.abc import Mapping, Sequence

import numpy as np

from policy.funding import Offer, Offers
from policy.program import SHOWN, Plan, ints, output_name
from policy.rows import Row, Table
from policy.specs import EXPOSURE, GRADES, MODEL_OF, Capacity

OUTCOMES = {"approve": 1, "review": 3, "decline": 4}
TERMS = (
    "limit.cap_minor",
    "limit.exposure_max_minor",
    "limit.rounding_minor",
    "limit.minimum_minor",
    "price.annual_rate",
    "price.cap_rate",
)


def plan_of(
    tables: Sequence[Table], slot: Mapping[str, int], sources: Sequence[str], capacities: Sequence[Capacity],
    minor_per_major: int,
) -> Plan:  # fmt: skip
    """sources: names of their states, as columns."""
    place = {table.name: i for i, table in enumerate(tables)}
    rows = [row for table in tables for row in table.rows]
    by_grade = any(table.name == "limit" and "grade.grade" in table.inputs for table in tables)
    places = [place.get(name, -1) for name in ("knockouts", "sources", *MODEL_OF, "limit", "price", "funders")]
    places += [slot.get(name, -1) for name in (*TERMS, *EXPOSURE.inputs)]
    places += [slot[SHOWN[0]], int(by_grade), minor_per_major]
    width = max((len(capacity.inputs) for capacity in capacities), default=0)
    at = [[slot[f"limit.{c.output}"], *(slot[name] for name in c.inputs)] for c in capacities]
    return Plan(
        ints(places),
        ints([_marks(row) for row in rows]).reshape(-1, 3),
        np.array([[state in row.tests for state in sources] for row in rows], dtype=np.bool_).reshape(len(rows), -1),
        ints([slot[state] for state in sources]),
        ints([[*of, *[-1] * (1 + width - len(of))] for of in at]).reshape(len(capacities), -1 if at else 1),
    )


def _marks(row: Row) -> tuple[int, int, int]:
    grade = row.literals.get("grade")
    outcome = OUTCOMES.get(str(row.literals.get("outcome")), 0)
    return outcome, int(bool(row.literals.get("reason"))), -1 if grade is None else GRADES.index(str(grade))


def votes_max(tables: Sequence[Table], sources: Sequence[str]) -> int:
    """More votes than one application can get."""
    return sum(len(table.rows) for table in tables if table.name in ("knockouts", "sources")) + len(sources) + 16


def offers_of(tables: Sequence[Table], slot: Mapping[str, int]) -> Offers | None:
    """What the table of funders may offer; computed terms are 0 in the offer."""
    offers = []
    rows = [(table, row) for table in tables for row in table.rows]
    for i, (table, row) in enumerate(rows):
        if table.name == "funders":
            terms = {**dict.fromkeys(row.computed, 0.0), **row.literals}
            offer = Offer(
                str(terms["funder"]), str(terms["mode"]), float(terms["share_max"]), int(float(terms["cap_minor"])),
                float(terms["funder_rate"]),
            )  # fmt: skip
            offers.append((i, offer, {field: slot[output_name(table, row, field)] for field in row.computed}))
    return Offers(offers) if offers else None
