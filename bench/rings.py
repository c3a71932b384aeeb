"""Five kinds of fraud, planted among honest applications (R9): a ring takes rows over, in a burst of hours to days.

A ring changes what its members share (devices, contacts, an officer with a dealer, pieces of stolen identities) and
what is true of them (new numbers, risky devices, forged income, overvalued cars, invoices bought); the external
sources see only the latter. Members are drawn from the population, so what a ring does not touch looks honest, and its
first members share nothing with anyone yet.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from bench import companies, market
from bench.people import Ints, People
from bench.population import AUTO, BUSINESS, CONSUMER, CONTACTS, DAY_MS, HOUR_MS, WINDOW_DAYS, Applications

DEVICE_FARM, SHARED_CONTACTS = "device_farm", "shared_contacts"
COLLUSION, IDENTITY_MIXING = "collusion", "identity_mixing"
SHELL_COMPANIES = "shell_companies"
FRAUD_RATE = 0.044
RING_SIZES = (4, 25)
GOLDEN_RATIO = 0.6180339887


@dataclass(frozen=True)
class Ring:
    """One ring: its kind and the rows it took over, in the order they apply."""

    kind: str
    rows: Ints


def plant(rng: np.random.Generator, people: People, drawn: Applications) -> list[Ring]:
    """Turns FRAUD_RATE of the applications into rings; writes into `people` and `drawn`."""
    once = np.flatnonzero(np.bincount(drawn.person) == 1)
    free = [list(rng.permutation(once[drawn.product[once] == product])) for product in (CONSUMER, AUTO, BUSINESS)]
    shared = (drawn.device, drawn.phone, drawn.contacts, drawn.card, drawn.ip, drawn.address)
    fresh = 1 + max(int(column.max()) for column in shared)  # from here on integers name nothing yet
    rings: list[Ring] = []
    offset = rng.random()
    left = round(FRAUD_RATE * len(drawn))
    while left > 0:
        low, high = RING_SIZES
        size = int(np.clip(rng.gamma(2.2, 5), low, min(high, max(left, low))))
        kind = list(_KINDS)[len(rings) % len(_KINDS)]
        rows = np.array([free[product].pop() for product in rng.choice(len(free), size, p=_KINDS[kind].products)])
        offset = (offset + GOLDEN_RATIO) % 1  # rings are spread evenly
        _burst(rng, drawn, rows, offset, _KINDS[kind].days)
        ordinary = _some(rng, drawn.person[rows], 0.1)  # real people with true papers, recruited
        untouched = [getattr(people, f.name)[ordinary] for f in fields(people)]
        _template(rng, people, drawn, rows)
        fresh = _KINDS[kind].take_over(rng, people, drawn, rows, fresh)
        for f, values in zip(fields(people), untouched, strict=True):
            getattr(people, f.name)[ordinary] = values
        rings.append(Ring(kind, rows))
        left -= size
    return rings


def _burst(rng: np.random.Generator, drawn: Applications, rows: Ints, offset: float, days: tuple[float, float]) -> None:
    """Application times of a ring; `offset` 0 .. 1 tells when, by the share of all applications made before."""
    start = np.quantile(drawn.time_ms, 0.98 * offset)
    length = min(np.exp(rng.uniform(np.log(days[0]), np.log(days[1]))), WINDOW_DAYS - start / DAY_MS) * DAY_MS
    moments = np.sort(start + rng.beta(1, 1.3, len(rows)) * length)
    hour = moments // HOUR_MS % 24
    drawn.time_ms[rows] = np.sort(moments + np.where(hour < 7, 7 * HOUR_MS, 0)).astype(np.int64)


def _template(rng: np.random.Generator, people: People, drawn: Applications, rows: Ints) -> None:
    """Members ask for about the same, for the same term, and declare about the same income and age of job."""
    members = drawn.person[rows]
    income = np.exp(rng.normal(8.9, 0.25))
    same = rng.random(len(rows)) < 0.6
    told = np.round(income * rng.normal(1, 0.04, len(rows)), -2)
    people.inflation[members[same]] = np.clip(told / people.income[members], 0.9, 1.6)[same]
    people.employment_months[members[same]] = rng.integers(8, 60) + rng.integers(0, 4, int(same.sum()))
    consumer = rows[same & (drawn.product[rows] == CONSUMER)]
    asked = income * rng.uniform(0.9, 3) * rng.normal(1, 0.05, len(consumer))
    drawn.amount[consumer] = np.clip(np.round(asked, -2), 2_000, 200_000)
    drawn.term[rows[same]] = np.where(drawn.auto[rows[same]], 36, rng.choice([6, 12, 24]))


def _some(rng: np.random.Generator, rows: Ints, share: float) -> Ints:
    """About that share of the rows, or people."""
    return rows[rng.random(len(rows)) < share]


def _device_farm(rng: np.random.Generator, people: People, drawn: Applications, rows: Ints, fresh: int) -> int:
    """A few phones or emulators behind a few proxies, new numbers."""
    members = drawn.person[rows]
    devices = fresh + np.arange(max(1, len(rows) // 7))
    on_farm = _some(rng, rows, 0.92)
    drawn.device[on_farm] = rng.choice(devices, len(on_farm))
    proxied = _some(rng, rows, 0.4)
    drawn.ip[proxied] = fresh + rng.integers(0, 3, len(proxied))
    people.device_risk[members] += rng.normal(1.6, 0.6, len(rows))
    people.emulator_rate[_some(rng, members, 0.4)] = 0.7
    _new_numbers(rng, people, members, 0.45)
    people.appetite[members] += 0.9
    return fresh + len(rows)


def _shared_contacts(rng: np.random.Generator, people: People, drawn: Applications, rows: Ints, fresh: int) -> int:
    """The same two or three accomplices answer for everybody's job and character; income forged."""
    members = drawn.person[rows]
    accomplices = fresh + np.arange(rng.integers(2, 4))
    answers = rng.integers(0, len(accomplices), len(rows))
    slots = rng.permuted(np.tile(np.arange(CONTACTS), (len(rows), 1)), axis=1)
    for nth, share in ((0, 0.95), (1, 0.8)):
        named = rng.random(len(rows)) < share
        drawn.contacts[rows[named], slots[named, nth]] = accomplices[(answers + nth) % len(accomplices)][named]
    drawn.employer[_some(rng, rows, 0.4)] = drawn.employer[rows[0]]
    _forge(rng, people, members, 0.75)
    _new_numbers(rng, people, members, 0.25)
    people.device_risk[members] += rng.normal(0.7, 0.6, len(rows))
    people.appetite[members] += 1.0
    people.taint[members] += 1.4
    return fresh + len(accomplices)


