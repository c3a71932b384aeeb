"""The honest half of the synthetic world: applications of people as columns, and the places and things they share.

People share phones, addresses, devices and contacts for good reasons too (families, dormitories, shop tablets,
second-hand numbers, a company visit where twenty colleagues apply in a day), otherwise finding rings would be a toy.
Everything is an integer here; `bench.identifiers` writes them as they look in life.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from bench import companies, market
from bench.people import Bools, Floats, Ints, People, part, shares

WINDOW_DAYS = 150
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PRODUCTS = ("consumer", "auto", "small_business")
CONSUMER, AUTO, BUSINESS = range(len(PRODUCTS))
PRODUCT_SHARES = [0.55, 0.3, 0.15]
PARTNER_SHARE = 0.05  # of owners who apply with a partner's company
REPEAT_SHARE = 0.12
CONTACTS = 3
HOUR_WEIGHTS = np.array([4, 2, 1, 1, 1, 2, 5, 10, 18, 26, 30, 28, 24, 25, 28, 29, 28, 26, 24, 26, 28, 24, 16, 9.0])
CONSUMER_TERMS, CONSUMER_TERM_SHARES = np.array([3, 6, 9, 12, 18, 24, 36]), [0.1, 0.2, 0.08, 0.34, 0.08, 0.13, 0.07]
AUTO_TERMS, AUTO_TERM_SHARES = np.array([12, 24, 36, 48, 60]), [0.09, 0.22, 0.42, 0.12, 0.15]


@dataclass(frozen=True)
class Applications:
    """Columns of N applications, [N] each; entities are integers, -1 absent. Cars are meaningful where `auto`.

    product: an index of PRODUCTS. company: an index of `companies`, -1 unless for a business.
    """

    person: Ints
    product: Ints
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
    company: Ints
    companies: companies.Companies

    def __len__(self) -> int:
        return len(self.person)

    @property
    def auto(self) -> Bools:
        """Which are for a car."""
        return np.equal(self.product, AUTO)

    @property
    def business(self) -> Bools:
        """Which are for a business."""
        return np.equal(self.product, BUSINESS)


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
    of_person = rng.choice(len(PRODUCTS), first, p=PRODUCT_SHARES)
    changed = (np.arange(count) >= first) & (rng.random(count) < 0.2)
    product = np.where(changed, rng.choice(len(PRODUCTS), count, p=PRODUCT_SHARES), of_person[person])
    held = companies.draw(part(seed, "companies"), people.income, people.adult_months)
    owners, company = np.flatnonzero(of_person == BUSINESS), np.arange(first)
    partners = owners[rng.random(len(owners)) < PARTNER_SHARE]
    company[partners] = rng.choice(owners, len(partners))
    drawn = Applications(
        person=person, product=product, time_ms=time_ms, companies=held,
        **_loans(seed, people, person, product, company[person], held),
        **_belongings(seed, people, person), **_channels(seed, people, person, product),
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


def _loans(
    seed: int, people: People, person: Ints, product: Ints, company: Ints, held: companies.Companies
) -> dict[str, Any]:
    """Amounts, terms and cars. A car belongs to its person: applying again is for the same one."""
    rng = part(seed, "loans")
    n, auto, business = len(person), product == AUTO, product == BUSINESS
    cars = market.cars(rng, part(seed, "cars"), people.income)
    wanted = np.exp(2.5 + 0.75 * np.log(people.income[person]) + rng.normal(0, 0.75, n))
    consumer = np.where(rng.random(n) < 0.3, np.round(wanted, -3) - 1, np.round(wanted, -2))  # a price tag: 5999, 8999
    financed = np.clip(np.round((cars.price - cars.down)[person], -2), 12_000, 1_500_000)
    auto_term = np.minimum(rng.choice(AUTO_TERMS, n, p=AUTO_TERM_SHARES), cars.term_max[person])
    term = np.where(auto, auto_term, rng.choice(CONSUMER_TERMS, n, p=CONSUMER_TERM_SHARES))
    of_business = part(seed, "business loans")
    business_term = of_business.choice(companies.TERMS, n, p=companies.TERM_SHARES)
    return {
        "amount": np.where(
            business, companies.asked(of_business, held, company),
            np.where(auto, financed, np.clip(consumer, 1000, 300_000)),
        ),
        "term": np.where(business, business_term, term),
        "vin": np.where(auto, person, -1), "company": np.where(business, company, -1),
        **{f.name: getattr(cars, f.name)[person] for f in fields(market.Cars) if f.name != "term_max"},
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


def _channels(seed: int, people: People, person: Ints, product: Ints) -> dict[str, Any]:
    """Where the application is made: in a shop on its tablet and Wi-Fi, or on one's own device from anywhere.

    Dealers sell goods, cars, or are agents who bring in businesses, numbered in the order of PRODUCTS; officer =
    4 * dealer + 0 .. 3, some lent by the next dealer.
    """
    rng = part(seed, "channels")
    n, count, households = len(person), len(people), int(people.household.max()) + 1
    of_product = [max(4, round(n / each)) for each in (1300, 350, 800)]
    start, dealers = np.cumsum([0, *of_product])[:-1], sum(of_product)
    several = [rng.choice(some, n, p=shares(rng, some, 0.8)) for some in of_product]
    dealer = start[product] + np.choose(product, several)
    in_shop = (product == AUTO) | (rng.random(n) < 0.5)
    lent = rng.random(n) < 0.06
    officer = 4 * ((dealer + lent) % dealers) + rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    own = np.where(rng.random(count) < 0.1, count + people.household, np.arange(count))  # a family device
    tablet = count + households + 2 * dealer + rng.integers(0, 2, n)
    on_tablet = in_shop & (rng.random(n) < np.choose(product, [0.85, 0.6, 0.3]))
    # IPs: homes, then offices, shops and mobile gateways
    offices, shops = households, households + int(people.employer.max()) + 1
    gateways = shops + dealers
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
    shops = np.flatnonzero(
        (drawn.dealer >= 0) & (drawn.product == CONSUMER) & (drawn.device > len(people) + people.household.max())
    )
    for _ in range(max(1, len(drawn) // 200)):
        employees = np.flatnonzero((people.employer == rng.choice(large)) & (drawn.product[: len(people)] == CONSUMER))
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
