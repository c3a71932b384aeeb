"""The people of the synthetic world: what is true of them, whichever loans they ask for.

Each part of the world draws from its own generator (`part`), so adding one does not reshuffle the others.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class People:
    """Columns of P applicants: what is true of them, [P] each. `strain` (towards default), `debt`, `appetite` and
    `device_risk` are standard scores; `inflation` is declared over true income."""

    birth_day: Ints  # days since 1970-01-01
    male: Bools
    region: Ints
    household: Ints
    employer: Ints
    dormitory: Ints  # -1: none
    education: Ints
    housing: Ints
    dependents: Ints
    employment_months: Floats  # as declared
    tenure_months: Floats  # as the offices know it
    income: Floats  # true, CNY a month
    inflation: Floats
    strain: Floats  # little discipline, much debt, a shaky job
    debt: Floats
    appetite: Floats  # for loans elsewhere
    taint: Floats  # log of the relative blacklist rate
    device_risk: Floats
    emulator_rate: Floats
    phone_months: Floats
    history_rate: Floats  # share of adult life known to the bureau

    def __len__(self) -> int:
        return len(self.income)

    @property
    def adult_months(self) -> Floats:
        """Since they came of age, around the world's start."""
        return (20_150 - self.birth_day) / 30.4 - 12 * 18


def part(seed: int, name: str) -> np.random.Generator:
    """The generator of one part of the world."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def applicants(seed: int, count: int) -> People:
    """`count` applicants, in no meaningful order."""
    rng = part(seed, "people")
    age = np.clip(20 + rng.gamma(2.6, 6.2, count), 19, 66)
    education = rng.choice(5, count, p=[0.08, 0.34, 0.3, 0.23, 0.05])
    income = np.clip(np.exp(8.45 + 0.17 * education + 0.008 * (age - 35) + rng.normal(0, 0.42, count)), 1800, 150_000)
    employer = rng.choice(count // 6, count, p=shares(rng, count // 6, 1.7))
    staffed = np.bincount(employer)[employer] >= 15
    tenure = np.minimum(rng.gamma(1.2, 32, count), (age - 18) * 12)
    debt = rng.normal(0, 1, count)
    exaggerates = rng.random(count) < 0.32
    newcomer = rng.random(count) < 0.14  # new in town or young: new number, thin file, cheap phone
    return People(
        birth_day=(20_089 - age * 365.25).astype(np.int64),
        male=rng.random(count) < 0.57,
        region=rng.choice(30, count, p=shares(rng, 30, 0.7)),
        household=_households(rng, count),
        employer=employer,
        dormitory=np.where(staffed & (rng.random(count) < 0.3), employer, -1),
        education=education,
        housing=rng.choice(4, count, p=[0.34, 0.27, 0.24, 0.15]),
        dependents=rng.poisson(np.clip((age - 20) / 18, 0.1, 1.3)),
        employment_months=tenure * rng.choice([1, 1, 1, 1.4], count),
        tenure_months=tenure,
        income=income,
        inflation=np.where(exaggerates, rng.uniform(1.1, 2.0, count), rng.normal(1.02, 0.05, count)),
        strain=0.5 * debt - 0.25 * np.minimum(tenure / 24, 2) + rng.normal(0.3, 0.82, count),
        debt=debt,
        appetite=rng.normal(0, 1, count) + 0.4 * newcomer,
        taint=np.zeros(count),
        device_risk=rng.normal(0, 1, count) + 0.7 * newcomer,
        emulator_rate=np.where(rng.random(count) < 0.04, 0.5, 0.01),
        phone_months=np.where(newcomer, rng.gamma(1.3, 4, count), rng.gamma(1.8, 32, count)),
        history_rate=np.where(newcomer, rng.beta(1, 6, count), rng.beta(2.2, 2.2, count)),
    )


def _households(rng: np.random.Generator, count: int) -> Ints:
    sizes = rng.choice([1, 2, 3, 4], count, p=[0.64, 0.23, 0.09, 0.04])
    return rng.permutation(np.repeat(np.arange(count), sizes)[:count])


def shares(rng: np.random.Generator, count: int, spread: float) -> Floats:
    """Shares of `count` places or firms: few large, many small."""
    weights = rng.lognormal(0, spread, count)
    return np.asarray(weights / weights.sum())
