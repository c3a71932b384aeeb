"""The honest half of the synthetic world: people, the places they share, and their applications as columns.

People share phones, addresses, devices and contacts for good reasons too (families, dormitories, shop tablets,
second-hand numbers, a company visit where twenty colleagues apply in a day), otherwise finding rings would be a toy.
Everything is an integer here; `bench.identifiers` writes them as they look in life.
Each part draws from its own generator (`part`), so adding one does not reshuffle the others.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import market

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

WINDOW_DAYS = 150
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
AUTO_SHARE = 0.35
REPEAT_SHARE = 0.12
CONTACTS = 3
HOUR_WEIGHTS = np.array([4, 2, 1, 1, 1, 2, 5, 10, 18, 26, 30, 28, 24, 25, 28, 29, 28, 26, 24, 26, 28, 24, 16, 9.0])
CONSUMER_TERMS, CONSUMER_TERM_SHARES = np.array([3, 6, 9, 12, 18, 24, 36]), [0.1, 0.2, 0.08, 0.34, 0.08, 0.13, 0.07]
AUTO_TERMS, AUTO_TERM_SHARES = np.array([12, 24, 36, 48, 60]), [0.09, 0.22, 0.42, 0.12, 0.15]


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


@dataclass(frozen=True)
class Applications:
    """Columns of N applications, [N] each; entities are integers, -1 absent. Cars are meaningful where `auto`."""

    person: Ints
    auto: Bools
    time_ms: Ints  # since the window's start
    amount: Floats  # CNY
    term: Ints
    device: Ints
    phone: Ints
    contacts: Ints  # [N, 3]
    card: Ints
    ip: Ints
    address: Ints
    employer: Ints
    dealer: Ints
    officer: Ints
    vin: Ints
    kind: Ints
    list_price: Floats
    value: Floats  # the car's true market value, CNY
    price: Floats
    down: Floats
    age_months: Ints
    mileage_km: Ints
    battery: Floats
    condition: Floats  # standard score among cars alike

    def __len__(self) -> int:
        return len(self.person)


def part(seed: int, name: str) -> np.random.Generator:
    """The generator of one part of the world."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def people(seed: int, count: int) -> People:
    """`count` applicants, in no meaningful order."""
    rng = part(seed, "people")
    age = np.clip(20 + rng.gamma(2.6, 6.2, count), 19, 66)
    education = rng.choice(5, count, p=[0.08, 0.34, 0.3, 0.23, 0.05])
    income = np.clip(np.exp(8.45 + 0.17 * education + 0.008 * (age - 35) + rng.normal(0, 0.42, count)), 1800, 150_000)
    employer = rng.choice(count // 6, count, p=_shares(rng, count // 6, 1.7))
    staffed = np.bincount(employer)[employer] >= 15
    tenure = np.minimum(rng.gamma(1.2, 32, count), (age - 18) * 12)
    debt = rng.normal(0, 1, count)
    exaggerates = rng.random(count) < 0.32
    newcomer = rng.random(count) < 0.14  # new in town or young: new number, thin file, cheap phone
    return People(
        birth_day=(20_089 - age * 365.25).astype(np.int64),
        male=rng.random(count) < 0.57,
        region=rng.choice(30, count, p=_shares(rng, 30, 0.7)),
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


def _shares(rng: np.random.Generator, count: int, spread: float) -> Floats:
    """Shares of `count` places or firms: few large, many small."""
    weights = rng.lognormal(0, spread, count)
    return np.asarray(weights / weights.sum())


def times_ms(rng: np.random.Generator, count: int) -> Ints:
    """Moments of the window: more by day, on working days and towards its end."""
    hours = np.arange(WINDOW_DAYS * 24)
    day = hours // 24
    weight = HOUR_WEIGHTS[hours % 24] * (1 + 0.4 * day / WINDOW_DAYS) * np.where(day % 7 < 5, 1.0, 0.75)
    edges = np.cumsum(weight) / weight.sum()
    hour = np.minimum(np.searchsorted(edges, rng.random(count)), len(hours) - 1)
    return np.asarray((hour + rng.random(count)) * HOUR_MS, dtype=np.int64)


def applications(seed: int, people: People, count: int) -> Applications:
    """`count` honest applications: one of each person, and repeats by some, the last rows."""
    rng = part(seed, "applications")
    first = len(people)
    person = np.concatenate([np.arange(first), rng.integers(0, first, count - first)])
    time_ms = _times(rng, people, person)
    auto = (rng.random(first) < AUTO_SHARE)[person]
    changed = (np.arange(count) >= first) & (rng.random(count) < 0.2)
    auto = np.where(changed, rng.random(count) < AUTO_SHARE, auto)
    drawn = Applications(
        person=person, auto=auto, time_ms=time_ms, **_loans(seed, people, person, auto),
        **_belongings(seed, people, person), **_channels(seed, people, person, auto),
    )  # fmt: skip
    _company_visits(part(seed, "company visits"), people, drawn)
    return drawn


def _times(rng: np.random.Generator, people: People, person: Ints) -> Ints:
    """First applications, some soon after another member of the household; repeats after the first."""
    first, horizon = len(people), WINDOW_DAYS * DAY_MS - 1
    own = times_ms(rng, first)
    of_household = np.zeros(int(people.household.max()) + 1, dtype=np.int64)
    of_household[people.household] = own
    together = of_household[people.household] + (rng.exponential(2.5, first) * DAY_MS).astype(np.int64)
    own = np.where((rng.random(first) < 0.45) & (together < horizon), together, own)
    repeats = person[first:]
    later = own[repeats] + 1 + (rng.exponential(25, len(repeats)) * DAY_MS).astype(np.int64)
    within = own[repeats] + 1 + (rng.random(len(repeats)) * (horizon - own[repeats])).astype(np.int64)
    return np.concatenate([own, np.where(later < horizon, later, within)])


def _loans(seed: int, people: People, person: Ints, auto: Bools) -> dict[str, Any]:
    """Amounts, terms and cars. A car belongs to its person: applying again is for the same one."""
    rng = part(seed, "loans")
    n, owners, income = len(person), len(people), people.income[person]
    kind = rng.choice(market.KINDS, owners, p=[0.38, 0.32, 0.22, 0.08])
    pre_owned = (kind == market.USED) | ((kind != market.NEW) & (rng.random(owners) < 0.25))
    age = np.where(pre_owned, rng.integers(10, 121, owners), 0)
    list_price = market.list_price(people.income * rng.lognormal(2.75, 0.4, owners))
    markup = rng.normal(1.03, 0.05, owners) + np.where(pre_owned, np.maximum(rng.normal(0.04, 0.13, owners), -0.1), 0)
    mileage = market.mileage_km(rng, age)
    cars = part(seed, "cars")
    battery, condition = market.battery_health(cars, age), cars.normal(0, 1, owners)
    value = market.value(kind, list_price, age, mileage, battery, condition)
    price = np.round(value * markup, -2)
    strict = pre_owned | (kind == market.COMMERCIAL)
    least = np.where(strict, 0.3, 0.2)  # 汽车贷款管理办法; dealers know it, most of them
    down_rate = np.clip(rng.choice([0.2, 0.3, 0.3, 0.4, 0.5], owners) + rng.normal(0, 0.02, owners), 0.15, 0.7)
    careless = rng.random(owners) < 0.04
    down = np.ceil(price * np.where(careless, down_rate, np.maximum(down_rate, least)) / 100) * 100
    wanted = np.exp(2.5 + 0.75 * np.log(income) + rng.normal(0, 0.75, n))
    consumer = np.where(rng.random(n) < 0.3, np.round(wanted, -3) - 1, np.round(wanted, -2))  # a price tag: 5999, 8999
    amount = np.where(auto, np.round((price - down)[person], -2), np.clip(consumer, 1000, 300_000))
    auto_term = rng.choice(AUTO_TERMS, n, p=AUTO_TERM_SHARES)
    auto_term = np.where((strict & ~careless)[person], np.minimum(auto_term, 36), auto_term)
    return {
        "amount": np.where(auto, np.clip(amount, 12_000, 1_500_000), amount),
        "term": np.where(auto, auto_term, rng.choice(CONSUMER_TERMS, n, p=CONSUMER_TERM_SHARES)),
        "vin": np.where(auto, person, -1), "kind": kind[person], "list_price": list_price[person],
        "value": value[person], "price": price[person], "down": down[person], "age_months": age[person],
        "mileage_km": mileage[person], "battery": battery[person], "condition": condition[person],
    }  # fmt: skip


def _belongings(seed: int, people: People, person: Ints) -> dict[str, Any]:
    """Phones, cards, homes and contacts. Numbers from P are relatives, friends and personnel offices."""
    rng = part(seed, "belongings")
    count, households = len(people), int(people.household.max()) + 1
    own, resold = np.arange(count), rng.integers(0, count, count)
    phone = np.where(rng.random(count) < 0.02, resold, own)  # second-hand numbers
    family_card = rng.random(households) < 0.1
    card = np.where(family_card[people.household], count + people.household, own)
    home = count + people.household
    address = np.where(people.dormitory >= 0, count + households + people.dormitory, home)
    relative = count + people.household
    friend = count + households + rng.integers(0, 4 * count, (count, 2))
    office = personnel_phone(people, people.employer)
    contacts = np.stack([
        np.where(rng.random(count) < 0.75, relative, friend[:, 0]),
        np.where(rng.random(count) < 0.85, friend[:, 1], -1),
        np.where(rng.random(count) < 0.08, office, -1),
    ], axis=1)  # fmt: skip
    return {"phone": phone[person], "card": card[person], "address": address[person], "contacts": contacts[person],
            "employer": people.employer[person]}  # fmt: skip


def personnel_phone(people: People, employer: Ints) -> Ints:
    """Phone numbers of the personnel offices of employers, which staff name as a contact."""
    return 5 * len(people) + int(people.household.max()) + 1 + employer


def _channels(seed: int, people: People, person: Ints, auto: Bools) -> dict[str, Any]:
    """Where the application is made: in a shop on its tablet and Wi-Fi, or on one's own device from anywhere.

    Dealers 0 .. stores - 1 sell goods, the rest cars; officer = 4 * dealer + 0 .. 3, some lent by the next dealer.
    """
    rng = part(seed, "channels")
    n, count, households = len(person), len(people), int(people.household.max()) + 1
    stores, lots = max(4, round(n / 1300)), max(4, round(n / 350))
    dealer = np.where(auto, stores + rng.choice(lots, n, p=_shares(rng, lots, 0.8)),
                      rng.choice(stores, n, p=_shares(rng, stores, 0.8)))  # fmt: skip
    in_shop = auto | (rng.random(n) < 0.5)
    lent = rng.random(n) < 0.06
    officer = 4 * ((dealer + lent) % (stores + lots)) + rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    own = np.where(rng.random(count) < 0.1, count + people.household, np.arange(count))  # a family device
    tablet = count + households + 2 * dealer + rng.integers(0, 2, n)
    on_tablet = in_shop & (rng.random(n) < np.where(auto, 0.6, 0.85))
    # IPs: homes, then offices, shops and mobile gateways
    offices, shops = households, households + int(people.employer.max()) + 1
    gateways = shops + stores + lots
    where = rng.random(n)
    elsewhere = np.where(where < 0.45, people.household[person],
                         np.where(where < 0.6, offices + people.employer[person],
                                  gateways + rng.choice(max(6, n // 250), n)))  # fmt: skip
    return {
        "dealer": np.where(in_shop, dealer, -1), "officer": np.where(in_shop, officer, -1),
        "device": np.where(on_tablet, tablet, own[person]),
        "ip": np.where(on_tablet | (in_shop & (rng.random(n) < 0.3)), shops + dealer, elsewhere),
    }  # fmt: skip


def _company_visits(rng: np.random.Generator, people: People, drawn: Applications) -> None:
    """An officer visits an employer with a tablet: many staff apply within hours. The honest twin of a ring."""
    staff = np.bincount(people.employer)
    large = np.flatnonzero(staff >= 10)
    if not len(large):
        return
    shops = np.flatnonzero((drawn.dealer >= 0) & ~drawn.auto & (drawn.device > len(people) + people.household.max()))
    for _ in range(max(1, len(drawn) // 200)):
        employees = np.flatnonzero((people.employer == rng.choice(large)) & ~drawn.auto[: len(people)])
        rows = rng.permutation(employees)[: rng.integers(6, 22)]
        host = rng.choice(shops)
        start = rng.integers(0, WINDOW_DAYS - 2) * DAY_MS + rng.integers(8, 15) * HOUR_MS
        drawn.time_ms[rows] = start + (rng.exponential(6, len(rows)) * HOUR_MS).astype(np.int64)
        drawn.dealer[rows], drawn.officer[rows] = drawn.dealer[host], drawn.officer[host]
        on_tablet = rows[rng.random(len(rows)) < 0.75]
        drawn.device[on_tablet] = drawn.device[host]
        promoted = rows[rng.random(len(rows)) < 0.6]
        drawn.amount[promoted], drawn.term[promoted] = drawn.amount[host], drawn.term[host]
        named = rows[rng.random(len(rows)) < 0.5]
        drawn.contacts[named, 2] = personnel_phone(people, people.employer[named])
