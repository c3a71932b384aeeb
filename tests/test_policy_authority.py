"""A reviewer's mandate: the best row that holds, nothing without table or row, and the policy's own caps."""

import json
from pathlib import Path

import pytest

from policy.authority import mandate
from policy.decide import Policy
from policy.errors import PolicyError
from policy.specs import AUTHORITY
from tests.lending import write_policies
from tests.test_policy_decide import schema_of, values_of

AUTHORITIES = [
    ("'clerk'", "", 1_000_000), ("'clerk'", "'A'", 2_000_000), ("'clerk'", "'D'", 9_000_000),
    ("'head', 'board'", "", 100_000_000), ("'trainee'", "'AAA'", 100_000),
]  # fmt: skip


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = write_policies(
        tmp_path_factory.mktemp("policies"), exposure_max_minor=7_000_000, authority=AUTHORITIES,
        funders=[("bank", "own", 0.6, 5_000_000, 0.05), ("trust", "joint", 1.0, 4_000_000, 0.06)],
    )  # fmt: skip
    return Policy.load(folder / "consumer", "consumer", schema_of("consumer"))


def test_the_best_row_that_holds(policy: Policy) -> None:
    of_grade = {name: mandate(policy.tables, values_of(), name) for name in ("clerk", "head", "trainee", "nobody")}
    assert {name: (may.holds, may.amount_max_minor) for name, may in of_grade.items()} == {
        "clerk": (True, 2_000_000), "head": (True, 100_000_000), "trainee": (False, 0), "nobody": (False, 0),
    }  # fmt: skip
    unknown = mandate(policy.tables, values_of(default_probability=None), "clerk")
    assert (unknown.amount_max_minor, unknown.undecided) == (1_000_000, ("limit", "price"))  # no grade: no row of one
    assert unknown.cap_minor is None and unknown.cap_rate is None


def test_the_policys_own_caps(policy: Policy) -> None:
    may = mandate(policy.tables, values_of(), "clerk")
    assert (may.cap_minor, may.cap_rate, may.exposure_max_minor, may.rounding_minor) == (
        12_000_000, 0.24, 7_000_000, 10_000,
    )  # fmt: skip
    assert [(o.funder, o.mode, o.share_max, o.cap_minor, o.funder_rate) for o in may.offers] == [
        ("bank", "own", 0.6, 5_000_000, 0.05), ("trust", "joint", 1.0, 4_000_000, 0.06),
    ]  # fmt: skip


def test_a_funder_whose_first_row_may_hold_lends_nothing(tmp_path: Path) -> None:
    """As where a machine decides: what is missing must not choose the better of a funder's rows."""
    folder = write_policies(
        tmp_path, exposure_max_minor=7_000_000, authority=AUTHORITIES,
        funders=[("bank", "own", 0.6, 0, 0.05), ("bank", "own", 0.6, 5_000_000, 0.05), ("trust", "own", 1.0, 9, 0.05)],
    )  # fmt: skip
    path = folder / "consumer/policy.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    (table,) = [n["content"] for n in document["nodes"] if n["name"] == "funders"]
    table["inputs"] = [{"id": "age", "name": "age", "field": "age_years"}]
    for rule, cell in zip(table["rules"], ("> 50", "", ""), strict=True):
        rule.pop("in_amount_minor")
        rule["age"] = cell
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    loaded = Policy.load(path.parent, "consumer", schema_of("consumer"))
    offered = {
        age: [(o.funder, o.cap_minor) for o in mandate(loaded.tables, values_of(age_years=age), "head").offers]
        for age in (60.0, 30.0, None)
    }
    assert offered == {
        60.0: [("bank", 0), ("trust", 9)], 30.0: [("bank", 5_000_000), ("trust", 9)], None: [("trust", 9)],
    }  # fmt: skip


def test_a_knockout_that_declines_bars_whoever_asks(policy: Policy) -> None:
    """One that reviews, one that may or may not hold, and a model's decline do not: for those a person is asked."""
    said = {
        "listed_black": (1.0, ("BLACKLISTED",)), "age_years": (17.0, ("UNDER_AGE",)), "listed_grey": (1.0, ()),
        "fraud_probability": (0.999, ()), "default_probability": (0.5, ()),
    }  # fmt: skip
    for name, (value, barred) in said.items():
        assert mandate(policy.tables, values_of() | {name: value}, "board").barred == barred, name
    assert mandate(policy.tables, values_of(listed_black=None), "board").barred == ()


def test_without_the_table_nobody_may(policy: Policy) -> None:
    tables = {name: table for name, table in policy.tables.items() if name != AUTHORITY}
    assert not mandate(tables, values_of(), "head").holds


def test_a_decision_asks_for_no_authority(policy: Policy, tmp_path: Path) -> None:
    """Only the table authority knows who asks: nobody does while a machine decides."""
    assert AUTHORITY not in policy.inputs
    path = write_policies(tmp_path) / "consumer/policy.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    (table,) = [n["content"] for n in document["nodes"] if n["name"] == "knockouts"]
    table["inputs"].append({"id": "who", "name": AUTHORITY, "field": AUTHORITY})
    for rule in table["rules"]:
        rule["who"] = "'head'"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(PolicyError, match=r"knockouts.*authority"):
        Policy.load(path.parent, "consumer", schema_of("consumer"))
