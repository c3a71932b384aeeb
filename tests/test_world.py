"""The synthetic world: reproducible, in order, inside the schemas, and neither a toy nor noise."""

from collections import Counter, defaultdict
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench import history, market
from bench.identifiers import credit_code
from bench.rings import COLLUSION, DEVICE_FARM, IDENTITY_MIXING, SHARED_CONTACTS, SHELL_COMPANIES
from bench.world import World, best_single_feature, build, sales, single_auc
from features.application import feature_number
from features.replay import replay
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb

SCHEMAS = history.schemas_by_product()
PRODUCTS = {"consumer": 0.55, "auto": 0.3, "small_business": 0.15}


@pytest.fixture(scope="module")
def world() -> World:
    return build(7, 20_000)


def requests(world: World) -> list[pb.DecideRequest]:
    return [e for e in world.events if isinstance(e, pb.DecideRequest)]


def company_of(request: pb.DecideRequest) -> str:
    return next((e.id for e in request.entities if e.type == "company"), "")


def content(world: World) -> list[bytes]:
    return [m.SerializeToString(deterministic=True) for m in (*world.profiles, *world.events)]


def test_same_seed_same_bytes_other_seed_other() -> None:
    one = build(3, 1500)
    again = build(3, 1500)
    assert content(one) == content(again)
    assert one.truth == again.truth
    assert not set(content(one)) & set(content(build(4, 1500)))


def test_too_small_a_world_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        build(1, 999)


def test_events_are_in_order_and_outcomes_follow_their_application(world: World) -> None:
    assert len(requests(world)) == len(world.truth) == 20_000
    times = np.array([e.event_time_ms for e in world.events])
    assert (np.diff(times) >= 1).all()
    seen: set[str] = set()
    outcome_ids: set[str] = set()
    for event in world.events:
        if isinstance(event, pb.DecideRequest):
            assert event.application_id not in seen
            seen.add(event.application_id)
        else:
            assert event.application_id in seen
            assert event.outcome_id not in outcome_ids
            outcome_ids.add(event.outcome_id)


def test_profiles_are_fetched_before_the_first_application(world: World) -> None:
    first: dict[str, int] = {}
    for request in requests(world):
        for subject in (request.applicant_id, request.vehicle.vin, company_of(request)):
            first.setdefault(subject, request.event_time_ms)
    keys = [(p.subject_id, p.source) for p in world.profiles]
    assert len(set(keys)) == len(keys)
    assert all(p.fetched_at_ms < first[p.subject_id] for p in world.profiles)


def test_gaps_of_every_source(world: World) -> None:
    held = Counter(p.source for p in world.profiles)
    applicants = {r.applicant_id for r in requests(world)}
    cars = {r.vehicle.vin for r in requests(world) if r.product == "auto"}
    companies = {company_of(r) for r in requests(world) if r.product == "small_business"}
    assert set(held) == {source for schema in SCHEMAS.values() for source in schema.sources}
    for source, count in held.items():
        asked = cars if source == "vehicle_valuation" else companies if source.startswith("company") else applicants
        assert 0.005 < 1 - count / len(asked) < 0.075, source


def test_every_value_satisfies_the_schema(world: World) -> None:
    # the wire's own checks: names, ranges, entity types, slots, amounts, terms, vehicles
    tokenizer = Tokenizer(b"0" * 16)
    known = history.profiles(world.profiles, SCHEMAS, tokenizer)
    history.history(world.events, known, SCHEMAS, tokenizer)
    messages: list[pb.DecideRequest | pb.PutProfileRequest] = [*requests(world), *world.profiles]
    for message in messages:
        schema = SCHEMAS[message.product]
        for name, value in message.features.items():
            feature_number(schema, name, value.text if value.HasField("text") else value.number, name)


