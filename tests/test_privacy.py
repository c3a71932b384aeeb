"""Consent withdrawn and applicants forgotten as a lender's system asks for it: a server process, a real store (R20)."""

import json
from collections.abc import Iterator
from typing import cast

import grpc
import pytest
import redis as sync_redis

from bench.serving import SECRET, client, server_process
from features import evidence
from features import schema as schemas
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from tests.conftest import ROOT, SCANNED
from tests.requests import GOOD_BORROWER, loan_request
from tests.test_service import bad_field, put_profiles, refusal

TENANT = "service"  # as tests.test_service, whose requests are made here
CONSUMER = schemas.load(ROOT / "features/schemas/consumer.yaml")


@pytest.fixture(scope="module")
def stub(redis_url: str) -> Iterator[DecisionServiceStub]:
    with server_process(redis_url, tenant=TENANT) as (address, _), client(address) as made:
        yield made


@pytest.fixture
def redis(redis_url: str) -> Iterator[sync_redis.Redis]:
    with sync_redis.Redis.from_url(redis_url) as made:
        yield made


def loan(name: str, contact: str, device: str = "", person: str = "") -> pb.DecideRequest:
    request = loan_request(name, tenant=TENANT, device=device or f"device of {name}")
    request.applicant_id = person or f"id card of {name}"
    request.entities[2].id = contact
    return request


def counted(redis: sync_redis.Redis, name: str, feature: str) -> float:
    """A feature of the row that a decision stored."""
    key = Tokenizer(SECRET.encode()).key(name)
    _, features = evidence.unpack(cast(bytes, redis.hget(f"{{{TENANT}}}:a:{key}", "e")))
    return float(features[CONSUMER.column[feature]])


def withdraw(person: str, purpose: str = "contacts") -> pb.WithdrawConsentRequest:
    return pb.WithdrawConsentRequest(tenant=TENANT, applicant_id=person, purpose=purpose, requested_by="Li")


def test_the_next_decision_no_longer_counts_withdrawn_contacts(
    stub: DecisionServiceStub, redis: sync_redis.Redis
) -> None:
    for i in range(3):
        stub.Decide(loan(f"friend {i}", "13911112222"))
    stub.Decide(loan("sees three", "13911112222"))
    sequence = stub.WithdrawConsent(withdraw("id card of friend 1")).sequence
    reply = stub.Decide(loan("sees three, one gone", "13911112222"))
    assert reply.log_position.as_of >= sequence
    seen = [counted(redis, name, "contact_count_7d") for name in ("sees three", "sees three, one gone")]
    assert seen == [3, 3]  # of four that named it one withdrew
    stub.Decide(loan("old consent", "13911112222", person="id card of friend 1"))
    assert counted(redis, "old consent", "contact_count_7d") != counted(redis, "old consent", "contact_count_7d")
    assert counted(redis, "old consent", "phone_count_30d") == 0  # the rest of it counts as ever
    again = loan("new consent", "13911112222", person="id card of friend 1")
    again.consents[0].given_at_ms = stub.Decide(loan("a clock", "1")).log_position.event_time_ms + 1000
    stub.Decide(again)
    assert counted(redis, "new consent", "contact_count_7d") == 4


def test_who_is_deleted_starts_anew(stub: DecisionServiceStub, redis: sync_redis.Redis) -> None:
    first = loan("first of many", "13755556666", device="tablet", person="110101199003071234")
    stub.Decide(first)
    stub.Decide(loan("beside", "13755556666", device="tablet"))
    asked = pb.DeleteApplicantRequest(tenant=TENANT, applicant_id="110101199003071234", requested_by="Li")
    stub.DeleteApplicant(asked)
    second = loan("second of many", "13755556666", device="tablet", person="110101199003071234")
    stub.Decide(second)
    assert counted(redis, "second of many", "applicant_count_30d") == 0
    assert [counted(redis, name, "device_count_7d") for name in ("beside", "second of many")] == [1, 1]
    kept = stub.GetDecision(pb.GetDecisionRequest(tenant=TENANT, application_id="first of many"))
    assert kept.decision.outcome and stub.Decide(first) == kept.decision
    stub.ReportOutcome(pb.ReportOutcomeRequest(
        tenant=TENANT, application_id="first of many", outcome_id="late", kind=pb.OUTCOME_KIND_FRAUD_CONFIRMED,
    ))  # fmt: skip
    stub.Decide(loan("later", "13755556666", device="tablet"))
    assert counted(redis, "later", "device_fraud_count") == 0 and counted(redis, "later", "device_count_7d") == 2


def test_deleted_profiles_are_missing_and_a_person_looks(stub: DecisionServiceStub) -> None:
    request = loan("with a full file", "13766667777")
    put_profiles(stub, request)
    reply = stub.Decide(request)
    assert not reply.degraded and reply.outcome in (pb.OUTCOME_APPROVE, pb.OUTCOME_LIMIT)
    asked = pb.DeleteApplicantRequest(tenant=TENANT, applicant_id=request.applicant_id, requested_by="Li")
    assert [stub.DeleteApplicant(asked).profiles for _ in range(2)] == [len(GOOD_BORROWER), 0]
    request.application_id = "with no file"
    reply = stub.Decide(request)
    assert reply.outcome == pb.OUTCOME_REVIEW and reply.approved_amount_minor == 0
    assert {f"source:{source}:missing" for source in GOOD_BORROWER} <= {*reply.degraded}


def test_it_is_recorded_and_no_identifier_is_kept(stub: DecisionServiceStub, redis: sync_redis.Redis) -> None:
    person = "110101198512129876"
    stub.Decide(loan("recorded", "13700001111", person=person))
    sequences = [
        stub.WithdrawConsent(withdraw(person)).sequence,
        stub.DeleteApplicant(
            pb.DeleteApplicantRequest(tenant=TENANT, applicant_id=person, requested_by="Wang")
        ).sequence,
    ]
    entries = cast(list[tuple[bytes, dict[bytes, bytes]]], redis.xrange(f"{{{TENANT}}}:forgotten"))[-2:]
    assert [int(fields[b"sequence"]) for _, fields in entries] == sequences
    told = [json.loads(fields[b"request"]) for _, fields in entries]
    assert [(t["purpose"], t["requested_by"]) for t in told] == [("contacts", "Li"), (None, "Wang")]
    held = b"".join(key + cast(bytes, redis.dump(key)) for key in redis.scan_iter(f"{{{TENANT}}}*", SCANNED))
    assert held and not any(text in held for text in (person.encode(), b"13700001111"))


def test_bad_requests_name_the_field_and_write_nothing(stub: DecisionServiceStub, redis: sync_redis.Redis) -> None:
    before = redis.xlen(f"{{{TENANT}}}:log")
    for field, value in (("tenant", "nobody"), ("applicant_id", ""), ("purpose", "moon"), ("purpose", ""),
                         ("requested_by", ""), ("requested_by", "x" * 129), ("applicant_id", "x" * 257)):  # fmt: skip
        request = withdraw("somebody")
        setattr(request, field, value)
        error = refusal(stub.WithdrawConsent, request)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and bad_field(error) == field
    error = refusal(stub.DeleteApplicant, pb.DeleteApplicantRequest(tenant=TENANT, requested_by="Li"))
    assert bad_field(error) == "applicant_id"
    assert redis.xlen(f"{{{TENANT}}}:log") == before
