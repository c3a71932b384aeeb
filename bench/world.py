"""A synthetic lending world from a seed: profiles, applications, outcomes of three products over 150 days, with rings.

For load, quality and demonstration where no lender's history can be published; how hard it is, `best_single_feature`
tells. Every application is followed to its outcome as if it had been paid out, and loans are shortened: a good one is
repaid after 30 to 60 days, so outcomes end 110 days after the last application. Same seed, same bytes. Identifiers are
drawn at random and events ordered by time alone: neither tells a label.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from bench import companies, market, population, rings, sources
from bench.identifiers import Identifiers
from bench.market import NEW, NEW_ENERGY, USED
from bench.people import Bools, Floats, Ints, People, applicants, part
from bench.population import AUTO, BUSINESS, CONSUMER, DAY_MS, HOUR_MS, PRODUCTS, Applications
from features.replay import Rows
from models.evaluate import auc
from proto.miaopi.v1 import decision_pb2 as pb

DEFAULT_RATE = 0.05
START_MS = 1_735_660_800_000  # 2025-01-01 00:00 in Shanghai
SALES_DAYS = 3 * 365  # before it, over which `sales` were made
EDUCATION = ("primary", "secondary", "college", "bachelor", "master")
HOUSING = ("rent", "family", "mortgage", "owned")
CHANNELS, CHANNEL_SHARES = ("app", "branch", "partner"), [0.72, 0.1, 0.18]  # of those who come through no dealer

Event = pb.DecideRequest | pb.ReportOutcomeRequest


@dataclass(frozen=True)
class Truth:
    """What an application really is; `ring` is -1 where honest. `default`: the borrower was reported as not paying.

    vehicle_value: what the car is worth, CNY; NaN where the application has none."""

    fraud: bool
    fraud_kind: str
    default: bool
    ring: int
    vehicle_value: float


@dataclass(frozen=True)
class World:
    """`profiles` come before all `events`, whose times strictly increase; `truth` is by application_id."""

    seed: int
    profiles: list[pb.PutProfileRequest]
    events: list[Event]
    truth: dict[str, Truth]


def build(seed: int, applications: int, tenant: str = "demo", start_ms: int = START_MS) -> World:
    """A world with that many applications, at least 1,000: below it shops have no customers to share a tablet.

    Figures of quality need 20,000: fewer rings vary too much from seed to seed.
    """
    if applications < 1000:
        raise ValueError(f"applications: at least 1000, is {applications}")
    people = applicants(seed, round(applications * (1 - population.REPEAT_SHARE)))
    drawn = population.applications(seed, people, applications)
    planted = rings.plant(part(seed, "rings"), people, drawn)
    ring = np.full(applications, -1)
    for i, one in enumerate(planted):
        ring[one.rows] = i
    defaults = _defaults(part(seed, "defaults"), people, drawn) & (ring < 0)
    ids = Identifiers(seed, people, drawn)
    rng = part(seed, "outcomes")
    timed: list[tuple[int, Event]] = []
    truth = {}
    for row, request in enumerate(_requests(seed, people, drawn, ids, tenant, start_ms)):
        time_ms, fraud = int(drawn.time_ms[row]), bool(ring[row] >= 0)
        timed.append((time_ms, request))
        unpaid = False
        for number, (days, kind) in enumerate(_outcomes(rng, fraud, bool(defaults[row]))):
            report = pb.ReportOutcomeRequest(
                tenant=tenant, application_id=request.application_id, kind=kind,
                outcome_id=f"{request.application_id}-{number}",
            )  # fmt: skip
            timed.append((time_ms + round(days * DAY_MS), report))
            unpaid |= kind in (pb.OUTCOME_KIND_FIRST_PAYMENT_DEFAULT, pb.OUTCOME_KIND_PAST_DUE_90)
        fraud_kind = planted[ring[row]].kind if fraud else ""
        worth = float(drawn.value[row]) if drawn.auto[row] else np.nan
        truth[request.application_id] = Truth(fraud, fraud_kind, unpaid, int(ring[row]), worth)
    return World(seed, list(_profiles(seed, people, drawn, ids, tenant, start_ms)), _in_order(timed, start_ms), truth)


def sales(seed: int, count: int) -> pl.DataFrame:
    """`count` used-car sales, at auctions and to dealers, of three years before the world's start, in order of time."""
    rng = part(seed, "sales")
    kind = rng.choice(market.KINDS, count, p=[0.1, 0.52, 0.28, 0.1])
    unsold = (kind == NEW) | ((kind != USED) & (rng.random(count) < 0.25))  # registered and never driven
    age = np.where(unsold, 0, rng.integers(10, 121, count))
    list_price = market.list_price(rng.lognormal(11.5, 0.6, count))
    mileage, battery = market.mileage_km(rng, age), market.battery_health(rng, age)
    days = np.sort(rng.integers(1, SALES_DAYS + 1, count))[::-1]
    price = market.value(kind, list_price, age, mileage, battery, rng.normal(0, 1, count), -days / 365)
    return pl.DataFrame({
        "vehicle_kind": [pb.VehicleKind.Name(k).removeprefix("VEHICLE_KIND_").lower() for k in kind.tolist()],
        "list_price": list_price, "vehicle_age_months": age, "vehicle_mileage_km": mileage,
        "battery_health": pl.Series(np.where(kind == NEW_ENERGY, battery, np.nan)).fill_nan(None),
        "sold_at": [date(2025, 1, 1) - timedelta(days=d) for d in days.tolist()],
        "sale_price": np.round(price, -2),
    })  # fmt: skip


