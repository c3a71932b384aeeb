"""What a loan costs a year with all fees, as the cap on prices counts it.

Why: the cap counts every fee, not the interest alone (综合资金成本; 中国人民银行公告〔2021〕第3号 asks for the
internal rate of return). Monthly IRR × 12 does not compound, so one payment at the end looks cheaper than it is: 18.6 %
and a fee of 5 % over 12 months cost 24.8 % of what is received, and 22.4 % by IRR × 12. A bullet loan therefore counts
by the worse of both. All four repayment methods pay a + b·k in month k and a lump at the end, so the present value has
a closed form and one rate costs a few microseconds.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import REPAYMENT_METHODS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
EQUAL_INSTALMENT, EQUAL_PRINCIPAL, INTEREST_ONLY, BULLET = range(len(REPAYMENT_METHODS))


@njit(cache=True, nogil=True, error_model="numpy")
def all_in_rates(
    amount_minor: Ints, annual_rate: Floats, term_months: Ints, repayment: Ints, upfront_fee_minor: Ints,
    monthly_fee_minor: Ints, rates: Floats, begin: int, end: int,
) -> None:  # fmt: skip
    """`all_in_rate` of each from `begin` to `end` into `rates`, NaN where annual_rate is.

    All arrays [B]; repayment: index of REPAYMENT_METHODS.
    """
    for i in range(begin, end):
        rates[i] = np.nan
        if not np.isnan(annual_rate[i]):
            rates[i] = _all_in(
                amount_minor[i], annual_rate[i], term_months[i], repayment[i], upfront_fee_minor[i],
                monthly_fee_minor[i],
            )  # fmt: skip


def all_in_rate(
    amount_minor: int, annual_rate: float, term_months: int, repayment: str,
    upfront_fee_minor: int = 0, monthly_fee_minor: int = 0,
) -> float:  # fmt: skip
    """The worse of `nominal_rate` and, for `bullet`, (interest + all fees) / received / (months / 12).

    Never below annual_rate; inf where nothing is received. What is reported is what is held against the cap.
    """
    method = _method(repayment)
    return float(_all_in(amount_minor, annual_rate, term_months, method, upfront_fee_minor, monthly_fee_minor))


def nominal_rate(
    amount_minor: int, annual_rate: float, term_months: int, repayment: str,
    upfront_fee_minor: int = 0, monthly_fee_minor: int = 0,
) -> float:  # fmt: skip
    """Monthly IRR × 12 of receiving the amount less the upfront fee, which must leave something, and repaying.

    Of features.application.REPAYMENT_METHODS; the monthly fee is paid every month of the term, for `bullet` too.
    """
    method = _method(repayment)
    return float(_nominal(amount_minor, annual_rate, term_months, method, upfront_fee_minor, monthly_fee_minor))


def _method(repayment: str) -> int:
    if repayment not in REPAYMENT_METHODS:
        raise ValueError(f"unknown repayment method {repayment!r}")
    return REPAYMENT_METHODS.index(repayment)


@njit(cache=True, nogil=True, error_model="numpy")
def _all_in(amount, annual_rate, months, method, upfront_fee, monthly_fee):  # type: ignore[no-untyped-def]
    if upfront_fee == monthly_fee == 0:
        return annual_rate  # of every method, exactly
    received = amount - upfront_fee
    if received <= 0:
        return np.inf
    simple = 0.0
    if method == BULLET:
        fees = upfront_fee + monthly_fee * months
        simple = (amount * annual_rate * months / 12 + fees) / received * 12 / months
        if monthly_fee == 0:  # one payment: by Bernoulli's inequality IRR × 12 is not above it
            return max(annual_rate, simple)
    return max(annual_rate, _nominal(amount, annual_rate, months, method, upfront_fee, monthly_fee), simple)


@njit(cache=True, nogil=True, error_model="numpy")
def _nominal(amount, annual_rate, months, method, upfront_fee, monthly_fee):  # type: ignore[no-untyped-def]
    if upfront_fee == monthly_fee == 0 and method != BULLET:
        return annual_rate  # interest every month on what is still owed: exact
    base, step, lump = _payments(amount, annual_rate / 12, months, method)
    return 12 * math.expm1(_log_rate(base + monthly_fee, step, lump, months, amount - upfront_fee))


@njit(cache=True, nogil=True, error_model="numpy")
def _payments(amount, rate, months, method):  # type: ignore[no-untyped-def]
    """Month k = 1 .. months pays base + step·k, and the lump comes with the last."""
    if method == EQUAL_INSTALMENT:
        return amount / annuity(math.log1p(rate), months), 0.0, 0.0
    if method == EQUAL_PRINCIPAL:
        principal = amount / months
        return principal + amount * rate + principal * rate, -principal * rate, 0.0
    if method == INTEREST_ONLY:
        return amount * rate, 0.0, float(amount)
    return 0.0, 0.0, amount * (1 + rate * months)


@njit(cache=True, nogil=True, error_model="numpy")
def annuity(log_rate: float, months: int) -> float:
    """Present value of 1 a month, at a continuous monthly rate."""
    return -math.expm1(-months * log_rate) / math.expm1(log_rate) if log_rate else float(months)


@njit(cache=True, nogil=True, error_model="numpy")
def _present_value(base, step, lump, months, log_rate):  # type: ignore[no-untyped-def]
    ones = annuity(log_rate, months)
    end = math.exp(-months * log_rate)
    if not step:
        return base * ones + lump * end
    growth = math.expm1(log_rate)
    rising = (ones * (1 + growth) - months * end) / growth if growth else months * (months + 1) / 2
    return base * ones + step * rising + lump * end


@njit(cache=True, nogil=True, error_model="numpy")
def _log_rate(base, step, lump, months, received):  # type: ignore[no-untyped-def]
    """Root of log(present value / received) in the continuous rate, by the secant from the left.

    That function is a log-sum-exp of payments that are not negative: convex, falling, its slope never steeper than
    -months. So the first step below does not pass the root and no secant does: it converges from any start, without a
    bracket. At 0 it is at least 0, since fees and interest are not negative.
    """
    before, above = 0.0, math.log(_present_value(base, step, lump, months, 0.0) / received)
    now = above / months
    for _ in range(100):
        value = math.log(_present_value(base, step, lump, months, now) / received)
        if value <= 1e-14 or now <= before or value >= above:
            break
        before, above, now = now, value, now + value * (now - before) / (above - value)
    return now
