"""The comparison with zen-engine notices a policy that decides otherwise, not only one whose rows hold otherwise."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.policy import compare, random_inputs, usual
from policy.decide import Policy
from policy.specs import policy_columns
from tests.test_policy_decide import policy_of, schema_of
from tests.test_policy_tables import product_document, table_of

INPUTS = 400


def _set(table: str, field: str, cell: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        content = table_of(document, table)
        (column,) = (output["id"] for output in content["outputs"] if output["field"] == field)
        for rule in content["rules"]:
            rule[column] = cell

    return change


def _as_shipped(document: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("product", "change", "differs"),
    [
        ("consumer", _as_shipped, False), ("auto", _as_shipped, False), ("small_business", _as_shipped, False),
        ("card_transaction", _as_shipped, False), ("consumer", _set("limit", "cap_minor", "100"), True),
        ("consumer", _set("price", "annual_rate", "0"), True),
        ("consumer", _set("limit", "income_multiple", "0.5"), True),
        ("consumer", _set("limit", "minimum_minor", "99000000"), True),
        ("consumer", _set("price", "cap_rate", "0.01"), True), ("consumer", _set("funders", "share_max", "0.3"), True),
        ("consumer", _set("funders", "cap_minor", "90000000"), True),
        ("consumer", _set("limit", "exposure_max_minor", "3000000"), True),
        ("auto", _set("limit", "valuation_max", "0.1"), True), ("auto", _set("limit", "ltv_max", "0.01"), True),
        ("auto", _set("limit", "price_max", "0.2"), True), ("auto", _set("limit", "rounding_minor", "7"), True),
        ("auto", _set("grade", "outcome", "'review'"), True),
        ("auto", _set("knockouts", "reason", "'UNDER_AGE'"), True),
        ("small_business", _set("limit", "revenue_multiple", "0.1"), True),
    ],
)  # fmt: skip
def test_what_is_decided_is_compared(
    product: str, tmp_path: Path, change: Callable[[Any], None], differs: bool
) -> None:
    document = product_document(product)
    change(document)
    (tmp_path / "policy.json").write_text(json.dumps(document))
    other, schema = Policy.load(tmp_path, product, schema_of(product)), schema_of(product)
    tables, columns = list(policy_of(product).tables.values()), policy_columns(schema)
    read = {n: c for t in tables for n, c in t.inputs.items() if "." not in n}
    names = dict.fromkeys([*other.inputs, *read, "amount_minor", "term_months", "repayment"])
    columns = {name: read.get(name, columns[name]) for name in names}
    rng = np.random.default_rng(1)
    values = usual(rng, tables, columns, random_inputs(rng, tables, columns, INPUTS))
    mismatches, _ = compare(product, product_document(product), other, tables, columns, values, schema.minor_per_major)
    assert (mismatches > 0) == differs
