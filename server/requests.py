"""What a call asks for, of its bytes: plain ones as checked applications at once, all others as messages to check."""

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from google.protobuf.message import DecodeError, Message

from features.application import Application, InvalidFieldError
from features.schema import Schema
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from server.native.plain import PlainRequests

M = TypeVar("M", bound=Message)
Request = Application | pb.DecideRequest  # checked already, or to be


def parse(kind: type[M], body: bytes) -> M:
    """Raises InvalidFieldError where the bytes are no message."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise InvalidFieldError("request", f"is no {kind.__name__}") from None


class Requests:
    """Reads the requests to decide. All raise InvalidFieldError where the bytes are no message."""

    def __init__(
        self, tenants: Mapping[str, Tokenizer], schemas: Mapping[str, Schema], replaying: bool,
        consortium: Tokenizer | None = None,
    ) -> None:  # fmt: skip
        self._plain = PlainRequests(tenants, schemas, replaying, consortium)

    @property
    def native(self) -> bool:
        """Whether plain ones are decoded natively."""
        return self._plain.native

    def one(self, body: bytes) -> Request:
        """Of a DecideRequest."""
        return self._plain.application(body) or parse(pb.DecideRequest, body)

    def batch(self, body: bytes, most: int) -> Sequence[Request]:
        """Of a BatchDecideRequest; more than `most` are all left to be checked."""
        plain = [self._plain.application(member) for member in self._plain.members(body, most) or ()]
        if plain and all(plain):
            return cast(list[Application], plain)
        requests = parse(pb.BatchDecideRequest, body).requests
        return [made or request for made, request in zip(plain, requests, strict=True)] if plain else requests

    def streamed(self, body: bytes) -> Request:
        """Of a StreamDecideRequest."""
        members = self._plain.members(body, 1)
        made = self._plain.application(members[0]) if members else None
        return made or parse(pb.StreamDecideRequest, body).request
