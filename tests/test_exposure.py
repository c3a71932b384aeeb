"""One borrower, one limit; one funder, one cap: in a batch, between replicas, and after a loan ended (R2, R4)."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
import redis as sync_redis
from redis.asyncio import Redis

from bench.serving import SECRET, client, server_process
from features import evidence
from features.application import Application, make_profile
from features.evidence import Facts
from features.reservations import Committed, Proposal, Reservation
from features.store import Store
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from server import products, wire
from server.batcher import Reply
from server.challengers import Challengers
from server.engine import Engine
from server.products import Product
from server.settings import Settings
from tests.conftest import SCANNED
from tests.lending import write_policies
from tests.requests import GOOD_BORROWER, loan_request

LIMIT = 5_000_000
FUNDERS = (("bank", "joint", 0.7, 21_000_000, 0.05), ("trust", "assisted", 1.0, 15_000_000, 0.05))
CAPS = {row[0]: row[3] for row in FUNDERS}
TOKENIZER = Tokenizer(SECRET.encode())


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policies(tmp_path_factory.mktemp("policies"), exposure_max_minor=LIMIT, funders=FUNDERS, certain=True)


@pytest.fixture(scope="module")
def served(policies: Path) -> dict[str, Product]:
    return products.load(Settings(policies=policies))


@asynccontextmanager
async def engine_over(store: Store, served: dict[str, Product]) -> AsyncIterator[Engine]:
    engine = Engine("t", store, served, Challengers())
    follower = asyncio.create_task(engine.follow())
    async with asyncio.timeout(20):
        while not engine.ready:
            await asyncio.sleep(0.01)
    yield engine
    follower.cancel()
    with suppress(asyncio.CancelledError):
        await follower


def good_application(product: Product, name: str, borrower: str = "", amount_minor: int = 2_000_000) -> Application:
    request = loan_request(name, device=f"device of {name}")
    request.applicant_id = borrower or request.applicant_id
    request.amount_minor = amount_minor
    return wire.application(request, product.schema, TOKENIZER, False)


async def know(store: Store, product: Product, applications: Sequence[Application]) -> None:
    """Put what a good borrower's sources know of each applicant."""
    schema = product.schema
    await store.put_profiles([
        (int(a.tokens[0]), schema, make_profile(schema, source, round(time.time() * 1000), numbers))
        for a in applications for source, numbers in GOOD_BORROWER.items()
    ])  # fmt: skip


async def decide(engine: Engine, batch: list[Application]) -> list[pb.DecideResponse]:
    replies = await engine.decide(lambda: batch)
    assert all(isinstance(reply, Reply) for reply in replies), replies
    return [pb.DecideResponse.FromString(reply.body) for reply in replies if isinstance(reply, Reply)]


async def facts_of(store: Store, name: str) -> Facts:
    stored = await store.decision(name)
    assert stored is not None
    return evidence.unpack(stored[1])[0]


class Contested(Store):
    """A store where somebody else takes some of the borrower's room before each commit."""

    rivals: Sequence[int] = ()
    commits = 0

    async def commit(self, proposals: Sequence[Proposal], funders: Sequence[str] = ()) -> Committed:
        if self.commits < len(self.rivals):
            taken = next(p.reservation for p in proposals if p.reservation)
            rival = Reservation(taken.borrower, self.rivals[self.commits], None)
            said = await super().commit([Proposal(f"rival {self.commits}", b"rival", b"", rival)])
            assert said.decisions == [b"rival"]
        self.commits += 1
        return await super().commit(proposals, funders)


async def contested(redis: Redis, tenant: str, product: Product, rivals: Sequence[int]) -> Contested:
    store = Contested(redis, tenant, TOKENIZER, [product.schema])
    await store.open()
    if rivals:
        await store.begin([good_application(product, f"rival {n}") for n in range(len(rivals))])
    store.rivals = rivals
    return store


async def test_who_was_refused_decides_again_on_the_totals_of_now(
    redis: Redis, tenant: str, served: dict[str, Product]
) -> None:
    product = served["consumer"]
    store = await contested(redis, tenant, product, [4_000_000])
    asked = good_application(product, "asked")
    await know(store, product, [asked])
    async with engine_over(store, served) as engine:
        (reply,) = await decide(engine, [asked])
    assert (reply.outcome, reply.approved_amount_minor) == (pb.OUTCOME_LIMIT, 1_000_000)
    assert "LIMIT_BY_EXPOSURE" in [r.code for r in reply.reasons] and store.commits == 2
    facts = await facts_of(store, "asked")
    assert (facts.exposure_minor, facts.approved_amount_minor, facts.outcome) == (4_000_000, 1_000_000, "LIMIT")
    assert await exposure(redis, tenant, asked) == LIMIT


