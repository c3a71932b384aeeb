"""What the external sources know of the people, cars and companies of the synthetic world (R5).

They see what is true of a person through noise, never the label. More than a fifth of their records are wrong: half of
those distorted, half another person's; some are missing; some were fetched long before the application.
"""

from dataclasses import dataclass

import numpy as np

from bench import companies
from bench.people import Bools, Floats, Ints, People
from bench.population import DAY_MS, HOUR_MS, Applications

WRONG_RATE = 0.22
GAPS = {
    "bureau": 0.01, "tax": 0.05, "registry": 0.04, "courts": 0.01, "telecom": 0.04, "social_security": 0.06,
    "housing_fund": 0.06, "multi_loan": 0.01, "blacklist": 0.01, "device_risk": 0.01, "consumption": 0.05,
    "vehicle_valuation": 0.01, "company_registry": 0.01, "company_tax": 0.01, "company_courts": 0.01,
}  # fmt: skip
ABOUT = {  # who is no applicant
    "vehicle_valuation": "vehicle",
    "company_registry": "company", "company_tax": "company", "company_courts": "company",
}  # fmt: skip
FIELD_GAP = {True: 0.01, False: 0.002}  # one number missing: registers are patchy, a paid query's answer is whole
OFTEN_OLD = frozenset({"tax", "registry", "telecom", "social_security", "housing_fund", "consumption"})


@dataclass(frozen=True)
class Records:
    """One source's records: `columns` float64 [P] by feature; where `held` is False there is none. lag_ms: int64 [P]
    from the fetch to the person's first application."""

    columns: dict[str, Floats]
    held: Bools
    lag_ms: Ints


def records(rng: np.random.Generator, source: str, people: People, drawn: Applications) -> Records:
    """What `source` knows."""
    true = _TRUE[source](rng, people, drawn)
    count = len(people)
    wrong = np.flatnonzero(rng.random(count) < WRONG_RATE)
    if source in ABOUT:  # of this car or company whoever asks: never another's, only far off
        other, distorted, spread = wrong[:0], wrong, 0.2
    else:
        other, distorted, spread = wrong[::2], wrong[1::2], 0.45
    mistaken_for, factor = rng.permutation(other), rng.lognormal(0, spread, len(distorted))
    columns = {}
    for name, values in true.items():
        seen = values.copy()
        seen[other] = values[mistaken_for]
        seen[distorted] *= factor
        columns[name] = _tidy(name, seen)
    old = rng.random(count) < (0.2 if source in OFTEN_OLD else 0.05)
    days = np.where(old, rng.exponential(90 if source in OFTEN_OLD else 20, count), 0)
    lag_ms = (days * DAY_MS).astype(np.int64) + rng.integers(200, 2 * HOUR_MS, count)
    return Records(columns, rng.random(count) >= GAPS[source], lag_ms)


def _tidy(name: str, values: Floats) -> Floats:
    """As the source would write it, inside the schema's range."""
    if name.endswith(("_share", "_utilisation", "_trend")):
        return np.asarray(np.round(np.clip(values, 0, 10 if name.endswith("_trend") else 1), 3), dtype=np.float64)
    highest = {
        "social_base": 40_000, "fund_base": 40_000, "device_risk_level": 100, "device_emulator": 1,
        "company_revenue": 1e9, "company_capital": 1e9, "company_zero_months": 12,
        "company_tax_grade": len(companies.TAX_GRADES) - 1,
    }  # fmt: skip
    whole = np.clip(values, 0, highest.get(name, 600 if name.endswith("_months") else 10_000_000))
    return np.asarray(np.round(whole, -2 if name.startswith("valuation") else 0), dtype=np.float64)


Columns = dict[str, Floats]


def _count(rng: np.random.Generator, log_rate: Floats) -> Floats:
    return rng.poisson(np.exp(np.minimum(log_rate, 4))).astype(np.float64)


def _rate(rng: np.random.Generator, log_odds: Floats, noise: float) -> Floats:
    return np.asarray(1 / (1 + np.exp(-log_odds - rng.normal(0, noise, len(log_odds)))))