def _collusion(rng: np.random.Generator, people: People, drawn: Applications, rows: Ints, fresh: int) -> int:
    """An officer and a dealer bring people in: income forged together, used cars priced above their worth."""
    members = drawn.person[rows]
    hosts = np.flatnonzero((drawn.dealer >= 0) & drawn.auto)
    host = rng.choice(hosts)
    drawn.dealer[rows] = drawn.dealer[host]
    brought = _some(rng, rows, 0.85)
    drawn.officer[brought] = drawn.officer[host]
    drawn.ip[_some(rng, rows, 0.5)] = drawn.ip[host]
    drawn.employer[_some(rng, rows, 0.3)] = drawn.employer[rows[0]]
    cars = _some(rng, rows[drawn.auto[rows]], 0.85)
    drawn.kind[cars] = market.USED
    drawn.age_months[cars] = rng.integers(24, 110, len(cars))
    drawn.mileage_km[cars] = drawn.age_months[cars] * rng.integers(900, 2200, len(cars))
    drawn.value[cars] = market.value(
        drawn.kind[cars], drawn.list_price[cars], drawn.age_months[cars], drawn.mileage_km[cars], drawn.battery[cars],
        drawn.condition[cars],
    )  # fmt: skip
    drawn.price[cars] = np.round(drawn.value[cars] * rng.uniform(1.15, 1.6, len(cars)), -2)
    drawn.down[cars] = np.round(drawn.price[cars] * rng.uniform(0.3, 0.35, len(cars)), -2)
    drawn.amount[cars] = np.maximum(np.round((drawn.price - drawn.down)[cars], -2), 12_000)
    for column in (drawn.vin, drawn.kind, drawn.list_price, drawn.value, drawn.price, drawn.down, drawn.amount,
                   drawn.age_months, drawn.mileage_km, drawn.battery) if len(cars) else ():  # fmt: skip
        column[cars[1::7]] = column[cars[0]]  # one car pledged again
    _forge(rng, people, members, 0.85)
    return fresh