def best_single_feature(rows: Rows) -> tuple[str, float]:
    """Name and AUC of the feature that alone tells fraud best among labelled rows, in whichever direction."""
    known = rows.labels["fraud"] >= 0
    bad = rows.labels["fraud"][known] == 1
    features = rows.snapshot.features[known]
    aucs = [single_auc(features[:, i], bad) for i in range(features.shape[1])]
    best = int(np.argmax(aucs))
    return rows.schema.feature_names[best], aucs[best]


def single_auc(values: np.typing.NDArray[np.float32], bad: Bools) -> float:
    """AUC of float32 [N] values, at least 0.5; NaN counts as the median, least or greatest, whichever is best."""
    present = values[~np.isnan(values)]
    if not len(present):
        return 0.5
    best = 0.5
    for missing in (np.median(present), present.min() - 1, present.max() + 1):
        one_way = auc(bad.astype(np.int8), np.where(np.isnan(values), missing, values).astype(np.float64))
        best = max(best, one_way, 1 - one_way)
    return best


def _defaults(rng: np.random.Generator, people: People, drawn: Applications) -> Bools:
    """Who will not pay: strain, a loan large for the true income, a used car (2.9 times the bad rate of new, R8); of a
    business the company's strain, youth and falling sales as well, and a loan large for what it truly sells."""
    held, company = drawn.companies, drawn.company
    earned = np.where(drawn.business, held.revenue[company], people.income[drawn.person])
    burden = np.log(drawn.amount / drawn.term / earned)
    for some in (drawn.business, ~drawn.business):
        burden[some] = (burden[some] - burden[some].mean()) / burden[some].std()
    used = drawn.auto & (drawn.kind == USED)
    log_odds: Floats = 1.9 * people.strain[drawn.person] + 0.5 * burden + 0.9 * used
    of_company = 0.8 + 1.6 * held.strain - 1.5 * held.trend - 0.5 * np.minimum(held.age_months / 36, 2)
    log_odds += np.where(drawn.business, of_company[company] - 0.8 * people.strain[drawn.person], 0)
    low, high = -20.0, 20.0
    for _ in range(40):  # the intercept that gives DEFAULT_RATE
        middle = (low + high) / 2
        low, high = (low, middle) if np.mean(1 / (1 + np.exp(-log_odds - middle))) > DEFAULT_RATE else (middle, high)
    return np.asarray(rng.random(len(drawn)) < 1 / (1 + np.exp(-log_odds - low)))


