"""Decisions: the worst vote wins, what is missing never approves, amounts and rates stay under their caps."""

import hashlib
import json
import math
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import schema as schemas
from features.application import REPAYMENT_METHODS, Application
from features.schema import Schema
from policy.cells import Value
from policy.decide import Decision, Outcome, Policy
from policy.inputs import Asked
from policy.reasons import REASONS_PATH
from policy.specs import policy_columns
from tests.test_policy_tables import PRODUCTS, ROOT, complete_values, product_document, product_path, table_of

ESSENTIAL = ("bureau", "courts", "multi_loan", "blacklist", "device_risk")
NON_ESSENTIAL = ("tax", "registry", "telecom", "social_security", "housing_fund", "consumption")
OF_PRODUCT = {"auto": ["vehicle_valuation"], "small_business": ["company_registry", "company_tax", "company_courts"]}
CAP_RATE = 0.24
WELL: dict[str, Value | None] = {
    "age_years": 30.0, "employment_months": 36.0, "social_months": 30.0, "verified_income": 10_000.0,
    "declared_income": 11_000.0, "tax_income": 10_000.0, "social_base": 10_000.0, "fund_base": 10_000.0,
    "income_to_verified": 1.1, "debt_to_income": 0.3, "repayment": "equal_instalment", "term_months": 12,
    "fraud_probability": 0.01, "default_probability": 0.015, "vehicle_kind": "new", "down_payment_rate": 0.4,
    "price_to_valuation": 1.0, "valuation_low": 100_000.0, "battery_health": 0.95, "vehicle_price": 110_000.0,
    "valuation": 110_000.0, "loan_to_price": 0.45, "residual_low": 100_000.0,
    "company_age_months": 60.0, "company_tax_grade": "A", "company_revenue_trend": 1.0,
    "invoiced_monthly_revenue": 100_000.0, "revenue_to_invoiced": 1.1, "amount_to_revenue": 0.5,
}  # fmt: skip


@cache
def schema_of(product: str) -> Schema:
    return schemas.load(ROOT / f"features/schemas/{PRODUCTS[product]}.yaml")


@cache
def policy_of(product: str) -> Policy:
    return Policy.load(product_path(product).parent, product, schema_of(product))


def application(product: str = "consumer", **changes: Any) -> Application:
    fields = {"amount_minor": 5_000_000, "term_months": 12, **changes}
    tokens = np.zeros(16, dtype=np.uint64)
    return Application("a", "t", schema_of(product), product, tokens=tokens, numbers={}, **fields)


def decide_one(policy: Policy, asked: Application, values: Mapping[str, Value | None]) -> Decision:
    """The decision on one application, with inputs by name; None or absent is missing."""
    row = [values.get(name) for name in policy.inputs]
    numbers = [
        math.nan if value is None else column.values.index(value) if isinstance(value, str) else float(value)
        for value, column in zip(row, policy.columns.values(), strict=True)
    ]
    return policy.decide(Asked.of([asked]), np.array([numbers]))[0]


def values_of(product: str = "consumer", **changes: Value | None) -> dict[str, Value | None]:
    """A good borrower with every source fresh, and `changes`."""
    values: dict[str, Value | None] = dict.fromkeys(policy_of(product).inputs, 0.0)
    values.update({name: value for name, value in WELL.items() if name in values})
    values.update({f"{source}_state": "fresh" for source in schema_of(product).sources})
    return values | changes


def decide(product: str = "consumer", **changes: Value | None) -> Decision:
    return decide_one(policy_of(product), application(product), values_of(product, **changes))


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("product", PRODUCTS)
def test_good_borrower_is_approved_as_asked(product: str) -> None:
    decision = decide(product)
    assert decision.outcome == Outcome.APPROVE and decision.approved_amount_minor == 5_000_000
    assert not (decision.degraded or decision.explain)
    (reason,) = decision.reasons  # no outcome is a bare answer
    if product == "card_transaction":
        assert (decision.grade, decision.annual_rate, reason.code) == ("", 0, "FRAUD_UNLIKELY")
    else:
        assert (decision.grade, decision.annual_rate > 0, reason.code) == ("A", True, "GRADE_ACCEPTED")
        assert reason.evidence == "grade=A, default_probability=0.015 (grade.A)"


@pytest.mark.parametrize("state", ["missing", "stale"])
@pytest.mark.parametrize("source", NON_ESSENTIAL)
def test_a_source_accepted_by_name_is_degraded_and_approved(source: str, state: str) -> None:
    decision = decide(**{f"{source}_state": state})
    assert decision.outcome == Outcome.APPROVE
    assert decision.degraded == (f"source:{source}:{state}",)


@pytest.mark.parametrize("product", ["consumer", "auto", "small_business"])
def test_an_essential_source_that_is_missing_is_reviewed(product: str) -> None:
    for source in (*ESSENTIAL, *OF_PRODUCT.get(product, ())):
        for missing in ("missing", None):
            decision = decide(product, **{f"{source}_state": missing})
            assert decision.outcome == Outcome.REVIEW and "SOURCE_MISSING" in codes(decision)
            assert decision.degraded == (f"source:{source}:missing",)


