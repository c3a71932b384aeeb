"""The companies of the synthetic world's small-business loans: what is true of each, whoever applies with it.

A company under strain sells less, has months without an invoice, files late and is sued, and its owner defaults. What
it invoices is not what it sells: some customers want no invoice, and some owners buy invoices.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

INDUSTRIES = ("retail", "wholesale", "catering", "manufacturing", "construction", "logistics", "services", "farming")
TAX_GRADES = ("A", "B", "M", "C", "D")  # 纳税信用级别, best first; M: too young to be graded
_GRADE_CUTS = np.array([-1.3, 0.7, 2.5])  # of a score with a standard deviation of 1.41
TERMS, TERM_SHARES = np.array([3, 6, 12, 24, 36]), [0.08, 0.2, 0.44, 0.18, 0.1]


@dataclass(frozen=True)
class Companies:
    """Columns of C companies, [C] each. `strain` is a standard score; premises: where registered, an integer."""

    age_months: Floats
    capital: Floats  # registered, CNY
    industry: Ints
    employees: Ints
    revenue: Floats  # true, CNY a month
    strain: Floats
    invoiced: Floats  # over true revenue
    inflation: Floats  # declared over true revenue
    trend: Floats  # logarithm of the invoices of the last six months over those of the six before
    zero_rate: Floats  # of months without an invoice
    change_rate: Floats  # of legal representatives in 24 months
    premises: Ints

    def invoiced_revenue(self) -> Floats:
        """What they invoice a month, CNY."""
        return self.revenue * self.invoiced


def draw(rng: np.random.Generator, income: Floats, adult_months: Floats) -> Companies:
    """One honest company for each person, should they be an owner; `income` of theirs is CNY a month."""
    count = len(income)
    strain = rng.normal(0, 1, count)
    revenue = np.clip(income * rng.lognormal(2.3, 0.7, count), 8_000, 4_000_000)
    exaggerates, cash = rng.random(count) < 0.3, rng.random(count) < 0.15
    restless, in_park = rng.random(count) < 0.12, rng.random(count) < 0.3
    parks = count + rng.integers(0, max(3, count // 150), count)
    return Companies(
        age_months=np.clip(rng.gamma(2.2, 30, count), 3, np.maximum(adult_months - 12, 6)),
        capital=1e4 * np.round(np.clip(revenue * rng.lognormal(1.2, 0.9, count), 10_000, 50_000_000) / 1e4),
        industry=rng.choice(len(INDUSTRIES), count, p=[0.25, 0.15, 0.15, 0.12, 0.08, 0.08, 0.13, 0.04]),
        employees=np.clip(revenue / 25_000 * rng.lognormal(0, 0.7, count), 1, 300).astype(np.int64),
        revenue=revenue,
        strain=strain,
        invoiced=np.where(cash, rng.uniform(0.35, 0.8, count), np.clip(rng.normal(0.93, 0.07, count), 0.6, 1.1)),
        inflation=np.where(exaggerates, rng.uniform(1.1, 1.9, count), rng.normal(1.02, 0.06, count)),
        trend=0.03 - 0.15 * strain + rng.normal(0, 0.17, count),
        zero_rate=1 / (1 + np.exp(3.8 - strain - rng.normal(0, 0.7, count))),
        change_rate=np.where(restless, 0.9, 0.1),
        premises=np.where(in_park, parks, np.arange(count)),
    )


def asked(rng: np.random.Generator, companies: Companies, company: Ints, months: float = 1.3) -> Floats:
    """What applicants with these companies ask for, CNY [N]: about so many months of invoices, in round numbers."""
    wanted = companies.invoiced_revenue()[company] * rng.lognormal(np.log(months), 0.6, len(company))
    return np.clip(np.where(wanted < 100_000, np.round(wanted, -3), np.round(wanted, -4)), 10_000, 5_000_000)


def tax_grade(rng: np.random.Generator, companies: Companies) -> Floats:
    """Index of TAX_GRADES as the tax office would grade them: the young mostly M, the others by how they file."""
    score = companies.strain + rng.normal(0, 1, len(companies.strain))
    graded = np.array([0, 1, 3, 4])[np.searchsorted(_GRADE_CUTS, score)]
    ungraded = rng.random(len(score)) < np.where(companies.age_months < 24, 0.6, 0.02)
    return np.where(ungraded, 2, graded).astype(np.float64)
