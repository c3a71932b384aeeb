"""The figures of frauds by kind and of rings, by hand."""

import math

import numpy as np

from bench.fraud import KINDS, Judged, _auprc_by_kind, _rings
from bench.world import Truth

HONEST = Truth(False, "", False, -1, math.nan)


def ring(number: int, kind: str) -> Truth:
    return Truth(True, kind, False, number, math.nan)


def judged(truth: list[Truth], probability: list[float], times: list[int]) -> Judged:
    some = {"trees": np.array(probability)}
    nothing = np.empty(0, np.int8), np.empty(0)
    return Judged(truth, np.array(times), some, {"trees": 0.5}, "trees", nothing)


def test_members_that_pass_before_the_first_is_stopped() -> None:
    """Over both products, by time; a ring of which some applied before the later part does not count."""
    farm, mixed, early = ring(0, KINDS[0]), ring(1, KINDS[3]), ring(2, KINDS[1])
    one = judged([farm, HONEST, farm, mixed], [0.1, 0.9, 0.7, 0.2], [30, 1, 10, 5])
    two = judged([farm, mixed, early], [0.3, 0.4, 0.9], [20, 6, 2])
    found = _rings([one, two], "trees", {0: 3, 1: 2, 2: 9})
    # ring 0 applies at 10 (stopped), 20, 30; ring 1 is never stopped
    assert found == {"rings": 2, "found": 1, "passed_mean": 1.0, "passed_median": 1.0, "members_mean": 2.5}


def test_a_kind_is_ranked_among_the_honest_alone() -> None:
    truth = [ring(0, KINDS[0]), HONEST, ring(1, KINDS[1]), HONEST]
    found = _auprc_by_kind([judged(truth, [0.9, 0.5, 0.1, 0.2], [1, 2, 3, 4])], "trees")
    assert found[KINDS[0]] == 1.0  # frauds of other kinds, here the last, are left out
    assert found[KINDS[1]] == round(1 / 3, 4)  # behind both honest ones
    assert found["all"] == 0.75  # (1/1 + 2/4) / 2
