"""What a policy file is made of: its tables with their columns, the inputs they may read, and what must be there.

Every name, type and code is checked here or in policy.tables before a policy is used (R16); a table that is missing
refuses to load where leaving it out would approve what a model should have judged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from features.application import REPAYMENT_METHODS
from features.schema import SLOTS_MAX, SOURCE_STATES, Schema
from features.specs import LISTS as LISTS
from policy.cells import Column
from policy.errors import PolicyError
from policy.rows import Output, Spec, Table

MODES = ("own", "assisted", "referral", "joint")  # R4
GRADES = ("AAA", "AA", "A", "BBB", "BB", "B", "C", "D")
AUTHORITY = "authority"  # who decides a review, a name of the lender's; an input of the table of this name alone

_VOTES = Column("string", ("approve", "review", "decline"))
_TEXT = Column("string")
_WORDS = {"reason": Output(_TEXT, blank=True), "legal": Output(_TEXT, needed=False, blank=True)}
_RATE = Output(Column("number", range=(0.0, 1.0)))
_MONEY = Output(Column("number", range=(0.0, 1e12)))
_SHARE = Column("number", range=(0.0, 2.0))
_AT_LEAST_1 = Output(Column("number", range=(1.0, 1e12)))

# The tables of a policy file, in their order. A `first` table must decide, a `collect` table may say nothing.
SPECS = {
    "knockouts": Spec("collect", {"outcome": Output(_VOTES), **_WORDS}),  # approve: see policy.checks.check_missing
    "sources": Spec("collect", {"outcome": Output(_VOTES), **_WORDS}),
    "fraud": Spec("first", {"outcome": Output(_VOTES), **_WORDS}, unique=True),
    "grade": Spec(
        "first", {"grade": Output(Column("string", GRADES)), "outcome": Output(_VOTES), **_WORDS}, unique=True
    ),
    "limit": Spec("first", {
        "cap_minor": _MONEY, "rounding_minor": _AT_LEAST_1, "minimum_minor": _AT_LEAST_1,
        "exposure_max_minor": Output(_MONEY.column, needed=False),
        "income_multiple": Output(Column("number", range=(0.0, 1000.0)), needed=False),
        "revenue_multiple": Output(Column("number", range=(0.0, 1000.0)), needed=False),
        "valuation_max": Output(_SHARE, needed=False, blank=True),
        "ltv_max": Output(_SHARE, needed=False, blank=True),
        "price_max": Output(_SHARE, needed=False, blank=True),
        **{legal: _WORDS["legal"] for legal in (
            "cap_legal", "exposure_legal", "income_legal", "revenue_legal", "valuation_legal", "ltv_legal",
            "price_legal",
        )},
    }),
    "price": Spec("first", {"annual_rate": _RATE, "cap_rate": _RATE, "legal": _WORDS["legal"]}),
    "funders": Spec("collect", {
        "funder": Output(_TEXT), "mode": Output(Column("string", MODES)), "share_max": _RATE, "cap_minor": _MONEY,
        "funder_rate": _RATE,
    }),
    AUTHORITY: Spec("collect", {"amount_max_minor": _MONEY}),
}  # fmt: skip

# The table that reads a model's probability, and the tables that must be there where the schema has the model's label.
MODEL_OF = {"fraud": "fraud", "grade": "default"}
NEEDED = {"fraud": ("fraud",), "default": ("grade", "limit", "price")}


@dataclass(frozen=True)
class Capacity:
    """An output of `limit` times the least of `inputs`, in currency: what the borrower or the collateral carries."""

    output: str
    inputs: tuple[str, ...]
    reason: str
    legal: str


CAPACITIES = (
    Capacity("income_multiple", ("verified_income",), "LIMIT_BY_INCOME", "income_legal"),
    Capacity("revenue_multiple", ("invoiced_monthly_revenue",), "LIMIT_BY_REVENUE", "revenue_legal"),
    Capacity("valuation_max", ("valuation_low",), "LIMIT_BY_VALUATION", "valuation_legal"),
    Capacity("ltv_max", ("residual_low",), "LIMIT_BY_RESIDUAL_VALUE", "ltv_legal"),
    Capacity("price_max", ("vehicle_price", "valuation"), "LIMIT_BY_PRICE", "price_legal"),
)
CAP = Capacity("cap_minor", (), "LIMIT_BY_CAP", "cap_legal")
EXPOSURE = Capacity("exposure_max_minor", ("exposure_minor",), "LIMIT_BY_EXPOSURE", "exposure_legal")
CODES = (
    "SOURCE_MISSING", "SOURCE_STALE", "INPUT_MISSING", "POLICY_GAP", "HUMAN_REVIEW_REQUESTED", "LIMIT_TOO_LOW",
    "ALL_IN_RATE_ABOVE_CAP", "LIMIT_BY_FUNDERS", "NO_FUNDER", "CONTENDED",
    *(capacity.reason for capacity in (CAP, EXPOSURE, *CAPACITIES)),
)  # fmt: skip


def policy_columns(schema: Schema) -> dict[str, Column]:
    """Every input that a policy of this schema may name."""
    values = {f.name: f.values for f in schema.features if f.values}
    values.update({f"{source}_state": SOURCE_STATES for source in schema.sources})
    ranges = {f.name: f.range for f in schema.features if f.range is not None}
    columns = {
        name: Column(kind, tuple(values.get(name, ())), ranges.get(name, (-math.inf, math.inf)))
        for name, kind in schema.policy_inputs().items()
    }
    columns["amount_minor"] = Column("number", range=(float(schema.amount_minor[0]), float(schema.amount_minor[1])))
    columns["term_months"] = Column("number", range=(float(schema.term_months[0]), float(schema.term_months[1])))
    columns.update({f"{label}_probability": Column("number", range=(0.0, 1.0)) for label in schema.labels})
    columns["repayment"] = Column("string", REPAYMENT_METHODS)
    columns["human_review_requested"] = Column("boolean")
    columns["exposure_minor"] = Column("number", range=(0.0, 1e12))
    columns.update({f"listed_{kind}": Column("number", range=(0.0, float(SLOTS_MAX))) for kind in LISTS})
    if schema.residual_value is not None:
        columns["residual_low"] = Column("number", range=(0.0, 1e9))
    columns[AUTHORITY] = Column("string")
    return columns


def check_tables(
    path: Path, schema: Schema, tables: Mapping[str, Table], inputs: Mapping[str, Column],
    texts: Mapping[str, tuple[str, str]],
) -> None:  # fmt: skip
    """What the tables need together: all that the schema's models call for, and capacities that exist."""
    for label in schema.labels:
        for name in NEEDED[label]:
            if name not in tables:
                raise PolicyError(
                    path, f"the table is missing, and schema {schema.name} has a {label} model", name,
                    zh=f"缺少这张表，而 schema {schema.name} 有 {label} 模型",
                )  # fmt: skip
    for name, table in tables.items():
        if name != AUTHORITY and AUTHORITY in table.inputs:
            zh = f"只有 {AUTHORITY} 表可以使用复核人的权限"
            raise PolicyError(path, f"only the table {AUTHORITY} may ask who decides", name, column=AUTHORITY, zh=zh)
    for name, label in MODEL_OF.items():
        if name in tables and f"{label}_probability" not in tables[name].inputs:
            column = f"{label}_probability"
            raise PolicyError(path, f"no cell tests {column}", name, column=column, zh=f"没有单元格使用 {column}")
    if "price" in tables and schema.term_months[0] < 1:
        zh = f"schema {schema.name} 有无期限的业务，不能定价"
        raise PolicyError(path, f"schema {schema.name} has loans of no term, they have no rate", "price", zh=zh)
    for name in ("limit", "price"):
        if "funders" in tables and name not in tables:
            zh = "有 funders 表就必须有这张表：资金方承接的是金额与利率"
            raise PolicyError(path, "the table is missing: funders lend an amount at a rate", name, zh=zh)
    for capacity in capacities(tables):
        for name in capacity.inputs:
            if name not in inputs:
                raise PolicyError(
                    path, f"schema {schema.name} has no {name} to multiply", "limit", column=capacity.output,
                    zh=f"schema {schema.name} 没有可相乘的 {name}",
                )  # fmt: skip
    _check_words(path, tables, texts)


def capacities(tables: Mapping[str, Table]) -> tuple[Capacity, ...]:
    """Those that the table `limit` has a column for."""
    return tuple(c for c in CAPACITIES if "limit" in tables and c.output in tables["limit"].outputs)


def _check_words(path: Path, tables: Mapping[str, Table], texts: Mapping[str, tuple[str, str]]) -> None:
    """A reason with words wherever one is due: for a vote against, and for an approval by the last model (R2)."""
    approving = [name for name in MODEL_OF if name in tables][-1:]
    for table in tables.values():
        for row in table.rows:
            reason, outcome = row.literals.get("reason", ""), row.literals.get("outcome", "approve")
            if (reason or outcome != "approve" or table.name in approving) and reason not in texts:
                zh = f"未知的原因代码 {reason!r}"
                raise PolicyError(path, f"unknown reason code {reason!r}", table.name, row.id, "reason", zh)
