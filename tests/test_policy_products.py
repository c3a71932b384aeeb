"""The shipped products: lists, records of dealers and officers, what a car carries, funders, authority for reviews."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.application import Application
from policy.cells import Value
from policy.decide import Outcome, Policy
from policy.specs import SPECS, policy_columns
from policy.tables import PolicyError, Table, load_tables
from tests.test_policy_decide import (
    application,
    cases,
    codes,
    decide,
    decide_one,
    policy_of,
    schema_of,
    values_of,
)
from tests.test_policy_tables import product_document, product_path, table_of

LOANS = ("consumer", "auto")
SPARED = {"MULTI_PLATFORM", "VELOCITY_HIGH", "LINKED_VELOCITY_HIGH"}  # what a white list may spare somebody


def tables_of(name: str) -> dict[str, Table]:
    return load_tables(product_path(name), product_path(name).read_bytes(), policy_columns(schema_of(name)), SPECS)


@pytest.mark.parametrize("name", LOANS)
def test_black_declines_grey_reviews_and_black_wins(name: str) -> None:
    black, grey = decide(name, listed_black=1.0), decide(name, listed_grey=2.0)
    assert (black.outcome, codes(black)) == (Outcome.DECLINE, ["BLACKLISTED"])
    assert (grey.outcome, codes(grey)) == (Outcome.REVIEW, ["GREYLISTED"])
    both = decide(name, listed_black=1.0, listed_grey=1.0, listed_white=1.0)
    assert codes(both) == ["BLACKLISTED", "GREYLISTED"]


@settings(max_examples=600, deadline=None)
@given(case=cases().filter(lambda case: case[0] != "card_transaction"), listed=st.sampled_from([1.0, 3.0]))
def test_a_white_list_spares_a_look_at_velocity_and_nothing_else(
    case: tuple[str, Application, dict[str, Value | None]], listed: float
) -> None:
    name, asked, values = case
    plain = decide_one(policy_of(name), asked, values | {"listed_white": 0.0})
    white = decide_one(policy_of(name), asked, values | {"listed_white": listed})
    assert (plain.outcome == Outcome.DECLINE) == (white.outcome == Outcome.DECLINE)
    if plain.outcome != white.outcome:
        spared = [code for code in codes(plain) if not code.startswith("LIMIT_BY_")]
        unknown = None in (values["multi_platforms_90d"], values["linked_24h"])  # and nobody asks for it
        assert white.outcome <= Outcome.LIMIT < plain.outcome
        assert set(spared) <= SPARED | ({"INPUT_MISSING"} if unknown else set())
    unsaid = decide_one(policy_of(name), asked, values | {"listed_white": None})
    assert unsaid.outcome >= white.outcome


@settings(max_examples=600, deadline=None)
@given(
    case=cases().filter(lambda case: case[0] != "card_transaction"),
    score=st.sampled_from([f"{who}_{rate}_score" for who in ("dealer", "officer") for rate in ("fraud", "default")]),
    low=st.floats(0, 1), high=st.floats(0, 1),
)  # fmt: skip
def test_a_worse_record_of_dealer_or_officer_never_helps(
    case: tuple[str, Application, dict[str, Value | None]], score: str, low: float, high: float
) -> None:
    name, asked, values = case
    better, worse = (decide_one(policy_of(name), asked, values | {score: s}) for s in sorted((low, high)))
    assert better.outcome <= worse.outcome
    assert better.approved_amount_minor >= worse.approved_amount_minor


@pytest.mark.parametrize("kind", ["used", "new_energy", "commercial"])
def test_an_older_farther_driven_or_more_worn_car_carries_no_more(kind: str) -> None:
    """In every column of the table: of valuation, price and residual value, and the cap; nor does a worse grade."""
    limit = tables_of("auto")["limit"]
    columns = ("cap_minor", "valuation_max", "ltv_max", "price_max", "exposure_max_minor")

    def carries(point: tuple[Any, ...]) -> list[float]:
        grade, age, km, battery = point
        car = {"vehicle_kind": kind, "vehicle_age_months": age, "vehicle_mileage_km": km, "battery_health": battery}
        (hit,) = limit.evaluate(car, {"grade": {"grade": grade}}).hits
        return [float(hit.outputs[column]) for column in columns]

    axes: list[list[Any]] = [
        ["AAA", "A", "BBB", "BB", "B", "C"], [1.0, 36.0, 48.0, 49.0, 60.0, 61.0, 110.0], [5e3, 1e5, 1.1e5, 1.6e5],
        [1.0, 0.9, 0.85, 0.8, 0.7],
    ]  # fmt: skip
    for point in product(*axes):
        for axis, steps in enumerate(axes):
            for worse in steps[steps.index(point[axis]) + 1 :]:
                later = carries((*point[:axis], worse, *point[axis + 1 :]))
                assert all(b <= a for a, b in zip(carries(point), later, strict=True))


def test_the_residual_value_binds_a_used_car_and_no_new_one() -> None:
    used: dict[str, Value | None] = {"vehicle_kind": "used", "vehicle_age_months": 36.0}
    bound = decide("auto", residual_low=50_000.0, **used)
    assert (bound.approved_amount_minor, codes(bound)) == (4_000_000, ["LIMIT_BY_RESIDUAL_VALUE"])
    unknown = decide("auto", residual_low=None, **used)
    assert (unknown.outcome, codes(unknown)) == (Outcome.REVIEW, ["INPUT_MISSING"])
    assert decide("auto", residual_low=None).outcome == Outcome.APPROVE


@pytest.mark.parametrize("name", LOANS)
def test_funders_lend_what_is_approved_at_less_than_it_costs(name: str) -> None:
    for probability in (0.001, 0.007, 0.015, 0.03, 0.05, 0.09, 0.15):
        decision = decide(name, default_probability=probability)
        assert sum(share.amount_minor for share in decision.shares) == decision.approved_amount_minor > 0
        assert all(share.offer.funder_rate < decision.annual_rate for share in decision.shares)
        joint = [share for share in decision.shares if share.offer.mode == "joint"]
        assert all(share.amount_minor <= 0.7 * decision.approved_amount_minor for share in joint)


@pytest.mark.parametrize("name", LOANS)
def test_more_authority_decides_more_and_the_committee_all(name: str) -> None:
    authority, most = tables_of(name)["authority"], []
    for who in ("stranger", "officer", "manager", "committee"):
        hits = authority.evaluate({"authority": who}, {"grade": {"grade": "B"}}).hits
        most.append(max((float(hit.outputs["amount_max_minor"]) for hit in hits), default=0.0))
    assert most == sorted(set(most)) and most[0] == 0
    caps = [float(row.literals["cap_minor"]) for row in tables_of(name)["limit"].rows]
    assert most[-1] == max(caps) and "authority" not in policy_of(name).inputs


def test_only_the_table_of_authority_may_ask_who_decides(tmp_path: Path) -> None:
    document = product_document("consumer")
    knockouts = table_of(document, "knockouts")
    knockouts["inputs"].append({"id": "who", "name": "authority", "field": "authority"})
    for rule in knockouts["rules"]:
        rule["who"] = "'officer'"
    (tmp_path / "policy.json").write_text(json.dumps(document))
    with pytest.raises(PolicyError, match="only the table authority") as refused:
        Policy.load(tmp_path, "consumer", schema_of("consumer"))
    assert (refused.value.table, refused.value.column) == ("knockouts", "authority")


def test_exposure_counts_against_the_grades_cap() -> None:
    graded = values_of(exposure_minor=13_000_000)
    assert decide_one(policy_of("consumer"), application(), graded).approved_amount_minor == 2_000_000
    full = decide_one(policy_of("consumer"), application(), values_of(exposure_minor=15_000_000))
    assert (full.outcome, codes(full)) == (Outcome.DECLINE, ["LIMIT_TOO_LOW"])
