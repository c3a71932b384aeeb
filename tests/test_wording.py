"""Reasons that are remembered say of each application what they would say of it alone."""

import math

import numpy as np

from policy.decide import Policy
from policy.inputs import Asked
from policy.wording import KEPT
from tests.conftest import ROOT
from tests.test_policy_decide import policy_of, schema_of


def asked_of(rows: int) -> Asked:
    nothing = np.zeros(rows, dtype=np.int64)
    return Asked(np.full(rows, 5_000_000), np.full(rows, 12), nothing, nothing, nothing, nothing)


def test_what_is_remembered_changes_no_reason() -> None:
    """More values than are kept, repeated, missing and both zeros, in any order."""
    used = policy_of("consumer")
    rng, n, inputs = np.random.default_rng(7), 3 * KEPT, list(used.inputs)
    values = rng.choice([0.0, -0.0, 1.0, 2.5, 40.0, math.nan], size=(n, len(inputs)))
    values[:, [name.endswith("_state") for name in inputs]] = 0
    values[:, inputs.index("bureau_overdue_24m")] = np.linspace(6, 90, n)
    values[:, inputs.index("repayment")] = 0
    asked, order = asked_of(n), rng.permutation(n)
    before, again = used.decide(asked, values), used.decide(asked, values[order])
    said = [before[i].reasons for i in range(n)]
    assert [again[i].reasons for i in range(n)] == [said[i] for i in order]
    fresh = Policy.load(ROOT / "policy/products/consumer", "consumer", schema_of("consumer"))
    for i in rng.permutation(n)[:40].tolist():
        assert fresh.decide(asked.take(np.array([i])), values[i : i + 1])[0].reasons == said[i]
    evidence = [reason.evidence for reasons in said for reason in reasons]
    assert len({e for e in evidence if e.startswith("bureau_overdue_24m=")}) > 2 * KEPT
