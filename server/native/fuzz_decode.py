"""`python -m server.native.fuzz_decode`: the same for decode.c, from requests for every schema that is shipped.

Needs Debian's clang.
"""

from pathlib import Path

import typer

from features import schema as schemas
from features.application import REPAYMENT_METHODS
from features.schema import Schema
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire
from server.native.fuzz import run
from server.native.plain import product_plan

IDENTIFIERS = {"phone": "+86 138-0013 8000", "address": "海淀区人民路1号101室", "ip": "36.1.2.3"}
KEY = bytes(range(32))


def main(seconds: int = typer.Option(60, min=1), folder: Path = Path("features/schemas")) -> None:
    """Build, seed and run; the exit status is libFuzzer's."""
    loaded = [schemas.load(path) for path in sorted(folder.glob("*.yaml"))]
    plans = [product_plan(name, schema) for schema in loaded for name in schema.products]
    products = tuple(sorted((name, None, *rest) for name, _, *rest in filter(None, plans)))
    decoders = tuple(((("demo", KEY),), products, REPAYMENT_METHODS, *how) for how in ((None, False), (KEY, True)))
    seeds = [bytes([replaying]) + _request(schema, replaying) for schema in loaded for replaying in (False, True)]
    seeds += [b"\x04" + _batch(seed[1:]) + _batch(seed[1:]) for seed in seeds if not seed[0]]
    run("fuzz_decode.c", seeds, seconds, (), plans=repr(decoders))


def _request(schema: Schema, replaying: bool) -> bytes:
    """With one of everything that a request for the schema may have."""
    _, *others = schema.entities
    kinds = [name for name in others if not schema.entities[name].of and name != "vehicle"]
    request = pb.DecideRequest(
        application_id="a-1", tenant="demo", product=schema.products[0], currency=schema.currency,
        amount_minor=schema.amount_minor[1], term_months=schema.term_months[1], repayment_method=1,  # type: ignore[arg-type]
        upfront_fee_minor=1, monthly_fee_minor=2, applicant_id="11010519491231002X", human_review_requested=True,
        entities=[pb.Entity(type=kind, id=IDENTIFIERS.get(kind, f"{kind} 1")) for kind in kinds],
        consents=[pb.Consent(purpose="contacts", given_at_ms=1_700_000_000_000)],
        event_time_ms=1_700_000_000_001 if replaying else 0,
    )  # fmt: skip
    for name, (low, _, codes) in wire.plain_features(schema, "").items():
        if codes:
            request.features[name].text = next(iter(codes))
        else:
            request.features[name].number = low
    if "vehicle" in schema.entities:
        request.vehicle.CopyFrom(
            pb.Vehicle(
                vin="LSVAA49J132047882", kind=pb.VEHICLE_KIND_USED, price_minor=10_000_000,
                down_payment_minor=3_000_000, age_months=40, mileage_km=60_000, battery_health=0.5,
                list_price_minor=15_000_000,
            )
        )  # fmt: skip
    body: bytes = request.SerializeToString()
    return body


def _batch(body: bytes) -> bytes:
    message: bytes = pb.StreamDecideRequest(request=pb.DecideRequest.FromString(body)).SerializeToString()
    return message


if __name__ == "__main__":
    typer.run(main)
