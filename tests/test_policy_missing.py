"""What is missing never helps (R24): no input, no source that is lost turns a refusal into an approval."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.application import Application
from policy.cells import Value
from policy.decide import Outcome
from policy.specs import SPECS, policy_columns
from policy.tables import load_tables
from tests.test_policy_decide import (
    NON_ESSENTIAL,
    application,
    cases,
    codes,
    decide_one,
    policy_of,
    schema_of,
    values_of,
)
from tests.test_policy_tables import product_path

Known = dict[str, Value | None]
INCOMES = ("declared_income", "tax_income", "social_base", "fund_base")


def with_crosses(product: str, asked: Application, known: Known) -> Known:
    """What the service would know: the schema's cross features of the others, nothing of a source that is missing."""
    schema = schema_of(product)
    values = known | {"amount": asked.amount_minor / 100, "term_months": asked.term_months}
    for source in schema.sources.values():
        if values[f"{source.name}_state"] in ("missing", None):
            values[f"{source.name}_state"] = "missing"
            values.update(dict.fromkeys((*source.features, f"{source.name}_age_days")))

    def column(name: str) -> NDArray[np.float64]:
        value = values.get(name)
        assert not isinstance(value, str)
        return np.array([np.nan if value is None else value], dtype=np.float64)

    for i, expression in schema.crosses:
        values[schema.feature_names[i]] = float(expression(column)[0])
    return values


@st.composite
def known_worlds(draw: st.DrawFn) -> tuple[str, Application, Known]:
    """An application of `cases` whose incomes, car and company agree with the cross features computed from them."""
    product, asked, known = draw(cases().filter(lambda case: case[0] != "card_transaction"))
    rng = random.Random(draw(st.integers(0, 2**32)))
    for name in INCOMES:
        known[name] = rng.choice([None, 0.0, 900.0, 2_000.0, *[round(rng.lognormvariate(9.2, 0.5)) for _ in range(12)]])
    price = round(rng.uniform(40_000, 300_000))
    car = {"vehicle_price": price, "down_payment": round(price * rng.uniform(0.1, 0.6))}
    valuation = {"valuation": price * rng.uniform(0.6, 1.2), "valuation_low": price * rng.uniform(0.5, 1.0)}
    sold = round(rng.lognormvariate(13.5, 0.8))
    company = {"company_revenue": sold, "declared_revenue": sold * rng.choice([0.9, 1.0, 1.5, 5.0]), "employees": 4}
    known |= {"bureau_monthly_payment": rng.choice([0.0, 500.0, 3_000.0]), **car, **valuation, **company}
    return product, asked, with_crosses(product, asked, known)


def accepts_missing(product: str, source: str) -> bool:
    """Whether a row of `sources` names that source as missing and approves."""
    raw = product_path(product).read_bytes()
    table = load_tables(product_path(product), raw, policy_columns(schema_of(product)), SPECS)["sources"]
    hits = table.evaluate({f"{source}_state": "missing"}, {}).hits
    return any(hit.outputs["outcome"] == "approve" for hit in hits)


@settings(max_examples=1000, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**32))
def test_losing_an_input_never_turns_a_refusal_into_an_approval(
    case: tuple[str, Application, Known], seed: int
) -> None:
    """A dealer and an officer stay named: a loan through neither is one made online, which is no gap, but for a car."""
    product, asked, values = case
    rng = random.Random(seed)
    scores = {f"{who}_{rate}_score" for who in ("dealer", "officer") for rate in ("fraud", "default")}
    named = set() if product == "auto" else scores
    may_be_lost = sorted(set(values) - named)
    lost = rng.sample(may_be_lost, min(len(may_be_lost), rng.choice([1, 1, 2, 5])))
    before = decide_one(policy_of(product), asked, values)
    after = decide_one(policy_of(product), asked, values | dict.fromkeys(lost))
    assert before.outcome <= Outcome.LIMIT or after.outcome >= Outcome.REVIEW


