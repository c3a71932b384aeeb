"""Reservations on a real Valkey: taken with the decision or not at all, given back by outcomes, never twice."""

import asyncio
import json
import random
import secrets

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from features.application import Report
from features.reservations import Proposal, Reservation
from features.schema import Schema
from features.specs import OUTCOME_KINDS
from features.store import Store
from policy.ledger import Ledger
from tests.conftest import TOKENIZER, application

BORROWER = "consumer:abc"
CAPS = (("bank", 600), ("trust", 900))


def proposal(
    name: str, amount: int, most: int | None = 1000, shares: tuple[tuple[str, int, int], ...] = ()
) -> Proposal:
    return Proposal(name, f"{name} {amount}".encode(), b"", Reservation(BORROWER, amount, most, shares))


async def begun(store: Store, schema: Schema, *names: str) -> None:
    await store.begin([application(schema, name) for name in names])


async def totals(redis: Redis, tenant: str) -> tuple[int, ...]:
    """What the borrower has, then what bank and trust have lent."""
    keys = [f"x:{BORROWER}", "f:bank", "f:trust"]
    return tuple(int(n or 0) for n in await redis.mget([f"{{{tenant}}}:{key}" for key in keys]))


async def test_a_decision_is_stored_with_what_it_takes_or_not_at_all(
    store: Store, redis: Redis, tenant: str, consumer: Schema
) -> None:
    await begun(store, consumer, "a", "b", "c", "d")
    funded = proposal("a", 700, 1000, (("bank", 500, 600), ("trust", 200, 900)))
    too_much = proposal("b", 400, 1000, (("trust", 400, 900),))
    no_funds = proposal("c", 200, None, (("trust", 50, 900), ("bank", 150, 600)))
    said = await store.commit([funded, too_much, no_funds, proposal("d", 300)], ["trust", "bank"])
    assert said.decisions == [b"a 700", None, None, b"d 300"]
    assert said.exposure_minor == [0, 1000, 1000, 0]  # as it is after all of the batch
    assert said.lent == {"trust": 200, "bank": 500}
    assert await store.decision("b") is None and await store.decision("c") is None
    assert await totals(redis, tenant) == (1000, 500, 200)
    assert await redis.xlen(f"{{{tenant}}}:decisions") == 2


async def test_no_repetition_takes_twice(store: Store, redis: Redis, tenant: str, consumer: Schema) -> None:
    await begun(store, consumer, "a")
    once = proposal("a", 700, 1000, (("bank", 700, 900),))
    other = proposal("a", 200)._replace(decision=b"another")
    assert (await store.commit([once, once])).decisions == [b"a 700", b"a 700"]
    said = await store.commit([once, other, proposal("a", 5_000)])  # what is stored is returned, room or not
    assert said.decisions == [b"a 700"] * 3 and said.lent == {}
    assert await totals(redis, tenant) == (700, 700, 0)


async def test_without_a_cap_it_is_counted_and_not_checked(
    store: Store, redis: Redis, tenant: str, consumer: Schema
) -> None:
    await begun(store, consumer, "a", "b", "c")
    big = 10**15 - 1
    said = await store.commit([proposal("a", big, None), proposal("b", 1, None)])
    assert None not in said.decisions and (await totals(redis, tenant))[0] == 10**15
    said = await store.commit([proposal("c", 1, 10**15)])
    assert said.decisions == [None] and said.exposure_minor == [10**15]


async def test_begin_reads_what_was_taken(store: Store, consumer: Schema) -> None:
    asked = application(consumer, "a")
    first = await store.begin([asked, application(consumer, "b")], ["bank", "银行"])
    assert first.exposure_minor == [0, 0] and first.lent == {"bank": 0, "银行": 0}
    shares = (("银行", 30, 100), ("bank", 12, 100))
    await store.commit([Proposal("a", b"d", b"", Reservation(asked.borrower, 42, 42, shares))])
    again = application(consumer, "c")._replace(tokens=asked.tokens)
    then = await store.begin([application(consumer, "b"), again], ["bank", "银行"])
    assert then.exposure_minor == [0, 42] and then.lent == {"bank": 12, "银行": 30}


@pytest.mark.parametrize("kind", ["not_taken_up", "expired", "repaid"])
async def test_what_ends_a_loan_gives_all_of_it_back_once(
    store: Store, redis: Redis, tenant: str, consumer: Schema, kind: str
) -> None:
    await begun(store, consumer, "a", "b", "declined")
    await store.commit([proposal("a", 700, 1000, (("bank", 400, 600), ("trust", 300, 900))), proposal("b", 100)])
    await store.commit([Proposal("declined", b"no", b"")])
    for outcome in ("disbursed", "past_due_30", "fraud_confirmed"):
        await store.report([(Report(f"a {outcome}", "a", outcome), consumer)])
    assert await totals(redis, tenant) == (800, 400, 300)
    ended = [(Report("o-1", "a", kind), consumer), (Report("o-1", "a", kind), consumer)]
    assert [status for status, _ in await store.report([*ended, (Report("o-2", "a", kind), consumer)])] == [
        "NEW", "KNOWN", "NEW",
    ]  # fmt: skip
    await store.report([(Report("o-3", "declined", kind), consumer)])
    assert await totals(redis, tenant) == (100, 0, 0)
    assert (await store.commit([proposal("a", 700)])).decisions == [b"a 700"]  # decided: takes nothing again
    assert await totals(redis, tenant) == (100, 0, 0)


