"""Policies made at random from the shipped ones: other numbers, fewer rows, other votes, other funders, and cells that
say what a missing input does.
"""

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from policy.decide import Policy
from policy.tables import PolicyError
from tests.test_policy_decide import schema_of
from tests.test_policy_tables import product_document, table_of

EARNED = {"consumer": "verified_income", "auto": "verified_income", "small_business": "invoiced_monthly_revenue"}
BURDEN = {"consumer": "debt_to_income", "auto": "debt_to_income", "small_business": "revenue_to_invoiced"}


def perturbed(rng: random.Random, product: str) -> Policy:
    """One that loads."""
    while True:
        document = product_document(product)
        names = {node["name"] for node in document["nodes"]}
        for table, change in CHANGES:
            if table in names and rng.random() < 0.7:
                change(rng, table_of(document, table))
        if product in EARNED:
            _perturb_amounts(rng, table_of(document, "limit"), EARNED[product])
            if rng.random() < 0.5:
                set_funders(rng, document, product)
            if rng.random() < 0.7:
                _say_missing(rng, document)
        try:
            return loaded(document, product)
        except PolicyError as refused:  # of those, many let pass who leaves something out
            if "null" not in refused.reason:
                raise


def loaded(document: Any, product: str) -> Policy:
    """The policy of a document. Raises PolicyError."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "policy.json").write_text(json.dumps(document))
        return Policy.load(Path(folder), product, schema_of(product))


def set_funders(rng: random.Random, document: Any, product: str) -> None:
    """Two funders, the first of them in two rows that need not agree."""
    content = table_of(document, "funders")
    cells = ["", "<= 0.5", "> 0.2", "!= null and > 0.2", "!= null", "null"]
    content["inputs"], content["outputs"] = [{"id": "d", "name": "d", "field": BURDEN[product]}], []
    content["rules"] = [{"_id": f"f{i}", "d": rng.choice(cells)} for i in range(3)]
    content["rules"][2]["d"] = rng.choice(["", "", rng.choice(cells)])
    caps = ("0", "9000000", f"{EARNED[product]} * 900", "1000000000", "1000000000")
    _add_output(content, "funder", ["'north'", "'north'", "'south'"])
    _add_output(content, "mode", ["'joint'"] * 3)
    _add_output(content, "share_max", [rng.choice(["0.3", "0.7", "1", "1"]) for _ in range(3)])
    _add_output(content, "cap_minor", [rng.choice(caps) for _ in range(3)])
    _add_output(content, "funder_rate", [rng.choice(["0", "0.06", "price.annual_rate / 2"]) for _ in range(3)])


def _perturb_knockouts(rng: random.Random, content: Any) -> None:
    outcome = _cells(content, "outcome")
    against = [rule for rule in content["rules"] if rule[outcome] != "'approve'"]
    for rule in rng.sample(against, 4):
        rule[outcome] = rng.choice(["'review'", "'decline'"])
    for rule in rng.sample(against, rng.randrange(4)):
        content["rules"].remove(rule)


def _perturb_grades(rng: random.Random, content: Any) -> None:
    for rule in content["rules"][rng.randrange(4, len(content["rules"])) :]:
        rule[_cells(content, "outcome")], rule[_cells(content, "reason")] = "'review'", "'GRADE_TOO_LOW'"


def _perturb_fraud(rng: random.Random, content: Any) -> None:
    low, high = sorted(rng.sample([0.02, 0.05, 0.1, 0.2, 0.3, 0.6, 0.9], 2))
    column = next(c["id"] for c in content["inputs"] if c["field"] == "fraud_probability")
    for rule, cell in zip(content["rules"], (f">= {high}", f"[{low}..{high})", f"< {low}"), strict=True):
        rule[column] = cell


def _perturb_limit(rng: random.Random, content: Any) -> None:
    most = {"cap_minor": 1e12, "exposure_max_minor": 1e12, "income_multiple": 1e3, "revenue_multiple": 1e3}
    most |= {"valuation_max": 2.0, "ltv_max": 2.0, "price_max": 2.0}
    for rule in content["rules"]:
        for column in content["outputs"]:
            if column["field"] in most and rule[column["id"]]:
                rule[column["id"]] = _scaled(rng, rule[column["id"]], most[column["field"]])
        rule[_cells(content, "rounding_minor")] = rng.choice(["1", "100", "10000", "30000"])
        rule[_cells(content, "minimum_minor")] = rng.choice(["1", "100000", "1500000"])


def _perturb_amounts(rng: random.Random, content: Any, earned: str) -> None:
    if rng.random() < 0.3:
        rng.choice(content["rules"])[_cells(content, "cap_minor")] = f"{earned} * 321 + 7"
    if rng.random() < 0.3:
        rng.choice(content["rules"])[_cells(content, "exposure_max_minor")] = rng.choice(["0", f"{earned} * 900"])


def _perturb_price(rng: random.Random, content: Any) -> None:
    for rule in rng.sample(content["rules"], 2):
        rule[_cells(content, "annual_rate")] = rng.choice(["0", "0.05", "0.12", "0.2399", "0.24", "0.3"])
    if rng.random() < 0.3:
        rng.choice(content["rules"])[_cells(content, "annual_rate")] = "default_probability / 2 + 0.01"


CHANGES = (
    ("knockouts", _perturb_knockouts), ("grade", _perturb_grades), ("fraud", _perturb_fraud),
    ("limit", _perturb_limit), ("price", _perturb_price),
)  # fmt: skip


def _say_missing(rng: random.Random, document: Any) -> None:
    """Some cells hold where their input is missing, or do not, and not where it is anybody's guess."""
    for table in ("knockouts", "sources", "limit", "price"):
        content = table_of(document, table)
        columns = [column["id"] for column in content["inputs"]]
        written = [(rule, key) for rule in content["rules"] for key in columns if rule[key] and "null" not in rule[key]]
        alone = [(rule, key) for rule, key in written if "," not in rule[key]]
        for rule, key in rng.sample(alone, rng.choice([0, 1, 1, 2])):
            rule[key] = rng.choice(["!= null and ", "null or "]) + rule[key]
    content = table_of(document, "knockouts")
    if rng.random() < 0.5:  # of some rows only while a source is fresh
        content["inputs"].append({"id": "state", "name": "state", "field": rng.choice(["tax_state", "bureau_state"])})
        for rule in content["rules"]:
            rule["state"] = "'fresh'" if rng.random() < 0.03 else ""
    if rng.random() < 0.5:  # somebody writes what the checks ask for
        for rule in list(content["rules"]):
            for column in content["inputs"]:
                if rule[column["id"]].startswith("!= null and "):
                    row = rule | {key["id"]: "" for key in content["inputs"]} | {column["id"]: "null"}
                    content["rules"].append(row | {"_id": f"null-{len(content['rules'])}"})


def _cells(content: Any, field: str) -> str:
    """The id of an output column."""
    return str(next(column["id"] for column in content["outputs"] if column["field"] == field))


def _scaled(rng: random.Random, text: str, most: float) -> str:
    number = min(float(text) * rng.choice([0.3, 0.7, 1.0, 1.4, 3.0]), most)
    return f"{number:.{0 if number > 1e6 else 6}f}"


def _add_output(content: Any, field: str, cells: list[str]) -> None:
    content["outputs"].append({"id": field, "name": field, "field": field})
    for rule, cell in zip(content["rules"], cells, strict=True):
        rule[field] = cell
