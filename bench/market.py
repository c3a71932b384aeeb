"""What cars are worth in the synthetic world (R8): one formula for those of applications and those of used-car sales.

A scrap value stays. The rest of the list price is lost with age, with kilometres beyond what is normal for the age and
with a new-energy car's battery, and differs from car to car, the more the older they are. Prices drift over the years.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NEW, USED, NEW_ENERGY, COMMERCIAL = KINDS = 1, 2, 3, 4  # as proto VehicleKind
SCRAP = 12_000.0  # CNY
NORMAL_KM = 1_280.0  # a month
BATTERY_LOSS = 1.2  # of log value, for all of a battery's health
# By kind, none first: log value lost a month and by 10,000 km beyond the normal; its drift a year; spread between cars.
MONTH_LOSS = np.array([0, 0.014, 0.014, 0.016, 0.014])
KM_LOSS = np.array([0, 0.012, 0.012, 0.010, 0.035])
YEAR_DRIFT = np.array([0, -0.01, -0.02, -0.08, -0.02])
SPREAD = np.array([0, 1.0, 1.0, 1.3, 1.1])


@dataclass(frozen=True)
class Cars:
    """Columns of P cars that are bought, [P] each; prices in CNY. `condition` is a standard score among cars alike."""

    kind: Ints
    list_price: Floats
    value: Floats
    price: Floats
    down: Floats
    age_months: Ints
    mileage_km: Ints
    battery: Floats
    condition: Floats
    term_max: Ints  # months, as dealers who know the law offer it


def cars(rng: np.random.Generator, wear: np.random.Generator, income: Floats) -> Cars:
    """The car of each buyer; `income` [P] is CNY a month, `wear` draws batteries and conditions."""
    owners = len(income)
    kind = rng.choice(KINDS, owners, p=[0.38, 0.32, 0.22, 0.08])
    pre_owned = (kind == USED) | ((kind != NEW) & (rng.random(owners) < 0.25))
    age = np.where(pre_owned, rng.integers(10, 121, owners), 0)
    listed = list_price(income * rng.lognormal(2.75, 0.4, owners))
    markup = rng.normal(1.03, 0.05, owners) + np.where(pre_owned, np.maximum(rng.normal(0.04, 0.13, owners), -0.1), 0)
    mileage = mileage_km(rng, age)
    battery, condition = battery_health(wear, age), wear.normal(0, 1, owners)
    worth = value(kind, listed, age, mileage, battery, condition)
    price = np.round(worth * markup, -2)
    strict = pre_owned | (kind == COMMERCIAL)
    least = np.where(strict, 0.3, 0.2)  # 汽车贷款管理办法; dealers know it, most of them
    down_rate = np.clip(rng.choice([0.2, 0.3, 0.3, 0.4, 0.5], owners) + rng.normal(0, 0.02, owners), 0.15, 0.7)
    careless = rng.random(owners) < 0.04
    down = np.ceil(price * np.where(careless, down_rate, np.maximum(down_rate, least)) / 100) * 100
    term_max = np.where(strict & ~careless, 36, 60)
    return Cars(kind, listed, worth, price, down, age, mileage, battery, condition, term_max)


def list_price(price: Floats) -> Floats:
    """Prices, CNY, as a manufacturer would list them."""
    return np.asarray(np.round(np.clip(price, 45_000, 900_000), -2), dtype=np.float64)


def mileage_km(rng: np.random.Generator, age_months: Ints) -> Ints:
    """How far cars of these ages were driven."""
    driven = age_months * rng.gamma(4, NORMAL_KM / 4, len(age_months))
    return np.where(age_months > 0, driven, rng.integers(5, 60, len(age_months))).astype(np.int64)


def battery_health(rng: np.random.Generator, age_months: Ints) -> Floats:
    """Of traction batteries of these ages, 0.6–1: some wear twice as fast as others."""
    worn = age_months * rng.gamma(6, 0.0003, len(age_months)) + np.abs(rng.normal(0, 0.02, len(age_months)))
    return np.asarray(np.round(np.clip(1 - worn, 0.6, 1), 3))


def value(
    kind: Ints, list_price: Floats, age_months: Ints, mileage_km: Ints, battery: Floats, condition: Floats,
    years: Floats | float = 0.0,
) -> Floats:  # fmt: skip
    """Market values, CNY, `years` after the world's start; `condition` is a car's standard score among its like."""
    log_kept = -MONTH_LOSS[kind] * age_months - KM_LOSS[kind] * (mileage_km - NORMAL_KM * age_months) / 10_000
    log_kept -= np.where(kind == NEW_ENERGY, BATTERY_LOSS * (1 - battery), 0)
    log_kept += SPREAD[kind] * (0.025 + 0.0012 * age_months) * condition + YEAR_DRIFT[kind] * years
    return np.asarray(SCRAP + (list_price - SCRAP) * np.exp(log_kept))