def test_rates_kinds_and_ring_sizes(world: World) -> None:
    truth = list(world.truth.values())
    honest = [t for t in truth if not t.fraud]
    kinds = Counter(t.fraud_kind for t in truth if t.fraud)
    rings = Counter(t.ring for t in truth if t.fraud)
    assert 0.04 <= 1 - len(honest) / len(truth) <= 0.06
    assert 0.04 <= np.mean([t.default for t in honest]) <= 0.06
    assert set(kinds) == {DEVICE_FARM, SHARED_CONTACTS, COLLUSION, IDENTITY_MIXING, SHELL_COMPANIES}
    assert min(kinds.values()) > 0.1 * sum(kinds.values())
    assert min(rings.values()) >= 4
    assert max(rings.values()) <= 25
    assert all(t.ring == -1 and not t.fraud_kind for t in honest)
    for product, share in PRODUCTS.items():
        of_product = [world.truth[r.application_id] for r in requests(world) if r.product == product]
        assert len(of_product) / len(truth) == pytest.approx(share, abs=0.02)
        assert 0.03 < np.mean([t.fraud for t in of_product]) < 0.07
        assert 0.03 < np.mean([t.default for t in of_product if not t.fraud]) < 0.085
    assert 0.95 < np.mean([any(c.purpose == "contacts" for c in r.consents) for r in requests(world)]) < 0.99


def test_labels_come_late_and_some_never(world: World) -> None:
    applied = {r.application_id: r.event_time_ms for r in requests(world)}
    confirmed, delays = set(), []
    for event in world.events:
        fraud = world.truth[event.application_id].fraud
        if isinstance(event, pb.ReportOutcomeRequest) and event.kind == pb.OUTCOME_KIND_FRAUD_CONFIRMED and fraud:
            confirmed.add(event.application_id)
            delays.append((event.event_time_ms - applied[event.application_id]) / 86_400_000)
    assert min(delays) >= 5
    assert max(delays) < 40.1
    assert 0.8 < len(confirmed) / sum(t.fraud for t in world.truth.values()) < 0.95


def test_honest_people_share_things_too(world: World) -> None:
    users: dict[tuple[str, str], set[str]] = defaultdict(set)
    honest = [r for r in requests(world) if not world.truth[r.application_id].fraud]
    for request in honest:
        for entity in request.entities:
            users[entity.type, entity.id].add(request.applicant_id)
    for kinds, least in (
        ({"device"}, 0.3),
        ({"phone"}, 0.02),
        ({"contact"}, 0.4),
        ({"address"}, 0.4),
        ({"card"}, 0.01),
    ):
        shared = [any(e.type in kinds and len(users[e.type, e.id]) > 1 for e in r.entities) for r in honest]
        assert np.mean(shared) > least, (kinds, np.mean(shared))


def test_identifiers_do_not_tell_the_label(world: World) -> None:
    fraud = np.array([world.truth[r.application_id].fraud for r in requests(world)])
    identifiers = {
        "application": [int(r.application_id, 16) for r in requests(world)],
        "applicant": [int(r.applicant_id[14:17]) for r in requests(world)],
        "phone": [next(int(e.id) for e in r.entities if e.type == "phone") for r in requests(world)],
        "device": [next(int(e.id, 16) for e in r.entities if e.type == "device") for r in requests(world)],
        "card": [next(int(e.id) for e in r.entities if e.type == "card") for r in requests(world)],
    }
    for name, numbers in identifiers.items():
        assert single_auc(np.array(numbers, dtype=np.float32), fraud) < 0.56, name


def test_no_single_feature_tells_fraud(world: World) -> None:
    tokenizer = Tokenizer(b"0" * 16)
    known = history.profiles(world.profiles, SCHEMAS, tokenizer)
    for rows in replay(history.history(world.events, known, SCHEMAS, tokenizer)).values():
        name, figure = best_single_feature(rows)
        assert 0.6 < figure < 0.77, name


def test_a_business_names_its_company_and_nobody_else_does(world: World) -> None:
    for request in requests(world):
        named = {e.type: e.id for e in request.entities}
        business = request.product == "small_business"
        assert ("company" in named) == ("company_address" in named) == business
        assert ("declared_revenue" in request.features) == ("industry" in request.features) == business
        if business:
            assert named["employer"] == named["company"] == credit_code(named["company"][:16])
    assert credit_code("9144030071526726") == "9144030071526726XG"  # Tencent's, as on its licence


