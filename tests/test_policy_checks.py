"""What a policy is refused for before it decides: overlaps, and fraud that helps; and what missing does, stated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policy.cells import Column
from policy.decide import Policy
from policy.missing import treatments
from policy.specs import CAPACITIES
from policy.tables import Output, PolicyError, Spec
from tests.test_policy_decide import policy_of, schema_of
from tests.test_policy_tables import (
    COLLECT,
    INPUTS,
    NUMBER,
    PRODUCTS,
    in_both_languages,
    jdm,
    load,
    product_document,
    table_of,
)

UNIQUE = {"t": Spec("first", {"out": Output(NUMBER)}, unique=True)}


@pytest.mark.parametrize(
    ("rows", "row", "reason"),
    [
        ([{"x": "<= 5"}, {"x": ">= 5"}], "r0", "overlaps row 'r1': both hold for x=5, kind=new"),
        ([{"x": "< 5", "kind": "'new'"}, {"x": ">= 5"}, {"kind": "'new'"}, {}], "r1", "overlaps row 'r2'"),
        ([{"x": "null"}, {"x": "== null or > 1"}, {"x": "<= 1"}], "r0", "both hold for x=missing"),
    ],
)
def test_rows_that_overlap_where_order_must_not_decide_are_refused(
    rows: list[dict[str, str]], row: str, reason: str
) -> None:
    rows[0].setdefault("kind", "'new', 'used'")
    with pytest.raises(PolicyError, match=reason) as refused:
        load(jdm("first", rows, ("x", "kind")), UNIQUE)
    assert (refused.value.table, refused.value.row) == ("t", row) and in_both_languages(refused.value)


def test_rows_apart_do_not_overlap() -> None:
    rows = [{"x": "< 5"}, {"x": "[5..9]", "flag": "true"}, {"x": "> 9"}, {"x": "[5..9]", "flag": "false"}]
    assert len(load(jdm("first", rows, ("x", "flag")), UNIQUE)["t"].rows) == 4


def _row(table: str, **cells: str) -> Callable[[Any], None]:
    """Adds columns: a cell in every row, `first=...` another text in the first."""

    def change(document: Any) -> None:
        content = table_of(document, table)
        for field, text in cells.items():
            content["inputs"].append({"id": field, "name": field, "field": field.replace("__", ".")})
            for rule in content["rules"]:
                rule[field] = text

    return change


def _twisted(document: Any) -> None:
    """Fraud above 0.6 is let through to a person where below it is declined."""
    rules = table_of(document, "fraud")["rules"]
    rules.insert(0, {**rules[1], "_id": "odd", "in_fraud_probability": "> 0.6"})
    rules[1]["in_fraud_probability"] = "[0.3..0.6]"


def _twisted_for_some(document: Any) -> None:
    """Only where the applicant is black-listed, and there only from review to approval."""
    rules = table_of(document, "fraud")["rules"]
    table_of(document, "fraud")["inputs"].append({"id": "b", "name": "b", "field": "listed_black"})
    for rule in rules:
        rule["b"] = ""
    rules[1]["b"] = "<= 0"
    rules += [
        {**rules[1], "_id": "odd-low", "b": "> 0", "in_fraud_probability": "[0.1..0.2)"},
        {**rules[2], "_id": "odd-high", "b": "> 0", "in_fraud_probability": "[0.2..0.3)"},
    ]


@pytest.mark.parametrize(
    ("change", "where", "reason"),
    [
        (_row("price", fraud_probability="<= 1"), ("price", "", "fraud_probability"), "only the table 'fraud'"),
        (_row("limit", fraud__outcome="'approve', 'review', 'decline'"), ("limit", "", "fraud.outcome"), "only the"),
        (_twisted, ("fraud", "odd", "fraud_probability"), "decline for fraud_probability=0.6, review for"),
        (_twisted_for_some, ("fraud", "odd-high", "fraud_probability"), "review for .*listed_black=.*approve for"),
    ],
)  # fmt: skip
def test_a_policy_that_fraud_could_help_is_refused(
    tmp_path: Path, change: Callable[[Any], None], where: tuple[str, str, str], reason: str
) -> None:
    document = product_document("consumer")
    change(document)
    (tmp_path / "policy.json").write_text(json.dumps(document))
    with pytest.raises(PolicyError, match=reason) as refused:
        Policy.load(tmp_path, "consumer", schema_of("consumer"))
    assert (refused.value.table, refused.value.row, refused.value.column) == where and in_both_languages(refused.value)


@pytest.mark.parametrize(
    ("table", "column", "row", "first"),
    [
        ("fraud", "fraud_probability", "approve", "== null or < 0.1"),
        ("grade", "default_probability", "AAA", "== null or < 0.005"),
    ],
)  # fmt: skip
def test_a_model_that_says_nothing_approves_nobody(
    tmp_path: Path, table: str, column: str, row: str, first: str
) -> None:
    document = product_document("consumer")
    rules = table_of(document, table)["rules"]
    rule = next(rule for rule in rules if rule["_id"] == row)
    rules.remove(rule)
    rules.insert(0, rule | {f"in_{column}": first})
    (tmp_path / "policy.json").write_text(json.dumps(document))
    with pytest.raises(PolicyError, match=f"approves where {column} is missing") as refused:
        Policy.load(tmp_path, "consumer", schema_of("consumer"))
    assert (refused.value.table, refused.value.row, refused.value.column) == (table, row, column)
    assert in_both_languages(refused.value)


def _removed(table: str, row: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        content = table_of(document, table)
        content["rules"] = [rule for rule in content["rules"] if rule["_id"] != row]

    return change


def _added(table: str, at: int, like: str, outputs: dict[str, str], **cells: str) -> Callable[[Any], None]:
    """A row before the one at `at`: its cells by input alone, its outputs those of the row `like` but for some."""

    def change(document: Any) -> None:
        content = table_of(document, table)
        field = {column["field"]: column["id"] for column in (*content["inputs"], *content["outputs"])}
        for name in cells:
            if name not in field:
                field[name] = name
                content["inputs"].append({"id": name, "name": name, "field": name})
                for rule in content["rules"]:
                    rule[name] = ""
        row = dict(next(rule for rule in content["rules"] if rule["_id"] == like)) | {"_id": "new"}
        row |= {column["id"]: "" for column in content["inputs"]}
        row |= {field[name]: text for name, text in (cells | outputs).items()}
        content["rules"].insert(at, row)

    return change


def _narrower(document: Any) -> None:
    """Who names no device is only looked at where something else holds too."""
    content = table_of(document, "knockouts")
    (grey,) = (column["id"] for column in content["inputs"] if column["field"] == "listed_grey")
    next(rule for rule in content["rules"] if rule["_id"] == "no-device")[grey] = "> 0"


def _two_offers(document: Any) -> None:
    """Own money lends nothing to the old, and to those whose age is not known by the row below."""
    _added("funders", 0, "own", {"cap_minor": "0"}, age_years="!= null and > 60")(document)


STALE = {"outcome": "'decline'", "reason": "'BLACKLISTED'"}


@pytest.mark.parametrize(
    ("change", "where", "example"),
    [
        (_removed("knockouts", "no-device"), ("knockouts", "device-velocity", "device_count_24h"), "missing"),
        (_removed("knockouts", "online"), ("knockouts", "no-dealer", "officer_fraud_score"), "missing"),
        (_narrower, ("knockouts", "device-velocity", "device_count_24h"), "listed_grey=0"),
        (_added("sources", 0, "tax-gap", STALE, courts_state="'stale'", courts_age_days="!= null and > 9"),
         ("sources", "new", "courts_age_days"), "courts_state=stale"),
        (_added("sources", 0, "tax-gap", STALE, bureau_state="'stale'", age_years="!= null and > 60"),
         ("sources", "new", "age_years"), "bureau_age_days=90"),
        (_added("knockouts", 0, "blacklisted", {}, tax_state="'fresh'", applicant_fraud_count="> 0.5"),
         ("knockouts", "new", "tax_state"), "tax_state=stale"),
        (_added("knockouts", 0, "blacklisted", {}, courts_state="'fresh'", age_years="> 60"),
         ("knockouts", "new", "courts_state"), "courts_state=stale"),
        (_added("limit", 0, "C", {"cap_minor": "0"}, age_years="!= null and > 60"),
         ("limit", "AAA", "age_years"), "grade.grade=AAA"),
        (_added("price", 6, "C", {"annual_rate": "1"}, age_years="!= null and > 60"),
         ("price", "C", "age_years"), "age_years=missing"),
        (_two_offers, ("funders", "own", "age_years"), "age_years=missing"),
    ],
)  # fmt: skip
def test_a_policy_that_something_missing_could_help_is_refused(
    tmp_path: Path, change: Callable[[Any], None], where: tuple[str, str, str], example: str
) -> None:
    document = product_document("consumer")
    change(document)
    (tmp_path / "policy.json").write_text(json.dumps(document))
    with pytest.raises(PolicyError, match=example) as refused:
        Policy.load(tmp_path, "consumer", schema_of("consumer"))
    assert (refused.value.table, refused.value.row, refused.value.column) == where and in_both_languages(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        _added("knockouts", 0, "no-device", {"outcome": "'approve'", "reason": ""}, age_years="null"),
        _added("sources", 0, "tax-gap", STALE, courts_state="'stale'", courts_age_days="null or > 9"),
        _added("sources", 0, "tax-gap", {}, courts_state="'stale'", courts_age_days="!= null and <= 9"),
        _added("knockouts", 0, "blacklisted", {}, courts_state="'fresh', 'stale'", age_years="> 60"),
        _added("limit", 0, "C", {"cap_minor": "0"}, age_years="null or > 60"),
    ],
)  # fmt: skip
def test_what_missing_means_may_be_said_by_name(tmp_path: Path, change: Callable[[Any], None]) -> None:
    """And a source whose state no row accepts is a review already."""
    document = product_document("consumer")
    change(document)
    (tmp_path / "policy.json").write_text(json.dumps(document))
    Policy.load(tmp_path, "consumer", schema_of("consumer"))


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("x", "< 18 and > 65"), ("x", "[3..4] and [5..6]"), ("x", "> 120"), ("x", "not in [0..120]"),
        ("x", "> 3 and == null"), ("x", "== null and != null"), ("kind", "'new' and 'used'"),
        ("kind", "not in ['new', 'used']"), ("flag", "!= true and != false"),
    ],
)  # fmt: skip
def test_a_row_that_nothing_can_meet_is_refused(column: str, cell: str) -> None:
    """Of a collect table too, where no row stands in another's way: a knock-out that knocks nobody out."""
    inputs = {**INPUTS, "x": Column("number", range=(0.0, 120.0))}
    with pytest.raises(PolicyError, match="holds for nothing") as refused:
        load(jdm("collect", [{column: "null"}, {column: cell}], (column,)), COLLECT, inputs)
    assert (refused.value.row, refused.value.column) == ("r1", column) and in_both_languages(refused.value)


