"""What holds of every decision of every policy: the shipped ones and others made from them at random."""

import json
import math
import random
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.application import REPAYMENT_METHODS
from policy.decide import Outcome, Policy
from policy.inputs import Asked
from policy.rows import Table
from policy.specs import policy_columns
from tests.test_policy_decide import policy_of, schema_of, values_of
from tests.test_policy_tables import complete_values, product_document, table_of

Floats = NDArray[np.float64]
Case = tuple[random.Random, Policy, Asked, Floats]
LENDING = ("consumer", "auto")
BATCH = 48
APPROVED = Outcome.LIMIT  # and better
CAPS = ("0", "9000000", "verified_income * 900", "1000000000")


def _cells(content: Any, field: str) -> str:
    """The id of an output column."""
    return str(next(column["id"] for column in content["outputs"] if column["field"] == field))


def _scaled(rng: random.Random, text: str) -> str:
    return f"{float(text) * rng.choice([0.3, 0.7, 1.0, 1.4, 3.0]):.6f}"


def _perturb_knockouts(rng: random.Random, document: Any) -> None:
    content = table_of(document, "knockouts")
    for rule in rng.sample(content["rules"], 4):
        rule[_cells(content, "outcome")] = rng.choice(["'review'", "'decline'"])
    for rule in rng.sample(content["rules"], rng.randrange(4)):
        content["rules"].remove(rule)


def _perturb_grades(rng: random.Random, document: Any) -> None:
    content = table_of(document, "grade")
    for rule in content["rules"][rng.randrange(4, len(content["rules"])) :]:
        rule[_cells(content, "outcome")], rule[_cells(content, "reason")] = "'review'", "'GRADE_TOO_LOW'"


def _perturb_fraud(rng: random.Random, document: Any) -> None:
    low, high = sorted(rng.sample([0.02, 0.05, 0.1, 0.2, 0.3, 0.6, 0.9], 2))
    content = table_of(document, "fraud")
    column = next(c["id"] for c in content["inputs"] if c["field"] == "fraud_probability")
    for rule, cell in zip(content["rules"], (f">= {high}", f"[{low}..{high})", f"< {low}"), strict=True):
        rule[column] = cell


def _perturb_limit(rng: random.Random, document: Any) -> None:
    limit = table_of(document, "limit")
    if "exposure_max_minor" not in {column["field"] for column in limit["outputs"]}:
        _add_output(limit, "exposure_max_minor", [rng.choice(["0", "5000000", "20000000"]) for _ in limit["rules"]])
    for rule in limit["rules"]:
        for field in ("cap_minor", "income_multiple"):
            rule[_cells(limit, field)] = _scaled(rng, rule[_cells(limit, field)])
        rule[_cells(limit, "rounding_minor")] = rng.choice(["1", "100", "10000", "30000"])
        rule[_cells(limit, "minimum_minor")] = rng.choice(["1", "100000", "1500000"])
    if rng.random() < 0.3:
        rng.choice(limit["rules"])[_cells(limit, "cap_minor")] = "verified_income * 321 + 7"


def _perturb_price(rng: random.Random, document: Any) -> None:
    content = table_of(document, "price")
    for rule in content["rules"]:
        rule[_cells(content, "annual_rate")] = rng.choice(["0", "0.05", "0.12", "0.2399", "0.24", "0.3"])
    if rng.random() < 0.3:
        rng.choice(content["rules"])[_cells(content, "annual_rate")] = "default_probability / 2 + 0.01"


def _add_output(content: Any, field: str, cells: list[str]) -> None:
    content["outputs"].append({"id": field, "name": field, "field": field})
    for rule, cell in zip(content["rules"], cells, strict=True):
        rule[field] = cell


def _set_funders(rng: random.Random, document: Any) -> None:
    """Two funders, the first of them in two rows that need not agree."""
    content: Any = {
        "hitPolicy": "collect", "inputs": [{"id": "d", "name": "d", "field": "debt_to_income"}], "outputs": [],
        "rules": [{"_id": f"f{i}", "d": rng.choice(["", "<= 0.5", "> 0.2"])} for i in range(3)],
        "passThrough": True, "outputPath": "funders",
    }  # fmt: skip
    _add_output(content, "funder", ["'north'", "'north'", "'south'"])
    _add_output(content, "mode", ["'joint'"] * 3)
    _add_output(content, "share_max", [rng.choice(["0.3", "0.7", "1"]) for _ in range(3)])
    _add_output(content, "cap_minor", [rng.choice(CAPS) for _ in range(3)])
    _add_output(content, "funder_rate", [rng.choice(["0", "0.06", "price.annual_rate / 2"]) for _ in range(3)])
    nodes, edges = document["nodes"], document["edges"]
    for node in nodes:
        if node["name"] == "funders":
            node["content"] = content
            return
    price, after = (next(i for i, node in enumerate(nodes) if node["name"] == "price") + k for k in range(2))
    for edge in edges:
        if edge["sourceId"] == nodes[price]["id"]:
            edge["sourceId"] = "funders"
    edges.append({"id": "to-funders", "sourceId": nodes[price]["id"], "targetId": "funders"})
    nodes.insert(after, {"id": "funders", "type": "decisionTableNode", "name": "funders", "content": content})


