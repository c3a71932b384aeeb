"""Plain requests, decoded natively where that is built (decode.c): nearly all of them, at a fraction of the time.

A request is plain when server.wire would find nothing to say of it and need no second look. Then the Application is the
one that wire makes of the same bytes, to the bit; anything else is None here, and wire's to judge.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from features import tokens
from features.application import NO_TOKENS, REPAYMENT_METHODS, Application, InvalidFieldError, feature_number
from features.schema import Entity, Schema
from features.specs import APPLICATION_FIELDS
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire

try:
    from server.native import decode
except ImportError:  # never built here
    decode = None  # type: ignore[assignment]

# (type, normaliser, first slot, slots, place of the purpose of the consent it needs or -1)
KindPlan = tuple[str, int, int, int, int]
# what plan.h reads, in its order
ProductPlan = tuple[Any, ...]

_EXACT_MAX = 2**53  # whole numbers up to here are exact in a float64
_NO_KIND = -1.0  # of a vehicle, that the schema does not have
# in the order of plan.h; a type that is written in another way is not plain
_NORMALISERS: tuple[Callable[[str], str], ...] = (str.strip, tokens.compact, tokens.card, tokens.phone, tokens.ip)


class PlainRequests:
    """The requests of some tenants for some products that need no second look; none at all where it is not built."""

    def __init__(
        self, tenants: Mapping[str, Tokenizer], schemas: Mapping[str, Schema], replaying: bool,
        consortium: Tokenizer | None = None,
    ) -> None:  # fmt: skip
        self._replaying = replaying
        self._decoder = None
        if decode is not None:
            plans = [product_plan(name, schema) for name, schema in schemas.items()]
            self._decoder = decode.Decoder(
                _ascending([(name, tokenizer.hash_key) for name, tokenizer in tenants.items()]),
                _ascending([plan for plan in plans if plan is not None]),
                REPAYMENT_METHODS, None if consortium is None else consortium.hash_key, replaying,
            )  # fmt: skip

    @property
    def native(self) -> bool:
        """Whether it is built."""
        return self._decoder is not None

    def application(self, body: bytes) -> Application | None:
        """The checked Application of a serialised DecideRequest; None where it is not plain."""
        if self._decoder is None:
            return None
        made = self._decoder.decode(body, wire.latest_consent_ms(self._replaying))
        if made is None:
            return None
        shared = NO_TOKENS if made[15] is None else np.frombuffer(made[15], dtype=np.uint64)
        return Application._make((*made[:6], np.frombuffer(made[6], dtype=np.uint64), *made[7:15], shared))

    def members(self, body: bytes, most: int) -> list[bytes] | None:
        """The serialised requests, at most so many, of a BatchDecideRequest or StreamDecideRequest; None where it is
        not plain.
        """
        return None if self._decoder is None else decode.split(body, most)


def product_plan(name: str, schema: Schema) -> ProductPlan | None:
    """What is plain in a request for a product of a schema; None where nothing is."""
    applicant, *others = schema.entities.values()
    purposes = _ascending([(e.consent,) for e in {e.consent: e for e in others if e.consent}.values()])
    place = {purpose: i for i, (purpose,) in enumerate(purposes)}
    kinds = [_kind(e, place) for e in others if not e.of]
    features = _features(schema)
    vehicle_kinds = _vehicle_kinds(schema)
    if (
        None in kinds
        or tokens.normaliser(applicant.name) not in _NORMALISERS
        or features is None
        or vehicle_kinds is None
    ):
        return None
    return (
        name, schema, schema.currency, float(schema.minor_per_major), *_exact(schema.amount_minor),
        *_exact(schema.term_months), tuple(f if f in schema.application_features else None for f in APPLICATION_FIELDS),
        vehicle_kinds, (applicant.name, _NORMALISERS.index(tokens.normaliser(applicant.name)), 0, 1, -1),
        _ascending(kinds),
        tuple(
            (e.name, e.first_slot, place.get(e.consent, -1), tuple(schema.entities[part].first_slot for part in e.of))
            for e in schema.compounds
        ),
        purposes, features,
    )  # fmt: skip


def _kind(entity: Entity, place: Mapping[str, int]) -> KindPlan | None:
    normaliser = tokens.normaliser(entity.name)
    if normaliser not in _NORMALISERS:
        return None
    purpose = place.get(entity.consent, -1)
    return entity.name, _NORMALISERS.index(normaliser), entity.first_slot, entity.slots, purpose


def _features(schema: Schema) -> tuple[tuple[Any, ...], ...] | None:
    """(name, place among the entries of a canonical body, low, high, ((text, number), …)), ascending by name.

    Which order protobuf gives a map's entries is its own affair, so it is asked.
    """
    plain = wire.plain_features(schema, "")
    if len(plain) > decode.FEATURES_MAX:
        return None
    request = pb.DecideRequest()
    for name in plain:
        request.features[name].number = 0.0
    body = request.SerializeToString(deterministic=True)
    entry = {
        name: pb.DecideRequest(features={name: value}).SerializeToString() for name, value in request.features.items()
    }
    rank = {name: i for i, name in enumerate(sorted(plain, key=lambda name: body.index(entry[name])))}
    return _ascending(
        [(name, rank[name], *span, _ascending([*(codes or {}).items()])) for name, (*span, codes) in plain.items()]
    )


def _vehicle_kinds(schema: Schema) -> tuple[float, ...] | None:
    """The numbers of the kinds of vehicles, empty where the schema has none; None where it does not know the kinds."""
    if "vehicle" not in schema.entities:
        return ()
    if "vehicle_kind" not in schema.column:
        return None
    numbers = []
    for kind in wire.VEHICLE_KINDS:
        try:
            numbers.append(feature_number(schema, "vehicle_kind", kind, "vehicle.kind"))
        except InvalidFieldError:
            numbers.append(_NO_KIND)
    return tuple(numbers)


def _exact(span: tuple[int, int]) -> tuple[int, int]:
    return max(span[0], -_EXACT_MAX), min(span[1], _EXACT_MAX)


def _ascending(named: list[Any]) -> tuple[Any, ...]:
    """By the bytes of the first of each, as the decoder looks them up."""
    return tuple(sorted(named, key=lambda item: item[0].encode()))