def test_a_stale_source_is_accepted_as_far_as_its_row_says() -> None:
    assert decide(bureau_state="stale", bureau_age_days=90.0).outcome == Outcome.APPROVE
    assert codes(decide(bureau_state="stale", bureau_age_days=91.0)) == ["SOURCE_STALE"]
    assert decide(bureau_state="stale", bureau_age_days=None).outcome == Outcome.REVIEW
    assert decide(courts_state="stale").outcome == Outcome.APPROVE


def test_a_worse_vote_is_never_masked_and_comes_first() -> None:
    decision = decide(bureau_state="missing", fraud_probability=0.2, blacklist_hits=2.0, default_probability=0.9)
    assert decision.outcome == Outcome.DECLINE
    assert codes(decision) == ["BLACKLISTED", "GRADE_TOO_LOW", "SOURCE_MISSING", "FRAUD_SUSPECTED"]
    assert decision.explain == ("fraud", "default")
    assert decision.reasons[0].evidence == "blacklist_hits=2 (knockouts.blacklisted)"
    assert decision.approved_amount_minor == decision.annual_rate == decision.all_in_rate == 0


@pytest.mark.parametrize("probability", ["fraud_probability", "default_probability"])
def test_a_model_that_said_nothing_is_reviewed_once(probability: str) -> None:
    for missing in (None, float("nan")):
        decision = decide_one(policy_of("consumer"), application(), values_of() | {probability: missing})
        assert decision.outcome == Outcome.REVIEW and codes(decision) == ["INPUT_MISSING"]
        assert decision.reasons[0].evidence.startswith(probability) and decision.explain == ()


def test_nothing_known_is_reviewed() -> None:
    for product in PRODUCTS:
        decision = decide_one(policy_of(product), application(product), {})
        assert decision.outcome == Outcome.REVIEW and len(decision.degraded) == len(schema_of(product).sources)


@pytest.mark.parametrize(
    ("changes", "others"),
    [
        ({}, []),
        ({"bureau_state": "missing"}, ["SOURCE_MISSING"]),
        ({"blacklist_hits": 2.0, "default_probability": 0.9, "fraud_probability": 0.2},
         ["BLACKLISTED", "GRADE_TOO_LOW", "FRAUD_SUSPECTED"]),
    ],
)  # fmt: skip
def test_who_asks_for_a_person_is_neither_approved_nor_declined(changes: dict[str, Any], others: list[str]) -> None:
    """R22: exactly REVIEW, and whoever looks has every reason the machine had."""
    decision = decide_one(policy_of("consumer"), application(human_review_requested=True), values_of() | changes)
    assert decision.outcome == Outcome.REVIEW and decision.approved_amount_minor == 0
    assert codes(decision) == ["HUMAN_REVIEW_REQUESTED", *others]
    assert decision.reasons[0].legal_source == "个人信息保护法 第24条"


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({"age_years": 17.0}, Outcome.DECLINE, "UNDER_AGE"),
        ({"employment_months": 2.0, "social_months": 2.0}, Outcome.DECLINE, "NO_STABLE_INCOME"),
        ({"employment_months": 2.0, "social_months": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"verified_income": None, "debt_to_income": 9e4}, Outcome.REVIEW, "INCOME_UNVERIFIED"),
        ({"declared_income": None, "income_to_verified": None}, Outcome.REVIEW, "INCOME_UNDECLARED"),
        ({"tax_income": None, "social_base": None}, Outcome.REVIEW, "INCOME_THINLY_VERIFIED"),
        ({"tax_income": None, "fund_base": None}, Outcome.REVIEW, "INCOME_THINLY_VERIFIED"),
        ({"social_base": None, "fund_base": None}, Outcome.REVIEW, "INCOME_THINLY_VERIFIED"),
        ({"repayment": "bullet", "term_months": 13}, Outcome.DECLINE, "TERM_TOO_LONG"),
        ({"device_emulator": 1.0}, Outcome.DECLINE, "EMULATOR"),
    ],
)
def test_knockouts(changes: dict[str, Value | None], outcome: Outcome, code: str) -> None:
    decision = decide_one(policy_of("consumer"), application(), values_of() | changes)
    assert decision.outcome == outcome and code in codes(decision)


def test_evidence_of_a_personal_input_is_its_name(tmp_path: Path) -> None:
    """R21: the value stays out of reasons, also of an output computed from it."""
    assert decide(age_years=17.0).reasons[0].evidence == "age_years (knockouts.under-age)"
    decision = decide(verified_income=1234.5, declared_income=None, income_to_verified=None, debt_to_income=0.95)
    assert "1234" not in str(decision.reasons) and "debt_to_income=0.95" in str(decision.reasons)
    document = product_document("consumer")
    for row in table_of(document, "limit")["rules"]:
        row["out_cap_minor"] = "verified_income * 321"
    (tmp_path / "policy.json").write_text(json.dumps(document))
    limited = decide_one(Policy.load(tmp_path, "consumer", schema_of("consumer")), application(), values_of())
    assert (limited.approved_amount_minor, codes(limited)) == (3_210_000, ["LIMIT_BY_CAP"])
    assert limited.reasons[0].evidence == "cap_minor (limit.A)"


