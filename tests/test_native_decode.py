"""Of every body the native decoder makes nothing or exactly what server.wire does; of ordinary ones not nothing."""

import hashlib
import random
import sys
import tracemalloc
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import world
from features import schema as schemas
from features.application import REPAYMENT_METHODS, Application, InvalidFieldError
from features.tokens import NORMALISERS, Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire
from tests.conftest import ROOT, TOKENIZER
from tests.plain_requests import changed, plain_requests
from tests.requests import business_request, car_request, loan_request

native = pytest.importorskip("server.native.decode", reason="the decoder is not built: make native")

from server.native import plain  # noqa: E402
from server.native.plain import PlainRequests  # noqa: E402

SCHEMAS = {s.name: s for s in map(schemas.load, sorted((ROOT / "features/schemas").glob("*.yaml")))}
PRODUCTS = {product: schema for schema in SCHEMAS.values() for product in schema.products}
CONSORTIUM = Tokenizer(b"a secret of several lenders")
CHANGES = 12  # of each request drawn
TENANTS = {"demo": TOKENIZER, "another": CONSORTIUM}
DECODERS = {  # by whether it is replaying, and whether there is a consortium
    (replaying, shares): PlainRequests(TENANTS, PRODUCTS, replaying, CONSORTIUM if shares else None)
    for replaying in (False, True) for shares in (False, True)
}  # fmt: skip


def by_wire(body: bytes, replaying: bool, consortium: Tokenizer | None) -> Application | None:
    """None where it is refused."""
    try:
        request = pb.DecideRequest.FromString(body)
        if request.tenant != "demo" or request.product not in PRODUCTS:
            return None
        return wire.application(request, PRODUCTS[request.product], TOKENIZER, replaying, consortium)
    except (DecodeError, InvalidFieldError):
        return None


def assert_same(made: Application, wanted: Application | None) -> None:
    assert wanted is not None
    for name, value, right in zip(Application._fields, made, wanted, strict=True):
        assert type(value) is type(right), name
        if isinstance(value, np.ndarray) and isinstance(right, np.ndarray):
            assert value.dtype == right.dtype and value.tobytes() == right.tobytes(), name
        else:
            assert value == right, name
    # -0.0 is not 0.0
    assert {n: x.hex() for n, x in made.numbers.items()} == {n: x.hex() for n, x in wanted.numbers.items()}


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data(), replaying=st.booleans(), shares=st.booleans(), rng=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_nothing_or_exactly_what_wire_makes(
    name: str, data: st.DataObject, replaying: bool, shares: bool, rng: random.Random
) -> None:
    request = data.draw(plain_requests(SCHEMAS[name], replaying))
    consortium = CONSORTIUM if shares else None
    decoder = DECODERS[replaying, shares]
    body = request.SerializeToString()
    made, wanted = decoder.application(body), by_wire(body, replaying, consortium)
    assert (made is None) == (wanted is None)
    for other in [body, *(changed(request, rng) for _ in range(CHANGES))]:
        made = decoder.application(other)
        if made is not None:
            assert_same(made, by_wire(other, replaying, consortium))


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=1, max_size=600), st.integers(1, 64))
@settings(max_examples=300)
def test_blake2b(key: bytes, message: bytes, digest_size: int) -> None:
    wanted = hashlib.blake2b(message, key=key, digest_size=digest_size).digest()
    assert native.blake2b(key, message, digest_size) == wanted


@pytest.mark.parametrize("size", [127, 128, 129, 255, 256, 257, 100_000])
@pytest.mark.parametrize("digest_size", [8, 16])
def test_blake2b_around_its_blocks(size: int, digest_size: int) -> None:
    message, key = random.Random(size).randbytes(size), bytes(range(32))
    wanted = hashlib.blake2b(message, key=key, digest_size=digest_size).digest()
    assert native.blake2b(key, message, digest_size) == wanted
    for bad in ((b"", b"x", 8), (bytes(65), b"x", 8), (key, b"", 8), (key, b"x", 0), (key, b"x", 65)):
        with pytest.raises(ValueError, match="1 to 64 bytes"):
            native.blake2b(*bad)


