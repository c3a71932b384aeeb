"""All-in rates against closed forms and against the root of the discounted cash flows themselves."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from features.application import REPAYMENT_METHODS
from policy.rates import all_in_rate, annuity, nominal_rate


def payments(amount: float, rate: float, months: int, repayment: str, fee: float) -> list[float]:
    """Month by month from what is still owed; `rate` a month."""
    if repayment == "bullet":
        return [fee] * (months - 1) + [amount * (1 + rate * months) + fee]
    owed, flows = amount, []
    for month in range(1, months + 1):
        interest = owed * rate
        if repayment == "equal_instalment":
            principal = amount / annuity(math.log1p(rate), months) - interest
        elif repayment == "equal_principal":
            principal = amount / months
        else:
            principal = amount if month == months else 0.0
        owed -= principal
        flows.append(principal + interest + fee)
    assert abs(owed) < 1e-6 * amount
    return flows


@given(
    amount=st.integers(100_000, 100_000_000), annual_rate=st.floats(0, 0.6), months=st.integers(1, 60),
    repayment=st.sampled_from(REPAYMENT_METHODS), upfront=st.floats(0, 0.9), monthly=st.floats(0, 0.05),
)  # fmt: skip
def test_discounted_payments_equal_what_is_received(
    amount: int, annual_rate: float, months: int, repayment: str, upfront: float, monthly: float
) -> None:
    upfront_fee, monthly_fee = int(amount * upfront), int(amount * monthly)
    rate = nominal_rate(amount, annual_rate, months, repayment, upfront_fee, monthly_fee) / 12
    flows = payments(amount, annual_rate / 12, months, repayment, monthly_fee)
    received = sum(flow * math.exp(-k * math.log1p(rate)) for k, flow in enumerate(flows, 1))
    assert received == pytest.approx(amount - upfront_fee, rel=1e-9)
    assert rate >= 0
    all_in = all_in_rate(amount, annual_rate, months, repayment, upfront_fee, monthly_fee)
    assert all_in >= annual_rate and all_in >= 12 * rate - 1e-9
    if repayment != "bullet":
        assert all_in == pytest.approx(12 * rate, abs=1e-9)


@pytest.mark.parametrize("repayment", REPAYMENT_METHODS)
@given(annual_rate=st.floats(0, 0.6), months=st.integers(1, 60))
def test_without_fees_it_is_the_annual_rate_to_the_bit(repayment: str, annual_rate: float, months: int) -> None:
    assert all_in_rate(1_000_000, annual_rate, months, repayment) == annual_rate


@given(annual_rate=st.floats(0, 0.6), months=st.integers(1, 60))
def test_bullet_in_closed_form(annual_rate: float, months: int) -> None:
    want = 12 * ((1 + annual_rate / 12 * months) ** (1 / months) - 1)
    assert nominal_rate(1_000_000, annual_rate, months, "bullet") == pytest.approx(want, abs=1e-9)


@given(
    annual_rate=st.floats(0, 0.6), months=st.integers(1, 60), upfront=st.integers(0, 900_000),
    monthly=st.integers(0, 20_000),
)  # fmt: skip
def test_bullet_with_fees_is_the_worse_of_both(annual_rate: float, months: int, upfront: int, monthly: int) -> None:
    """All that is paid beyond what was received, over what was received, a year; or IRR × 12 where that is more."""
    cost = 1_000_000 * annual_rate * months / 12 + upfront + monthly * months
    simple = cost / (1_000_000 - upfront) / (months / 12)
    nominal = nominal_rate(1_000_000, annual_rate, months, "bullet", upfront, monthly)
    want = max(simple, nominal)
    assert all_in_rate(1_000_000, annual_rate, months, "bullet", upfront, monthly) == pytest.approx(want, abs=1e-9)


def test_bullet_of_a_year_costs_what_it_costs_in_that_year() -> None:
    """18.6 % and 5 % up front: 236 paid for 950 received, 24.8 %, where IRR × 12 says 22.4 %."""
    assert all_in_rate(1_000_000, 0.186, 12, "bullet", 50_000) == pytest.approx(236 / 950, abs=1e-12)
    assert nominal_rate(1_000_000, 0.186, 12, "bullet", 50_000) == pytest.approx(0.22394, abs=1e-5)


@given(fee=st.integers(0, 900_000), annual_rate=st.floats(0, 0.6))
def test_one_month_in_closed_form(fee: int, annual_rate: float) -> None:
    want = 12 * (1_000_000 * (1 + annual_rate / 12) / (1_000_000 - fee) - 1)
    for repayment in REPAYMENT_METHODS:
        assert all_in_rate(1_000_000, annual_rate, 1, repayment, fee) == pytest.approx(want, rel=1e-9, abs=1e-9)


@given(
    months=st.integers(1, 60), repayment=st.sampled_from(REPAYMENT_METHODS), annual_rate=st.floats(0, 0.4),
    fee=st.integers(0, 100_000), more=st.integers(100, 100_000), monthly=st.booleans(),
)  # fmt: skip
def test_a_higher_fee_is_a_higher_rate(
    months: int, repayment: str, annual_rate: float, fee: int, more: int, monthly: bool
) -> None:
    low, high = ((0, fee), (0, fee + more)) if monthly else ((fee, 0), (fee + more, 0))
    assume(low != high)
    assert all_in_rate(1_000_000, annual_rate, months, repayment, *low) < all_in_rate(
        1_000_000, annual_rate, months, repayment, *high
    )


def test_known_case() -> None:
    """10 000 in 12 instalments at 12 %, 500 up front and 10 a month: 888.49 + 10 monthly for 9 500."""
    assert all_in_rate(1_000_000, 0.12, 12, "equal_instalment", 50_000, 1_000) == pytest.approx(0.240373, abs=1e-6)


def test_nothing_received_costs_infinitely_much() -> None:
    assert all_in_rate(1_000, 0.1, 12, "bullet", 1_000) == math.inf


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown repayment method"):
        all_in_rate(1_000, 0.1, 12, "whenever", 1)