async def test_after_two_refusals_a_person_must_look(redis: Redis, tenant: str, served: dict[str, Product]) -> None:
    """Only for whom it happened to: a bystander of the batch is approved at once."""
    product = served["consumer"]
    store = await contested(redis, tenant, product, [4_000_000, 500_000])
    asked, bystander = good_application(product, "asked"), good_application(product, "bystander")
    await know(store, product, [asked, bystander])
    async with engine_over(store, served) as engine:
        reply, other = await decide(engine, [asked, bystander])
        assert await decide(engine, [asked]) == [reply]
    assert (reply.outcome, reply.approved_amount_minor, reply.annual_rate) == (pb.OUTCOME_REVIEW, 0, 0)
    assert reply.reasons[0].code == "CONTENDED" and reply.reasons[0].text_zh and not reply.funding
    assert "exposure_minor=4500000, exposure_max_minor=5000000" in reply.reasons[0].evidence
    assert (other.outcome, store.commits) == (pb.OUTCOME_APPROVE, 3)
    facts = await facts_of(store, "asked")
    assert (facts.exposure_minor, facts.approved_amount_minor, facts.outcome) == (4_000_000, 0, "REVIEW")
    assert await exposure(redis, tenant, asked) == 4_500_000
    key = TOKENIZER.key("asked")
    assert await redis.zrange(f"{{{tenant}}}:reviews", 0, -1) == [key.encode()]


async def test_a_batch_of_one_borrower_is_decided_in_one_commit(
    redis: Redis, tenant: str, served: dict[str, Product]
) -> None:
    """As if one after another; what each decision used stands in its evidence."""
    product = served["consumer"]
    store = await contested(redis, tenant, product, [])
    batch = [good_application(product, f"a{n}", "one person", 1_500_000) for n in range(6)]
    batch.insert(2, batch[1])  # sent again before it was answered: takes no room of its own
    await know(store, product, batch)
    async with engine_over(store, served) as engine:
        replies = await decide(engine, batch)
    amounts = [reply.approved_amount_minor for reply in replies]
    assert amounts == [1_500_000, 1_500_000, 1_500_000, 1_500_000, 500_000, 0, 0] and store.commits == 1
    assert replies[1] == replies[2]
    used = [(await facts_of(store, a.application_id)).exposure_minor for a in batch]
    assert used == [0, 1_500_000, 1_500_000, 3_000_000, 4_500_000, LIMIT, LIMIT]
    assert [r.code for r in replies[-1].reasons if r.code.startswith("LIMIT")] == ["LIMIT_TOO_LOW"]
    assert await exposure(redis, tenant, batch[0]) == LIMIT


async def test_a_batch_of_one_funder_is_decided_in_one_commit(
    redis: Redis, tenant: str, served: dict[str, Product]
) -> None:
    product = served["consumer"]
    store = await contested(redis, tenant, product, [])
    batch = [good_application(product, f"a{n}", amount_minor=4_000_000) for n in range(12)]
    await know(store, product, batch)
    async with engine_over(store, served) as engine:
        replies = await decide(engine, batch)
    assert store.commits == 1 and "CONTENDED" not in {r.code for reply in replies for r in reply.reasons}
    running = dict.fromkeys(CAPS, 0)
    for asked, reply in zip(batch, replies, strict=True):
        assert (await facts_of(store, asked.application_id)).lent == running
        for share in reply.funding:
            running[share.funder] += share.amount_minor
        assert sum(share.amount_minor for share in reply.funding) == reply.approved_amount_minor
    assert running == await lent(redis, tenant) == CAPS  # 12 × 4 m would be 48 m: all that there is was lent
    assert {"NO_FUNDER"} <= {r.code for r in replies[-1].reasons}


async def exposure(redis: Redis, tenant: str, application: Application) -> int:
    return int(await redis.get(f"{{{tenant}}}:x:{application.borrower}") or 0)


async def lent(redis: Redis, tenant: str) -> dict[str, int]:
    return {funder: int(await redis.get(f"{{{tenant}}}:f:{funder}") or 0) for funder in CAPS}


TENANT = "exposure"


@pytest.fixture(scope="module")
def stubs(redis_url: str, policies: Path) -> Iterator[tuple[DecisionServiceStub, DecisionServiceStub]]:
    """Clients of two server processes on one store."""
    with (
        server_process(redis_url, tenant=TENANT, policies=policies) as (one, _),
        server_process(redis_url, tenant=TENANT, policies=policies) as (two, _),
        client(one) as first,
        client(two) as second,
    ):
        yield first, second