def _identity_mixing(rng: np.random.Generator, people: People, drawn: Applications, rows: Ints, fresh: int) -> int:
    """Phones, cards, addresses and devices of stolen identities, put together anew for each application."""
    members = drawn.person[rows]
    pool = max(2, len(rows) // 4)
    for column, share in ((drawn.phone, 0.65), (drawn.card, 0.75), (drawn.address, 0.75), (drawn.device, 0.65)):
        mixed = _some(rng, rows, share)
        column[mixed] = fresh + rng.integers(0, pool, len(mixed))
    people.device_risk[members] += rng.normal(1.2, 0.6, len(rows))
    people.taint[members] += 1.6
    people.appetite[members] += 1.0
    people.history_rate[_some(rng, members, 0.5)] *= 0.3
    _new_numbers(rng, people, members, 0.45)
    return fresh + pool


def _shell_companies(rng: np.random.Generator, people: People, drawn: Applications, rows: Ints, fresh: int) -> int:
    """An agent brings in companies that were dormant, or hardly trade: registered at one address, handed to new
    representatives, some to several in turn, with months of bought invoices to borrow on."""
    host = rng.choice(np.flatnonzero((drawn.dealer >= 0) & drawn.business))
    brought = _some(rng, rows, 0.6)
    drawn.dealer[brought], drawn.officer[brought] = drawn.dealer[host], drawn.officer[host]
    drawn.ip[_some(rng, rows, 0.3)] = drawn.ip[host]
    named = _some(rng, rows, 0.4)
    drawn.contacts[named, 1] = fresh + rng.integers(0, 2, len(named))
    owners = rows[drawn.business[rows]]
    drawn.company[owners[1::4]] = drawn.company[owners[: len(owners) - 1 : 4]]
    held, shells = drawn.companies, np.unique(_some(rng, drawn.company[owners], 0.85))
    held.premises[_some(rng, shells, 0.6)] = fresh
    held.change_rate[_some(rng, shells, 0.5)] = 1.3
    idle = _some(rng, shells, 0.6)
    held.employees[idle] = np.minimum(held.employees[idle], rng.integers(1, 9, len(idle)))
    bought = _some(rng, shells, 0.8)
    held.revenue[bought] *= 0.5
    held.invoiced[bought] = rng.uniform(1.8, 4.2, len(bought))
    held.inflation[bought] = held.invoiced[bought] * rng.uniform(0.95, 1.25, len(bought))
    held.trend[bought] = rng.normal(0.25, 0.25, len(bought))
    held.zero_rate[_some(rng, bought, 0.5)] = rng.uniform(0.1, 0.3)
    drawn.amount[owners] = companies.asked(rng, held, drawn.company[owners], months=1.7)
    people.appetite[drawn.person[rows]] += 0.5
    return fresh + 2


def _new_numbers(rng: np.random.Generator, people: People, members: Ints, share: float) -> None:
    new = _some(rng, members, share)
    people.phone_months[new] = rng.gamma(1.2, 2, len(new))


def _forge(rng: np.random.Generator, people: People, members: Ints, share: float) -> None:
    forged = _some(rng, members, share)
    people.inflation[forged] = np.maximum(people.inflation[forged], rng.uniform(1.4, 2.5, len(forged)))
    people.employment_months[forged] += rng.gamma(2, 15, len(forged))


@dataclass(frozen=True)
class _Kind:
    take_over: Callable[[np.random.Generator, People, Applications, Ints, int], int]
    products: tuple[float, float, float]  # chances of each, in their order
    days: tuple[float, float]  # shortest and longest burst


_KINDS = {
    DEVICE_FARM: _Kind(_device_farm, (0.7, 0.25, 0.05), (0.3, 7)),
    SHARED_CONTACTS: _Kind(_shared_contacts, (0.7, 0.25, 0.05), (0.5, 9)),
    COLLUSION: _Kind(_collusion, (0.3, 0.7, 0.0), (0.7, 9)),
    IDENTITY_MIXING: _Kind(_identity_mixing, (0.7, 0.25, 0.05), (0.3, 7)),
    SHELL_COMPANIES: _Kind(_shell_companies, (0.12, 0.0, 0.88), (3, 24)),
}
