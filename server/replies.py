"""Every field of a reply: a batch of decisions becomes DecideResponses, serialised.

Numbers are packed by columns, in a compiled loop; words once for all replies that say the same. The parts of a message
may follow one another in any order.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Reason
from policy.decide import Decision
from policy.funding import Share
from proto.miaopi.v1 import decision_pb2 as pb
from server.products import Product

REASONS_KEPT = 8192
_VARINT_MAX = 10  # bytes of an int64
_EPOCH_MAX = 64  # bytes: the length of a LogPosition is one byte then


class Place(NamedTuple):
    """Where B decisions were made: fields of LogPosition, int64 [B] each."""

    epoch: str
    sequence: NDArray[np.int64]
    as_of: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]


def decision_replies(
    product: Product, decisions: Sequence[Decision], moved: Sequence[Sequence[Reason]],
    fraud_probability: NDArray[np.float64], default_probability: NDArray[np.float64], place: Place,
) -> list[bytes]:  # fmt: skip
    """The serialised DecideResponses of B decisions without application_id, which may be personal: as stored.

    moved: reasons of each beside the decision's own. Probabilities: float64 [B], NaN where there is no model.
    """
    outcome, amount, annual, all_in, *_ = zip(*decisions, strict=True)
    integers = np.array((outcome, amount), dtype=np.int64)
    doubles = np.array((annual, all_in, fraud_probability, default_probability), dtype=np.float64)
    epoch = np.frombuffer(place.epoch.encode(), dtype=np.uint8)
    if len(epoch) > _EPOCH_MAX:
        raise ValueError(f"epoch: at most {_EPOCH_MAX} bytes, are {len(epoch)}")
    numbers = np.array(place[1:], dtype=np.int64)
    out, ends = np.empty(len(decisions) * _HEAD_MAX, dtype=np.uint8), np.zeros(len(decisions) + 1, dtype=np.int64)
    _pack(integers, doubles, doubles.view(np.uint8), epoch, numbers, (_INTEGERS, _DOUBLES, *_PLACE), out, ends)
    heads, at = out[: ends[-1]].tobytes(), ends.tolist()
    replies = []
    for i, decision in enumerate(decisions):
        parts = [heads[at[i] : at[i + 1]], *map(_policy_reason, decision.reasons), *map(_moved_reason, moved[i])]
        if decision.grade or decision.degraded:
            parts.append(_standing(decision.grade, decision.degraded))
        if decision.shares:
            parts.append(_funding(decision.shares))
        replies.append(b"".join((*parts, product.versions)))
    return replies


def funding(shares: Sequence[Share]) -> list[pb.FundingShare]:
    """Who lends how much, as replies say it."""
    return [
        pb.FundingShare(
            funder=s.offer.funder, amount_minor=s.amount_minor, funder_rate=s.offer.funder_rate, mode=s.offer.mode
        )
        for s in shares
    ]


def addressed(application_id: str, stored: bytes) -> bytes:
    """The DecideResponse to send: the stored one with its first field, application_id, in front."""
    return pb.DecideResponse(application_id=application_id).SerializeToString() + stored


def _funding(shares: Sequence[Share]) -> bytes:
    return pb.DecideResponse(funding=funding(shares)).SerializeToString()


@lru_cache(REASONS_KEPT)
def _standing(grade: str, degraded: tuple[str, ...]) -> bytes:
    return pb.DecideResponse(grade=grade, degraded=degraded).SerializeToString()


@lru_cache(REASONS_KEPT)  # of a row the same words again and again
def _policy_reason(reason: Reason) -> bytes:
    """A reason as a part of a DecideResponse."""
    code, zh, en, contribution, evidence, legal = reason
    said = pb.Reason(
        code=code, text_zh=zh, text_en=en, contribution=contribution, evidence=evidence, legal_source=legal
    )
    return pb.DecideResponse(reasons=(said,)).SerializeToString()


def _moved_reason(reason: Reason) -> bytes:
    """The same of a feature: its words come again, with another contribution."""
    code, zh, en, contribution, evidence, legal = reason
    return _words(code, zh, en, evidence, legal) + _DOUBLE(contribution)


@lru_cache(REASONS_KEPT)
def _words(code: str, zh: str, en: str, evidence: str, legal: str) -> bytes:
    """All of a reason as a part of a DecideResponse, but for the eight bytes of its contribution, which come last."""
    words = pb.Reason(code=code, text_zh=zh, text_en=en, evidence=evidence, legal_source=legal).SerializeToString()
    words += bytes([_tag(pb.Reason, "contribution")])
    length, rest = len(words) + 8, bytearray([_tag(pb.DecideResponse, "reasons")])
    while length > 127:
        rest.append(length & 127 | 128)
        length >>= 7
    return bytes([*rest, length]) + words


def _tag(message: Any, name: str) -> int:
    """What stands before a field: its number and how it is packed."""
    field = message.DESCRIPTOR.fields_by_name[name]
    packed = {field.TYPE_DOUBLE: 1, field.TYPE_STRING: 2, field.TYPE_MESSAGE: 2}.get(field.type, 0)
    return int(field.number << 3 | packed)


def _tags(message: Any, *names: str) -> NDArray[np.uint8]:
    return np.array([_tag(message, name) for name in names], dtype=np.uint8)


_DOUBLE = struct.Struct("<d").pack
_INTEGERS = _tags(pb.DecideResponse, "outcome", "approved_amount_minor")
_DOUBLES = _tags(pb.DecideResponse, "annual_rate", "all_in_rate", "fraud_probability", "default_probability")
_PLACE = _tags(pb.DecideResponse, "log_position"), _tags(pb.LogPosition, "epoch", "sequence", "as_of", "event_time_ms")
_ABSENT = len(_DOUBLES) - 1  # default_probability is absent where it is NaN, and others where they are 0
_HEAD_MAX = 2 * (1 + _VARINT_MAX) + 4 * 9 + 2 + 2 + _EPOCH_MAX + 3 * (1 + _VARINT_MAX)


@njit(cache=True, nogil=True)
def _pack(integers, doubles, eights, epoch, place, tags, out, ends):  # type: ignore[no-untyped-def]
    """Heads of B replies one after another into uint8 `out`, each up to its `ends`, int64 [B + 1].

    integers: int64 [2, B]; doubles: float64 [4, B] and eights uint8 [4, 8 B], their bytes; place: int64 [3, B].
    """
    in_integers, in_doubles, position, in_place = tags
    at = 0
    for i in range(integers.shape[1]):
        for f in range(len(in_integers)):
            at = _varint_field(in_integers[f], integers[f, i], out, at)
        for f in range(len(in_doubles)):
            x = doubles[f, i]
            if x != 0 if f != _ABSENT else x == x:
                out[at] = in_doubles[f]
                for byte in range(8):
                    out[at + 1 + byte] = eights[f, 8 * i + byte]
                at += 9
        length = at + 1
        out[at], out[at + 2], out[at + 3] = position[0], in_place[0], len(epoch)
        at += 4
        for byte in epoch:
            out[at] = byte
            at += 1
        for f in range(len(place)):
            at = _varint_field(in_place[1 + f], place[f, i], out, at)
        out[length] = at - length - 1
        ends[i + 1] = at


@njit(inline="always")
def _varint_field(tag, value, out, at):  # type: ignore[no-untyped-def]
    """int: where the next field goes; 0 is left out."""
    if value == 0:
        return at
    out[at] = tag
    at += 1
    rest = np.uint64(value)
    while rest > np.uint64(127):
        out[at] = rest & np.uint64(127) | np.uint64(128)
        rest >>= np.uint64(7)
        at += 1
    out[at] = rest
    return at + 1
