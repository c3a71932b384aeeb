"""What holds of every decision of every policy: the shipped ones and others made from them at random."""

import math
import random
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.application import REPAYMENT_METHODS
from policy.decide import Decisions, Outcome, Policy
from policy.inputs import Asked
from policy.rows import Table
from policy.specs import MODEL_OF, capacities, policy_columns
from tests.perturbed import loaded, perturbed, set_funders
from tests.test_policy_decide import codes, policy_of, schema_of, values_of
from tests.test_policy_tables import PRODUCTS, ROOT, complete_values, product_document, table_of

Floats = NDArray[np.float64]
Made = tuple[random.Random, Policy, Asked, Floats]
BATCH = 48
APPROVED = Outcome.LIMIT  # and better


def test_every_shipped_product_is_tried() -> None:
    assert set(PRODUCTS) == {path.parent.name for path in (ROOT / "policy/products").glob("*/policy.json")}


def _cuts(tables: Mapping[str, Table]) -> dict[str, list[float]]:
    cuts: dict[str, list[float]] = {}
    for table in tables.values():
        for row in table.rows:
            for name, test in row.tests.items():
                cuts.setdefault(name, []).extend(test.numbers)
    return cuts


def inputs_of(rng: random.Random, policy: Policy, product: str) -> Floats:
    """float64 [BATCH, inputs]: good borrowers, up to four inputs of each changed to anything, some to nothing."""
    cuts, rows = _cuts(policy.tables), []
    for _ in range(BATCH):
        good, anything = values_of(product), complete_values(rng, policy.columns, cuts)
        values = {name: good.get(name, 0.0) for name in policy.inputs}
        for name in rng.sample(sorted(values), min(len(values), rng.choice([0, 1, 1, 1, 2, 4]))):
            values[name] = None if rng.random() < 0.2 else anything[name]
        rows.append([math.nan if v is None else policy.columns[n].number(v) for n, v in values.items()])
    return np.array(rows)


