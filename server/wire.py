"""From the wire to value objects: every check of a request.

What passes here is valid; nothing is written before it passed. Checks raise InvalidFieldError with the field's path.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache

from features.application import (
    ENTITIES_MAX,
    NO_TOKENS,
    REPAYMENT_METHODS,
    Application,
    InvalidFieldError,
    Profile,
    Report,
    check_text,
    entity_tokens,
    feature_entry,
    feature_number,
    make_profile,
)
from features.assemble import SKEW_MS
from features.schema import Schema
from features.specs import OUTCOME_KINDS
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb

ID_MAX = 128
ENTITY_ID_MAX = 256
FEATURES_MAX = 1024
CONSENTS_MAX = 64
FETCHED_AHEAD_MS = 86_400_000  # a later fetch time is a mistake in its unit, and would never be replaced
EVENT_TIME_MAX = 4_102_444_800_000  # the year 2100: a log's clock never goes back
MONEY_MAX = 10**15  # minor units; far below where a float64 loses whole numbers
VEHICLE_KINDS = ("new", "used", "new_energy", "commercial")


def application(
    request: pb.DecideRequest,
    schema: Schema,
    tokenizer: Tokenizer,
    replaying: bool,
    consortium: Tokenizer | None = None,
) -> Application:
    """The checked Application of a request for a product of `schema`. Raises InvalidFieldError.

    consortium: makes the tokens that shared lists hold.
    """
    check_text("application_id", request.application_id, ID_MAX)
    if request.currency != schema.currency:
        raise InvalidFieldError("currency", f"must be {schema.currency}")
    _within("amount_minor", request.amount_minor, *schema.amount_minor)
    _within("term_months", request.term_months, *schema.term_months)
    _within("upfront_fee_minor", request.upfront_fee_minor, 0, request.amount_minor)
    _within("monthly_fee_minor", request.monthly_fee_minor, 0, request.amount_minor)
    repayment = _enum("repayment_method", request.repayment_method, REPAYMENT_METHODS)
    if len(request.entities) > ENTITIES_MAX:
        raise InvalidFieldError("entities", f"at most {ENTITIES_MAX}, are {len(request.entities)}")
    consents = _consents(request, replaying)
    numbers = feature_numbers(schema, request.features, "request", "")
    numbers.update(_application_numbers(request, schema))
    entities = [(e.type, e.id) for e in request.entities]
    if request.HasField("vehicle") and "vehicle" in schema.entities:
        entities.append(("vehicle", request.vehicle.vin))
    given = (request.applicant_id, entities, consents)
    return Application(
        application_id=request.application_id,
        tenant=request.tenant,
        schema=schema,
        product=request.product,
        amount_minor=request.amount_minor,
        term_months=request.term_months,
        tokens=entity_tokens(schema, tokenizer, *given),
        numbers=numbers,
        repayment=repayment,
        upfront_fee_minor=request.upfront_fee_minor,
        monthly_fee_minor=request.monthly_fee_minor,
        human_review_requested=request.human_review_requested,
        event_time_ms=_event_time(request.event_time_ms, replaying),
        body_hash=tokenizer.body_hash(request.SerializeToString(deterministic=True)),
        shared_tokens=NO_TOKENS if consortium is None else entity_tokens(schema, consortium, *given),
        consents=consents,
    )


def _consents(request: pb.DecideRequest, replaying: bool) -> dict[str, int]:
    """By purpose, when consent was last given. One from the future would outlast a withdrawal."""
    if len(request.consents) > CONSENTS_MAX:
        raise InvalidFieldError("consents", f"at most {CONSENTS_MAX}, are {len(request.consents)}")
    latest = latest_consent_ms(replaying)
    given: dict[str, int] = {}
    for i, consent in enumerate(request.consents):
        check_text(f"consents[{i}].purpose", consent.purpose, ID_MAX)
        if not 0 < consent.given_at_ms <= latest:
            raise InvalidFieldError(f"consents[{i}].given_at_ms", "must be when it was given, in milliseconds")
        given[consent.purpose] = max(consent.given_at_ms, given.get(consent.purpose, 0))
    return given


def latest_consent_ms(replaying: bool) -> int:
    """Until when a consent may say that it was given."""
    return EVENT_TIME_MAX if replaying else round(time.time() * 1000) + SKEW_MS


def feature_numbers(
    schema: Schema, values: Mapping[str, pb.FeatureValue], origin: str, source: str
) -> dict[str, float]:
    """Checked numbers by feature name, all of one origin (`request`, or `source` and its name)."""
    if len(values) > FEATURES_MAX:
        raise InvalidFieldError("features", f"at most {FEATURES_MAX}, are {len(values)}")
    numbers, plain = {}, plain_features(schema, source)
    made = (f"{source}_age_days", f"{source}_completeness")
    for name, value in values.items():
        low, high, codes = plain.get(name, _NOT_PLAIN)
        if codes is None:
            number = value.number
            if low <= number <= high and (number or value.HasField("number")):
                numbers[name] = number
                continue
        elif (code := codes.get(value.text)) is not None:
            numbers[name] = code
            continue
        key = f"features[{name[:ID_MAX]}]"
        column = schema.column.get(name)
        feature = None if column is None else schema.features[column]
        if feature is None or feature.origin != origin or feature.source != source or name in made:
            raise InvalidFieldError(key, f"is no feature of {source or 'the request'} in schema {schema.name}")
        kind = value.WhichOneof("value")
        if kind is not None:
            given = value.number if kind == "number" else value.text
            column_name, number = feature_entry(schema, name, given, key)
            numbers[column_name] = number
    return numbers


_NOT_PLAIN: tuple[float, float, None] = (math.inf, -math.inf, None)


@cache
def plain_features(schema: Schema, source: str) -> dict[str, tuple[float, float, dict[str, float] | None]]:
    """What needs no second look, by the name of a feature of the request or of `source`: a number's range, or the
    codes of a category's texts.
    """
    known: dict[str, tuple[float, float, dict[str, float] | None]] = {}
    for feature in schema.features:
        wanted = feature.origin == ("source" if source else "request") and feature.source == source
        made = feature.name in (f"{source}_age_days", f"{source}_completeness")
        if not wanted or made or feature.missing or (feature.category and not feature.values):
            continue
        codes = {text: float(i) for i, text in enumerate(feature.values) if text}
        known[feature.name] = (*(feature.range or (-sys.float_info.max, sys.float_info.max)), codes or None)
    return known


def profile(request: pb.PutProfileRequest, schema: Schema, replaying: bool) -> Profile:
    """The checked Profile of a request. Raises InvalidFieldError."""
    latest = EVENT_TIME_MAX if replaying else round(time.time() * 1000) + FETCHED_AHEAD_MS
    if not 0 < request.fetched_at_ms <= latest:
        raise InvalidFieldError("fetched_at_ms", "must be when the source was asked, in milliseconds")
    numbers = feature_numbers(schema, request.features, "source", request.source)
    return make_profile(schema, request.source, request.fetched_at_ms, numbers)


def report(request: pb.ReportOutcomeRequest, replaying: bool) -> Report:
    """The checked Report of a request. Raises InvalidFieldError."""
    kind = _enum("kind", request.kind, OUTCOME_KINDS)
    repaid = kind == "principal_repaid"
    _within("amount_minor", request.amount_minor, int(repaid), MONEY_MAX if repaid else 0)
    return Report(
        check_text("outcome_id", request.outcome_id, ID_MAX),
        check_text("application_id", request.application_id, ID_MAX),
        kind,
        _event_time(request.event_time_ms, replaying),
        request.amount_minor,
    )


def past_event() -> InvalidFieldError:
    """An event older than the end of the log, which only a replaying client can send."""
    return InvalidFieldError("event_time_ms", "lies before the end of the log")


def _application_numbers(request: pb.DecideRequest, schema: Schema) -> dict[str, float]:
    """The `from: application` features of a request."""
    unit = schema.minor_per_major
    numbers = {"amount": request.amount_minor / unit, "term_months": float(request.term_months)}
    if "vehicle" in schema.entities:
        if not request.HasField("vehicle"):
            raise InvalidFieldError("vehicle", f"is needed for {request.product}")
        vehicle = request.vehicle
        check_text("vehicle.vin", vehicle.vin, 64)
        kind = _enum("vehicle.kind", vehicle.kind, VEHICLE_KINDS)
        _within("vehicle.price_minor", vehicle.price_minor, 1, MONEY_MAX)
        _within("vehicle.down_payment_minor", vehicle.down_payment_minor, 0, vehicle.price_minor)
        _within("vehicle.age_months", vehicle.age_months, 0, 1200)
        _within("vehicle.mileage_km", vehicle.mileage_km, 0, 5_000_000)
        _within("vehicle.list_price_minor", vehicle.list_price_minor, 0, MONEY_MAX)
        numbers |= {
            "vehicle_kind": feature_number(schema, "vehicle_kind", kind, "vehicle.kind"),
            "vehicle_price": vehicle.price_minor / unit,
            "down_payment": vehicle.down_payment_minor / unit,
            "vehicle_age_months": float(vehicle.age_months),
            "vehicle_mileage_km": float(vehicle.mileage_km),
        }
        if vehicle.list_price_minor:
            numbers["vehicle_list_price"] = vehicle.list_price_minor / unit
        if vehicle.HasField("battery_health"):
            if not 0 <= vehicle.battery_health <= 1:
                raise InvalidFieldError("vehicle.battery_health", "must be from 0 to 1")
            numbers["battery_health"] = vehicle.battery_health
    elif request.HasField("vehicle"):
        raise InvalidFieldError("vehicle", f"does not belong to {request.product}")
    return {name: number for name, number in numbers.items() if name in schema.application_features}


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidFieldError(name, f"must be from {low} to {high}, is {value}")


def _enum(name: str, value: int, names: Sequence[str]) -> str:
    """The name of an enum's value; the wire's 0 is unspecified."""
    if not 1 <= value <= len(names):
        raise InvalidFieldError(name, "is missing" if value == 0 else f"unknown value {value}")
    return names[value - 1]


def _event_time(event_time_ms: int, replaying: bool) -> int:
    if replaying:
        _within("event_time_ms", event_time_ms, 1, EVENT_TIME_MAX)
    elif event_time_ms:
        raise InvalidFieldError("event_time_ms", "is taken only by a server in replay mode")
    return event_time_ms
