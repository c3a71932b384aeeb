"""Cases: what a risk officer types is what the policy sees; what cannot be read says line and column."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import schema as schemas
from policy.cases import ASKED, CASES, CasesError, check, decide, read
from policy.cells import Column
from policy.coverage import coverage
from policy.decide import POLICY, Outcome, Policy
from policy.versions import load
from tests.policies import PRODUCT, cards, policy_folder, table_of
from tests.test_policy_tables import PRODUCTS, ROOT, in_both_languages

HEADER = "case,amount_minor,term_months,repayment,upfront_fee_minor,monthly_fee_minor,human_review_requested"
BASE = "base,50000,0,bullet,0,0,false"
CARD = f"{HEADER},fraud_probability,expect_outcome,expect_amount_minor,expect_reasons\n{BASE},0.01,approve,50000,\n"


def card_policy() -> Policy:
    return Policy.load(ROOT / "policy/products" / PRODUCT, PRODUCT, cards())


@pytest.mark.parametrize("product", PRODUCTS)
def test_shipped_policies_pass_their_cases(product: str) -> None:
    place, schema = (
        ROOT / "policy/products" / product,
        schemas.load(ROOT / f"features/schemas/{PRODUCTS[product]}.yaml"),
    )
    policy = load(place, product, schema)
    cases = read(place / CASES, schema, policy)
    decisions = check(place / CASES, cases, policy)
    assert cases[0].name == "base" and len(cases) > 3
    assert {d.outcome for d in decisions} > {Outcome.APPROVE, Outcome.REVIEW}
    rows = [count for counts in coverage(policy, cases).rows.values() for count in counts.values()]
    assert rows and all(rows), "each row of each table that decides has its case"


def test_blank_is_as_in_base_and_missing_is_missing(tmp_path: Path) -> None:
    file = tmp_path / CASES
    text = CARD + "spread,,,,,,TRUE,,review,0,HUMAN_REVIEW_REQUESTED\n" + "unknown,,,,,,,missing,review,,\n"
    file.write_text("\ufeff" + text + ",,,,,,,,,,\n", encoding="utf-8", newline="")  # as a spreadsheet saves it
    base, spread, unknown = read(file, cards(), card_policy())
    assert (base.line, unknown.line) == (2, 4)
    assert spread.asked.human_review_requested[0] == 1 and spread.asked.amount_minor[0] == 50_000
    assert spread.asked.repayment[0] == base.asked.repayment[0] == 3
    assert spread.values["fraud_probability"] == 0.01 and math.isnan(unknown.values["fraud_probability"])
    decisions = check(file, (base, spread, unknown), card_policy())
    assert [d.outcome for d in decisions] == [Outcome.APPROVE, Outcome.REVIEW, Outcome.REVIEW]


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("", 1, "case", "there is no such column"),
        ("case,amount\n", 1, "expect_outcome", "there is no such column"),
        (CARD.replace("fraud_prob", "frod_prob"), 1, "frod_probability", "is no input of this schema"),
        (CARD.replace("fraud_probability", "lent_bank"), 1, "lent_bank", "is no input of this schema"),
        (CARD.replace("term_months", "case"), 1, "case", "stands twice"),
        (CARD.replace("term_months", ""), 1, "", "has no name"),
        (CARD.replace("repayment", "amount").replace("bullet", "1"), 2, "repayment", "'base' must state it"),
        (CARD.replace("0.01", ""), 2, "fraud_probability", "'base' must state it, 'missing' where it is not known"),
        (CARD.replace("base", "first"), 2, "case", "the first case must be 'base'"),
        (CARD.splitlines()[0], 1, "case", "the first case must be 'base'"),
        (CARD.replace("0.01", "1 %"), 2, "fraud_probability", "'1 %' is not a number"),
        (CARD.replace("0.01", "1e999"), 2, "fraud_probability", "is not a number"),
        (CARD.replace("0.01", "1.01"), 2, "fraud_probability", "is not from 0 to 1"),
        (CARD.replace("bullet", "balloon"), 2, "repayment", "'balloon' is none of equal_instalment"),
        (CARD.replace("false", "no"), 2, "human_review_requested", "'no' is none of true, false"),
        (CARD.replace("50000,0,", "50000.5,0,"), 2, "amount_minor", "is not a whole number"),
        (CARD.replace("50000,0,", "missing,0,"), 2, "amount_minor", "is always known"),
        (CARD + "base,,,,,,,,approve,,\n", 3, "case", "line 2 has this name too"),
        (CARD + ",1,,,,,,,approve,,\n", 3, "case", "has no name"),
        (CARD + "short,,approve\n", 3, "", "has 3 cells, the header has 11"),
        (CARD + "quiet,,,,,,,,,,\n", 3, "expect_outcome", "every case expects an outcome"),
        (CARD + "odd,,,,,,,,maybe,,\n", 3, "expect_outcome", "'maybe' is none of approve, limit, review, decline"),
        (CARD + "odd,,,,,,,,approve,much,\n", 3, "expect_amount_minor", "'much' is not a number"),
        (CARD + 'odd,"a', 0, "", "is no CSV"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_where(tmp_path: Path, text: str, line: int, column: str, problem: str) -> None:
    (tmp_path / CASES).write_text(text, encoding="utf-8")
    with pytest.raises(CasesError, match=problem) as refused:
        read(tmp_path / CASES, cards(), card_policy())
    assert (refused.value.line, refused.value.column, refused.value.file) == (line, column, tmp_path / CASES)
    assert str(refused.value).startswith(f"{tmp_path / CASES}: ")
    english, chinese = str(refused.value).split(" | ")
    assert in_both_languages(refused.value) and repr(column) in english + "''"
    assert not line or (f"line {line}" in english and f"第 {line} 行" in chinese)


def test_a_file_that_is_none_or_not_utf_8_refuses(tmp_path: Path) -> None:
    with pytest.raises(CasesError, match="cannot be read: No such file") as refused:
        read(tmp_path / CASES, cards(), card_policy())
    assert in_both_languages(refused.value)
    (tmp_path / CASES).write_bytes(CARD.replace("0.01", "可疑").encode("gb18030"))
    with pytest.raises(CasesError, match="is not UTF-8; save it as CSV UTF-8") as refused:
        read(tmp_path / CASES, cards(), card_policy())
    assert in_both_languages(refused.value)


def test_a_failing_case_says_what_was_expected_and_what_came(tmp_path: Path) -> None:
    file = tmp_path / CASES
    file.write_text(CARD + "suspect,,,,,,,0.3,decline,1,FRAUD_PROBABILITY_HIGH\nfine,,,,,,,0.1,approve,,\n")
    policy = card_policy()
    with pytest.raises(CasesError) as refused:
        check(file, read(file, cards(), policy), policy)
    assert refused.value.reason == (
        "1 of 3 cases fail\n  case 'suspect' (line 3): expected outcome decline, came review; expected amount_minor 1, "
        "came 0; expected reasons FRAUD_PROBABILITY_HIGH, came FRAUD_SUSPECTED"
    )
    assert refused.value.zh == (
        "3 个案例中有 1 个不符\n  案例 'suspect'（第 3 行）：outcome 应为 decline，实为 review；amount_minor 应为 1，"
        "实为 0；reasons 应为 FRAUD_PROBABILITY_HIGH，实为 FRAUD_SUSPECTED"
    )


CONSUMER = schemas.load(ROOT / "features/schemas/consumer.yaml")
LOANS = Policy.load(ROOT / "policy/products/consumer", "consumer", CONSUMER)


def cell_of(column: Column, whole: bool) -> st.SearchStrategy[tuple[str, float]]:
    """What someone may type for an input, and the number that the policy then sees."""
    if column.kind == "string":
        return st.sampled_from([(text, float(i)) for i, text in enumerate(column.values)])
    if column.kind == "boolean":
        return st.sampled_from([("true", 1.0), ("False", 0.0)])
    low, high = max(column.range[0], -1e9), min(column.range[1], 1e9)
    if whole:
        return st.integers(int(low), int(high)).map(lambda n: (str(n), float(n)))
    return st.floats(low, high).map(lambda x: (repr(x), x))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_cell_is_what_the_policy_sees(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    money = Column("number", range=(0.0, 1e9))
    columns = {"upfront_fee_minor": money, "monthly_fee_minor": money, **LOANS.columns}
    columns["amount_minor"] = Column("number", range=(100_000.0, 50_000_000.0))
    columns["human_review_requested"] = Column("boolean")
    cells: dict[str, tuple[str, float]] = {}
    for name, column in columns.items():
        typed = cell_of(column, name in ASKED or name.endswith("_minor"))
        if name not in ASKED and not name.endswith("_state"):
            typed |= st.just(("missing", math.nan))
        cells[name] = data.draw(typed, label=name)
    file = tmp_path_factory.mktemp("cases") / CASES
    file.write_text(f"case,{','.join(cells)},expect_outcome\nbase,{','.join(t for t, _ in cells.values())},approve\n")
    (case,) = read(file, CONSUMER, LOANS)
    for name, (_, number) in cells.items():
        assert case.values[name] == number or (math.isnan(number) and math.isnan(case.values[name]))
    assert case.asked.amount_minor[0] == cells["amount_minor"][1]
    assert case.asked.repayment[0] == cells["repayment"][1]


def funded(folder: Path) -> Any:
    """The consumer policy with two funders, one after the other."""
    document = json.loads((ROOT / "policy/products/consumer" / POLICY).read_text(encoding="utf-8"))
    fields = ("funder", "mode", "share_max", "cap_minor", "funder_rate")
    document["nodes"] = [n for n in document["nodes"] if n["name"] != "funders"]
    rows = (("'bank'", "'joint'", "0.7", "1000000000", "0.01"), ("'own'", "'own'", "1", "1000000000", "0"))
    content = {
        **table_of(document, "price"), "hitPolicy": "collect", "inputs": [], "outputPath": "funders",
        "outputs": [{"id": f, "name": f, "field": f} for f in fields],
        "rules": [{"_id": row[0].strip("'"), **dict(zip(fields, row, strict=True))} for row in rows],
    }  # fmt: skip
    price = next(i for i, node in enumerate(document["nodes"]) if node["name"] == "price")
    document["nodes"].insert(
        price + 1, {"id": "funders", "type": "decisionTableNode", "name": "funders", "content": content}
    )
    names = [node["id"] for node in document["nodes"]]
    document["edges"] = [{"id": f"{a}-{b}", "sourceId": a, "targetId": b} for a, b in itertools.pairwise(names)]
    folder.mkdir()
    (folder / POLICY).write_text(json.dumps(document), encoding="utf-8")
    return Policy.load(folder, "consumer", CONSUMER)


def test_who_lends_is_expected_too_and_each_case_is_alone(tmp_path: Path) -> None:
    policy = funded(tmp_path / "funded")
    shipped = (ROOT / "policy/products/consumer" / CASES).read_text(encoding="utf-8").splitlines()[:2]
    columns = [name for name in shipped[0].split(",") if not name.startswith(("expect_", "lent_"))]
    cells = dict(zip(shipped[0].split(","), shipped[1].split(","), strict=True))
    file = tmp_path / CASES
    rows = [
        [*(cells[c] for c in columns), "0", "approve", "own:900000 bank:2100000"],
        *(["full " + n, *[""] * (len(columns) - 1), "999000000", "approve", "bank:1000000 own:2000000"] for n in "ab"),
    ]
    header = [*columns, "lent_bank", "expect_outcome", "expect_funding"]
    file.write_text("\n".join(",".join(row) for row in [header, *rows]), encoding="utf-8")
    cases = read(file, CONSUMER, policy)
    decisions = check(file, cases, policy)
    assert [d.approved_amount_minor for d in decisions] == [3_000_000] * 3
    assert cases[1].lent == {"bank": 999_000_000}
    assert coverage(policy, cases).rows["funders"] == {"bank": 3, "own": 3}
    file.write_text(file.read_text().replace("own:900000 bank", "bank:1 bank"))
    with pytest.raises(CasesError, match=r"line 2, column 'expect_funding': 'bank:2100000' is not written as"):
        read(file, CONSUMER, policy)
    file.write_text(file.read_text().replace("bank:1 bank:2100000", "own:3000000"))
    with pytest.raises(CasesError, match="expected funding own:3000000, came bank:2100000 own:900000"):
        check(file, read(file, CONSUMER, policy), policy)


def test_coverage_counts_the_rows_and_reasons_that_cases_reach(tmp_path: Path) -> None:
    place = policy_folder(tmp_path / "cards")
    policy = load(place, PRODUCT, cards())
    cases = [c for c in read(place / CASES, cards(), policy) if c.name in ("base", "fraud-review")]
    reached = coverage(policy, cases)
    assert reached.rows == {"fraud": {"decline": 0, "review": 1, "approve": 1}}
    assert reached.reasons == {"FRAUD_PROBABILITY_HIGH": 0, "FRAUD_SUSPECTED": 1, "FRAUD_UNLIKELY": 1}


def test_a_declined_case_reaches_no_limit(tmp_path: Path) -> None:
    place = ROOT / "policy/products/consumer"
    every = read(place / CASES, CONSUMER, LOANS)
    declined = [c for c in every if (d := decide(LOANS, c)[0]).outcome == Outcome.DECLINE and not d.explain][:1]
    reached = coverage(LOANS, declined)
    assert declined and sum(reached.rows["knockouts"].values()) >= 1
    assert not any(reached.rows["limit"].values()) and not any(reached.rows["price"].values())
