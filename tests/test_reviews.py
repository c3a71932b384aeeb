"""What waits for a person, through gRPC: listed with its evidence, resolved once, within authority and room (R22)."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import redis as sync_redis

from bench.serving import SECRET, client, server_process
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from tests.lending import write_policies
from tests.requests import GOOD_BORROWER, loan_request
from tests.test_service import bad_field, refusal

TENANT = "reviews"
LIMIT, CAP = 5_000_000, 9_000_000
TOKENIZER = Tokenizer(SECRET.encode())


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policies(
        tmp_path_factory.mktemp("policies"), exposure_max_minor=LIMIT, certain=True,
        funders=[("bank", "own", 1.0, CAP, 0.05)],
        authority=[("'clerk'", "", 1_000_000), ("'clerk'", "'A'", 2_000_000), ("'clerk'", "'D'", 9_000_000),
                   ("'head', 'board'", "", 100_000_000)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def stub(redis_url: str, policies: Path) -> Iterator[DecisionServiceStub]:
    with server_process(redis_url, tenant=TENANT, policies=policies) as (address, _), client(address) as made:
        yield made


@pytest.fixture
def counted(redis_url: str) -> Callable[[str], int]:
    """Minor units in a counter of the tenant."""

    def read(name: str) -> int:
        with sync_redis.Redis.from_url(redis_url) as redis:
            return int(cast(bytes | None, redis.get(f"{{{TENANT}}}:{name}")) or 0)

    return read


def waiting(
    stub: DecisionServiceStub, name: str, borrower: str = "", amount_minor: int = 2_000_000, term_months: int = 12
) -> pb.DecideResponse:
    """A good application of who wants a person to look."""
    request = loan_request(name, tenant=TENANT, device=f"device of {name}")
    request.human_review_requested, request.amount_minor, request.term_months = True, amount_minor, term_months
    request.applicant_id = borrower or request.applicant_id
    for source, numbers in GOOD_BORROWER.items():
        profile = pb.PutProfileRequest(
            tenant=TENANT, product="consumer", subject_id=request.applicant_id, source=source,
            fetched_at_ms=round(time.time() * 1000),
        )  # fmt: skip
        for feature, number in numbers.items():
            profile.features[feature].number = number
        stub.PutProfile(profile)
    reply: pb.DecideResponse = stub.Decide(request)
    assert reply.outcome == pb.OUTCOME_REVIEW
    return reply


def resolving(name: str, amount_minor: int = 2_000_000, **changes: Any) -> pb.ResolveReviewRequest:
    request = pb.ResolveReviewRequest(
        tenant=TENANT, application_id=name, outcome=pb.OUTCOME_APPROVE, approved_amount_minor=amount_minor,
        annual_rate=0.1, reviewer="li.wei", authority="head", note="called the employer",
    )  # fmt: skip
    for field, value in changes.items():
        setattr(request, field, value)
    return request


def declining(name: str, **changes: Any) -> pb.ResolveReviewRequest:
    return resolving(name, 0, outcome=pb.OUTCOME_DECLINE, annual_rate=0, **changes)


def queue(stub: DecisionServiceStub, page_size: int = 256) -> list[pb.PendingReview]:
    """All that waits, page by page."""
    found: list[pb.PendingReview] = []
    token = ""
    while True:
        page = stub.ListReviews(pb.ListReviewsRequest(tenant=TENANT, page_size=page_size, page_token=token))
        found += page.reviews
        token = page.next_page_token
        if not token:
            return found


def stored(stub: DecisionServiceStub, name: str) -> pb.GetDecisionResponse:
    return cast(pb.GetDecisionResponse, stub.GetDecision(pb.GetDecisionRequest(tenant=TENANT, application_id=name)))


def code(call: Callable[..., object], request: object) -> grpc.StatusCode:
    return refusal(call, request).code()


def test_from_the_queue_to_an_approval_and_its_end(stub: DecisionServiceStub, counted: Callable[[str], int]) -> None:
    first = waiting(stub, "whole", "the borrower")
    (listed,) = [r for r in queue(stub) if r.review_id == TOKENIZER.key("whole")]
    unaddressed = pb.DecideResponse.FromString(first.SerializeToString())
    unaddressed.application_id = ""
    assert listed.decision == unaddressed and listed.product == "consumer"
    assert (listed.amount_minor, listed.term_months) == (2_000_000, 12)
    assert abs(listed.waiting_since_ms - time.time() * 1000) < 60_000
    assert listed.facts["housing"].text == "rent" and listed.facts["exposure_minor"].number == 0
    assert not {"verified_income", "declared_income", "age_years", "education"} & set(listed.facts)  # personal

    resolution = stub.ResolveReview(resolving("whole")).resolution
    assert (resolution.outcome, resolution.approved_amount_minor, resolution.annual_rate) == (1, 2_000_000, 0.1)
    assert (resolution.reviewer, resolution.authority, resolution.note) == ("li.wei", "head", "called the employer")
    assert abs(resolution.resolved_at_ms - time.time() * 1000) < 60_000
    assert resolution.policy == first.versions.policy
    assert [(s.funder, s.amount_minor) for s in resolution.funding] == [("bank", 2_000_000)]
    assert listed.review_id not in [r.review_id for r in queue(stub)]
    kept = stored(stub, "whole")
    assert kept.decision == first and kept.resolution == resolution

    exposure = f"x:consumer:{TOKENIZER.token('applicant', 'the borrower'):016x}"
    assert counted(exposure) == 2_000_000 and counted("f:bank") == 2_000_000
    for number, (kind, amount, left) in enumerate(
        [(pb.OUTCOME_KIND_DISBURSED, 0, 2_000_000), (pb.OUTCOME_KIND_PRINCIPAL_REPAID, 500_000, 1_500_000),
         (pb.OUTCOME_KIND_REPAID, 0, 0)]
    ):  # fmt: skip
        stub.ReportOutcome(pb.ReportOutcomeRequest(
            tenant=TENANT, application_id="whole", outcome_id=f"whole {number}", kind=kind, amount_minor=amount
        ))  # fmt: skip
        assert counted(exposure) == counted("f:bank") == left


def test_a_resolution_is_recorded_once(stub: DecisionServiceStub, counted: Callable[[str], int]) -> None:
    waiting(stub, "once")
    request = resolving("once")
    by_token = resolving("", review_id=TOKENIZER.key("once"))
    said, taken = stub.ResolveReview(request), counted("f:bank")
    assert stub.ResolveReview(request) == said  # the same again
    assert stub.ResolveReview(by_token) == said  # and by the queue's name for it
    assert code(stub.ResolveReview, resolving("once", note="another reason")) is grpc.StatusCode.ALREADY_EXISTS
    assert code(stub.ResolveReview, declining("once")) is grpc.StatusCode.ALREADY_EXISTS
    assert counted("f:bank") == taken and stored(stub, "once").resolution == said.resolution
    end(stub, "once")


def test_two_reviewers_at_once(stub: DecisionServiceStub, counted: Callable[[str], int]) -> None:
    for number in range(8):
        name, before = f"both {number}", counted("f:bank")
        waiting(stub, name)
        calls = [stub.ResolveReview.future(resolving(name, reviewer=who)) for who in ("li", "wang", "zhao")]
        codes = [call.exception().code() if call.exception() else "recorded" for call in calls]
        assert sorted(map(str, codes)) == ["StatusCode.ALREADY_EXISTS"] * 2 + ["recorded"]
        (winner,) = [call.result().resolution for call, said in zip(calls, codes, strict=True) if said == "recorded"]
        assert stored(stub, name).resolution == winner and counted("f:bank") == before + 2_000_000
        end(stub, name)


def test_authority(stub: DecisionServiceStub) -> None:
    waiting(stub, "authority", amount_minor=2_100_000)
    approve = resolving("authority", 2_100_000, authority="clerk")
    denied = refusal(stub.ResolveReview, approve)
    assert denied.code() is grpc.StatusCode.PERMISSION_DENIED and "at most 2000000" in str(denied.details())
    assert code(stub.ResolveReview, declining("authority", authority="intern")) is grpc.StatusCode.PERMISSION_DENIED
    assert not stored(stub, "authority").HasField("resolution")
    limited = resolving("authority", 2_000_000, authority="clerk", outcome=pb.OUTCOME_LIMIT)
    assert stub.ResolveReview(limited).resolution.approved_amount_minor == 2_000_000
    end(stub, "authority")
    waiting(stub, "declined")
    assert stub.ResolveReview(declining("declined", authority="clerk")).resolution.outcome == pb.OUTCOME_DECLINE


def test_what_a_policy_without_such_a_table_says(stub: DecisionServiceStub, redis_url: str, tmp_path: Path) -> None:
    name = "nobody may"
    waiting(stub, name)
    bare = write_policies(tmp_path, exposure_max_minor=LIMIT, certain=True)
    with server_process(redis_url, tenant=TENANT, policies=bare) as (address, _), client(address) as other:
        refused = refusal(other.ResolveReview, declining(name, authority="board"))
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED and "no table authority" in str(refused.details())
    stub.ResolveReview(declining(name))


def test_what_leaves_no_room(stub: DecisionServiceStub, counted: Callable[[str], int]) -> None:
    assert counted("f:bank") == 0
    for name in ("room 1", "room 2"):
        waiting(stub, name, "one borrower", 3_000_000)
    stub.ResolveReview(resolving("room 1", 3_000_000))
    refused = refusal(stub.ResolveReview, resolving("room 2", 3_000_000))
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION and "2000000 of the borrower" in str(refused.details())
    assert [r.review_id for r in queue(stub)] == [TOKENIZER.key("room 2")]
    stub.ResolveReview(resolving("room 2", 2_000_000, outcome=pb.OUTCOME_LIMIT))
    waiting(stub, "room 3", amount_minor=4_100_000)  # the bank has 4 million left
    refused = refusal(stub.ResolveReview, resolving("room 3", 4_100_000))
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION and "lend 4000000 of 4100000" in str(refused.details())
    dear = resolving("room 3", 4_000_000, outcome=pb.OUTCOME_LIMIT, annual_rate=0.04)  # less than the bank asks
    assert code(stub.ResolveReview, dear) is grpc.StatusCode.FAILED_PRECONDITION
    stub.ResolveReview(resolving("room 3", 4_000_000, outcome=pb.OUTCOME_LIMIT))
    assert counted("f:bank") == CAP
    for name in ("room 1", "room 2", "room 3"):
        end(stub, name)


def test_what_cannot_be_resolved(stub: DecisionServiceStub) -> None:
    waiting(stub, "bad", amount_minor=2_000_000)
    declined = stub.Decide(loan_under_age("declined at once"))
    assert declined.outcome == pb.OUTCOME_DECLINE
    assert code(stub.ResolveReview, resolving("declined at once")) is grpc.StatusCode.FAILED_PRECONDITION
    assert code(stub.ResolveReview, resolving("nobody")) is grpc.StatusCode.NOT_FOUND
    for field, request in (
        ("approved_amount_minor", resolving("bad", 2_000_001)),
        ("approved_amount_minor", resolving("bad", 1_000_000)),
        ("approved_amount_minor", resolving("bad", outcome=pb.OUTCOME_LIMIT)),
        ("approved_amount_minor", resolving("bad", outcome=pb.OUTCOME_DECLINE)),
        ("annual_rate", resolving("bad", annual_rate=0.241)),
        ("annual_rate", resolving("bad", annual_rate=float("nan"))),
        ("outcome", resolving("bad", outcome=pb.OUTCOME_REVIEW)),
        ("reviewer", resolving("bad", reviewer="")),
        ("authority", resolving("bad", authority="")),
        ("note", resolving("bad", note="x" * 1001)),
        ("application_id", resolving("bad", review_id=TOKENIZER.key("bad"))),
        ("review_id", resolving("", review_id="../a")),
    ):
        assert bad_field(refusal(stub.ResolveReview, request)) == field, field
    assert bad_field(refusal(stub.ListReviews, pb.ListReviewsRequest(tenant=TENANT, page_size=257))) == "page_size"
    assert bad_field(refusal(stub.ListReviews, pb.ListReviewsRequest(tenant=TENANT, page_token="9"))) == "page_token"
    big = waiting(stub, "above the cap", amount_minor=19_000_000, term_months=36)
    assert big.grade == "A"  # cap: 120 000
    over = resolving("above the cap", 18_000_000, outcome=pb.OUTCOME_LIMIT)
    assert bad_field(refusal(stub.ResolveReview, over)) == "approved_amount_minor"
    for name in ("bad", "above the cap"):
        assert not stored(stub, name).HasField("resolution")
        stub.ResolveReview(declining(name))


def test_pages_hold_each_case_once(stub: DecisionServiceStub) -> None:
    requests = []
    for number in range(23):
        request = loan_request(f"page {number}", tenant=TENANT)
        request.human_review_requested = True
        requests.append(request)
    replies = stub.BatchDecide(pb.BatchDecideRequest(requests=requests)).results  # many wait from one moment on
    expected = {TOKENIZER.key(r.application_id) for r in replies if r.decision.outcome == pb.OUTCOME_REVIEW}
    for size in (1, 5, 23, 256):
        listed = queue(stub, size)
        assert len(listed) == len(expected) == 23 and {r.review_id for r in listed} == expected
        times = [r.waiting_since_ms for r in listed]
        assert times == sorted(times)
    for reply in replies:
        stub.ResolveReview(declining(reply.application_id))
    assert not queue(stub)


def loan_under_age(name: str) -> pb.DecideRequest:
    request = loan_request(name, tenant=TENANT)
    request.features["age_years"].number = 17
    return request


def end(stub: DecisionServiceStub, name: str) -> None:
    stub.ReportOutcome(pb.ReportOutcomeRequest(
        tenant=TENANT, application_id=name, outcome_id=f"end of {name}", kind=pb.OUTCOME_KIND_EXPIRED
    ))  # fmt: skip
