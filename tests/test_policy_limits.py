"""Amounts and prices: what binds is named with its law, and no loan costs more than the cap (R2, R6, R7)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from features.application import REPAYMENT_METHODS
from policy.decide import Outcome
from tests.test_policy_decide import CAP_RATE, application, codes, decide, decide_one, policy_of, values_of
from tests.test_policy_rates import payments


def test_limits_name_what_binds_and_round_down() -> None:
    assert decide(verified_income=4_567.0, default_probability=0.015).approved_amount_minor == 4_560_000
    by_income = decide(verified_income=4_567.0)
    assert by_income.outcome == Outcome.LIMIT and codes(by_income) == ["LIMIT_BY_INCOME"]
    assert by_income.reasons[0].evidence == "verified_income, income_multiple=10 (limit.A)" and not by_income.explain
    by_cap = decide(default_probability=0.1)
    assert (by_cap.approved_amount_minor, codes(by_cap)) == (3_000_000, ["LIMIT_BY_CAP"])
    assert by_cap.explain == ("default",)  # the cap is the grade's, and the grade the model's


def test_the_law_is_cited_for_the_bound_it_sets() -> None:
    """The cap of 200 000 is the law's, the income multiple the lender's."""
    best, asked = values_of(default_probability=0.001), application(amount_minor=30_000_000)
    by_cap = decide_one(policy_of("consumer"), asked, best | {"verified_income": 90_000.0}).reasons[0]
    assert (by_cap.code, by_cap.legal_source) == ("LIMIT_BY_CAP", "商业银行互联网贷款管理暂行办法 第6条")
    by_income = decide_one(policy_of("consumer"), asked, best).reasons[0]
    assert (by_income.code, by_income.legal_source) == ("LIMIT_BY_INCOME", "")


def test_less_than_the_least_loan_is_declined_by_what_says_so() -> None:
    tiny = decide_one(policy_of("consumer"), application(amount_minor=90_000), values_of())
    assert tiny.reasons[0].evidence == "amount_minor=90000, minimum_minor=100000 (limit.A)"
    carries_little = decide("auto", valuation_low=11_000.0)
    assert codes(carries_little) == ["LIMIT_TOO_LOW"]
    assert carries_little.reasons[0].evidence == "valuation_low=11000, valuation_max=0.9 (limit.prime-new)"


@settings(max_examples=300, deadline=None)
@given(
    repayment=st.sampled_from(REPAYMENT_METHODS), product=st.sampled_from(["consumer", "auto", "small_business"]),
    months=st.integers(1, 12), probability=st.floats(0, 0.17), asked=st.integers(1_200_000, 5_000_000),
    upfront=st.floats(0, 0.15), monthly=st.floats(0, 0.02) | st.just(0.0),
)  # fmt: skip
def test_what_a_loan_costs_stays_under_the_cap_however_it_is_repaid(
    repayment: str, product: str, months: int, probability: float, asked: int, upfront: float, monthly: float
) -> None:
    """Discounted at the cap, the payments are not worth more than is received; nor is a bullet's cost above it."""
    fees = {"upfront_fee_minor": int(asked * upfront), "monthly_fee_minor": int(asked * monthly)}
    request = application(product, amount_minor=asked, term_months=months, repayment=repayment, **fees)
    known = values_of(product, term_months=months, repayment=repayment, default_probability=probability)
    decision = decide_one(policy_of(product), request, known)
    if decision.outcome > Outcome.LIMIT:
        assert codes(decision)[0] == "ALL_IN_RATE_ABOVE_CAP"
        return
    amount, rate = decision.approved_amount_minor, decision.annual_rate
    received = amount - fees["upfront_fee_minor"]
    flows = payments(amount, rate / 12, months, repayment, fees["monthly_fee_minor"])
    assert rate <= decision.all_in_rate <= CAP_RATE
    assert sum(flow / (1 + CAP_RATE / 12) ** k for k, flow in enumerate(flows, 1)) <= received * (1 + 1e-9)
    if repayment == "bullet":
        assert (sum(flows) - received) / received * 12 / months <= CAP_RATE * (1 + 1e-9)


def test_fees_above_the_cap_are_reviewed() -> None:
    decision = decide_one(policy_of("consumer"), application(upfront_fee_minor=500_000), values_of())
    assert decision.outcome == Outcome.REVIEW and codes(decision) == ["ALL_IN_RATE_ABOVE_CAP"]
    fair = decide_one(policy_of("consumer"), application(upfront_fee_minor=50_000), values_of())
    assert fair.outcome == Outcome.APPROVE and fair.annual_rate < fair.all_in_rate < CAP_RATE
    # 18.6 % and a fee of 5 % cost 24.8 % of what is received, though monthly IRR × 12 is 22.4 %
    bullet = application(amount_minor=1_000_000, upfront_fee_minor=50_000, repayment="bullet")
    graded_c = values_of(default_probability=0.12, repayment="bullet")
    assert codes(decide_one(policy_of("consumer"), bullet, graded_c)) == ["ALL_IN_RATE_ABOVE_CAP"]
