"""A policy that lacks a table, a reason's words or a sensible value refuses to load and says where."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features import schema as schemas
from policy.decide import Policy
from policy.reasons import REASONS_PATH, reason_texts
from policy.tables import PolicyError
from tests.test_policy_tables import ROOT, in_both_languages, product_document, product_path, table_of

CONSUMER = schemas.load(ROOT / "features/schemas/consumer.yaml")


def _without(table: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        names = [node["id"] for node in document["nodes"] if node["id"] != table]
        document["nodes"] = [node for node in document["nodes"] if node["id"] != table]
        document["edges"] = [{"id": a, "sourceId": a, "targetId": b} for a, b in itertools.pairwise(names)]

    return change


def _cell(table: str, row: int, column: str, text: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        table_of(document, table)["rules"][row][column] = text

    return change


def _valuation(document: Any) -> None:
    limit = table_of(document, "limit")
    limit["outputs"].append({"id": "ltv", "name": "valuation_max", "field": "valuation_max"})
    for rule in limit["rules"]:
        rule["ltv"] = "0.8"


def _blind(document: Any) -> None:
    fraud = table_of(document, "fraud")
    fraud["rules"] = fraud["rules"][2:]
    fraud["rules"][0]["in_fraud_probability"] = ""


@pytest.mark.parametrize(
    ("change", "where", "reason"),
    [
        (_without("fraud"), ("fraud", "", ""), "the table is missing"),
        (_without("price"), ("price", "", ""), "the table is missing"),
        (_without("grade"), ("limit", "", "grade.grade"), "unknown input"),
        (_blind, ("fraud", "", "fraud_probability"), "no cell tests fraud_probability"),
        (_cell("knockouts", 2, "out_reason", "'NO_SUCH_CODE'"), ("knockouts", "blacklisted", "reason"), "unknown"),
        (_cell("grade", 1, "out_reason", ""), ("grade", "AA", "reason"), "unknown reason code"),
        (_cell("fraud", 0, "out_reason", ""), ("fraud", "decline", "reason"), "unknown reason code"),
        (_cell("knockouts", 2, "out_outcome", "'approve'"), ("knockouts", "blacklisted", "outcome"), "spares nobody"),
        (_cell("grade", 0, "out_grade", "'AAAA'"), ("grade", "AAA", "grade"), "none of AAA"),
        (_cell("price", 0, "out_annual_rate", "7.2"), ("price", "AAA", "annual_rate"), "not from 0 to 1"),
        (_cell("grade", 1, "in_default_probability", "[0.006..0.01)"), ("grade", "", ""), "no row for default_prob"),
        (_valuation, ("limit", "", "valuation_max"), "has no valuation_low"),
    ],
)  # fmt: skip
def test_unfit_policy_refuses_and_says_where(
    tmp_path: Path, change: Callable[[Any], None], where: tuple[str, str, str], reason: str
) -> None:
    document = product_document("consumer")
    change(document)
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document))
    with pytest.raises(PolicyError, match=reason) as refused:
        Policy.load(tmp_path, "consumer", CONSUMER)
    assert (refused.value.table, refused.value.row, refused.value.column) == where and refused.value.file == path
    assert in_both_languages(refused.value)


def test_a_policy_of_another_product_or_no_file_refuses(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no product 'auto'"):
        Policy.load(product_path("auto").parent, "auto", CONSUMER)
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.load(tmp_path, "consumer", CONSUMER)


@pytest.mark.parametrize("text", ["[]", "A: {zh: 一}", "A: {zh: 一, en: ''}", "A: {zh: 一, en: one, fr: un}", "A: ["])
def test_unfit_reasons_refuse(text: str) -> None:
    with pytest.raises(PolicyError, match=r"^some\.yaml") as refused:
        reason_texts(Path("some.yaml"), text.encode())
    assert in_both_languages(refused.value)


def test_a_code_of_the_engine_without_words_refuses(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_bytes(product_path("consumer").read_bytes())
    words = tmp_path / "reasons.yaml"
    lines = REASONS_PATH.read_text().splitlines(keepends=True)
    words.write_text("".join(line for line in lines if not line.startswith("POLICY_GAP")))
    with pytest.raises(PolicyError, match="POLICY_GAP") as refused:
        Policy.load(tmp_path, "consumer", CONSUMER)
    assert refused.value.file == words