def perturbed(rng: random.Random, product: str) -> Policy:
    """A policy like the shipped one with other numbers, fewer rows, other votes, and sometimes other funders."""
    document = product_document(product)
    for change in (_perturb_knockouts, _perturb_grades, _perturb_fraud, _perturb_limit, _perturb_price):
        if rng.random() < 0.7:
            change(rng, document)
    if rng.random() < 0.5:
        _set_funders(rng, document)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "policy.json").write_text(json.dumps(document))
        return Policy.load(Path(folder), product, schema_of(product))


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
        for name in rng.sample(sorted(values), rng.randrange(5)):
            values[name] = None if rng.random() < 0.2 else anything[name]
        rows.append([math.nan if v is None else policy.columns[n].number(v) for n, v in values.items()])
    return np.array(rows)


def asked_of(rng: random.Random) -> Asked:
    rows = [
        (
            rng.randrange(100_000, 30_000_000), rng.choice([1, 12, 36]), rng.randrange(len(REPAYMENT_METHODS)),
            rng.choice([0, 0, 10_000, 10**6]), rng.choice([0, 0, 1_000, 10**5]), rng.random() < 0.05,
        )
        for _ in range(BATCH)
    ]  # fmt: skip
    return Asked(*np.array(rows, dtype=np.int64).T.copy())


def _row(asked: Asked, i: int) -> Asked:
    return asked.take(np.array([i]))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A policy, every fourth a shipped one, with a batch."""
    rng, product = random.Random(draw(st.integers(0, 2**32))), draw(st.sampled_from(LENDING))
    policy = policy_of(product) if draw(st.integers(0, 3)) == 0 else perturbed(rng, product)
    return rng, policy, asked_of(rng), inputs_of(rng, policy, product)


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_no_approval_is_above_what_binds_it(case: Case) -> None:
    """Amounts: whole minor units, not above the request, the cap, what exposure leaves or what funders lend. Prices:
    not above the cap.
    """
    _, policy, asked, values = case
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
        known = {n: c.value(x) for (n, c), x in zip(policy.columns.items(), row.tolist(), strict=True)}
        earlier = {"grade": {"grade": decision.grade}}
        (limit,) = policy.tables["limit"].evaluate(known, earlier).hits
        (price,) = policy.tables["price"].evaluate(known, earlier).hits
        assert float(limit.outputs["minimum_minor"]) <= amount <= float(limit.outputs["cap_minor"])
        assert decision.annual_rate <= decision.all_in_rate <= float(price.outputs["cap_rate"])
        if decision.exposure_max_minor is not None:
            assert decision.exposure_max_minor == limit.outputs["exposure_max_minor"]
            assert amount <= decision.exposure_max_minor - float(known["exposure_minor"] or 0)
        assert ("exposure_max_minor" in limit.outputs) == (decision.exposure_max_minor is not None)
        if policy.funders:
            assert sum(share.amount_minor for share in decision.shares) == amount
            assert len({share.offer.funder for share in decision.shares}) == len(decision.shares)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_a_worse_fraud_probability_never_helps(case: Case) -> None:
    _, policy, asked, values = case
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


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_what_is_missing_or_degraded_never_turns_a_refusal_into_an_approval(case: Case) -> None:
    """Except by a row that asks for `null` or `!= null` of that input, and so says what its absence means."""
    rng, policy, asked, values = case
    by_name = {
        name for table in policy.tables.values() for row in table.rows for name, test in row.tests.items()
        if test.if_missing is not None
    }  # fmt: skip
    before = [policy.decide(_row(asked, i), values[i : i + 1])[0] for i in range(BATCH)]
    for i in range(BATCH):
        lost = rng.sample(sorted(set(policy.inputs) - by_name), rng.choice([1, 1, 2, 5]))
        for name in lost:
            place = policy.inputs.index(name)
            degrade = name.endswith("_state") and values[i, place] == 0 and rng.random() < 0.5
            values[i, place] = rng.choice([1, 2]) if degrade else math.nan
        after = policy.decide(_row(asked, i), values[i : i + 1])[0]
        assert before[i].outcome <= APPROVED or after.outcome > APPROVED, (lost, before[i], after)
        assert bool(after.degraded) or not any(name.endswith("_state") for name in lost)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_who_else_is_in_the_batch_changes_nothing(case: Case) -> None:
    """Nor in what order, but for what funders have lent to those before."""
    rng, policy, asked, values = case
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


def test_a_funder_whose_first_row_may_hold_lends_nothing(tmp_path: Path) -> None:
    """Its other row holds for certain, and would lend; what is missing must not choose the better of two."""
    columns = policy_columns(schema_of("consumer"))
    free = next(n for n, c in columns.items() if c.kind == "number" and n not in policy_of("consumer").inputs)
    document = product_document("consumer")
    _set_funders(random.Random(0), document)
    content = table_of(document, "funders")
    content["inputs"][0]["field"] = free
    for rule, cell, cap in zip(content["rules"], ("> 5", "", ""), ("0", "1000000000", "0"), strict=True):
        rule.update(d=cell, cap_minor=cap, share_max="1", funder_rate="0")
    (tmp_path / "policy.json").write_text(json.dumps(document))
    policy = Policy.load(tmp_path, "consumer", schema_of("consumer"))
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
