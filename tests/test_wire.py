"""Every bad field of a request is refused by its name, and what passes becomes the right Application."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from features import schema as schemas
from features.application import InvalidFieldError, subject_token
from features.schema import Schema
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire
from tests.conftest import ROOT, TOKENIZER
from tests.requests import business_request, car_request, loan_request

AUTO = schemas.load(ROOT / "features/schemas/auto.yaml")
SMALL_BUSINESS = schemas.load(ROOT / "features/schemas/small_business.yaml")


def test_application(consumer: Schema) -> None:
    made = wire.application(loan_request("a-1"), consumer, TOKENIZER, replaying=False)
    assert (made.application_id, made.amount_minor, made.term_months) == ("a-1", 2_000_000, 12)
    assert made.repayment == "equal_instalment"
    assert made.numbers["amount"] == 20_000.0 and made.numbers["education"] == 3.0
    assert np.count_nonzero(made.tokens) == 4  # applicant, device, phone, one contact with consent


def test_vehicle(consumer: Schema) -> None:
    made = wire.application(car_request("c-1"), AUTO, TOKENIZER, replaying=False)
    assert made.numbers["vehicle_kind"] == 1.0 and made.numbers["down_payment"] == 30_000.0
    assert made.tokens[AUTO.entities["vehicle"].first_slot] != 0
    assert "battery_health" not in made.numbers and "vehicle_list_price" not in made.numbers
    request = car_request("c-2")
    request.vehicle.list_price_minor = 15_880_000
    made = wire.application(request, AUTO, TOKENIZER, replaying=False)
    assert made.numbers["vehicle_list_price"] == 158_800.0


def test_a_company_is_an_entity_like_any_other(consumer: Schema) -> None:
    """A new product brings its own things by name, on the same wire; what is not its own is refused."""
    request = business_request("b-1")
    made = wire.application(request, SMALL_BUSINESS, TOKENIZER, replaying=False)
    company = SMALL_BUSINESS.entities["company"].first_slot
    assert made.numbers["declared_revenue"] == 2_000_000.0 and made.numbers["industry"] == 0.0
    assert made.tokens[company] == subject_token(SMALL_BUSINESS, TOKENIZER, "company_tax", " 9144030071526726xg")
    assert made.tokens[company] != made.tokens[company + 1] != 0
    known = pb.PutProfileRequest(
        tenant="demo", product="small_business", source="company_tax", subject_id="9144030071526726XG", fetched_at_ms=1,
        features={"company_revenue": pb.FeatureValue(number=1.8e6), "company_tax_grade": pb.FeatureValue(text="M")},
    )  # fmt: skip
    numbers = wire.profile(known, SMALL_BUSINESS, replaying=True).numbers
    assert dict(zip(SMALL_BUSINESS.sources["company_tax"].features, numbers, strict=True))["company_tax_grade"] == 2.0
    with pytest.raises(InvalidFieldError, match=r"entities\[3\].type: is no entity type of consumer"):
        del request.features["declared_revenue"], request.features["employees"], request.features["industry"]
        wire.application(request, consumer, TOKENIZER, replaying=False)


def test_body_hash_ignores_map_order_and_nothing_else(consumer: Schema) -> None:
    one, same, other = loan_request("a"), loan_request("a"), loan_request("a")
    for name in reversed(sorted(same.features)):
        value = pb.FeatureValue.FromString(same.features[name].SerializeToString())
        del same.features[name]
        same.features[name].CopyFrom(value)
    other.features["age_years"].number = 31
    hashes = [wire.application(r, consumer, TOKENIZER, False).body_hash for r in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]


Change = Callable[[pb.DecideRequest], object]
BAD: list[tuple[str, Change]] = [
    ("application_id", lambda r: r.ClearField("application_id")),
    ("application_id", lambda r: setattr(r, "application_id", "x" * 129)),
    ("application_id", lambda r: setattr(r, "application_id", "a\x00b")),
    ("currency", lambda r: setattr(r, "currency", "USD")),
    ("amount_minor", lambda r: setattr(r, "amount_minor", -1)),
    ("amount_minor", lambda r: setattr(r, "amount_minor", 2**62)),
    ("term_months", lambda r: setattr(r, "term_months", 0)),
    ("repayment_method", lambda r: setattr(r, "repayment_method", 0)),
    ("repayment_method", lambda r: setattr(r, "repayment_method", 99)),
    ("upfront_fee_minor", lambda r: setattr(r, "upfront_fee_minor", -5)),
    ("monthly_fee_minor", lambda r: setattr(r, "monthly_fee_minor", 2_000_001)),
    ("applicant_id", lambda r: r.ClearField("applicant_id")),
    ("entities[0].type", lambda r: setattr(r.entities[0], "type", "ufo")),
    ("entities", lambda r: r.entities.extend(pb.Entity(type="device", id=str(i)) for i in range(10_000))),
    ("consents[0].purpose", lambda r: r.consents[0].ClearField("purpose")),
    ("consents", lambda r: r.consents.extend([r.consents[0]] * 64)),
    ("consents[0].given_at_ms", lambda r: r.consents[0].ClearField("given_at_ms")),
    ("consents[0].given_at_ms", lambda r: setattr(r.consents[0], "given_at_ms", 1000 * int(time.time() + 400))),
    ("features[horoscope]", lambda r: setattr(r.features["horoscope"], "number", 1)),
    ("features[tax_income]", lambda r: setattr(r.features["tax_income"], "number", 1)),
    ("features[verified_income]", lambda r: setattr(r.features["verified_income"], "number", 1)),
    ("features[declared_income]", lambda r: setattr(r.features["declared_income"], "number", float("nan"))),
    ("features[declared_income]", lambda r: setattr(r.features["declared_income"], "number", float("inf"))),
    ("features[declared_income]", lambda r: setattr(r.features["declared_income"], "number", -1)),
    ("features[declared_income]", lambda r: setattr(r.features["declared_income"], "text", "much")),
    ("features[education]", lambda r: setattr(r.features["education"], "text", "wizard")),
    ("vehicle", lambda r: setattr(r.vehicle, "vin", "LSVAA49J132047882")),
    ("event_time_ms", lambda r: setattr(r, "event_time_ms", 1_700_000_000_000)),
]


@pytest.mark.parametrize(("field", "change"), BAD, ids=[f"{f}-{i}" for i, (f, _) in enumerate(BAD)])
def test_bad_field_is_named(consumer: Schema, field: str, change: Change) -> None:
    request = loan_request("a-1")
    change(request)
    with pytest.raises(InvalidFieldError) as refusal:
        wire.application(request, consumer, TOKENIZER, replaying=False)
    assert refusal.value.field == field


BAD_VEHICLE: list[tuple[str, Change]] = [
    ("vehicle", lambda r: r.ClearField("vehicle")),
    ("vehicle.vin", lambda r: r.vehicle.ClearField("vin")),
    ("vehicle.kind", lambda r: r.vehicle.ClearField("kind")),
    ("vehicle.price_minor", lambda r: r.vehicle.ClearField("price_minor")),
    ("vehicle.down_payment_minor", lambda r: setattr(r.vehicle, "down_payment_minor", 10**12)),
    ("vehicle.age_months", lambda r: setattr(r.vehicle, "age_months", -1)),
    ("vehicle.mileage_km", lambda r: setattr(r.vehicle, "mileage_km", -1)),
    ("vehicle.battery_health", lambda r: setattr(r.vehicle, "battery_health", float("nan"))),
    ("vehicle.list_price_minor", lambda r: setattr(r.vehicle, "list_price_minor", -1)),
    ("vehicle.list_price_minor", lambda r: setattr(r.vehicle, "list_price_minor", 10**15 + 1)),
]


@pytest.mark.parametrize(("field", "change"), BAD_VEHICLE, ids=[f"{f}-{i}" for i, (f, _) in enumerate(BAD_VEHICLE)])
def test_bad_vehicle_is_named(field: str, change: Change) -> None:
    request = car_request("c-1")
    change(request)
    with pytest.raises(InvalidFieldError) as refusal:
        wire.application(request, AUTO, TOKENIZER, replaying=False)
    assert refusal.value.field == field


def test_replaying_needs_event_times(consumer: Schema) -> None:
    with pytest.raises(InvalidFieldError, match=r"^event_time_ms: "):
        wire.application(loan_request("a"), consumer, TOKENIZER, replaying=True)


def test_profile(consumer: Schema) -> None:
    request = pb.PutProfileRequest(source="bureau", fetched_at_ms=5)
    request.features["bureau_overdue_24m"].number = 2
    profile = wire.profile(request, consumer, replaying=False)
    assert profile.numbers[0] == 2.0 and np.isnan(profile.numbers[1:]).all()
    changes: list[tuple[str, Callable[[pb.PutProfileRequest], object]]] = [
        ("fetched_at_ms", lambda r: r.ClearField("fetched_at_ms")),
        ("fetched_at_ms", lambda r: setattr(r, "fetched_at_ms", time.time_ns() // 1000)),  # microseconds
        ("features", lambda r: r.features.clear()),
        ("features[tax_income]", lambda r: setattr(r.features["tax_income"], "number", 1)),
        ("features[bureau_age_days]", lambda r: setattr(r.features["bureau_age_days"], "number", 1)),
    ]
    for field, change in changes:
        bad = pb.PutProfileRequest.FromString(request.SerializeToString())
        change(bad)
        with pytest.raises(InvalidFieldError) as refusal:
            wire.profile(bad, consumer, replaying=False)
        assert refusal.value.field == field


def test_whom_a_source_knows(consumer: Schema) -> None:
    vin = "LSVAA49J132047882"
    made = wire.application(car_request("c"), AUTO, TOKENIZER, replaying=False)
    known = subject_token(AUTO, TOKENIZER, "vehicle_valuation", vin)
    assert known == made.tokens[AUTO.entities["vehicle"].first_slot] != made.tokens[0]
    assert subject_token(AUTO, TOKENIZER, "bureau", "id card of c") == made.tokens[0]
    for source, subject, field in (("gossip", "x", "source"), ("tax", "", "subject_id")):
        with pytest.raises(InvalidFieldError) as refusal:
            subject_token(consumer, TOKENIZER, source, subject)
        assert refusal.value.field == field


def test_report() -> None:
    good = pb.ReportOutcomeRequest(outcome_id="o", application_id="a", kind=pb.OUTCOME_KIND_REPAID)
    assert wire.report(good, replaying=False).kind == "repaid"
    for field, bad in (
        ("outcome_id", pb.ReportOutcomeRequest(application_id="a", kind=pb.OUTCOME_KIND_REPAID)),
        ("application_id", pb.ReportOutcomeRequest(outcome_id="o", kind=pb.OUTCOME_KIND_REPAID)),
        ("kind", pb.ReportOutcomeRequest(outcome_id="o", application_id="a")),
    ):
        with pytest.raises(InvalidFieldError) as refusal:
            wire.report(bad, replaying=False)
        assert refusal.value.field == field
