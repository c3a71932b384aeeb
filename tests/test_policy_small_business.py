"""Small-business loans: what the company invoices bounds the loan, and its registers knock it out (R3, R6, R16)."""

import numpy as np
import pytest

from policy.cells import Value
from policy.decide import Outcome
from tests.test_policy_decide import application, codes, decide, decide_one, policy_of, values_of

DISHONEST_LAW = "最高人民法院关于公布失信被执行人名单信息的若干规定（法释〔2017〕7号） 第8条"
EXPOSURE_LAW = "商业银行互联网贷款管理暂行办法 第6条"


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({"company_age_months": 11.0}, Outcome.DECLINE, "COMPANY_TOO_YOUNG"),
        ({"company_abnormal": 1.0}, Outcome.DECLINE, "COMPANY_ABNORMAL"),
        ({"company_enforced": 1.0}, Outcome.DECLINE, "COMPANY_ENFORCEMENT"),
        ({"courts_enforced": 1.0}, Outcome.DECLINE, "COURT_ENFORCEMENT"),
        ({"company_dishonest": 1.0}, Outcome.DECLINE, "COMPANY_DISHONEST"),
        ({"company_fraud_count": 1.0}, Outcome.DECLINE, "COMPANY_FRAUD"),
        ({"company_other_applicants": 1.0}, Outcome.REVIEW, "COMPANY_SHARED"),
        ({"company_representative_changes": 3.0}, Outcome.REVIEW, "REPRESENTATIVE_CHANGES"),
        ({"company_zero_months": 6.0}, Outcome.DECLINE, "NO_STABLE_REVENUE"),
        ({"company_zero_months": 3.0}, Outcome.REVIEW, "NO_STABLE_REVENUE"),
        ({"company_revenue_trend": 0.49}, Outcome.REVIEW, "REVENUE_FALLING"),
        ({"revenue_to_invoiced": 4.1}, Outcome.REVIEW, "REVENUE_CONTRADICTED"),
        ({"revenue_to_invoiced": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"company_tax_grade": "D"}, Outcome.DECLINE, "TAX_GRADE_TOO_LOW"),
        ({"company_tax_grade": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"amount_to_revenue": 6.1}, Outcome.REVIEW, "LOAN_ABOVE_REVENUE"),
        ({"amount_to_revenue": 12.1}, Outcome.DECLINE, "LOAN_ABOVE_REVENUE"),
        ({"invoiced_monthly_revenue": 4_999.0}, Outcome.DECLINE, "NO_STABLE_REVENUE"),
        ({"invoiced_monthly_revenue": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"dealer_fraud_score": 0.5}, Outcome.DECLINE, "DEALER_RISK"),
        ({"dealer_fraud_score": 0.35}, Outcome.REVIEW, "DEALER_RISK"),
        ({"dealer_default_score": 0.15}, Outcome.REVIEW, "DEALER_RISK"),
        ({"dealer_fraud_score": None}, Outcome.REVIEW, "DEALER_MISSING"),
        ({"officer_fraud_score": 0.6}, Outcome.DECLINE, "OFFICER_RISK"),
        ({"officer_fraud_score": 0.4}, Outcome.REVIEW, "OFFICER_RISK"),
        ({"officer_default_score": 0.15}, Outcome.REVIEW, "OFFICER_RISK"),
        ({"officer_fraud_score": None}, Outcome.REVIEW, "OFFICER_MISSING"),
        ({"age_years": 66.0}, Outcome.DECLINE, "OVER_AGE"),
        ({"age_years": 17.0}, Outcome.DECLINE, "UNDER_AGE"),
        ({"listed_black": 1.0}, Outcome.DECLINE, "BLACKLISTED"),
        ({"listed_grey": 1.0}, Outcome.REVIEW, "GREYLISTED"),
    ],
)
def test_knockouts(changes: dict[str, Value | None], outcome: Outcome, code: str) -> None:
    decision = decide("small_business", **changes)
    assert (decision.outcome, set(codes(decision))) == (outcome, {code})


def test_values_on_the_line_are_approved() -> None:
    """As the service holds them, in float32."""
    on_the_line: dict[str, Value | None] = {
        "company_age_months": 12.0, "company_zero_months": 2.0, "company_representative_changes": 2.0,
        "company_revenue_trend": float(np.float32(0.5)), "revenue_to_invoiced": 4.0, "company_tax_grade": "C",
        "amount_to_revenue": 6.0,
    }  # fmt: skip
    for name, value in on_the_line.items():
        assert decide("small_business", **{name: value}).outcome == Outcome.APPROVE, name


def test_what_the_company_invoices_bounds_the_loan_and_not_what_the_owner_earns() -> None:
    limited = decide("small_business", invoiced_monthly_revenue=15_000.0)
    assert (limited.outcome, codes(limited)) == (Outcome.LIMIT, ["LIMIT_BY_REVENUE"])
    assert limited.approved_amount_minor == 4_500_000  # three months of revenue at grade A
    assert limited.reasons[0].evidence == "invoiced_monthly_revenue=15000, revenue_multiple=3 (limit.A)"
    assert limited.reasons[0].zh and limited.reasons[0].en
    assert not {"verified_income", "declared_income"} & set(policy_of("small_business").inputs)
    little = decide("small_business", invoiced_monthly_revenue=5_000.0, default_probability=0.15)
    assert (little.outcome, codes(little)) == (Outcome.DECLINE, ["LIMIT_TOO_LOW"])


def test_what_a_borrower_owes_leaves_less_by_law() -> None:
    decision = decide("small_business", exposure_minor=397_000_000.0)
    assert (decision.outcome, codes(decision)) == (Outcome.LIMIT, ["LIMIT_BY_EXPOSURE"])
    assert decision.approved_amount_minor == 3_000_000 and decision.exposure_max_minor == 400_000_000
    assert decision.reasons[0].legal_source == EXPOSURE_LAW


def test_a_row_that_rests_on_a_law_cites_it() -> None:
    assert decide("small_business", company_dishonest=1.0).reasons[0].legal_source == DISHONEST_LAW
    assert decide("small_business", company_abnormal=1.0).reasons[0].legal_source == "企业信息公示暂行条例"


@pytest.mark.parametrize("repayment", ["bullet", "interest_only"])
def test_principal_that_is_due_at_the_end_is_due_within_a_year(repayment: str) -> None:
    late = application("small_business", term_months=13, repayment=repayment)
    values = values_of("small_business", repayment=repayment)
    decision = decide_one(policy_of("small_business"), late, values | {"term_months": 13})
    assert (decision.outcome, codes(decision)) == (Outcome.DECLINE, ["TERM_TOO_LONG"])
    assert decide("small_business", repayment=repayment).outcome == Outcome.APPROVE


def test_a_bank_shares_good_loans_to_companies_that_have_lasted() -> None:
    """The lender keeps at least 30 % of a joint loan, and all of what the bank does not take."""

    def shares(**changes: Value | None) -> dict[str, int]:
        decision = decide("small_business", **changes)
        assert sum(s.amount_minor for s in decision.shares) == decision.approved_amount_minor == 5_000_000
        return {share.offer.funder: share.amount_minor for share in decision.shares}

    assert shares() == {"bank": 3_500_000, "own": 1_500_000}
    assert shares(company_age_months=23.0) == shares(default_probability=0.05) == {"own": 5_000_000}
