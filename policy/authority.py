"""What a policy lets a person decide on one application in review (R22): its own tables, asked by somebody with a name.

Nobody lends more than the cap, dearer than the cap on rates, beyond the best row of `authority` that holds, or past a
knock-out that declines: who asks for a person has a model's word looked at again, not the law's. Without the table
`authority` nobody may decide; a row that may or may not hold does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from policy.cells import Value
from policy.funding import Offer
from policy.plan import offers_of
from policy.specs import AUTHORITY, EXPOSURE, SPECS
from policy.tables import Table


@dataclass(frozen=True)
class Mandate:
    """holds: whether any row gives this authority a say; amount_max_minor: the most that one gives.

    cap_minor, cap_rate, exposure_max_minor: the policy's, None where it has none. undecided: tables that ought to say
    so and do not, since something is missing. offers: funders whose rows hold. barred: reasons of the knock-outs that
    decline.
    """

    holds: bool
    amount_max_minor: int
    cap_minor: int | None
    cap_rate: float | None
    exposure_max_minor: int | None
    rounding_minor: int
    offers: tuple[Offer, ...]
    undecided: tuple[str, ...]
    barred: tuple[str, ...]


def mandate(tables: Mapping[str, Table], values: Mapping[str, Value | None], authority: str) -> Mandate:
    """The mandate of `authority` on an application whose inputs are `values`; None or absent is missing."""
    known = {**values, AUTHORITY: authority}
    earlier: dict[str, Mapping[str, Value]] = {}
    for name, table in tables.items():
        if SPECS[name].hit_policy == "first" and (hits := table.evaluate(known, earlier).hits):
            earlier[name] = hits[0].outputs
    rows = [hit.outputs for hit in tables[AUTHORITY].evaluate(known, earlier).hits] if AUTHORITY in tables else []
    knockouts = (
        [hit.outputs for hit in tables["knockouts"].evaluate(known, earlier).hits] if "knockouts" in tables else []
    )
    limit, price = earlier.get("limit", {}), earlier.get("price", {})
    return Mandate(
        bool(rows),
        max((_minor(row["amount_max_minor"]) for row in rows), default=0),
        _minor(limit["cap_minor"]) if limit else None,
        float(price["cap_rate"]) if price else None,
        _minor(limit[EXPOSURE.output]) if EXPOSURE.output in limit else None,
        _minor(limit["rounding_minor"]) if limit else 1,
        _offers(tables, known, earlier),
        tuple(name for name in ("limit", "price") if name in tables and name not in earlier),
        tuple(str(row["reason"]) for row in knockouts if row["outcome"] == "decline"),
    )


def _offers(
    tables: Mapping[str, Table], known: Mapping[str, Value | None], earlier: Mapping[str, Mapping[str, Value]]
) -> tuple[Offer, ...]:
    if "funders" not in tables:
        return ()
    status, memory, slot = tables["funders"].walk(known, earlier)
    offers = offers_of([tables["funders"]], slot)
    return offers.standing(status, memory, 0) if offers is not None else ()


def _minor(amount: Value) -> int:
    return int(float(amount))