def _bureau(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {
        "bureau_overdue_24m": _count(rng, -0.9 + 0.9 * people.strain),
        "bureau_inquiries_3m": _count(rng, 0.5 + 0.5 * people.appetite),
        "bureau_open_loans": _count(rng, 0.5 + 0.5 * people.debt),
        "bureau_utilisation": _rate(rng, -0.3 + 0.9 * people.debt, 0.6),
        "bureau_history_months": np.maximum(people.adult_months, 6) * people.history_rate,
        "bureau_monthly_payment": people.income * 0.6 * _rate(rng, -0.8 + 0.8 * people.debt, 0.4),
    }


def _tax(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {"tax_income": people.income * rng.lognormal(0, 0.1, len(people))}


def _registry(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    companies = rng.poisson(0.15, len(people))
    return {
        "registry_companies": companies.astype(np.float64),
        "registry_abnormal": rng.binomial(companies, np.clip(0.12 + 0.1 * people.strain, 0.02, 0.6)).astype(np.float64),
    }


def _courts(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    cases = _count(rng, -2.9 + 0.7 * people.strain)
    return {"courts_cases": cases, "courts_enforced": rng.binomial(cases.astype(np.int64), 0.35).astype(np.float64)}


def _telecom(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {
        "telecom_months": people.phone_months,
        "telecom_night_share": _rate(rng, -1.8 + 0.15 * people.device_risk, 0.5),
    }


def _social_security(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {
        "social_base": people.income * rng.lognormal(-0.08, 0.13, len(people)),
        "social_months": people.tenure_months * rng.beta(5, 1.5, len(people)),
    }


def _housing_fund(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {
        "fund_base": people.income * rng.lognormal(-0.08, 0.13, len(people)),
        "fund_months": people.tenure_months * rng.beta(4, 1.5, len(people)),
    }


def _multi_loan(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    week = _count(rng, -0.6 + 0.7 * people.appetite)
    return {"multi_platforms_7d": week, "multi_platforms_90d": week + _count(rng, 0.8 + 0.5 * people.appetite)}


def _blacklist(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {"blacklist_hits": _count(rng, -3.3 + people.taint + 0.3 * people.strain)}


def _device_risk(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {
        "device_risk_level": 100 * _rate(rng, -1 + 0.8 * people.device_risk, 0.4),
        "device_emulator": (rng.random(len(people)) < people.emulator_rate).astype(np.float64),
    }


def _consumption(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    return {
        "consumption_monthly": people.income * rng.lognormal(-0.7, 0.35, len(people)),
        "consumption_night_share": _rate(rng, -1.6 + 0.3 * people.strain, 0.5),
    }


def _vehicle_valuation(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    value: Floats = np.zeros(len(people))
    value[drawn.person] = drawn.value
    seen = value * rng.normal(1, 0.05, len(people))
    return {"valuation": seen, "valuation_low": seen * rng.uniform(0.84, 0.95, len(people))}


def _company(people: People, drawn: Applications) -> Ints:
    """The company that each person applied with, their own if none."""
    company = np.arange(len(people))
    company[drawn.person[drawn.business]] = drawn.company[drawn.business]
    return company


def _company_registry(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    held, of = drawn.companies, _company(people, drawn)
    return {
        "company_age_months": held.age_months[of],
        "company_capital": held.capital[of],
        "company_abnormal": (rng.random(len(of)) < _rate(rng, -4.2 + 0.7 * held.strain[of], 0.3)).astype(np.float64),
        "company_representative_changes": rng.poisson(held.change_rate[of]).astype(np.float64),
    }


def _company_tax(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    held, of = drawn.companies, _company(people, drawn)
    return {
        "company_revenue": 12 * held.invoiced_revenue()[of] * rng.lognormal(0, 0.06, len(of)),
        "company_revenue_trend": np.exp(held.trend[of] + rng.normal(0, 0.08, len(of))),
        "company_zero_months": rng.binomial(12, held.zero_rate[of]).astype(np.float64),
        "company_tax_grade": companies.tax_grade(rng, held)[of],
    }


def _company_courts(rng: np.random.Generator, people: People, drawn: Applications) -> Columns:
    cases = _count(rng, -2.5 + 0.9 * drawn.companies.strain[_company(people, drawn)])
    enforced = rng.binomial(cases.astype(np.int64), 0.3)
    return {
        "company_cases": cases, "company_enforced": enforced.astype(np.float64),
        "company_dishonest": rng.binomial(enforced, 0.3).astype(np.float64),
    }  # fmt: skip


_TRUE = {
    "bureau": _bureau, "tax": _tax, "registry": _registry, "courts": _courts, "telecom": _telecom,
    "social_security": _social_security, "housing_fund": _housing_fund, "multi_loan": _multi_loan,
    "blacklist": _blacklist, "device_risk": _device_risk, "consumption": _consumption,
    "vehicle_valuation": _vehicle_valuation, "company_registry": _company_registry, "company_tax": _company_tax,
    "company_courts": _company_courts,
}  # fmt: skip
