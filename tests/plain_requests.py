"""Requests that need no second look, drawn for any schema, and their bytes changed in ways that a client could."""

import random
from typing import Any

from hypothesis import strategies as st

from features.schema import Schema
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
READABLE = PRINTABLE | st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5)
IDENTIFIERS = (
    st.text(READABLE, min_size=1, max_size=40)
    | st.from_regex(r"\A(\+86|0086|86)? ?1[0-9]{2}[ -]?[0-9]{8}\Z")
    | st.sampled_from([" ", "-", "x" * 256, "汉" * 85, " a B ", "6222-0000 0000", "86", "Abc.Def ", "00861380000000a1"])
)
# what a number may be written as, of fields that are not what they should be
ODD_NUMBERS = (b"\x00", b"\x01", b"\x80\x00", b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10")


@st.composite
def plain_requests(draw: st.DrawFn, schema: Schema, replaying: bool) -> pb.DecideRequest:
    """Valid but for an identifier of which nothing is left, or a second one where there is room for one only."""
    low, high = schema.amount_minor
    amount = draw(st.integers(low, high))
    request = pb.DecideRequest(
        application_id=draw(st.text(PRINTABLE, min_size=1, max_size=128)), tenant="demo", product=schema.products[0],
        currency=schema.currency, amount_minor=amount, term_months=draw(st.integers(*schema.term_months)),
        repayment_method=draw(st.integers(1, 4)),  # type: ignore[arg-type]
        upfront_fee_minor=draw(st.just(0) | st.integers(0, amount)), applicant_id=draw(IDENTIFIERS),
        monthly_fee_minor=draw(st.just(0) | st.integers(0, amount)), human_review_requested=draw(st.booleans()),
        event_time_ms=draw(st.integers(1, wire.EVENT_TIME_MAX)) if replaying else 0,
    )  # fmt: skip
    kinds = [e.name for e in list(schema.entities.values())[1:] if not e.of]
    if kinds:
        for kind in draw(st.lists(st.sampled_from(kinds), max_size=12, unique=draw(st.booleans()))):
            request.entities.add(type=kind, id=draw(IDENTIFIERS))
    purposes = sorted({e.consent for e in schema.entities.values() if e.consent} | {"contacts", "a purpose"})
    for purpose in draw(st.lists(st.sampled_from(purposes), unique=True)):
        request.consents.add(purpose=purpose, given_at_ms=draw(st.integers(1, 1_700_000_000_000)))
    features = wire.plain_features(schema, "")
    for name in draw(st.lists(st.sampled_from(sorted(features)), unique=True)) if features else ():
        least, most, codes = features[name]
        if codes:
            request.features[name].text = draw(st.sampled_from(sorted(codes)))
        else:
            request.features[name].number = draw(st.floats(least, most) | st.sampled_from([least, most]))
    if "vehicle" in schema.entities:
        request.vehicle.CopyFrom(draw(_vehicles()))
    return request


@st.composite
def _vehicles(draw: st.DrawFn) -> pb.Vehicle:
    price = draw(st.integers(1, wire.MONEY_MAX))
    return pb.Vehicle(
        vin=draw(st.text(PRINTABLE, min_size=1, max_size=64)), kind=draw(st.integers(1, 4)),  # type: ignore[arg-type]
        price_minor=price, down_payment_minor=draw(st.integers(0, price)), age_months=draw(st.integers(0, 1200)),
        mileage_km=draw(st.integers(0, 5_000_000)), list_price_minor=draw(st.integers(0, wire.MONEY_MAX)),
        battery_health=draw(st.none() | st.floats(0, 1)),
    )  # fmt: skip


def changed(request: pb.DecideRequest, rng: random.Random) -> bytes:
    """Its bytes after one to three changes of its values or of the bytes themselves."""
    other = pb.DecideRequest.FromString(request.SerializeToString())
    if rng.random() < 0.5:
        rng.choice(_OF_VALUES)(other, rng)
        return other.SerializeToString()
    body = bytearray(other.SerializeToString())
    for _ in range(rng.randint(1, 3)):
        rng.choice(_OF_BYTES)(body, rng)
    return bytes(body)


def _scalar(request: pb.DecideRequest, rng: random.Random) -> None:
    name = rng.choice(["amount_minor", "term_months", "upfront_fee_minor", "monthly_fee_minor", "event_time_ms"])
    setattr(request, name, rng.choice([-1, 0, 1, 61, 1201, 2**31 - 1]))


def _text(request: pb.DecideRequest, rng: random.Random) -> None:
    texts = [
        "",
        "x" * 129,
        "x" * 257,
        "汉" * 86,
        "a\x7f",
        "a\x00",
        "é",
        "１３８００００００００",
        "\u3000",
        "ﬁ",
        "Ⅷ",
        "USD",
        "demo",
    ]
    names = ["application_id", "tenant", "product", "currency", "applicant_id"]
    parts: list[tuple[Any, str]] = [(request, name) for name in names]
    parts += [(e, name) for e in request.entities for name in ("type", "id")]
    parts += [(c, "purpose") for c in request.consents] + [(v, "text") for v in request.features.values()]
    parts += [(request.vehicle, "vin")] * request.HasField("vehicle")
    part, name = rng.choice(parts)
    setattr(part, name, rng.choice(texts))


def _entity(request: pb.DecideRequest, rng: random.Random) -> None:
    kinds = [e.type for e in request.entities] + ["applicant", "vehicle", "contact", "ufo", "source_target"]
    kind = rng.choice(kinds)
    for n in range(rng.choice([1, 1, 2, 65])):
        request.entities.add(type=kind, id=rng.choice(["same", f"id {n}", "汉字", "ｆｕｌｌ"]))


def _consent(request: pb.DecideRequest, rng: random.Random) -> None:
    given = [-1, 0, 1, 1_700_000_000_000, wire.EVENT_TIME_MAX, wire.EVENT_TIME_MAX + 1, 2**62]
    for _ in range(rng.choice([1, 2, 65])):
        request.consents.add(purpose=rng.choice(["contacts", "b", "c"]), given_at_ms=rng.choice(given))


def _feature(request: pb.DecideRequest, rng: random.Random) -> None:
    value = request.features[rng.choice([*sorted(request.features), "", "horoscope", "tax_income", "amount"])]
    match rng.randrange(4):
        case 0:
            value.text = rng.choice(["", "bachelor", "1"])
        case 1:
            value.Clear()
        case _:
            value.number = rng.choice([0.0, -0.0, 1.0, -1.0, 1e300, float("nan"), float("inf"), -9.0, 1e308])


def _vehicle(request: pb.DecideRequest, rng: random.Random) -> None:
    match rng.randrange(4):
        case 0:
            request.ClearField("vehicle")
        case 1:
            request.vehicle.battery_health = rng.choice([0.0, -0.0, 1.0, 1.1, -1.0, float("nan")])
        case _:
            names = ["kind", "price_minor", "down_payment_minor", "age_months", "mileage_km", "list_price_minor"]
            setattr(request.vehicle, rng.choice(names), rng.choice([-1, 0, 1, 4, 5, 1201, 5_000_001, 2**31 - 1]))


def _flip(body: bytearray, rng: random.Random) -> None:
    if body:
        body[rng.randrange(len(body))] = rng.randrange(256)


def _insert(body: bytearray, rng: random.Random) -> None:
    at, more = rng.randint(0, len(body)), rng.choice([bytes([rng.randrange(256)]), *ODD_NUMBERS])
    body[at:at] = more


def _delete(body: bytearray, rng: random.Random) -> None:
    at = rng.randint(0, len(body))
    del body[at : at + rng.choice([1, 1, 2, 5, 1000])]


def _append(body: bytearray, rng: random.Random) -> None:
    """A field again, in a place where it does not belong, or one that nobody knows."""
    tag = rng.choice([b"\x28", b"\x30", b"\x38", b"\x40", b"\x48", b"\x78", b"\x80\x01", b"\x88\x01", b"\x2d"])
    texts = [b"\x0a\x01a", b"\x52\x01b", b"\x72\x00", b"\x6a\x00", b"\x5a\x04\x0a\x00\x12\x00", b"\x12\x04demo"]
    body += rng.choice([tag + rng.choice(ODD_NUMBERS), *texts])


def _widen(body: bytearray, rng: random.Random) -> None:
    """A number or length in one byte more than it needs."""
    if body:
        at = rng.randrange(len(body))
        if body[at] < 128:
            body[at : at + 1] = bytes([body[at] | 128, 0])


_OF_VALUES = (_scalar, _text, _entity, _consent, _feature, _feature, _vehicle)
_OF_BYTES = (_flip, _insert, _delete, _append, _widen)