def test_funders_without_a_limit_are_refused(tmp_path: Path) -> None:
    document = product_document("card_transaction")
    offer = {"funder": "'bank'", "mode": "'own'", "share_max": "1", "cap_minor": "1000", "funder_rate": "0.05"}
    content = {
        "hitPolicy": "collect", "inputs": [], "outputs": [{"id": k, "name": k, "field": k} for k in offer],
        "rules": [{"_id": "bank", **offer}], "passThrough": True, "outputPath": "funders",
    }  # fmt: skip
    document["nodes"].insert(-1, {"id": "f", "type": "decisionTableNode", "name": "funders", "content": content})
    document["edges"][-1]["targetId"] = "f"
    document["edges"].append({"id": "last", "sourceId": "f", "targetId": document["nodes"][-1]["id"]})
    (tmp_path / "policy.json").write_text(json.dumps(document))
    with pytest.raises(PolicyError, match="funders lend an amount at a rate") as refused:
        Policy.load(tmp_path, "card_transaction", schema_of("card_transaction"))
    assert in_both_languages(refused.value)


def test_an_open_text_column_tells_its_texts_apart() -> None:
    """As the table `authority` does for who asks."""
    inputs = {**INPUTS, "who": Column("string")}
    rows = [{"who": "'junior'"}, {"who": "'senior'"}, {"who": "!= 'senior'"}]
    table = load(jdm("collect", rows, ("who",)), COLLECT, inputs)["t"]
    assert [hit.row for hit in table.evaluate({"who": "senior"}, {}).hits] == ["r1"]
    assert [hit.row for hit in table.evaluate({"who": "nobody"}, {}).hits] == ["r2"]