def applying(stub: DecisionServiceStub, name: str, borrower: str, amount_minor: int) -> pb.DecideRequest:
    """A request of a borrower whom the sources know well."""
    request = loan_request(name, tenant=TENANT, device=f"device of {name}")
    request.applicant_id, request.amount_minor = borrower, amount_minor
    for source, numbers in GOOD_BORROWER.items():
        profile = pb.PutProfileRequest(
            tenant=TENANT, product="consumer", subject_id=borrower, source=source,
            fetched_at_ms=round(time.time() * 1000),
        )  # fmt: skip
        for feature, number in numbers.items():
            profile.features[feature].number = number
        stub.PutProfile(profile)
    return request


def at_once(stubs: Sequence[DecisionServiceStub], requests: Sequence[pb.DecideRequest]) -> list[pb.DecideResponse]:
    """Sent to the servers in turn before any answer is awaited."""
    calls = [stubs[i % len(stubs)].Decide.future(request) for i, request in enumerate(requests)]
    return [call.result() for call in calls]


def counters(redis_url: str, kind: str) -> dict[str, int]:
    """Minor units by borrower's token (x) or funder (f), where there are any."""
    with sync_redis.Redis.from_url(redis_url) as redis:
        keys = cast(list[bytes], list(redis.scan_iter(f"{{{TENANT}}}:{kind}:*", SCANNED)))
        found = {key.decode().rsplit(":", 1)[1]: int(cast(bytes, redis.get(key))) for key in keys}
    return {name: minor for name, minor in found.items() if minor}


def approved(replies: Sequence[pb.DecideResponse]) -> int:
    return sum(reply.approved_amount_minor for reply in replies)


def test_64_at_once_share_one_limit(stubs: tuple[DecisionServiceStub, DecisionServiceStub], redis_url: str) -> None:
    token = f"{TOKENIZER.token('applicant', 'one person'):016x}"
    requests = [applying(stubs[0], f"same {n}", "one person", 200_000) for n in range(64)]
    replies = at_once(stubs, requests)
    assert 0 < approved(replies) <= LIMIT
    assert counters(redis_url, "x") == {token: approved(replies)}
    assert at_once(stubs[::-1], requests) == replies  # sent again to the other server: nothing is taken twice
    assert counters(redis_url, "x") == {token: approved(replies)}
    taken = [reply for reply in replies if reply.approved_amount_minor]
    for reply in taken:
        report(stubs[0], reply.application_id, pb.OUTCOME_KIND_NOT_TAKEN_UP)
    assert counters(redis_url, "x") == counters(redis_url, "f") == {}
    again = stubs[1].Decide(applying(stubs[1], "same again", "one person", LIMIT))
    assert again.approved_amount_minor == LIMIT  # there is room again, and all of it is taken
    report(stubs[0], again.application_id, pb.OUTCOME_KIND_PRINCIPAL_REPAID, 1_500_000)
    more = stubs[0].Decide(applying(stubs[0], "same once more", "one person", LIMIT))
    assert more.approved_amount_minor == 1_500_000 and counters(redis_url, "x") == {token: LIMIT}
    for reply in (again, more):
        report(stubs[0], reply.application_id, pb.OUTCOME_KIND_EXPIRED)
    assert counters(redis_url, "x") == counters(redis_url, "f") == {}


def test_64_at_once_share_the_funders(stubs: tuple[DecisionServiceStub, DecisionServiceStub], redis_url: str) -> None:
    requests = [applying(stubs[0], f"loan {n}", f"person {n}", 2_000_000) for n in range(64)]
    replies = at_once(stubs, requests)
    by_funder = dict.fromkeys(CAPS, 0)
    for reply in replies:
        assert sum(share.amount_minor for share in reply.funding) == reply.approved_amount_minor
        for share in reply.funding:
            by_funder[share.funder] += share.amount_minor
    assert counters(redis_url, "f") == by_funder
    assert all(0 < by_funder[funder] <= cap for funder, cap in CAPS.items())
    assert sum(counters(redis_url, "x").values()) == approved(replies) == sum(by_funder.values())
    for reply in replies:
        report(stubs[1], reply.application_id, pb.OUTCOME_KIND_REPAID)
    assert counters(redis_url, "x") == counters(redis_url, "f") == {}


def report(stub: DecisionServiceStub, application_id: str, kind: pb.OutcomeKind, amount_minor: int = 0) -> None:
    request = pb.ReportOutcomeRequest(
        tenant=TENANT, application_id=application_id, kind=kind, amount_minor=amount_minor,
        outcome_id=f"{application_id} {kind}",
    )  # fmt: skip
    assert stub.ReportOutcome(request).sequence
