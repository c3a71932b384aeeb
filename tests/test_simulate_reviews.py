"""What people approved of reviews counts in a simulation as it did in service: from its place in the log on."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from bench import simulate as bench
from bench.serving import SECRET, client, server_process
from features import archive, export
from features.tokens import Tokenizer
from policy.decide import Outcome
from policy.portfolio import Column, Terms, total
from policy.records import Records
from policy.simulate import Run, View, simulate
from policy.study import SIMULATED
from policy.workers import Workers
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from tests.lending import write_policies
from tests.policies import table_of
from tests.requests import GOOD_BORROWER, loan_request

TENANT = "people"
TOKENIZER = Tokenizer(SECRET.encode())
ASKED, BY_PERSON, LIMIT, CAP = 2_000_000, 1_500_000, 3_000_000, 6_000_000


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_policies(
        tmp_path_factory.mktemp("policies"), exposure_max_minor=LIMIT, certain=True,
        funders=[("bank", "own", 1.0, CAP, 0.05)], authority=[("'head'", "", 100_000_000)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(redis_url: str, policies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of six applications, two of them decided by a person."""
    out = tmp_path_factory.mktemp("people") / "archive"
    with server_process(redis_url, tenant=TENANT, policies=policies) as (address, _), client(address) as stub:
        for name in ("ann", "bob", "eve"):
            know(stub, name, without="courts" if name == "eve" else "")
        assert ask(stub, "eve", "e1") == (pb.OUTCOME_REVIEW, 0)  # the courts are not known
        assert ask(stub, "ann", "a1") == (pb.OUTCOME_APPROVE, ASKED)
        assert ask(stub, "bob", "b1") == (pb.OUTCOME_APPROVE, ASKED)
        resolve(stub, "e1", BY_PERSON)
        know(stub, "eve")
        assert ask(stub, "eve", "e2") == (pb.OUTCOME_LIMIT, CAP - 2 * ASKED - BY_PERSON)  # all that the bank has left
        stub.ReportOutcome(pb.ReportOutcomeRequest(
            tenant=TENANT, application_id="e1", outcome_id="1", kind=pb.OUTCOME_KIND_REPAID
        ))  # fmt: skip
        assert ask(stub, "eve", "e3") == (pb.OUTCOME_LIMIT, BY_PERSON)
        know(stub, "joe", without="courts")
        assert ask(stub, "joe", "j1") == (pb.OUTCOME_REVIEW, 0)
        stub.ResolveReview(pb.ResolveReviewRequest(
            tenant=TENANT, application_id="j1", outcome=pb.OUTCOME_DECLINE, reviewer="li", authority="head", note="no"
        ))  # fmt: skip
    asyncio.run(archived(redis_url, out))
    return out


async def archived(url: str, out: Path) -> None:
    async with Redis.from_url(url) as redis:
        await export.write(redis, TENANT, out)


def know(stub: DecisionServiceStub, name: str, without: str = "") -> None:
    for source, numbers in GOOD_BORROWER.items():
        profile = pb.PutProfileRequest(
            tenant=TENANT, product="consumer", subject_id=name, source=source, fetched_at_ms=round(time.time() * 1000)
        )
        for feature, number in numbers.items():
            profile.features[feature].number = number
        if source != without:
            stub.PutProfile(profile)


def ask(stub: DecisionServiceStub, name: str, application_id: str) -> tuple[int, int]:
    request = loan_request(application_id, tenant=TENANT, device=f"device of {name}")
    request.applicant_id, request.amount_minor = name, ASKED
    reply = stub.Decide(request)
    return reply.outcome, reply.approved_amount_minor


def resolve(stub: DecisionServiceStub, application_id: str, amount_minor: int) -> None:
    stub.ResolveReview(pb.ResolveReviewRequest(
        tenant=TENANT, application_id=application_id, outcome=pb.OUTCOME_LIMIT, approved_amount_minor=amount_minor,
        annual_rate=0.1, reviewer="li", authority="head", note="called the court",
    ))  # fmt: skip