def test_characters_taken_as_they_are_stay_so() -> None:
    """What NFKC, the normalisers and the check of a text would change of the 汉字 that are not left to Python."""
    points = [chr(point) for point in range(0x4E00, 0x9FA6)]
    text = "".join(points)
    assert unicodedata.normalize("NFKC", text) == text == text.upper() == text.lower() == text.strip()
    assert not any(c.isdigit() or c.isspace() or unicodedata.category(c) == "Cc" for c in points)
    for kind in (*NORMALISERS, "address"):
        entity = "".join(points[:80])
        assert NORMALISERS.get(kind, str.strip)(f"1{entity}2") == (
            "12" if kind in ("phone", "contact") else f"1{entity}2"
        )


def test_the_world_is_plain() -> None:
    """Every request of the world, more than 95 in 100 of which must be."""
    events = world.build(3, 1000).events
    bodies = [event.SerializeToString() for event in events if isinstance(event, pb.DecideRequest)]
    made = [DECODERS[True, True].application(body) for body in bodies]
    assert sum(one is not None for one in made) > 0.95 * len(bodies)
    for body, one in zip(bodies, made, strict=True):
        if one is not None:
            assert_same(one, by_wire(body, True, CONSORTIUM))


@pytest.mark.parametrize("request_of", [loan_request, car_request, business_request])
def test_plain_and_one_step_from_it(request_of: Callable[[str], pb.DecideRequest]) -> None:
    """Each of these has a sound reading in Python or a typed error, and is none of the decoder's business."""
    decoder, request = DECODERS[False, False], request_of("a-1")
    body = request.SerializeToString()
    made = decoder.application(body)
    assert made is not None
    assert_same(made, by_wire(body, False, None))
    wide = body.replace(b"\x0a\x03a-1", b"\x0a\x83\x00a-1", 1)
    assert wide != body and by_wire(wide, False, None) is not None
    again = body + b"\x0a\x03a-2"
    unknown = body + b"\x98\x06\x01"
    defaults = body + b"\x78\x00", body.replace(b"\x38\x01\x52", b"\x38\x01\x40\x00\x52", 1)
    at = body.index(b"\x6a")
    twice = body[: at + 2 + body[at + 1]] + body[at:]  # the first of the features
    assert all(by_wire(other, False, None) is not None for other in (again, unknown, twice, *defaults))
    texts = [request_of("é"), request_of("a-1"), request_of("a-1")]
    texts[1].applicant_id = "１２３"
    texts[2].consents.add(purpose="contacts", given_at_ms=5)
    assert all(by_wire(other.SerializeToString(), False, None) is not None for other in texts)
    for other in (wide, again, unknown, twice, *defaults, b"", *(t.SerializeToString() for t in texts)):
        assert decoder.application(other) is None
    for end in range(len(body)):
        made = decoder.application(body[:end])
        if made is not None:
            assert_same(made, by_wire(body[:end], False, None))


def test_what_is_unknown_within_a_part_is_not_plain() -> None:
    parts: list[Callable[[pb.DecideRequest], Message]] = [
        lambda r: r.entities[0], lambda r: r.consents[0], lambda r: r.features["housing"], lambda r: r.vehicle,
    ]  # fmt: skip
    for part in parts:
        request = car_request("a-1")
        part(request).MergeFromString(b"\x98\x06\x01")
        body = request.SerializeToString()
        assert by_wire(body, False, None) is not None and DECODERS[False, False].application(body) is None


BORDERS = {  # of numbers of a car loan: the last that is taken
    "amount_minor": 200_000_000, "term_months": 60, "upfront_fee_minor": 7_000_000, "monthly_fee_minor": 7_000_000,
    "repayment_method": 4, "vehicle.kind": 4, "vehicle.price_minor": wire.MONEY_MAX, "vehicle.age_months": 1200,
    "vehicle.down_payment_minor": 10_000_000, "vehicle.mileage_km": 5_000_000,
    "vehicle.list_price_minor": wire.MONEY_MAX,
}  # fmt: skip


@pytest.mark.parametrize("name", BORDERS)
def test_borders(name: str) -> None:
    for value in (BORDERS[name], BORDERS[name] + 1):
        request = car_request("a-1")
        setattr(request.vehicle if "." in name else request, name.split(".")[-1], value)
        body = request.SerializeToString()
        made, wanted = DECODERS[False, False].application(body), by_wire(body, False, None)
        assert (made is None) == (wanted is None) == (value > BORDERS[name])
        if made is not None:
            assert_same(made, wanted)


def test_longest_texts() -> None:
    for length in (64, 65):
        request = car_request("x" * 2 * length)
        request.vehicle.vin = "v" * length
        request.applicant_id = request.entities[0].id = "i" * 4 * length
        request.consents[0].purpose = "p" * 2 * length
        made = DECODERS[False, False].application(request.SerializeToString())
        assert (made is None) == (length == 65)
        request.application_id = request.applicant_id = request.consents[0].purpose = request.entities[0].id = "a"
        made = DECODERS[False, False].application(request.SerializeToString())
        assert (made is None) == (length == 65)


