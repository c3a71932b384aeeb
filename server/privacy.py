"""Consent withdrawn and applicants forgotten on request (R20): the checks of both calls and their replies."""

from features.application import check_person, check_text
from features.forget import Forgetting, Forgotten
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire
from server.engine import Engine
from server.errors import UnavailableError


async def withdraw_consent(
    engine: Engine, tokenizer: Tokenizer, request: pb.WithdrawConsentRequest, replaying: bool
) -> bytes:
    """The serialised reply. Raises InvalidFieldError, UnavailableError, StoreError."""
    purpose = check_text("purpose", request.purpose, wire.ID_MAX)
    done = await _forget(engine, tokenizer, request.applicant_id, request.requested_by, purpose, replaying)
    return pb.WithdrawConsentResponse(sequence=done.sequence).SerializeToString()


async def delete_applicant(
    engine: Engine, tokenizer: Tokenizer, request: pb.DeleteApplicantRequest, replaying: bool
) -> bytes:
    """The serialised reply. Raises InvalidFieldError, UnavailableError, StoreError."""
    done = await _forget(engine, tokenizer, request.applicant_id, request.requested_by, None, replaying)
    return pb.DeleteApplicantResponse(sequence=done.sequence, profiles=done.profiles).SerializeToString()


async def _forget(
    engine: Engine, tokenizer: Tokenizer, applicant_id: str, requested_by: str, purpose: str | None, replaying: bool
) -> Forgotten:
    check_text("applicant_id", applicant_id, wire.ENTITY_ID_MAX)
    check_person("requested_by", requested_by, wire.ID_MAX)
    if replaying:  # an event of now would close the log to the history that is being fed
        raise UnavailableError("this server is fed history; ask one that decides")
    return await engine.forget(tokenizer, Forgetting(applicant_id, requested_by, purpose))
