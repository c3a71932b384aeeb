"""Where a policy's tables and their outputs stand in its program: what policy.kernel must know beside the tables."""

from collections.abc import Mapping, Sequence

import numpy as np

from policy.funding import Offer
from policy.program import SHOWN, Plan, ints, output_name
from policy.rows import Table
from policy.specs import EXPOSURE, GRADES, MODEL_OF, Capacity

OUTCOMES = {"approve": 1, "review": 3, "decline": 4}
TERMS = ("limit.cap_minor", "limit.exposure_max_minor", "limit.rounding_minor", "limit.minimum_minor",
         "price.annual_rate", "price.cap_rate")


def plan_of(
    tables: Sequence[Table], slot: Mapping[str, int], sources: Sequence[str], bounds: Sequence[Capacity],
    minor_per_major: int,
) -> Plan:  # fmt: skip
    """Where everything stands. sources: names of their states; bounds: CAP, EXPOSURE and the policy's capacities."""
    place = {table.name: i for i, table in enumerate(tables)}
    rows = [row for table in tables for row in table.rows]
    grades = [row.literals.get("grade") for row in rows]
    voted = [table for table in tables if table.name in ("knockouts", "sources")]
    capacities = bounds[2:]
    at = np.cumsum([0, *(len(capacity.inputs) for capacity in capacities)])
    return Plan(
        ints([place.get("knockouts", -1), place.get("sources", -1)]),
        ints([place.get(name, -1) for name in MODEL_OF]),
        place.get("limit", -1), place.get("price", -1), place.get("funders", -1),
        np.array([OUTCOMES.get(str(row.literals.get("outcome", "")), 0) for row in rows], dtype=np.int8),
        np.array([bool(row.literals.get("reason")) for row in rows], dtype=np.bool_),
        np.array([GRADES.index(str(grade)) if grade else -1 for grade in grades], dtype=np.int8),
        ints([slot[state] for state in sources]),
        np.array([[state in row.tests for state in sources] for row in rows], dtype=np.bool_).reshape(len(rows), -1),
        ints([slot.get(term, -1) for term in TERMS]),
        slot.get(EXPOSURE.inputs[0], -1),
        ints([slot[f"limit.{capacity.output}"] for capacity in capacities]),
        ints(at),
        ints([slot[name] for capacity in capacities for name in capacity.inputs]),
        float(minor_per_major),
        any(table.name == "limit" and "grade.grade" in table.inputs for table in tables),
        slot[SHOWN[0]],
        sum(len(table.rows) for table in voted) + len(sources) + 16,
    )  # fmt: skip


def offers_of(tables: Sequence[Table], slot: Mapping[str, int]) -> list[tuple[int, Offer, dict[str, int]]]:
    """What the table of funders may offer: its row, the offer, and where in memory those of its fields stand that are
    computed, 0 in the offer.
    """
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
    return offers