def run(records: Records, policies: Path) -> pl.DataFrame:
    made = simulate(records, [Run(SIMULATED, policies, View(records.parts, records.known))], Workers())[SIMULATED]
    return pl.DataFrame({
        "outcome": [Outcome(o).name for o in made.outcome], "amount": made.approved_amount_minor,
        "exposure": made.exposure_minor, "by_person": made.by_person_minor,
    })  # fmt: skip


def test_it_counts_from_its_place_in_the_log_on(folder: Path, policies: Path) -> None:
    records = bench.records(folder)
    recorded = records.recorded
    assert recorded is not None and recorded.by_person_minor.tolist() == [BY_PERSON, 0, 0, 0, 0, 0]
    found = run(records, policies)
    assert found["outcome"].to_list() == [Outcome(o).name for o in recorded.outcome]
    assert found["amount"].to_list() == recorded.approved_amount_minor.tolist()
    assert found["exposure"].to_list() == recorded.exposure_minor.tolist() == [0, 0, 0, BY_PERSON, 500_000, 0]
    assert found["by_person"].to_list() == [BY_PERSON, 0, 0, 0, 0, 0]
    figures = total(records, Column("recorded", recorded, records.known), Terms())
    assert (figures["by_person"], figures["by_person_minor"]) == (1, BY_PERSON) and figures["review"] == 2


def test_what_is_no_review_any_more_nobody_approves(folder: Path, policies: Path, tmp_path: Path) -> None:
    """Who is declined at once owes nothing; who has to be reviewed still may have the courts' record unknown."""
    document = json.loads((policies / "consumer/policy.json").read_text(encoding="utf-8"))
    (amount,) = (o["id"] for o in table_of(document, "limit")["outputs"] if o["field"] == "minimum_minor")
    for rule in table_of(document, "limit")["rules"]:
        rule[amount] = str(ASKED + 1)
    (tmp_path / "consumer").mkdir()
    (tmp_path / "consumer/policy.json").write_text(json.dumps(document), encoding="utf-8")
    found = run(bench.records(folder), tmp_path)
    assert found["outcome"].unique().to_list() == ["DECLINE"] and found["exposure"].sum() == 0
    assert found["by_person"].sum() == 0


def test_what_the_archive_says(folder: Path, redis_url: str) -> None:
    frame = pl.read_parquet(folder / archive.DECISIONS).sort("sequence")
    assert frame["resolved_as_of"].to_list() == [3, None, None, None, None, 7]
    assert frame["resolved_amount_minor"].to_list() == [BY_PERSON, None, None, None, None, 0]
    shares = [[(share["funder"], share["amount_minor"]) for share in of or ()] for of in frame["shares"].to_list()]
    assert shares == [[("bank", BY_PERSON)], [("bank", ASKED)], [("bank", ASKED)], [("bank", 500_000)],
                      [("bank", BY_PERSON)], []]  # fmt: skip


def test_a_resolution_after_the_cut_or_of_an_unknown_place(
    folder: Path, policies: Path, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of before has no place in the log and counts for nothing, which is said."""
    key = f"{{{TENANT}}}:a:{TOKENIZER.key('e1')}"
    with SyncRedis.from_url(redis_url) as redis:
        assert redis.hget(key, "vs") == b"3"
        redis.hset(key, "vs", 99)
        asyncio.run(archived(redis_url, tmp_path / "later"))
        redis.hdel(key, "vs")
        asyncio.run(archived(redis_url, tmp_path / "before"))
        redis.hset(key, "vs", 3)
    for name, said in (("later", ""), ("before", "1 approvals by people have no place in the log")):
        records = bench.records(tmp_path / name)
        assert records.recorded is not None and records.recorded.by_person_minor.sum() == 0
        assert said in capsys.readouterr().out and run(records, policies)["exposure"][3] == 0


def test_a_resolution_never_comes_before_its_decision(folder: Path, policies: Path) -> None:
    """After a crash that is as of the end of the log, and a person may decide before anything else happens."""
    records = bench.records(folder)
    at_once = replace(records, resolved=replace(records.resolved, as_of=records.as_of[:1]))
    assert run(at_once, policies)["exposure"].to_list() == [0, 0, 0, BY_PERSON, 500_000, 0]
