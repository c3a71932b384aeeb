"""Car loans: the car's price, age and history bound what may be lent on it (R6, R8, R9)."""

import numpy as np
import pytest

from policy.cells import Value
from policy.decide import Outcome
from tests.test_policy_decide import application, codes, decide, decide_one, policy_of, values_of

USED_LAW = "汽车贷款管理办法；关于调整汽车贷款有关政策的通知（2024年）"


def test_rates_on_the_line_are_approved() -> None:
    """As the service holds them, in float32."""
    assert decide("auto", down_payment_rate=float(np.float32(0.2))).outcome == Outcome.APPROVE
    used = decide("auto", vehicle_kind="used", vehicle_age_months=36.0, down_payment_rate=float(np.float32(0.3)))
    assert used.outcome == Outcome.APPROVE
    assert decide("auto", vehicle_kind="new", battery_health=None).outcome == Outcome.APPROVE


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({"down_payment_rate": 0.19}, Outcome.DECLINE, "DOWN_PAYMENT_TOO_LOW"),
        ({"vehicle_kind": "used", "down_payment_rate": 0.29}, Outcome.DECLINE, "DOWN_PAYMENT_TOO_LOW"),
        ({"vehicle_kind": "commercial", "down_payment_rate": 0.29}, Outcome.DECLINE, "DOWN_PAYMENT_TOO_LOW"),
        ({"vehicle_kind": "used", "term_months": 37}, Outcome.DECLINE, "TERM_TOO_LONG"),
        ({"vehicle_kind": "new_energy", "battery_health": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"valuation_low": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"vehicle_price": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"loan_to_price": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"vehicle_age_months": None}, Outcome.REVIEW, "INPUT_MISSING"),
        ({"valuation_low": 10_000.0}, Outcome.DECLINE, "LIMIT_TOO_LOW"),
    ],
)
def test_cars(changes: dict[str, Value | None], outcome: Outcome, code: str) -> None:
    decision = decide("auto", **changes)
    assert (decision.outcome, set(codes(decision))) == (outcome, {code})


@pytest.mark.parametrize("others", [1.0, 2.0, 15.0])
@pytest.mark.parametrize(
    "history", [{"vehicle_count_30d": 0.0}, {"applicant_count_30d": 5.0}, {"vehicle_gap_hours": 9e3}]
)
def test_a_car_that_another_applied_with_is_reviewed_however_long_ago(
    others: float, history: dict[str, Value | None]
) -> None:
    """Never approved; not declined either, as the policy cannot see whether the other ever got the loan."""
    decision = decide("auto", vehicle_other_applicants=others, **history)
    assert (decision.outcome, codes(decision)) == (Outcome.REVIEW, ["VEHICLE_PLEDGED_TWICE"])
    assert decide("auto", vehicle_other_applicants=None).outcome == Outcome.REVIEW
    assert decide("auto", vehicle_other_applicants=0.0, **history).outcome == Outcome.APPROVE


@pytest.mark.parametrize(
    ("changes", "worth", "share"),
    [
        ({"vehicle_price": 50_000.0}, 50_000, 0.8),
        ({"valuation": 50_000.0}, 50_000, 0.8),
        ({"vehicle_price": 50_000.0, "vehicle_kind": "used", "vehicle_age_months": 36.0}, 50_000, 0.7),
        ({"vehicle_price": 50_000.0, "vehicle_kind": "new_energy", "vehicle_age_months": 36.0}, 50_000, 0.7),
        ({"vehicle_price": 50_000.0, "vehicle_kind": "commercial"}, 50_000, 0.7),
        ({"vehicle_price": 62_499.0}, 62_499, 0.8),
    ],
)
def test_no_more_is_lent_than_a_share_of_price_and_valuation(
    changes: dict[str, Value | None], worth: int, share: float
) -> None:
    """50 000 asked for, whatever down payment is declared and however high the other of the two is."""
    decision = decide("auto", loan_to_price=min(1.0, 50_000 / worth), **changes)
    assert (decision.outcome, codes(decision)) == (Outcome.LIMIT, ["LIMIT_BY_PRICE"])
    assert worth * share * 100 - 10_000 < decision.approved_amount_minor <= worth * share * 100
    assert decision.reasons[0].legal_source == (USED_LAW if share == 0.7 else "")
    assert decide("auto", vehicle_price=62_500.0, loan_to_price=0.8).outcome == Outcome.APPROVE


def test_asking_for_more_than_the_car_is_worth_is_reviewed() -> None:
    assert codes(decide("auto", loan_to_price=1.01))[0] == "LOAN_ABOVE_PRICE"


def test_law_of_the_valuation_is_cited_where_the_share_is_the_laws() -> None:
    """Grade B gets 65 %, which is the lender's own; 0.7 × 60 000 in binary is just below 42 000."""
    used: dict[str, Value | None] = {"vehicle_kind": "used", "vehicle_age_months": 36.0, "valuation_low": 60_000.0}
    by_car = decide("auto", **used)
    assert (by_car.approved_amount_minor, codes(by_car)) == (4_200_000, ["LIMIT_BY_VALUATION"])
    assert by_car.reasons[0].legal_source == USED_LAW
    low = decide("auto", default_probability=0.1, **used).reasons[0]
    assert (low.code, low.legal_source) == ("LIMIT_BY_VALUATION", "")


@pytest.mark.parametrize("kind", ["new", "new_energy", "commercial", "used"])
def test_any_pre_owned_car_is_a_used_car(kind: str) -> None:
    """汽车贷款管理办法: registered before is used, whatever drives it."""
    pre_owned: dict[str, Value | None] = {"vehicle_kind": kind, "vehicle_age_months": 1.0}
    assert codes(decide("auto", **pre_owned, down_payment_rate=0.29))[0] == "DOWN_PAYMENT_TOO_LOW"
    assert codes(decide("auto", **pre_owned, down_payment_rate=0.1))[0] == "DOWN_PAYMENT_TOO_LOW"
    assert codes(decide("auto", **pre_owned, term_months=37))[0] == "TERM_TOO_LONG"
    assert codes(decide("auto", **pre_owned, down_payment_rate=0.29, term_months=37)).count("TERM_TOO_LONG") == 1
    limited = decide_one(
        policy_of("auto"),
        application("auto", amount_minor=7_100_000),
        values_of("auto", valuation_low=100_000.0, **pre_owned),
    )
    assert "LIMIT_BY_VALUATION" in codes(limited)


@pytest.mark.parametrize("kind", ["new", "new_energy", "commercial", "used"])
def test_age_that_contradicts_kind_or_mileage_is_reviewed(kind: str) -> None:
    driven = decide("auto", vehicle_kind=kind, vehicle_mileage_km=1_001.0)  # an age left out is 0
    assert (driven.outcome, codes(driven)) == (Outcome.REVIEW, ["VEHICLE_AGE_CONTRADICTED"])
    assert decide("auto", vehicle_kind=kind, vehicle_mileage_km=1_000.0).outcome == Outcome.APPROVE
    aged = decide("auto", vehicle_kind=kind, vehicle_age_months=2.0, vehicle_mileage_km=5_000.0)
    assert (aged.outcome == Outcome.REVIEW) == (kind == "new")
