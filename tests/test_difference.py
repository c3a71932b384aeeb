"""What differs between two policies, in words: every change has its line, and no line says what did not change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policy.cases import CASES, read
from policy.decide import POLICY, Policy
from policy.difference import decided_otherwise, differences
from policy.reasons import REASONS_PATH
from tests.conftest import ROOT
from tests.policies import PRODUCT, cards, policy_folder, table_of

CONSUMER = ROOT / "policy/products/consumer"


def rules(document: Any) -> Any:
    return table_of(document)["rules"]


def split(document: Any) -> None:
    rules(document)[2]["in_fraud_probability"] = "[0.1..0.2)"
    rules(document).append({**rules(document)[2], "_id": "clear", "in_fraud_probability": "< 0.1"})


def narrow(document: Any) -> None:
    rules(document).pop(1)
    rules(document)[0]["in_fraud_probability"] = ">= 0.2"


def turned(document: Any) -> None:
    rules(document).insert(0, rules(document).pop())


def asked(document: Any) -> None:
    table = table_of(document)
    table["inputs"].append({"id": "amount", "name": "amount", "field": "amount_minor"})
    for rule in table["rules"]:
        rule["amount"] = ""
    rules(document)[1]["amount"] = "> 0"
    rules(document).append({**rules(document)[1], "_id": "free", "amount": ""})


def drawn(document: Any) -> None:
    document["nodes"][1]["position"]["x"] = 7
    rules(document)[0]["_description"] = "stricter since May"


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (lambda document: None, []),
        (drawn, ["descriptions or the drawing only: nothing that decides"]),
        (split, [
            "table fraud: row clear added below approve "
            "(fraud_probability < 0.1, outcome 'approve', reason 'FRAUD_UNLIKELY')",
            "table fraud, row approve, column fraud_probability: < 0.2 → [0.1..0.2)",
        ]),
        (narrow, [
            "table fraud: row review removed "
            "(fraud_probability [0.2..0.5), outcome 'review', reason 'FRAUD_SUSPECTED')",
            "table fraud, row decline, column fraud_probability: >= 0.5 → >= 0.2",
        ]),
        (turned, ["table fraud: row approve moved to the top"]),
        (asked, [
            "table fraud: column amount_minor added",
            "table fraud: row free added below approve "
            "(fraud_probability [0.2..0.5), outcome 'review', reason 'FRAUD_SUSPECTED')",
            "table fraud, row review, column amount_minor: (empty) → > 0",
        ]),
    ],
)  # fmt: skip
def test_every_change_has_its_line(tmp_path: Path, change: Callable[[Any], None], lines: list[str]) -> None:
    old, new = policy_folder(tmp_path / "old"), policy_folder(tmp_path / "new")
    document = json.loads((old / POLICY).read_text(encoding="utf-8"))
    change(document)
    (new / POLICY).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    found = differences(old, new)
    assert [line.split(" | ")[0] for line in found] == lines
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in line.split(" | ")[1]) for line in found)
    assert len(differences(new, old)) == len(lines)


def test_words_of_reasons(tmp_path: Path) -> None:
    old, new = policy_folder(tmp_path / "old"), policy_folder(tmp_path / "new")
    words = REASONS_PATH.read_text(encoding="utf-8").replace("en: fraud is suspected", "en: we suspect fraud")
    lines = [line for line in words.splitlines() if not line.startswith("BATTERY_WORN")]
    text = "\n".join([*lines, "NEW_RULE: {zh: 新规, en: a new rule}"])
    (new / REASONS_PATH.name).write_text(text, encoding="utf-8")
    assert differences(old, new) == [
        "reason BATTERY_WORN: removed | 原因 BATTERY_WORN：删除",
        "reason FRAUD_SUSPECTED, en: fraud is suspected; a person must look → we suspect fraud; a person must look"
        " | 原因 FRAUD_SUSPECTED：fraud is suspected; a person must look → we suspect fraud; a person must look",
        "reason NEW_RULE: added, a new rule | 原因 NEW_RULE：新增，新规",
    ]


def test_tables_that_come_and_go(tmp_path: Path) -> None:
    count = len(table_of(json.loads((CONSUMER / POLICY).read_text()), "knockouts")["rules"])
    cards_only = policy_folder(tmp_path / "cards")
    assert f"table knockouts: added, {count} rows | 表 knockouts：新增，共 {count} 行" in differences(
        cards_only, CONSUMER
    )
    assert "table knockouts: removed | 表 knockouts：删除" in differences(CONSUMER, cards_only)


def test_cases_that_come_out_otherwise(tmp_path: Path) -> None:
    old, new = policy_folder(tmp_path / "old"), policy_folder(tmp_path / "new", "0.2")
    first, second = (Policy.load(folder, PRODUCT, cards()) for folder in (old, policy_folder(tmp_path / "b", "0.25")))
    cases = read(new / CASES, cards(), first)
    assert decided_otherwise(first, first, cases) == [] == decided_otherwise(second, second, cases)
    (cut,) = (case for case in read(tmp_path / "b" / CASES, cards(), second) if case.name == "fraud-decline")
    assert decided_otherwise(first, second, [*cases, cut]) == [
        "case fraud-decline: outcome review → decline, reasons FRAUD_SUSPECTED → FRAUD_PROBABILITY_HIGH"
        " | 案例 fraud-decline：outcome review → decline，reasons FRAUD_SUSPECTED → FRAUD_PROBABILITY_HIGH"
    ]