def _outcomes(rng: np.random.Generator, fraud: bool, default: bool) -> Iterator[tuple[float, "pb.OutcomeKind"]]:
    """Days after the application and what was reported then."""
    chance, speed = rng.random(2)
    if fraud:
        if chance < 0.88:
            yield 5 + 35 * speed**1.5, pb.OUTCOME_KIND_FRAUD_CONFIRMED
        elif chance < 0.95:  # nobody finds out
            yield 33 + 7 * speed, pb.OUTCOME_KIND_FIRST_PAYMENT_DEFAULT
        return
    if default:
        if chance < 0.4:
            yield 33 + 7 * speed, pb.OUTCOME_KIND_FIRST_PAYMENT_DEFAULT
        else:
            yield 35 + 10 * speed, pb.OUTCOME_KIND_PAST_DUE_30
            yield 95 + 15 * speed, pb.OUTCOME_KIND_PAST_DUE_90
        return
    if chance < 0.08:  # approved, not taken up
        return
    if chance < 0.095:
        yield 2 + 8 * speed, pb.OUTCOME_KIND_FRAUD_CLEARED
    elif chance < 0.097:  # a mistake, taken back
        yield 5 + 10 * speed, pb.OUTCOME_KIND_FRAUD_CONFIRMED
        yield 18 + 10 * speed, pb.OUTCOME_KIND_RETRACTED
    elif chance < 0.13:
        yield 31 + speed, pb.OUTCOME_KIND_PAST_DUE_30
        yield 36 + 24 * speed, pb.OUTCOME_KIND_REPAID
        return
    yield 30 + 30 * speed, pb.OUTCOME_KIND_REPAID


def _in_order(timed: list[tuple[int, Event]], start_ms: int) -> list[Event]:
    """Events by time, a millisecond apart at least."""
    timed.sort(key=lambda pair: pair[0])
    last = -1
    for time_ms, event in timed:
        last = max(time_ms, last + 1)
        event.event_time_ms = start_ms + last
    return [event for _, event in timed]


def _requests(
    seed: int, people: People, drawn: Applications, ids: Identifiers, tenant: str, start_ms: int
) -> Iterator[pb.DecideRequest]:
    rng = part(seed, "declarations")
    count = len(people)
    consents, refuses = rng.random(count) < 0.97, rng.random(len(drawn)) < 0.004
    income = np.round(people.income * people.inflation, -2)
    elsewhere = part(seed, "channel").choice(CHANNELS, len(drawn), p=CHANNEL_SHARES)
    channel = np.where(drawn.dealer >= 0, "dealer", elsewhere)
    revenue = np.round(12 * drawn.companies.revenue * drawn.companies.inflation, -3)
    for row in range(len(drawn)):
        person = int(drawn.person[row])
        product = int(drawn.product[row])
        time_ms = start_ms + int(drawn.time_ms[row])
        request = pb.DecideRequest(
            application_id=ids.applications[row], tenant=tenant, product=PRODUCTS[product], currency="CNY",
            amount_minor=int(drawn.amount[row]) * 100, term_months=int(drawn.term[row]),
            repayment_method=pb.REPAYMENT_METHOD_EQUAL_INSTALMENT,
            upfront_fee_minor=int(drawn.amount[row]) * 3 // 10 if product == CONSUMER else 0,  # 0.3 %
            applicant_id=ids.applicants[person], human_review_requested=bool(refuses[row]),
            entities=[pb.Entity(type=kind, id=text) for kind, text in ids.entities(row)],
            vehicle=_vehicle(drawn, row, ids) if product == AUTO else None,
        )  # fmt: skip
        if consents[person]:
            request.consents.add(purpose="contacts", given_at_ms=time_ms - HOUR_MS)
        features = request.features
        features["declared_income"].number = income[person]
        features["age_years"].number = int((time_ms / DAY_MS - people.birth_day[person]) / 365.25)
        features["employment_months"].number = min(int(people.employment_months[person]), 600)
        features["dependents"].number = int(people.dependents[person])
        features["education"].text = EDUCATION[people.education[person]]
        features["housing"].text = HOUSING[people.housing[person]]
        features["channel"].text = str(channel[row])
        if product == BUSINESS:
            company = int(drawn.company[row])
            features["declared_revenue"].number = revenue[company]
            features["employees"].number = int(drawn.companies.employees[company])
            features["industry"].text = companies.INDUSTRIES[drawn.companies.industry[company]]
        yield request