@cache
def _tables(product: str) -> tuple[Any, dict[str, list[float]]]:
    columns = policy_columns(schema_of(product))
    cuts: dict[str, list[float]] = {}
    for table in policy_of(product).tables.values():
        for row in table.rows:
            for name, test in row.tests.items():
                cuts.setdefault(name, []).extend(test.numbers)
    return {name: columns[name] for name in policy_of(product).inputs}, cuts


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, Application, dict[str, Value | None]]:
    """A good borrower, a few inputs changed to anything, some to nothing."""
    product = draw(st.sampled_from(sorted(PRODUCTS)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    columns, cuts = _tables(product)
    anything = complete_values(rng, columns, cuts)
    values = values_of(product)
    for name in rng.sample(sorted(values), min(len(values), rng.choice([0, 1, 1, 2, 3]))):
        values[name] = None if rng.random() < 0.2 else anything[name]
    fees = {
        "upfront_fee_minor": rng.choice([0, 0, 10_000, 10**6]),
        "monthly_fee_minor": rng.choice([0, 0, 1_000, 10**5]),
    }
    asked = {"amount_minor": rng.randrange(100_000, 30_000_000), "term_months": rng.choice([1, 12, 36])}
    return product, application(product, repayment=rng.choice(REPAYMENT_METHODS), **fees, **asked), values


@pytest.mark.parametrize("product", sorted(set(PRODUCTS) - {"card_transaction"}))
def test_prices_stay_under_the_cap_of_the_law(product: str) -> None:
    """What is decided stays under the table's cap: see tests.test_policy_properties."""
    rows = policy_of(product).tables["price"].rows
    assert all(float(row.literals["annual_rate"]) < float(row.literals["cap_rate"]) <= CAP_RATE for row in rows)


@settings(max_examples=500, deadline=None)
@given(case=cases(), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_higher_probability_never_helps(
    case: tuple[str, Application, dict[str, Value | None]], low: float, high: float
) -> None:
    product, asked, values = case
    low, high = min(low, high), max(low, high)
    for name in ("fraud_probability", "default_probability"):
        better = decide_one(policy_of(product), asked, values | {name: low})
        worse = decide_one(policy_of(product), asked, values | {name: high})
        assert better.outcome <= worse.outcome
        assert better.outcome > Outcome.LIMIT or better.approved_amount_minor >= worse.approved_amount_minor


def test_version_covers_the_policy_and_the_words(tmp_path: Path) -> None:
    words = REASONS_PATH.read_bytes()
    of_both = product_path("auto").read_bytes() + b"\0" + words
    assert policy_of("auto").version == hashlib.sha256(of_both).hexdigest()
    (tmp_path / "policy.json").write_bytes(product_path("auto").read_bytes())
    (tmp_path / "reasons.yaml").write_bytes(words.replace("未满18周岁".encode(), "未成年".encode()))
    other = Policy.load(tmp_path, "auto", schema_of("auto"))
    assert other.version != policy_of("auto").version
    assert decide_one(other, application("auto"), values_of("auto", age_years=17.0)).reasons[0].zh == "未成年"
    assert policy_of("card_transaction").inputs == ("fraud_probability",)


def test_an_approval_whose_room_is_gone_is_a_review_that_says_so() -> None:
    policy = policy_of("consumer")
    contended = policy.contended(decide(default_probability=0.1), "exposure_minor=1")
    assert (contended.outcome, contended.approved_amount_minor, contended.annual_rate) == (Outcome.REVIEW, 0, 0.0)
    assert codes(contended) == ["CONTENDED", "LIMIT_BY_CAP"] and contended.reasons[0].evidence == "exposure_minor=1"
    assert codes(policy.contended(decide(), "")) == ["CONTENDED"]


def test_an_exposure_that_is_not_known_is_reviewed(tmp_path: Path) -> None:
    limit = table_of(document := product_document("consumer"), "limit")
    if "exposure_max_minor" not in {column["field"] for column in limit["outputs"]}:
        limit["outputs"].append({"id": "exposure", "name": "exposure", "field": "exposure_max_minor"})
        for rule in limit["rules"]:
            rule["exposure"] = "4000000"
    (tmp_path / "policy.json").write_text(json.dumps(document))
    loaded = Policy.load(tmp_path, "consumer", schema_of("consumer"))
    unknown = decide_one(loaded, application(), {**values_of(), "exposure_minor": None})
    assert (unknown.outcome, codes(unknown)) == (Outcome.REVIEW, ["INPUT_MISSING"])
    assert unknown.reasons[0].evidence.startswith("exposure_minor (limit.")