@settings(max_examples=1500, deadline=None)
@given(case=known_worlds(), seed=st.integers(0, 2**32))
def test_losing_whole_sources_helps_nobody(case: tuple[str, Application, Known], seed: int) -> None:
    """Not even those that a row of `sources` accepts as missing; and no amount rises."""
    product, asked, values = case
    rng = random.Random(seed)
    lost = rng.sample(sorted(schema_of(product).sources), rng.choice([1, 1, 2, 3]))
    before = decide_one(policy_of(product), asked, values)
    after = decide_one(
        policy_of(product),
        asked,
        with_crosses(product, asked, values | dict.fromkeys([f"{source}_state" for source in lost], "missing")),
    )
    assert {f"source:{source}:missing" for source in lost} <= set(after.degraded)
    if after.outcome > Outcome.LIMIT:
        return
    assert all(accepts_missing(product, source) for source in lost)
    assert before.outcome <= Outcome.LIMIT
    assert after.approved_amount_minor <= before.approved_amount_minor


@settings(max_examples=500, deadline=None)
@given(
    case=known_worlds(),
    name=st.sampled_from(
        [*INCOMES[::2], "social_base", "age_years", "employment_months", "declared_revenue", "company_revenue"]
    ),
)
def test_leaving_out_what_one_declares_helps_nobody(case: tuple[str, Application, Known], name: str) -> None:
    """And a number missing in a profile helps no more than the whole source."""
    product, asked, values = case
    before = decide_one(policy_of(product), asked, values)
    after = decide_one(policy_of(product), asked, with_crosses(product, asked, values | {name: None}))
    assert before.outcome <= Outcome.LIMIT or after.outcome >= Outcome.REVIEW
    if before.outcome <= Outcome.LIMIT and after.outcome <= Outcome.LIMIT:
        assert after.approved_amount_minor <= before.approved_amount_minor


@pytest.mark.parametrize(
    ("incomes", "contradicted"),
    [
        ({"tax_income": 0.0}, False),  # a source is wrong too often for one to outvote two
        ({"tax_income": 0.0, "social_base": 2_000.0}, True),
        ({"tax_income": 0.0, "social_base": None}, True),
        ({"tax_income": None, "social_base": 2_000.0}, True),
        ({"tax_income": None}, False),
    ],
)
def test_an_income_is_contradicted_by_the_middle_of_what_is_known(incomes: Known, contradicted: bool) -> None:
    known = with_crosses("consumer", application(), values_of(bureau_monthly_payment=100.0) | incomes)
    decision = decide_one(policy_of("consumer"), application(amount_minor=1_000_000), known)
    assert ("INCOME_CONTRADICTED" in codes(decision)) == contradicted
    assert (decision.outcome <= Outcome.LIMIT) == (not contradicted)


@pytest.mark.parametrize("lost", ["dealer", "officer"])
@pytest.mark.parametrize("product", ["consumer", "auto"])
def test_a_dealer_without_an_officer_or_an_officer_without_a_dealer_is_reviewed(product: str, lost: str) -> None:
    scores = {f"{lost}_fraud_score": None, f"{lost}_default_score": None}
    decision = decide_one(policy_of(product), application(product), values_of(product, **scores))
    assert (decision.outcome, codes(decision)) == (Outcome.REVIEW, [f"{lost.upper()}_MISSING"])
    neither = dict.fromkeys(f"{who}_{rate}_score" for who in ("dealer", "officer") for rate in ("fraud", "default"))
    decision = decide_one(policy_of(product), application(product), values_of(product, **neither))
    assert (decision.outcome == Outcome.APPROVE) == (product == "consumer")


@pytest.mark.parametrize("kept", ["tax_income", "social_base", "fund_base"])
def test_one_income_alone_is_no_verification(kept: str) -> None:
    lost = dict.fromkeys({"tax_income", "social_base", "fund_base"} - {kept})
    known = with_crosses("consumer", application(), values_of(bureau_monthly_payment=500.0) | lost)
    decision = decide_one(policy_of("consumer"), application(), known)
    assert (decision.outcome, codes(decision)) == (Outcome.REVIEW, ["INCOME_THINLY_VERIFIED"])


@pytest.mark.parametrize("product", ["consumer", "auto", "small_business"])
def test_the_sources_accepted_as_missing_are_these(product: str) -> None:
    accepted = {source for source in schema_of(product).sources if accepts_missing(product, source)}
    assert accepted == set(NON_ESSENTIAL)