def _vehicle(drawn: Applications, row: int, ids: Identifiers) -> pb.Vehicle:
    kind = int(drawn.kind[row])
    return pb.Vehicle(
        vin=ids.vehicles[drawn.vin[row]], kind=pb.VehicleKind.Name(kind), price_minor=int(drawn.price[row]) * 100,
        down_payment_minor=int(drawn.down[row]) * 100, age_months=int(drawn.age_months[row]),
        mileage_km=int(drawn.mileage_km[row]), list_price_minor=int(drawn.list_price[row]) * 100,
        battery_health=float(drawn.battery[row]) if kind == NEW_ENERGY else None,
    )  # fmt: skip


def _profiles(
    seed: int, people: People, drawn: Applications, ids: Identifiers, tenant: str, start_ms: int
) -> Iterator[pb.PutProfileRequest]:
    """One record of each source for each person, car or company, fetched before the first application."""
    first = np.full(len(people), np.iinfo(np.int64).max)
    np.minimum.at(first, drawn.person, drawn.time_ms)
    product = np.zeros(len(people), dtype=np.int64)
    np.maximum.at(product, drawn.person, drawn.product)
    subjects = {
        "applicant": (np.arange(len(people)), ids.applicants, product),
        "vehicle": (_brought(drawn, AUTO, drawn.vin, first), ids.vehicles, np.full(len(people), AUTO)),
        "company": (_brought(drawn, BUSINESS, drawn.company, first), ids.companies, np.full(len(people), BUSINESS)),
    }
    for source in sources.GAPS:
        rng = part(seed, f"source {source}")
        records = sources.records(rng, source, people, drawn)
        known, names, products = subjects[sources.ABOUT.get(source, "applicant")]
        fetched = (start_ms + first - records.lag_ms).tolist()
        patchy = sources.FIELD_GAP[source in sources.OFTEN_OLD]
        columns = [
            (name, values.tolist(), rng.random(len(people)) >= patchy) for name, values in records.columns.items()
        ]
        for person in np.flatnonzero(records.held & (known >= 0)).tolist():
            profile = pb.PutProfileRequest(
                tenant=tenant, product=PRODUCTS[products[person]], source=source, fetched_at_ms=fetched[person],
                subject_id=names[known[person]],
            )  # fmt: skip
            for name, values, present in columns:
                if present[person] and name == "company_tax_grade":
                    profile.features[name].text = companies.TAX_GRADES[int(values[person])]
                elif present[person]:
                    profile.features[name].number = values[person]
            if profile.features:
                yield profile


def _brought(drawn: Applications, product: int, things: Ints, first: Ints) -> Ints:
    """int64 [P]: the car or company of whoever was the first to apply with it, -1 of the others: one may be pledged
    or passed on."""
    held = np.full(len(first), -1)
    rows = drawn.product == product
    held[drawn.person[rows]] = things[rows]
    by_time = np.argsort(first)
    owners = by_time[np.unique(held[by_time], return_index=True)[1]]
    brought = np.full(len(first), -1)
    brought[owners] = held[owners]
    return brought
