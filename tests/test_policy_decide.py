"""Decisions: the worst vote wins, what is missing never approves, amounts and rates stay under their caps."""

import hashlib
import random
from functools import cache
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
from policy.specs import SPECS, policy_columns
from policy.tables import load_tables
from tests.test_policy_tables import PRODUCTS, ROOT, complete_values, product_path

ESSENTIAL = ("bureau", "courts", "multi_loan", "blacklist", "device_risk")
NON_ESSENTIAL = ("tax", "registry", "telecom", "social_security", "housing_fund", "consumption")
CAP_RATE = 0.24
WELL: dict[str, Value | None] = {
    "age_years": 30.0, "employment_months": 36.0, "social_months": 30.0, "verified_income": 10_000.0,
    "income_to_tax": 1.1, "debt_to_income": 0.3, "repayment": "equal_instalment", "term_months": 12,
    "fraud_probability": 0.01, "default_probability": 0.015, "vehicle_kind": "new", "down_payment_rate": 0.4,
    "price_to_valuation": 1.0, "valuation_low": 100_000.0, "battery_health": 0.95,
}  # fmt: skip


@cache
def schema_of(product: str) -> Schema:
    return schemas.load(ROOT / f"features/schemas/{PRODUCTS[product]}.yaml")


@cache
def policy_of(product: str) -> Policy:
    return Policy.load(product_path(product), schema_of(product))


def application(product: str = "consumer", **changes: Any) -> Application:
    fields = {"amount_minor": 5_000_000, "term_months": 12, **changes}
    tokens = np.zeros(16, dtype=np.uint64)
    return Application("a", "t", schema_of(product), product, tokens=tokens, numbers={}, **fields)


def values_of(product: str = "consumer", **changes: Value | None) -> dict[str, Value | None]:
    """A good borrower with every source fresh, and `changes`."""
    values: dict[str, Value | None] = dict.fromkeys(policy_of(product).inputs, 0.0)
    values.update({name: value for name, value in WELL.items() if name in values})
    values.update({f"{source}_state": "fresh" for source in schema_of(product).sources})
    return values | changes


def decide(product: str = "consumer", **changes: Value | None) -> Decision:
    return policy_of(product).decide(application(product), values_of(product, **changes))


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("product", PRODUCTS)
def test_good_borrower_is_approved_as_asked(product: str) -> None:
    decision = decide(product)
    assert decision.outcome == Outcome.APPROVE and decision.approved_amount_minor == 5_000_000
    assert not (decision.reasons or decision.degraded or decision.explain)
    assert (decision.grade, decision.annual_rate > 0) == (("A", True) if product != "card_transaction" else ("", False))


@pytest.mark.parametrize("state", ["missing", "stale"])
@pytest.mark.parametrize("source", NON_ESSENTIAL)
def test_a_source_accepted_by_name_is_degraded_and_approved(source: str, state: str) -> None:
    decision = decide(**{f"{source}_state": state})
    assert decision.outcome == Outcome.APPROVE
    assert decision.degraded == (f"source:{source}:{state}",)


@pytest.mark.parametrize("product", ["consumer", "auto"])
def test_an_essential_source_that_is_missing_is_reviewed(product: str) -> None:
    for source in (*ESSENTIAL, *(["vehicle_valuation"] if product == "auto" else [])):
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
        decision = policy_of("consumer").decide(application(), values_of() | {probability: missing})
        assert decision.outcome == Outcome.REVIEW and codes(decision) == ["INPUT_MISSING"]
        assert decision.reasons[0].evidence.startswith(probability) and decision.explain == ()


def test_nothing_known_is_reviewed() -> None:
    for product in PRODUCTS:
        decision = policy_of(product).decide(application(product), {})
        assert decision.outcome == Outcome.REVIEW and len(decision.degraded) == len(schema_of(product).sources)


def test_a_refusal_of_automation_is_reviewed_with_its_law() -> None:
    decision = policy_of("consumer").decide(application(human_review_requested=True), values_of())
    assert decision.outcome == Outcome.REVIEW and codes(decision) == ["HUMAN_REVIEW_REQUESTED"]
    assert decision.reasons[0].legal_source == "个人信息保护法 第24条"


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({"age_years": 17.0}, Outcome.DECLINE, "UNDER_AGE"),
        ({"employment_months": 2.0, "social_months": 2.0}, Outcome.DECLINE, "NO_STABLE_INCOME"),
        ({"employment_months": 2.0, "social_months": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"verified_income": None, "debt_to_income": 9e4}, Outcome.REVIEW, "INCOME_UNVERIFIED"),
        ({"repayment": "bullet", "term_months": 13}, Outcome.DECLINE, "TERM_TOO_LONG"),
        ({"device_emulator": 1.0}, Outcome.DECLINE, "EMULATOR"),
    ],
)
def test_knockouts(changes: dict[str, Value | None], outcome: Outcome, code: str) -> None:
    decision = policy_of("consumer").decide(application(), values_of() | changes)
    assert decision.outcome == outcome and code in codes(decision)


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({"down_payment_rate": float(np.float32(0.2))}, Outcome.APPROVE, None),
        ({"down_payment_rate": 0.19}, Outcome.DECLINE, "DOWN_PAYMENT_TOO_LOW"),
        ({"vehicle_kind": "used", "down_payment_rate": float(np.float32(0.3))}, Outcome.APPROVE, None),
        ({"vehicle_kind": "used", "down_payment_rate": 0.29}, Outcome.DECLINE, "DOWN_PAYMENT_TOO_LOW"),
        ({"vehicle_kind": "used", "term_months": 37}, Outcome.DECLINE, "TERM_TOO_LONG"),
        ({"vehicle_kind": "new_energy", "battery_health": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"vehicle_kind": "new", "battery_health": None}, Outcome.APPROVE, None),
        ({"vehicle_count_30d": 1.0}, Outcome.REVIEW, "VEHICLE_PLEDGED_TWICE"),
        ({"vehicle_count_30d": 1.0, "applicant_count_30d": 1.0}, Outcome.APPROVE, None),
        ({"vehicle_count_30d": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"vehicle_kind": "boat"}, Outcome.REVIEW, "POLICY_GAP"),
        ({"valuation_low": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"valuation_low": 10_000.0}, Outcome.DECLINE, "LIMIT_TOO_LOW"),
    ],
)
def test_cars(changes: dict[str, Value | None], outcome: Outcome, code: str | None) -> None:
    decision = decide("auto", **changes)
    assert (decision.outcome, codes(decision)) == (outcome, [code] if code else [])