def test_companies_under_strain_default_and_shells_are_passed_on(world: World) -> None:
    """What is true of companies shows in what the sources know, through noise; partners and parks are honest."""
    tax = {p.subject_id: p.features for p in world.profiles if p.source == "company_tax"}
    business = [r for r in requests(world) if r.product == "small_business"]
    truth = [world.truth[r.application_id] for r in business]
    users: dict[str, set[str]] = defaultdict(set)
    for request in business:
        users[company_of(request)].add(request.applicant_id)
    shell = np.array([t.fraud_kind == SHELL_COMPANIES for t in truth])
    honest, default = np.array([not t.fraud for t in truth]), np.array([t.default for t in truth])
    shared = np.array([len(users[company_of(r)]) > 1 for r in business])
    assert 0.05 < shared[honest].mean() < 0.2 < shared[shell].mean() < 0.7
    asked = ("company_revenue", "company_revenue_trend", "company_tax_grade")
    told: list[Any] = [tax.get(company_of(r), {}) for r in business]
    known = np.array([all(name in features for name in asked) for features in told])
    features = [some if k else None for some, k in zip(told, known, strict=True)]
    trend = np.array([f["company_revenue_trend"].number if f else np.nan for f in features])
    low_grade = np.array([f["company_tax_grade"].text in ("C", "D") if f else False for f in features])
    assert np.nanmean(trend[honest & default]) < np.nanmean(trend[honest & ~default]) - 0.1
    assert np.nanmean(trend[shell]) > np.nanmean(trend[honest]) + 0.1
    assert low_grade[known & honest & default].mean() > 1.5 * low_grade[known & honest & ~default].mean()
    declared = np.array([r.features["declared_revenue"].number for r in business])
    invoiced = np.array([f["company_revenue"].number if f else np.nan for f in features])
    assert np.nanmedian((declared / invoiced)[honest]) == pytest.approx(1.15, abs=0.15)


def test_cars_lose_value_with_age_mileage_and_battery_and_are_sold_at_it() -> None:
    assert sales(5, 2000).equals(sales(5, 2000)) and not sales(5, 2000).equals(sales(6, 2000))
    sold = sales(5, 20_000)
    assert sold["sold_at"].is_sorted() and sold["sold_at"].dtype == pl.Date
    assert sold["sold_at"].min() == date(2022, 1, 2) and sold["sold_at"].max() == date(2024, 12, 31)
    assert ((sold["vehicle_kind"] == "new_energy") == sold["battery_health"].is_not_null()).all()
    share = (pl.col("sale_price") / pl.col("list_price")).median()
    by_kind = dict(sold.group_by("vehicle_kind").agg(share).iter_rows())
    assert 0.98 < by_kind["new"] < 1.04 and by_kind["used"] < 0.6
    newest = sold.filter((pl.col("vehicle_kind") == "new_energy") & (pl.col("vehicle_age_months") == 0))
    assert newest[-300:].select(share).item() < 0.92 * newest[:300].select(share).item()  # prices fall
    months, nothing = np.arange(0, 121, 10), np.zeros(13)
    for kind in market.KINDS:
        kinds, price = np.full(13, kind), np.full(13, 100_000.0)
        km, worn, battery = (1280 * months).astype(np.int64), np.full(13, 60), np.linspace(0.6, 1, 13)
        assert (np.diff(market.value(kinds, price, months, km, nothing + 1, nothing)) < 0).all()
        assert (np.diff(market.value(kinds, price, worn, km, nothing + 1, nothing)) < 0).all()
        rises = np.diff(market.value(kinds, price, worn, km * 0, battery, nothing))
        assert (rises > 0).all() if kind == market.NEW_ENERGY else not rises.any()


def test_an_application_says_what_its_car_would_cost_new_and_not_what_it_is_worth(world: World) -> None:
    cars = [r for r in requests(world) if r.product == "auto"]
    worth = np.array([world.truth[r.application_id].vehicle_value for r in cars])
    listed = np.array([r.vehicle.list_price_minor for r in cars]) / 100
    driven = np.array([r.vehicle.age_months > 0 for r in cars])
    assert (worth > 12_000).all() and (listed >= 45_000).all()
    assert np.median(worth[~driven] / listed[~driven]) == pytest.approx(1.0, abs=0.02)
    assert np.median(worth[driven] / listed[driven]) < 0.6
    assert all(np.isnan(world.truth[r.application_id].vehicle_value) for r in requests(world) if r.product != "auto")


def test_single_auc_counts_ties_half_and_takes_either_direction() -> None:
    bad = np.array([True, True, False, False])
    assert single_auc(np.array([1, 2, 2, 3], dtype=np.float32), bad) == 0.875
    assert single_auc(np.array([1, 1, 1, 1], dtype=np.float32), bad) == 0.5
    assert single_auc(np.array([np.nan, np.nan, 1, 2], dtype=np.float32), bad) == 1.0
    assert single_auc(np.full(4, np.nan, dtype=np.float32), bad) == 0.5