async def test_what_ended_before_it_was_decided_takes_no_room(
    store: Store, redis: Redis, tenant: str, consumer: Schema
) -> None:
    """A server died between begin and commit, the lender reported the application expired, then it was sent again."""
    await begun(store, consumer, "a", "waits", "back", "other")
    shares = (("bank", 400, 600), ("trust", 300, 900))
    for name, kinds in (("a", ["expired"]), ("waits", ["not_taken_up"]), ("back", ["expired", "retracted"])):
        for kind in kinds:
            await store.report([(Report(f"{name} {kind}", name, kind), consumer)])
    await store.commit([proposal("other", 900)])
    said = await store.commit([proposal("a", 700, 1000, shares), Proposal("waits", b"review", b"", waits=True)])
    assert said.decisions == [b"a 700", b"review"]  # whether there is room or not: it takes none
    assert await totals(redis, tenant) == (900, 0, 0)
    reviews = f"{{{tenant}}}:reviews"
    assert await redis.zrange(reviews, 0, -1) == []
    assert (await store.commit([proposal("back", 700, 1000, shares)])).decisions == [None]
    await store.report([(Report("a again", "a", "expired"), consumer)])
    assert await totals(redis, tenant) == (900, 0, 0)
    await store.report([(Report(f"{name} back", name, "retracted"), consumer) for name in ("a", "waits")])
    assert await totals(redis, tenant) == (1600, 400, 300)
    assert await redis.zrange(reviews, 0, -1) == [TOKENIZER.key("waits").encode()]


async def test_a_retraction_takes_back_what_was_given_back(
    store: Store, redis: Redis, tenant: str, consumer: Schema
) -> None:
    await begun(store, consumer, "a")
    await store.commit([proposal("a", 700, 1000, (("bank", 400, 600), ("trust", 300, 900)))])
    for number, (kind, amount, left) in enumerate(
        [("retracted", 0, 700), ("principal_repaid", 99, 601), ("principal_repaid", 10_000, 0), ("retracted", 0, 700),
         ("retracted", 0, 700), ("expired", 0, 0), ("principal_repaid", 5, 0)]
    ):  # fmt: skip
        await store.report([(Report(f"o-{number}", "a", kind, 0, amount), consumer)])
        exposure, *lent = await totals(redis, tenant)
        assert exposure == sum(lent) == left
    assert await redis.hget(f"{{{tenant}}}:a:{TOKENIZER.key('a')}", "x:bank") == b"400"


async def test_a_report_of_another_amount_is_another_report(store: Store, consumer: Schema) -> None:
    await begun(store, consumer, "a")
    await store.commit([proposal("a", 700)])
    said = [
        (await store.report([(Report("o", "a", "principal_repaid", 0, amount), consumer)]))[0][0]
        for amount in (5, 5, 6)
    ]
    assert said == ["NEW", "KNOWN", "CONFLICT"]


