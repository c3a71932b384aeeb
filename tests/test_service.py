"""The service as a lender's system meets it: a server process, grpcio's client, a real store."""

import time
from collections.abc import Callable, Iterator
from typing import cast

import grpc
import pytest
import redis as sync_redis
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from bench.serving import client, server_process
from features.embedded import embedded_store
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from tests.requests import GOOD_BORROWER, car_request, loan_request

TENANT = "service"


@pytest.fixture(scope="module", params=["grpc.aio", "native"])
def transport(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")
    return str(request.param)


@pytest.fixture(scope="module")
def redis_url(transport: str) -> Iterator[str]:
    """A store for each transport: the same ids are new to both."""
    with embedded_store() as url:
        yield url


@pytest.fixture(scope="module")
def address(redis_url: str, transport: str) -> Iterator[str]:
    with server_process(redis_url, tenant=TENANT, native=transport == "native") as (where, _):
        yield where


@pytest.fixture
def streams(transport: str) -> None:
    if transport == "native":
        pytest.skip("streams and reflection are grpc.aio's alone")


@pytest.fixture(scope="module")
def stub(address: str) -> Iterator[DecisionServiceStub]:
    with client(address) as made:
        yield made


def loan(application_id: str, device: str = "device-1") -> pb.DecideRequest:
    return loan_request(application_id, tenant=TENANT, device=device)


def refusal(call: Callable[..., object], request: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    return caught.value


def bad_field(error: grpc.RpcError) -> str:
    detail = error_details_pb2.BadRequest()
    assert rpc_status.from_call(error).details[0].Unpack(detail)
    return str(detail.field_violations[0].field)


def events(redis_url: str) -> int:
    with sync_redis.Redis.from_url(redis_url) as redis:
        return cast(int, redis.xlen(f"{{{TENANT}}}:log"))


def test_a_decision_is_complete(stub: DecisionServiceStub) -> None:
    reply, call = stub.Decide.with_call(loan("complete"))
    assert reply.application_id == "complete"
    assert reply.outcome != pb.OUTCOME_UNSPECIFIED
    assert 0 < reply.fraud_probability < 1 and 0 < reply.default_probability < 1
    assert reply.versions.bundle and reply.versions.policy and reply.versions.schema
    assert reply.log_position.as_of == reply.log_position.sequence - 1
    assert reply.log_position.epoch and reply.log_position.event_time_ms > 1_700_000_000_000
    assert reply.reasons and all(r.code and r.text_zh and r.text_en for r in reply.reasons)
    assert "source:bureau:missing" in reply.degraded
    assert reply.outcome >= pb.OUTCOME_REVIEW  # no bureau: never approved
    stages = dict(pair.split("=") for pair in dict(call.trailing_metadata())["stage-us"].split(","))
    assert {"queue", "begin", "graph", "assemble", "score", "policy", "commit"} <= set(stages)
    assert all(int(us) >= 0 for us in stages.values())


def test_a_full_file_is_approved(stub: DecisionServiceStub) -> None:
    request = loan("full file", device="a device of its own")
    put_profiles(stub, request)
    reply = stub.Decide(request)
    assert not reply.degraded
    assert reply.outcome in (pb.OUTCOME_APPROVE, pb.OUTCOME_LIMIT), reply
    assert 0 < reply.approved_amount_minor <= request.amount_minor
    assert 0 < reply.annual_rate <= reply.all_in_rate <= 0.24
    assert reply.grade


def test_without_a_device_a_person_looks(stub: DecisionServiceStub) -> None:
    request = loan("no device")
    put_profiles(stub, request)
    del request.entities[0]
    reply = stub.Decide(request)
    assert reply.outcome == pb.OUTCOME_REVIEW and "IDENTIFIER_MISSING" in [r.code for r in reply.reasons]


def test_the_right_to_a_person(stub: DecisionServiceStub) -> None:
    request = loan("wants a person", device="another device of its own")
    put_profiles(stub, request)
    request.human_review_requested = True
    reply = stub.Decide(request)
    assert reply.outcome == pb.OUTCOME_REVIEW and reply.approved_amount_minor == 0
    assert "HUMAN_REVIEW_REQUESTED" in [r.code for r in reply.reasons]


def test_a_retry_returns_the_same_bytes(stub: DecisionServiceStub, redis_url: str) -> None:
    first = stub.Decide(loan("retried")).SerializeToString()
    before = events(redis_url)
    assert stub.Decide(loan("retried")).SerializeToString() == first
    stored = stub.GetDecision(pb.GetDecisionRequest(tenant=TENANT, application_id="retried"))
    assert stored.decision.SerializeToString() == first
    assert events(redis_url) == before


def test_another_body_already_exists(stub: DecisionServiceStub) -> None:
    stub.Decide(loan("taken"))
    changed = loan("taken")
    changed.amount_minor += 100
    assert refusal(stub.Decide, changed).code() is grpc.StatusCode.ALREADY_EXISTS


def test_car_loan(stub: DecisionServiceStub) -> None:
    reply = stub.Decide(car_request("car", tenant=TENANT))
    assert reply.outcome >= pb.OUTCOME_REVIEW and "source:vehicle_valuation:missing" in reply.degraded


def test_bad_requests_name_the_field_and_write_nothing(stub: DecisionServiceStub, redis_url: str) -> None:
    before = events(redis_url)
    for field, changes in (
        ("application_id", {"application_id": ""}),
        ("amount_minor", {"amount_minor": -5}),
        ("product", {"product": "moon"}),
        ("tenant", {"tenant": "nobody"}),
        ("repayment_method", {"repayment_method": 77}),
    ):
        request = loan(f"bad {field}")
        for name, value in changes.items():
            setattr(request, name, value)
        error = refusal(stub.Decide, request)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and bad_field(error) == field
    request = loan("bad number")
    request.features["declared_income"].number = float("nan")
    assert bad_field(refusal(stub.Decide, request)) == "features[declared_income]"
    request = loan("many entities")
    request.entities.extend(pb.Entity(type="device", id=str(i)) for i in range(10_000))
    assert bad_field(refusal(stub.Decide, request)) == "entities"
    request = loan("unknown feature")
    request.features["moon_phase"].number = 1
    assert bad_field(refusal(stub.Decide, request)) == "features[moon_phase]"
    assert events(redis_url) == before
    assert stub.Decide(loan("after all that")).outcome


def test_a_message_too_large_is_refused(stub: DecisionServiceStub, redis_url: str) -> None:
    before = events(redis_url)
    request = loan("large")
    request.features["note"].text = "x" * (20 << 20)
    error = refusal(stub.Decide, request)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "message" in str(error.details())
    assert events(redis_url) == before and stub.Decide(loan("after the large one")).outcome


def test_bytes_that_are_no_request(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        call: Callable[..., object] = channel.unary_unary("/miaopi.v1.DecisionService/Decide")
        error = refusal(call, b"\xff\xff\xff")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and bad_field(error) == "request"
        unknown: Callable[..., object] = channel.unary_unary("/miaopi.v1.DecisionService/Guess")
        assert refusal(unknown, b"").code() is grpc.StatusCode.UNIMPLEMENTED


def test_no_time_left_is_shed_before_begin(stub: DecisionServiceStub, redis_url: str) -> None:
    before = events(redis_url)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Decide(loan("hurried"), timeout=0.001)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert events(redis_url) == before


def test_batch_has_a_status_for_each(stub: DecisionServiceStub) -> None:
    bad = loan("batch 1")
    bad.amount_minor = -1
    twice = loan("batch 2")
    reply = stub.BatchDecide(pb.BatchDecideRequest(requests=[loan("batch 0"), bad, twice, twice]))
    assert [r.WhichOneof("result") for r in reply.results] == ["decision", "error", "decision", "decision"]
    assert reply.results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert reply.results[1].error.field == "amount_minor"
    assert reply.results[2].decision.SerializeToString() == reply.results[3].decision.SerializeToString()
    empty = refusal(stub.BatchDecide, pb.BatchDecideRequest())
    assert bad_field(empty) == "requests"


def test_stream_answers_each(stub: DecisionServiceStub, streams: None) -> None:
    bad = loan("stream bad")
    bad.term_months = -1
    requests = [pb.StreamDecideRequest(request=loan(f"stream {i}")) for i in range(300)]
    requests.insert(7, pb.StreamDecideRequest(request=bad))
    results = {r.result.application_id: r.result for r in stub.StreamDecide(iter(requests), timeout=60)}
    assert len(results) == 301
    assert results["stream bad"].error.field == "term_months"
    assert all(r.HasField("decision") for name, r in results.items() if name != "stream bad")


def test_outcomes(stub: DecisionServiceStub, redis_url: str) -> None:
    stub.Decide(loan("reported"))
    report = pb.ReportOutcomeRequest(
        tenant=TENANT, application_id="reported", outcome_id="o-1", kind=pb.OUTCOME_KIND_FRAUD_CONFIRMED
    )
    sequence = stub.ReportOutcome(report).sequence
    before = events(redis_url)
    assert stub.ReportOutcome(report).sequence == sequence and events(redis_url) == before
    report.kind = pb.OUTCOME_KIND_REPAID
    assert refusal(stub.ReportOutcome, report).code() is grpc.StatusCode.ALREADY_EXISTS
    report.application_id, report.outcome_id = "never asked", "o-2"
    assert refusal(stub.ReportOutcome, report).code() is grpc.StatusCode.NOT_FOUND
    unknown = pb.GetDecisionRequest(tenant=TENANT, application_id="never asked")
    assert refusal(stub.GetDecision, unknown).code() is grpc.StatusCode.NOT_FOUND


def test_known_fraud_on_the_device_changes_the_next_decision(stub: DecisionServiceStub) -> None:
    clean = stub.Decide(loan("before the fraud", device="farm")).fraud_probability
    for i in range(6):
        stub.Decide(loan(f"farm {i}", device="farm"))
        stub.ReportOutcome(
            pb.ReportOutcomeRequest(
                tenant=TENANT, application_id=f"farm {i}", outcome_id=f"farm {i}", kind=pb.OUTCOME_KIND_FRAUD_CONFIRMED
            )
        )
    victim = loan("after the fraud", device="farm")
    put_profiles(stub, victim)
    after = stub.Decide(victim)
    assert after.fraud_probability > clean and after.outcome >= pb.OUTCOME_REVIEW
    assert any(r.contribution > 0 and "fraud: " in r.evidence for r in after.reasons)


def test_repaid_takes_no_confirmed_fraud_back(stub: DecisionServiceStub) -> None:
    request = loan("cheated")
    stub.Decide(request)
    for i, kind in enumerate((pb.OUTCOME_KIND_FRAUD_CONFIRMED, pb.OUTCOME_KIND_REPAID)):
        stub.ReportOutcome(
            pb.ReportOutcomeRequest(tenant=TENANT, application_id="cheated", outcome_id=f"cheated {i}", kind=kind)
        )
    again = loan("cheats again")
    again.applicant_id = request.applicant_id
    reply = stub.Decide(again)
    assert reply.outcome == pb.OUTCOME_DECLINE and "KNOWN_FRAUD" in [r.code for r in reply.reasons]


def test_older_profile_is_not_stored(stub: DecisionServiceStub) -> None:
    request = loan("profiled")
    put_profiles(stub, request, fetched_at_ms=2_000)
    older = pb.PutProfileRequest(
        tenant=TENANT, product="consumer", subject_id=request.applicant_id, source="tax", fetched_at_ms=1_000
    )
    older.features["tax_income"].number = 1
    assert not stub.PutProfile(older).stored


def test_health(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("miaopi.v1.DecisionService", "miaopi.v1.device"):
            reply = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection(address: str, streams: None) -> None:
    with grpc.insecure_channel(address) as channel:
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        listed = next(reflect.ServerReflectionInfo(iter([asked]))).list_services_response.service
        assert "miaopi.v1.DecisionService" in [s.name for s in listed]


def put_profiles(stub: DecisionServiceStub, request: pb.DecideRequest, fetched_at_ms: int = 0) -> None:
    """What a good borrower's sources know."""
    now_ms = fetched_at_ms or int(time.time() * 1000)
    for source, numbers in GOOD_BORROWER.items():
        profile = pb.PutProfileRequest(
            tenant=TENANT, product="consumer", subject_id=request.applicant_id, source=source, fetched_at_ms=now_ms
        )
        for name, number in numbers.items():
            profile.features[name].number = number
        assert stub.PutProfile(profile).stored
