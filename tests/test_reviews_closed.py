"""Nobody decides on what is over, on whom the lender has forgotten, or on less than is known by now (R14, R20, R22)."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import grpc
import pytest
import redis as sync_redis
from redis.asyncio import Redis

from bench.serving import client, server_process
from features.durability import AT_ONCE, Durability, NotDurableError
from features.reviews import ReviewQueue
from features.store import Store
from features.unlink import unlink
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from server import products
from server.challengers import Challengers
from server.engine import Engine
from server.reviews import Reviews
from server.settings import Settings
from tests.requests import loan_request
from tests.test_reviews import (
    TENANT,
    TOKENIZER,
    code,
    counted,
    declining,
    loan_under_age,
    policies,
    queue,
    resolving,
    stored,
    waiting,
)
from tests.test_service import bad_field, refusal

__all__ = ["counted", "policies"]


@pytest.fixture(scope="module")
def stub(redis_url: str, policies: Path) -> Iterator[DecisionServiceStub]:
    with server_process(redis_url, tenant=TENANT, policies=policies) as (address, _), client(address) as made:
        yield made


def report(stub: DecisionServiceStub, name: str, outcome: str, kind: pb.OutcomeKind) -> None:
    stub.ReportOutcome(pb.ReportOutcomeRequest(tenant=TENANT, application_id=name, outcome_id=outcome, kind=kind))


def waits(stub: DecisionServiceStub, name: str) -> pb.PendingReview | None:
    return next((r for r in queue(stub) if r.review_id == TOKENIZER.key(name)), None)


@pytest.mark.parametrize("kind", [pb.OUTCOME_KIND_EXPIRED, pb.OUTCOME_KIND_NOT_TAKEN_UP])
def test_what_has_ended_waits_for_nobody(
    stub: DecisionServiceStub, counted: Callable[[str], int], kind: pb.OutcomeKind
) -> None:
    name = f"ended {kind}"
    waiting(stub, name)
    since_ms = cast(pb.PendingReview, waits(stub, name)).waiting_since_ms
    report(stub, name, name, kind)
    assert waits(stub, name) is None
    for request in (resolving(name), declining(name)):
        refused = refusal(stub.ResolveReview, request)
        assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION and "ended" in str(refused.details())
    assert counted("f:bank") == 0 and not stored(stub, name).HasField("resolution")
    report(stub, name, f"{name}, not", pb.OUTCOME_KIND_RETRACTED)
    assert cast(pb.PendingReview, waits(stub, name)).waiting_since_ms == since_ms  # where it stood
    stub.ResolveReview(resolving(name))
    assert counted("f:bank") == 2_000_000
    report(stub, name, f"{name} again", kind)
    assert counted("f:bank") == 0 and waits(stub, name) is None
    report(stub, name, f"{name}, not again", pb.OUTCOME_KIND_RETRACTED)
    assert counted("f:bank") == 2_000_000 and waits(stub, name) is None  # a person has decided
    report(stub, name, f"{name} at last", kind)


@pytest.mark.parametrize("unlinked", [False, True])
def test_who_is_forgotten_is_neither_shown_nor_decided_on(
    stub: DecisionServiceStub, redis_url: str, counted: Callable[[str], int], unlinked: bool
) -> None:
    """Also where the log no longer tells who it was."""
    gone, other, anew = (f"{name} {unlinked}" for name in ("of the forgotten", "of another", "of the forgotten, anew"))
    waiting(stub, gone, "forgotten")
    waiting(stub, other, "another")
    stub.DeleteApplicant(pb.DeleteApplicantRequest(tenant=TENANT, applicant_id="forgotten", requested_by="Li"))
    waiting(stub, anew, "forgotten")
    if unlinked:
        asyncio.run(unlink_on(redis_url))
    for request in (resolving(gone), declining(gone)):
        refused = refusal(stub.ResolveReview, request)
        assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION and "forgotten" in str(refused.details())
    assert waits(stub, gone) is None and waits(stub, other) is not None and waits(stub, anew) is not None
    with sync_redis.Redis.from_url(redis_url) as redis:
        assert redis.zscore(f"{{{TENANT}}}:reviews", TOKENIZER.key(gone)) is None
    assert counted("f:bank") == 0
    for name in (anew, other):
        stub.ResolveReview(declining(name))


async def unlink_on(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        assert (await unlink(redis, TENANT, Store(redis, TENANT, TOKENIZER, []))).tokens


def test_a_withdrawn_consent_takes_its_facts_from_the_queue(stub: DecisionServiceStub) -> None:
    waiting(stub, "with contacts", "talkative")
    before = cast(pb.PendingReview, waits(stub, "with contacts")).facts
    assert {"contact_count_7d", "linked_applicants", "device_count_7d"} <= {*before}
    stub.WithdrawConsent(
        pb.WithdrawConsentRequest(tenant=TENANT, applicant_id="talkative", purpose="contacts", requested_by="Li")
    )
    after = cast(pb.PendingReview, waits(stub, "with contacts")).facts
    assert {*before} - {*after} >= {"contact_count_7d", "linked_applicants"}
    assert "device_count_7d" in after
    stub.ResolveReview(declining("with contacts"))


def test_nobody_approves_confirmed_fraud(stub: DecisionServiceStub, counted: Callable[[str], int]) -> None:
    waiting(stub, "fraud")
    report(stub, "fraud", "found out", pb.OUTCOME_KIND_FRAUD_CONFIRMED)
    refused = refusal(stub.ResolveReview, resolving("fraud"))
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION and "fraud" in str(refused.details())
    assert counted("f:bank") == 0
    assert stub.ResolveReview(declining("fraud")).resolution.outcome == pb.OUTCOME_DECLINE


def test_nobody_approves_who_is_on_the_black_list_by_now(
    stub: DecisionServiceStub, counted: Callable[[str], int]
) -> None:
    waiting(stub, "listed since")
    proposal = pb.ProposeListEntryRequest(
        tenant=TENANT, list=pb.LIST_KIND_BLACK, entity=pb.Entity(type="device", id="device of listed since"),
        reason="农场", source="investigation", proposed_by="Alice",
    )  # fmt: skip
    entry_id = stub.ProposeListEntry(proposal).entry_id
    stub.ApproveListEntry(pb.ApproveListEntryRequest(tenant=TENANT, entry_id=entry_id, approved_by="Bob"))
    refused = refusal(stub.ResolveReview, resolving("listed since"))
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION and "black list" in str(refused.details())
    assert counted("f:bank") == 0
    stub.ResolveReview(declining("listed since"))


def test_nobody_approves_what_they_brought_in_themselves(stub: DecisionServiceStub) -> None:
    """Officer and dealer forge together (R9): the officer of an application is not the person who looks at it."""
    request = loan_request("own", tenant=TENANT)
    request.human_review_requested = True
    request.entities.add(type="officer", id="li.wei")
    request.entities.add(type="dealer", id="a dealer")
    assert stub.Decide(request).outcome == pb.OUTCOME_REVIEW
    for name in ("li.wei", " li.wei ", "li\u200b.wei"):
        asked = resolving("own", request.amount_minor, reviewer=name)
        refused = refusal(stub.ResolveReview, asked)
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED and "officer" in str(refused.details())
    assert bad_field(refusal(stub.ResolveReview, declining("own", reviewer=" \u200b"))) == "reviewer"
    assert stub.ResolveReview(declining("own")).resolution.outcome == pb.OUTCOME_DECLINE


@pytest.mark.parametrize("authority", ["clerk", "board"])
def test_who_asks_for_a_person_is_not_approved_past_a_knockout(
    stub: DecisionServiceStub, counted: Callable[[str], int], authority: str
) -> None:
    """The request makes a review of a decline: the person may look, and the law binds them too."""
    name = f"minor {authority}"
    request = loan_under_age(name)
    request.human_review_requested, request.amount_minor = True, 1_000_000
    assert stub.Decide(request).outcome == pb.OUTCOME_REVIEW
    refused = refusal(stub.ResolveReview, resolving(name, 1_000_000, authority=authority))
    assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION and "UNDER_AGE" in str(refused.details())
    assert counted("f:bank") == 0
    stub.ResolveReview(declining(name, authority=authority))


def test_pages_go_on_where_cases_are_gone(stub: DecisionServiceStub) -> None:
    """A page whose cases are all of somebody forgotten is short, and not the last."""
    requests = []
    for number in range(6):
        request = loan_request(f"gone {number}", tenant=TENANT)
        request.human_review_requested, request.applicant_id = True, "of many" if number < 4 else f"of {number}"
        requests.append(request)
    for request in requests:
        stub.Decide(request)
    stub.DeleteApplicant(pb.DeleteApplicantRequest(tenant=TENANT, applicant_id="of many", requested_by="Li"))
    assert [r.review_id for r in queue(stub, 2)] == [TOKENIZER.key(f"gone {n}") for n in (4, 5)]
    for number in (4, 5):
        stub.ResolveReview(declining(f"gone {number}"))


class Overtaken(ReviewQueue):
    """A queue where the same request, sent twice, is decided between two questions of its second."""

    def __init__(self, redis: Redis, store: Store) -> None:
        super().__init__(redis, TENANT, store)
        self.first: Reviews | None = None
        self.request = pb.ResolveReviewRequest()

    async def lent(self, funders: object) -> dict[str, int]:
        if self.first is not None:
            first, self.first = self.first, None
            await first.resolve(self.request)
        return await super().lent(cast(list[str], funders))


@pytest.mark.parametrize("confirmed", [True, False])
async def test_a_request_that_its_own_twin_overtook_is_answered(
    stub: DecisionServiceStub, redis: Redis, policies: Path, confirmed: bool
) -> None:
    """It took the last of the funder's room: the second learns what is on record and not that there is none, once as
    many copies as it asks for have it.
    """
    twin, beside = f"twin {confirmed}", f"beside {confirmed}"
    waiting(stub, twin, amount_minor=5_000_000)
    waiting(stub, beside, amount_minor=4_000_000)
    stub.ResolveReview(resolving(beside, 4_000_000))
    loaded = products.load(Settings(policies=policies))
    store = Store(redis, TENANT, TOKENIZER, [product.schema for product in loaded.values()])
    asking = Store(redis, TENANT, TOKENIZER, [], AT_ONCE if confirmed else Durability(1, wait_ms=20))
    engine = Engine(TENANT, store, loaded, Challengers())
    following = asyncio.create_task(engine.follow())
    while not engine.ready:
        await asyncio.sleep(0.01)
    queue_of_second = Overtaken(redis, asking)
    queue_of_second.request = resolving(twin, 5_000_000)
    queue_of_second.first = Reviews(ReviewQueue(redis, TENANT, store), TOKENIZER, loaded, engine)
    second = Reviews(queue_of_second, TOKENIZER, loaded, engine)
    with nullcontext() if confirmed else pytest.raises(NotDurableError):
        said = await second.resolve(queue_of_second.request)
        assert said.approved_amount_minor == 5_000_000 and said == stored(stub, twin).resolution
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    for name in (twin, beside):
        report(stub, name, f"end of {name}", pb.OUTCOME_KIND_EXPIRED)
    assert code(stub.ResolveReview, resolving(twin, 4_000_000)) is grpc.StatusCode.ALREADY_EXISTS