async def test_what_was_paid_out_is_outstanding_whatever_was_said_before(
    store: Store, redis: Redis, tenant: str, consumer: Schema
) -> None:
    """An offer that expired and was paid out after all counts again, above a cap too; what was repaid does not."""
    await begun(store, consumer, "a")
    await store.commit([proposal("a", 700, 1000, (("bank", 400, 600), ("trust", 300, 900)))])
    for number, (kind, amount, left) in enumerate(
        [("expired", 0, 0), ("disbursed", 0, 700), ("disbursed", 0, 700), ("principal_repaid", 200, 500),
         ("disbursed", 0, 500), ("repaid", 0, 0), ("expired", 0, 0), ("disbursed", 0, 0), ("retracted", 0, 700),
         ("not_taken_up", 0, 0), ("repaid", 0, 0), ("disbursed", 0, 0), ("retracted", 0, 700), ("expired", 0, 0),
         ("retracted", 0, 700), ("repaid", 0, 0), ("disbursed", 0, 0)]
    ):  # fmt: skip
        await store.report([(Report(f"o-{number}", "a", kind, 0, amount), consumer)])
        exposure, *lent = await totals(redis, tenant)
        assert exposure == sum(lent) == left, number


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    early=st.lists(st.sampled_from([kind for kind in OUTCOME_KINDS if kind != "principal_repaid"]), max_size=2),
    late=st.lists(st.tuples(st.sampled_from(OUTCOME_KINDS), st.integers(1, 400)), max_size=6),
)
@example(early=["repaid", "expired"], late=[("disbursed", 1)])
@example(early=[], late=[("expired", 1), ("principal_repaid", 1), ("disbursed", 1)])
async def test_a_simulation_owes_what_the_store_counts(
    store: Store, redis: Redis, tenant: str, consumer: Schema, early: list[str], late: list[tuple[str, int]]
) -> None:
    """Whatever is reported in whatever order; of what comes before the decision, only whether it ended the loan."""
    name, ledger, who = secrets.token_hex(8), Ledger(), ("consumer", 1)
    shares = ((f"{name} bank", 400, 10**9), (f"{name} trust", 300, 10**9))
    counters = [f"{{{tenant}}}:{key}" for key in (f"x:{name}", f"f:{name} bank", f"f:{name} trust")]
    await begun(store, consumer, name)
    ledger.approve(1, who, 700, [(funder, share) for funder, share, _ in shares])

    async def report(number: int, kind: str, amount: int) -> None:
        minor = amount if kind == "principal_repaid" else 0
        await store.report([(Report(f"{name} {number}", name, kind, 0, minor), consumer)])
        ledger.report(1, OUTCOME_KINDS.index(kind), minor)

    for number, kind in enumerate(early):
        await report(number, kind, 0)
    await store.commit([Proposal(name, b"decision", b"", Reservation(name, 700, None, shares))])
    for number, (kind, amount) in enumerate(late, len(early)):
        await report(number, kind, amount)
    counted = [int(n or 0) for n in await redis.mget(counters)]
    assert counted == [ledger.exposure(who), *(ledger.lent[funder] for funder, _, _ in shares)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shares=st.lists(st.integers(1, 10**14), min_size=1, max_size=4), parts=st.lists(st.integers(1, 10**14), max_size=5)
)
@example(shares=[4_723_540_094, 2_024_374_326], parts=[4_654_541_690])
@example(shares=[36_118_950_359_080, 48_379_716_621_419, 24_920_572_740_013], parts=[97_405_018_903_967])
async def test_principal_goes_back_to_the_funders_in_proportion(
    store: Store, redis: Redis, tenant: str, consumer: Schema, shares: list[int], parts: list[int]
) -> None:
    """To the unit as a simulation counts it, also where a share times a repayment is beyond what a double holds."""
    name, loan = secrets.token_hex(8), sum(shares)
    keys = [f"{{{tenant}}}:f:{name} {n}" for n in range(len(shares))]
    await begun(store, consumer, name)
    before = (await totals(redis, tenant))[0]
    funded = tuple((f"{name} {n}", share, 10**15) for n, share in enumerate(shares))
    await store.commit([proposal(name, loan, None, funded)])
    left, ledger = loan, Ledger()
    ledger.approve(0, ("consumer", 0), loan, [(funder, share) for funder, share, _ in funded])
    for number, part in enumerate(parts):
        await store.report([(Report(f"{name} {number}", name, "principal_repaid", 0, part), consumer)])
        ledger.report(0, OUTCOME_KINDS.index("principal_repaid"), part)
        left = max(0, left - part)
        lent = [int(n or 0) for n in await redis.mget(keys)]
        assert sum(lent) == left == (await totals(redis, tenant))[0] - before
        assert lent == [ledger.lent[funder] for funder, _, _ in funded]
    await store.report([(Report(f"{name} end", name, "repaid"), consumer)])
    assert await redis.mget(keys) == [b"0"] * len(shares) and (await totals(redis, tenant))[0] == before


async def test_many_at_once_never_pass_a_cap(redis: Redis, tenant: str, consumer: Schema) -> None:
    """Three stores, commits and reports interleaved: whatever is left is what the reservations say."""
    stores = [Store(redis, tenant, TOKENIZER, [consumer]) for _ in range(3)]
    for store in stores:
        await store.open()
    chance, caps = random.Random(3), dict(CAPS)
    names = [f"a{i}" for i in range(90)]
    await begun(stores[0], consumer, *names)

    async def one(i: int) -> None:
        amount = chance.randint(10, 200)
        half = amount // 2
        shares = (("bank", half, caps["bank"]), ("trust", amount - half, caps["trust"]))
        await stores[i % 3].commit([proposal(names[i], amount, 1000, shares)])
        exposure, bank, trust = await totals(redis, tenant)
        assert exposure <= 1000 and bank <= caps["bank"] and trust <= caps["trust"]
        if i % 4 == 0:
            await stores[i % 3].report([(Report(f"o{i}", names[i], "expired"), consumer)])

    await asyncio.gather(*(one(i) for i in range(len(names))))
    left = [0, 0, 0]
    for name in names:
        fields = await redis.hgetall(f"{{{tenant}}}:a:{TOKENIZER.key(name)}")
        if b"r" in fields:
            _, amount, _, shares = json.loads(fields[b"r"])
            given = [int(fields.get(f"x{part}".encode(), 0)) for part in ("", ":bank", ":trust")]
            for n, whole in enumerate((amount, shares[0][1], shares[1][1])):
                left[n] += whole - given[n]
    assert tuple(left) == await totals(redis, tenant) and left[0] > 0
