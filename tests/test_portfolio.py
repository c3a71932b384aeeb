"""Figures of a portfolio by hand, groups that sum to the whole, and bounds that hold (R15, R17)."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.decide import Outcome
from policy.inputs import Asked, Known
from policy.portfolio import (
    Column,
    Terms,
    bad_probability,
    bands,
    bounds,
    grouped,
    month,
    moves,
    swap,
    total,
)
from policy.records import Decided, Records, Reports
from policy.specs import GRADES

JANUARY_MS, FEBRUARY_MS = 1_735_689_600_000, 1_738_368_000_000  # 2025, midnight UTC
TERMS = Terms(loss_given_default=0.5, reject_factor=2.0)


def made(outcomes: list[Outcome], amounts: list[int], rates: list[float], reasons: list[tuple[str, ...]]) -> Decided:
    n = len(outcomes)
    return Decided(
        np.array(outcomes, np.int8), np.array(amounts), np.array(rates), np.full(n, GRADES.index("BBB"), np.int8),
        np.zeros(n, np.int64), reasons, np.zeros(n, np.int64),
    )  # fmt: skip


@pytest.fixture
def records() -> Records:
    """Five applications: two dealers, two months, the third a car that covers half of what is asked."""
    n, zeros = 5, np.zeros(5, np.int64)
    default = np.array([0.1, 0.2, 0.4, 0.3, 0.5])
    known = Known(np.full(n, np.nan), default, np.array([np.nan, np.nan, 5.0, np.nan, np.nan]), zeros,
                  np.zeros((n, 3), np.int64))  # fmt: skip
    asked = Asked(np.full(n, 1000), np.full(n, 12), zeros, zeros, zeros, zeros)
    times = np.array([JANUARY_MS, JANUARY_MS, FEBRUARY_MS - 1, FEBRUARY_MS, FEBRUARY_MS])
    hubs = {"dealer": np.array([7, 7, 9, 0, 9], np.uint64), "officer": np.zeros(n, np.uint64)}
    return Records(
        list("abcde"), np.arange(n), times, ("auto", "consumer"), np.array([1, 1, 0, 1, 1]),
        np.arange(n, dtype=np.uint64), hubs,
        ["web", "shop", "web", "", "shop"], asked, known, np.array([0, 1, -1, -1, 1], np.int8), [""] * n,
        np.full(n, 100), (), Reports(zeros[:0], zeros[:0], zeros[:0], zeros[:0]), None, {},
    )  # fmt: skip


A, L, R, D = Outcome.APPROVE, Outcome.LIMIT, Outcome.REVIEW, Outcome.DECLINE
BEFORE = made([A, A, D, R, D], [1000, 1000, 0, 0, 0], [0.1, 0.2, 0, 0, 0],
              [("OK",), ("OK",), ("GRADE_TOO_LOW",), ("INPUT_MISSING",), ("GRADE_TOO_LOW", "OVER_AGE")])  # fmt: skip
AFTER = made([A, D, L, A, R], [1000, 0, 800, 1000, 0], [0.1, 0, 0.2, 0.3, 0],
             [("OK",), ("GRADE_TOO_LOW",), ("LIMIT_BY_CAP",), ("OK",), ("INPUT_MISSING",)])  # fmt: skip


def test_figures_by_hand(records: Records) -> None:
    found = total(records, Column("after", AFTER, records.known), TERMS)
    assert {k: found[k] for k in ("decisions", "approve", "limit", "review", "decline")} == {
        "decisions": 5, "approve": 2, "limit": 1, "review": 1, "decline": 1,
    }  # fmt: skip
    assert (found["approval_rate"], found["automation_rate"]) == (0.6, 0.8)
    assert (found["known"], found["bad"], found["bad_rate"]) == (1, 0, 0.0)
    assert found["exposure_minor"] == 2800
    # 0.1 × 1000, 0.4 × (800 − 5 yuan), 0.3 × 1000, each halved by what is recovered
    assert found["expected_loss_minor"] == round(0.5 * (100 + 0.4 * 300 + 300))
    assert found["annual_rate"] == pytest.approx((100 + 160 + 300) / 2800, abs=1e-6)
    nothing = total(records, Column("none", made([D] * 5, [0] * 5, [0] * 5, [()] * 5), records.known), TERMS)
    assert nothing["bad_rate"] is nothing["annual_rate"] is nothing["expected_loss_rate"] is None


def test_groups_sum_to_the_whole_and_vintages_are_months(records: Records) -> None:
    column = Column("after", AFTER, records.known)
    by, whole = grouped(records, column, TERMS), total(records, column, TERMS)
    assert set(by) == {"product", "grade", "channel", "dealer", "vintage"}  # no officer is known
    assert {m: f["decisions"] for m, f in by["vintage"].items()} == {"2025-01": 3, "2025-02": 2}
    assert {d: f["decisions"] for d, f in by["dealer"].items()} == {"0000000000000007": 2, "0000000000000009": 2}
    assert Counter({c: f["decisions"] for c, f in by["channel"].items()}) == {"web": 2, "shop": 2, "unknown": 1}
    assert list(by["grade"]) == ["BBB"] and by["product"]["auto"]["limit"] == 1
    for dimension in ("product", "grade", "channel", "vintage"):
        for key in ("decisions", "approve", "review", "known", "bad", "exposure_minor"):
            assert sum(figures[key] for figures in by[dimension].values()) == whole[key], (dimension, key)
    assert month(FEBRUARY_MS - 1) == "2025-01" and month(FEBRUARY_MS) == "2025-02"
    assert "vintage" not in grouped(replace(records, time_ms=None, channel=None), column, TERMS)


def test_who_swaps_and_why(records: Records) -> None:
    base, new = Column("before", BEFORE, records.known), Column("after", AFTER, records.known)
    came, went = swap(records, base, new, TERMS, into=True), swap(records, base, new, TERMS, into=False)
    assert [one["id"] for one in came["examples"]] == ["d", "c"]  # the largest first
    assert (came["rows"], came["exposure_minor"], came["reasons_before"]) == (
        2, 1800, {"GRADE_TOO_LOW": 1, "INPUT_MISSING": 1},
    )  # fmt: skip
    assert went["rows"] == 1 and went["reasons_after"] == {"GRADE_TOO_LOW": 1}
    one = went["examples"][0]
    assert one["before"] == {
        "outcome": "APPROVE", "grade": "BBB", "approved_amount_minor": 1000, "annual_rate": 0.2, "reasons": ["OK"],
    }  # fmt: skip
    assert (one["after"]["outcome"], one["bad"], one["bad_probability"]) == ("DECLINE", 1, 0.2)
    assert set(one) == {"id", "product", "asked_amount_minor", "bad_probability", "bad", "before", "after"}
    went_to = moves(BEFORE, AFTER)
    assert went_to["approve"] == {"approve": 1, "limit": 0, "review": 0, "decline": 1}
    assert went_to["decline"] == {"approve": 0, "limit": 1, "review": 1, "decline": 0}
    shown = bands(base, new)
    assert [sum(shown[name]) for name in ("kept", "swap_in", "swap_out")] == [1, 2, 1]


def test_bounds_by_hand(records: Records) -> None:
    """Of c, d and e the last is bad, the others are unknown, at 0.4 and 0.3."""
    found = bounds(records, records.known, np.array([0, 0, 1, 1, 1], dtype=np.bool_), TERMS)
    assert (found["rows"], found["known"], found["bad"], found["known_bad_rate"]) == (3, 1, 1, 1.0)
    assert found["low"] == pytest.approx(1 / 3, abs=1e-6) and found["high"] == 1.0
    assert found["expected"] == pytest.approx(1.7 / 3, abs=1e-6)
    assert found["high_expected"] == pytest.approx((1 + 0.8 + 0.6) / 3, abs=1e-6)


@given(st.lists(st.tuples(st.integers(-1, 1), st.floats(0, 1), st.booleans()), min_size=5, max_size=5), st.floats(1, 9))
def test_bounds_hold(rows: list[tuple[int, float, bool]], factor: float) -> None:
    labels, default, chosen = (np.array(column) for column in zip(*rows, strict=True))
    zeros = np.zeros(5, np.int64)
    known = Known(np.full(5, 0.01), default, np.full(5, np.nan), zeros, np.zeros((5, 3), np.int64))
    asked = Asked(zeros, zeros, zeros, zeros, zeros, zeros)
    records = Records(
        [""] * 5, zeros, None, ("p",), zeros, zeros.astype(np.uint64), {}, None, asked, known, labels.astype(np.int8),
        [""] * 5, zeros + 100, (), Reports(zeros[:0], zeros[:0], zeros[:0], zeros[:0]), None, {},
    )  # fmt: skip
    found = bounds(records, known, chosen, Terms(reject_factor=factor))
    if not chosen.any():
        assert found["expected"] is None
        return
    assert found["low"] <= found["expected"] + 1e-6 <= found["high_expected"] + 2e-6 <= found["high"] + 3e-6
    assert ((bad_probability(known) >= default - 1e-12) & (bad_probability(known) <= 1)).all()
    if found["known"] == found["rows"]:
        assert found["low"] == found["known_bad_rate"] == found["high"]