def asked_of(rng: random.Random, most_minor: int = 30_000_000) -> Asked:
    """Most of it within reach, with fees that few caps are below."""
    rows = []
    for _ in range(BATCH):
        amount = round(100_000 * (most_minor / 100_000) ** rng.choice([rng.random(), 0.7]))
        upfront, monthly = rng.choice([(0, 0), (0, 0), (0, 0), (amount // 100, 0), (amount // 20, amount // 1000)])
        method = rng.choice([0, 0, rng.randrange(len(REPAYMENT_METHODS))])
        rows.append((amount, rng.choice([1, 12, 36]), method, upfront, monthly, rng.random() < 0.03))
    return Asked(*np.array(rows, dtype=np.int64).T.copy())


def _row(asked: Asked, i: int) -> Asked:
    return asked.take(np.array([i]))


cases = st.tuples(st.integers(0, 2**32), st.sampled_from(sorted(PRODUCTS)))


def made(case: tuple[int, str]) -> Made:
    """A policy, every fourth a shipped one, with a batch."""
    rng, product = random.Random(case[0]), case[1]
    policy = policy_of(product) if rng.random() < 0.25 else perturbed(rng, product)
    most_minor = 500_000_000 if product == "small_business" else 30_000_000
    return rng, policy, asked_of(rng, most_minor), inputs_of(rng, policy, product)


@settings(max_examples=100, deadline=None)
@given(case=cases)
def test_no_approval_is_above_what_binds_it(case: tuple[int, str]) -> None:
    """Amounts: whole minor units, not above the request, the cap, what is earned or pledged carries, what exposure
    leaves or what funders lend. Prices: not above the cap.
    """
    _, policy, asked, values = made(case)
    decisions = policy.decide(asked, values)
    assert decisions.approved_amount_minor.dtype == np.int64
    for i, row in enumerate(values):
        decision = decisions[i]
        amount = decision.approved_amount_minor
        assert type(amount) is int and decision.reasons
        if decision.outcome > APPROVED:
            assert (amount, decision.annual_rate, decision.all_in_rate) == (0, 0, 0)
            assert not decision.shares and decision.exposure_max_minor is None
            continue
        assert 0 < amount <= asked.amount_minor[i]
        assert (amount == asked.amount_minor[i]) == (decision.outcome == Outcome.APPROVE)
        assert decision.outcome == Outcome.APPROVE or codes(decision)[0].startswith("LIMIT_BY_")
        if "limit" in policy.tables:
            _check_terms(policy, decisions, i, row)
        if policy.funders:
            assert sum(share.amount_minor for share in decision.shares) == amount
            assert len({share.offer.funder for share in decision.shares}) == len(decision.shares)


def _check_terms(policy: Policy, decisions: Decisions, i: int, row: Floats) -> None:
    """Amount and price against what the tables say of this application alone."""
    decision = decisions[i]
    known = {n: c.value(x) for (n, c), x in zip(policy.columns.items(), row.tolist(), strict=True)}
    earlier = {"grade": {"grade": decision.grade}}
    (limit,), (price,) = (policy.tables[name].evaluate(known, earlier).hits for name in ("limit", "price"))
    terms = {name: float(value) for name, value in limit.outputs.items() if not isinstance(value, str)}
    amount = decision.approved_amount_minor
    assert terms["minimum_minor"] <= amount <= terms["cap_minor"]
    assert decision.outcome == Outcome.APPROVE or amount % int(terms["rounding_minor"]) == 0
    for capacity in capacities(policy.tables):
        if capacity.output in terms:
            least = min(float(known[name] or 0) for name in capacity.inputs)
            assert amount <= least * terms[capacity.output] * 100 + 0.001
    most = terms.get("exposure_max_minor")
    assert decision.exposure_max_minor == (None if most is None else int(most))  # computed, it may have a fraction
    if decision.exposure_max_minor is not None:
        assert amount <= decision.exposure_max_minor - float(known["exposure_minor"] or 0)
    assert decision.annual_rate == price.outputs["annual_rate"]
    assert decision.annual_rate <= decision.all_in_rate <= float(price.outputs["cap_rate"])


@settings(max_examples=60, deadline=None)
@given(case=cases)
def test_a_worse_fraud_probability_never_helps(case: tuple[int, str]) -> None:
    _, policy, asked, values = made(case)
    place, before = policy.inputs.index("fraud_probability"), None
    for probability in (0.0, 0.02, 0.05, 0.1, 0.15, 0.3, 0.31, 0.6, 0.9, 1.0):
        values[:, place] = probability
        now = [policy.decide(_row(asked, i), values[i : i + 1])[0] for i in range(BATCH)]
        for worse, better in zip(now, before or now, strict=True):
            assert worse.outcome >= better.outcome
            if worse.outcome <= APPROVED:
                assert worse.approved_amount_minor <= better.approved_amount_minor
                assert worse.annual_rate >= better.annual_rate and worse.all_in_rate >= better.all_in_rate
        before = now


@settings(max_examples=120, deadline=None)
@given(case=cases)
def test_what_is_missing_or_degraded_never_turns_a_refusal_into_an_approval(case: tuple[int, str]) -> None:
    """Except where a row that decides says `null` of it, and so that its absence is meant; of a model none may."""
    rng, policy, asked, values = made(case)
    usual = values_of(policy.product)
    good = [math.nan if (v := usual.get(n, 0.0)) is None else c.number(v) for n, c in policy.columns.items()]
    for i in range(BATCH):
        before = policy.decide(_row(asked, i), values[i : i + 1])[0]
        odd = [name for name, x, is_good in zip(policy.inputs, values[i], good, strict=True) if x != is_good]
        some = odd if odd and rng.random() < 0.7 else policy.inputs
        lost = rng.sample(some, min(len(some), rng.choice([1, 1, 2, 5])))
        for name in lost:
            place = policy.inputs.index(name)
            degrade = name.endswith("_state") and values[i, place] == 0 and rng.random() < 0.5
            values[i, place] = rng.choice([1, 2]) if degrade else math.nan
        after = policy.decide(_row(asked, i), values[i : i + 1])
        if before.outcome > APPROVED and after[0].outcome <= APPROVED:
            assert not {f"{label}_probability" for label in MODEL_OF.values()} & set(lost)
            assert _is_meant(policy, after, lost), (lost, before, after[0])
        assert bool(after[0].degraded) or not any(name.endswith("_state") for name in lost)


def _is_meant(policy: Policy, decisions: Decisions, lost: list[str]) -> bool:
    """Whether a row that held, and votes for nothing worse than approval, says `null` of something lost."""
    held = [row for (_, row), holds in zip(policy.rows, decisions.held[:, 0], strict=True) if holds]
    return any(
        name in row.tests and row.tests[name].if_missing is True and row.literals.get("outcome") in (None, "approve")
        for row in held for name in lost
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(case=cases)
def test_who_else_is_in_the_batch_changes_nothing(case: tuple[int, str]) -> None:
    """Nor in what order, but for what funders have lent to those before."""
    rng, policy, asked, values = made(case)
    together = policy.decide(asked, values)
    lent: dict[str, int] = {}
    for i in range(BATCH):
        alone = policy.decide(_row(asked, i), values[i : i + 1], lent)
        assert alone[0] == together[i]
        for share in alone[0].shares:
            lent[share.offer.funder] = lent.get(share.offer.funder, 0) + share.amount_minor
    every = [together[i] for i in range(BATCH)]
    assert [d.outcome for d in every] == together.outcome.tolist()
    assert [d.approved_amount_minor for d in every] == together.approved_amount_minor.tolist()
    rates = [(d.annual_rate, d.all_in_rate) for d in every]
    assert rates == list(zip(together.annual_rate.tolist(), together.all_in_rate.tolist(), strict=True))
    if not policy.funders:
        order = np.array(rng.sample(range(BATCH), BATCH // 2))
        some = policy.decide(asked.take(order), values[order])
        assert [some[k] for k in range(len(order))] == [every[i] for i in order]


def test_a_funder_whose_first_row_may_hold_lends_nothing() -> None:
    """Its other row holds for certain, and would lend; what is missing must not choose the better of two."""
    columns = policy_columns(schema_of("consumer"))
    free = next(n for n, c in columns.items() if c.kind == "number" and n not in policy_of("consumer").inputs)
    document = product_document("consumer")
    set_funders(random.Random(0), document, "consumer")
    content = table_of(document, "funders")
    content["inputs"][0]["field"] = free
    for rule, cell, cap in zip(content["rules"], ("> 5", "", ""), ("0", "1000000000", "0"), strict=True):
        rule.update(d=cell, cap_minor=cap, share_max="1", funder_rate="0")
    policy = loaded(document, "consumer")
    for value, lender in ((1.0, {"north"}), (9.0, set()), (math.nan, set())):
        good = values_of("consumer") | {free: None}
        row = [math.nan if (v := good.get(n, 0.0)) is None else c.number(v) for n, c in policy.columns.items()]
        row[policy.inputs.index(free)] = value
        asked = Asked(*(np.array([n]) for n in (1_000_000, 12, 0, 0, 0, 0)))
        decision = policy.decide(asked, np.array([row]))[0]
        assert {share.offer.funder for share in decision.shares} == lender
        assert [reason.code for reason in decision.reasons] == (["GRADE_ACCEPTED"] if lender else ["NO_FUNDER"])


def test_decisions_are_read_like_a_sequence() -> None:
    """Over more than one chunk, in any order."""
    rng, policy = random.Random(5), policy_of("consumer")
    values = np.concatenate([inputs_of(rng, policy, "consumer") for _ in range(4)])
    parts = [asked_of(rng) for _ in range(4)]
    asked = Asked(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Asked)))
    decisions = policy.decide(asked, values)
    every = [decisions[i] for i in range(len(decisions))]
    assert len(every) == 4 * BATCH and len(set(map(id, every))) == len(every)
    for i in (-1, 70, 3, 4 * BATCH - 1, -4 * BATCH, 64, 63):
        assert decisions[i] == every[i]
    assert len(policy.decide(asked.take(np.array([], dtype=np.int64)), values[:0])) == 0