def test_identifiers_written_in_every_way() -> None:
    texts = [
        " a-B c ",
        "6222-0000 00",
        "8613800138000",
        "+86 138-0013-8000",
        "008613800138000",
        "86138001380001",
        "-",
        " ",
    ]
    for kind in ("device", "phone", "contact", "card", "ip", "address", "company"):
        for text in texts:
            request = business_request("a-1")
            request.entities[0].CopyFrom(pb.Entity(type=kind, id=text))
            body = request.SerializeToString()
            made, wanted = DECODERS[False, True].application(body), by_wire(body, False, CONSORTIUM)
            assert (made is None) == (wanted is None)
            if made is not None:
                assert_same(made, wanted)


def test_consent_from_the_future_is_not_plain() -> None:
    request = loan_request("a-1")
    request.consents[0].given_at_ms = wire.latest_consent_ms(False) + 60_000
    assert DECODERS[False, False].application(request.SerializeToString()) is None


@given(st.lists(st.binary(max_size=300), max_size=20), st.binary(max_size=3))
def test_members_of_a_batch(members: list[bytes], more: bytes) -> None:
    parts = [bytes([10]) + _varint(len(member)) + member for member in members]
    assert native.split(b"".join(parts), len(members)) == members
    if members:
        assert native.split(b"".join(parts), len(members) - 1) is None
    found = native.split(b"".join(parts) + more, 100)
    assert found is None or b"".join(bytes([10]) + _varint(len(m)) + m for m in found) == b"".join(parts) + more
    assert native.split(b"".join(parts)[:-1], 100) is None or not parts or not members[-1]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def test_an_unfit_plan_is_refused() -> None:
    """A plan is Python's, and yet nothing in it may lead out of the decoder's arrays."""
    good = plain.product_plan("consumer", SCHEMAS["consumer"])
    assert good is not None
    one = ("x", 0, 0.0, 1.0, ())
    unfit: list[tuple[int, tuple[object, ...]]] = [  # by its place in the plan
        (8, ("amount",)), (9, (1.0,)), (10, ("applicant", 9, 0, 1, -1)), (11, (("a", 0, 15, 2, -1),)),
        (11, (("a", 0, -1, 1, -1),)), (11, (("a", 0, 0, 1, 1),)), (12, (("c", 16, -1, (0,)),)),
        (12, (("c", 0, 3, (0,)),)), (12, (("c", 0, -1, (16,)),)), (12, (("c", 0, -1, ()),)),
        (13, tuple((f"p{i:02d}",) for i in range(17))),
        (14, (one, one)), (14, (("x", 1, 0.0, 1.0, ()),)), (14, (("x", 0, 0.0, 1.0, (("b", 1.0), ("a", 2.0))),)),
    ]  # fmt: skip
    for place, value in unfit:
        with pytest.raises((ValueError, TypeError)):
            native.Decoder((), ((*good[:place], value, *good[place + 1 :]),), REPAYMENT_METHODS, None, False)
    with pytest.raises(ValueError, match="names must ascend"):
        native.Decoder((("b", b"k"), ("a", b"k")), (), REPAYMENT_METHODS, None, False)
    with pytest.raises(TypeError):
        native.Decoder((), (good,), REPAYMENT_METHODS, None, False).decode("text", 1)


def test_nothing_is_kept() -> None:
    """Neither of what is decoded nor of what is not: as many objects and references after many requests as before."""
    decoder = PlainRequests(TENANTS, PRODUCTS, False, CONSORTIUM)
    body, schema = car_request("a").SerializeToString(), PRODUCTS["auto"]
    bodies = [body, body[:-3], body + b"\x78\x00", body.replace(b"bachelor", b"nonsense")]
    tracemalloc.start()
    try:
        for _ in range(2):
            before = tracemalloc.get_traced_memory()[0], sys.getrefcount(schema)
            for _ in range(2000):
                for one in bodies:
                    decoder.application(one)
                native.split(b"\x0a\x01a" * 3, 9)
            after = tracemalloc.get_traced_memory()[0], sys.getrefcount(schema)
    finally:
        tracemalloc.stop()
    assert after[1] == before[1] and after[0] - before[0] < 2000
    del decoder
