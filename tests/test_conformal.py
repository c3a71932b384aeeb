"""Shifted quantiles hold, group by group, whatever the model said."""

import numpy as np
import pytest

from models import conformal
from models.conformal import GROUP_MIN, QUANTILES, Conformal


def test_shifts_make_wrong_quantiles_hold_in_every_group() -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 2, 40_000)
    given = random.normal(5.0 * groups, 1.0 + groups)
    wrong = np.tile([3.0, 0.5, -2.0], (len(given), 1))  # crossing, and the same of both groups
    fitted = conformal.fit(wrong[:20_000], given[:20_000], groups[:20_000], np.array([True, True]))
    held = fitted(wrong[20_000:], groups[20_000:])
    assert (np.diff(held, axis=1) >= 0).all()
    for group in (0, 1):
        mine = groups[20_000:] == group
        below = np.mean(given[20_000:][mine, None] < held[mine], axis=0)
        np.testing.assert_allclose(below, QUANTILES, atol=0.015)


def test_the_lower_quantile_is_rounded_down_and_the_upper_up() -> None:
    """Of n + 1 exchangeable errors a new one lies beyond no more often than said: 0.1 and 0.9 of 200 rows."""
    given = np.arange(200.0)
    (offsets,) = conformal.fit(np.zeros((200, 3)), given, np.zeros(200, np.int64), np.array([True])).offsets
    assert offsets == (19.0, 100.0, 180.0)  # the 20th, the 101st and the 181st


def test_few_rows_are_shifted_together_and_unknown_groups_not_at_all() -> None:
    random = np.random.default_rng(1)
    groups = np.r_[np.zeros(500, np.int64), np.ones(GROUP_MIN - 1, np.int64), np.full(50, 2)]
    given = groups + random.normal(0, 1, len(groups))
    fitted = conformal.fit(np.zeros((len(given), 3)), given, groups, np.array([True, True, False]))
    own, few, unknown = fitted.offsets
    known = groups < 2
    together = conformal.fit(
        np.zeros((known.sum(), 3)), given[known], np.zeros(known.sum(), np.int64), np.array([True])
    )
    assert few == together.offsets[0] and own != few and unknown is None
    assert np.isnan(fitted(np.zeros((1, 3)), np.array([2]))).all()
    assert Conformal(((0.0, 0.0, 0.0),))(np.array([[2.0, 1.0, 3.0]]), np.array([0])).tolist() == [[1.0, 2.0, 3.0]]
    with pytest.raises(IndexError):
        fitted(np.zeros((1, 3)), np.array([3]))