def test_limits_name_what_binds_and_round_down() -> None:
    assert decide(verified_income=4_567.0, default_probability=0.015).approved_amount_minor == 4_560_000
    by_income = decide(verified_income=4_567.0)
    assert by_income.outcome == Outcome.LIMIT and codes(by_income) == ["LIMIT_BY_INCOME"]
    assert by_income.reasons[0].evidence == "verified_income=4567, income_multiple=10 (limit.A)"
    by_cap = decide(default_probability=0.1)
    assert (by_cap.approved_amount_minor, codes(by_cap)) == (3_000_000, ["LIMIT_BY_CAP"])
    by_car = decide("auto", valuation_low=60_000.0, vehicle_kind="used")  # 0.7 × 60 000 in binary is just below 42 000
    assert (by_car.approved_amount_minor, codes(by_car)) == (4_200_000, ["LIMIT_BY_VALUATION"])


def test_fees_above_the_cap_are_reviewed() -> None:
    decision = policy_of("consumer").decide(application(upfront_fee_minor=500_000), values_of())
    assert decision.outcome == Outcome.REVIEW and codes(decision) == ["ALL_IN_RATE_ABOVE_CAP"]
    fair = policy_of("consumer").decide(application(upfront_fee_minor=50_000), values_of())
    assert fair.outcome == Outcome.APPROVE and fair.annual_rate < fair.all_in_rate < CAP_RATE


@cache
def _tables(product: str) -> tuple[Any, dict[str, list[float]]]:
    columns = policy_columns(schema_of(product))
    cuts: dict[str, list[float]] = {}
    for table in load_tables(product_path(product), product_path(product).read_bytes(), columns, SPECS).values():
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


@settings(max_examples=1000, deadline=None)
@given(case=cases())
def test_amounts_and_rates_stay_under_their_caps(case: tuple[str, Application, dict[str, Value | None]]) -> None:
    product, asked, values = case
    decision = policy_of(product).decide(asked, values)
    amount = decision.approved_amount_minor
    assert isinstance(amount, int) and decision == policy_of(product).decide(asked, values)
    if decision.outcome > Outcome.LIMIT:
        assert amount == decision.annual_rate == decision.all_in_rate == 0 and decision.reasons
        return
    assert amount == asked.amount_minor if decision.outcome == Outcome.APPROVE else 0 < amount < asked.amount_minor
    if product != "card_transaction":
        assert decision.annual_rate <= decision.all_in_rate + 1e-12 or asked.repayment == "bullet"
        assert 0 < decision.all_in_rate <= CAP_RATE
        assert amount <= float(values["verified_income"] or 0) * 36 * 100 + 1
    if decision.outcome == Outcome.LIMIT:
        assert amount % 10_000 == 0 and codes(decision)[0].startswith("LIMIT_BY_")
    if product == "auto":
        assert amount <= float(values["valuation_low"] or 0) * 0.9 * 100 + 1


@settings(max_examples=1000, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**32))
def test_losing_an_input_never_turns_a_refusal_into_an_approval(
    case: tuple[str, Application, dict[str, Value | None]], seed: int
) -> None:
    """Except income_to_tax, whose row says `!= null`: without tax data there is nothing to contradict."""
    product, asked, values = case
    rng = random.Random(seed)
    lost = rng.sample(sorted(set(values) - {"income_to_tax"}), min(len(values) - 1, rng.choice([1, 1, 2, 5])))
    before = policy_of(product).decide(asked, values)
    after = policy_of(product).decide(asked, values | dict.fromkeys(lost))
    assert before.outcome <= Outcome.LIMIT or after.outcome >= Outcome.REVIEW


@settings(max_examples=500, deadline=None)
@given(case=cases(), low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_higher_probability_never_helps(
    case: tuple[str, Application, dict[str, Value | None]], low: float, high: float
) -> None:
    product, asked, values = case
    low, high = min(low, high), max(low, high)
    for name in ("fraud_probability", "default_probability"):
        better = policy_of(product).decide(asked, values | {name: low})
        worse = policy_of(product).decide(asked, values | {name: high})
        assert better.outcome <= worse.outcome
        assert better.outcome > Outcome.LIMIT or better.approved_amount_minor >= worse.approved_amount_minor


def test_version_is_the_hash_of_the_file() -> None:
    assert policy_of("auto").version == hashlib.sha256(product_path("auto").read_bytes()).hexdigest()
    assert policy_of("card_transaction").inputs == ("fraud_probability",)