@pytest.mark.parametrize("product", PRODUCTS)
def test_what_missing_does_is_stated_for_every_input_of_every_table(product: str) -> None:
    tables = policy_of(product).tables
    stated = treatments(tables)
    assert {(t.table, t.input) for t in stated} >= {(t.name, name) for t in tables.values() for name in t.inputs}
    assert all(t.rows and t.en and t.zh for t in stated)
    said: dict[tuple[str, str, str], set[str]] = {}
    for treatment in stated:
        for row in treatment.rows:
            said.setdefault((treatment.table, treatment.input, row), set()).add(treatment.en.split()[0])
    for table in tables.values():
        for one in table.rows:
            for name, test in one.tests.items():
                does = {None: "undecided", True: "the", False: "the"}[test.if_missing]
                assert any(word.startswith(does) for word in said[table.name, name, one.id])
    votes = {(t.table, "votes REVIEW" in t.en) for t in stated if t.en.startswith("undecided")}
    assert votes == {(name, name not in ("funders", "authority")) for name, _ in votes}
    for capacity in CAPACITIES if "limit" in tables else ():
        for one in tables["limit"].rows:
            assert capacity.output not in one.literals or all(
                "votes" in said["limit", name, one.id] for name in capacity.inputs
            )


def test_a_row_says_whether_it_holds_without_what_it_asks_for() -> None:
    rows = [{"x": "> 1"}, {"x": "null"}, {"x": "!= null and > 1"}, {"out": "y * 2"}]
    stated = treatments(load(jdm("collect", rows, ("x",)), COLLECT))
    assert {(t.input, t.rows, t.en.split(":")[0].split(",")[0]) for t in stated} == {
        ("x", ("r0",), "undecided"), ("x", ("r1",), "the cell holds"), ("x", ("r2",), "the row does not hold"),
        ("y", ("r3",), "undecided"),
    }  # fmt: skip
