"""What is owed: reserved by approvals, released by reports, never below nothing, funders in proportion."""

import itertools
import json
import random
import re

from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from features.specs import OUTCOME_KINDS
from policy.ledger import Ledger
from tests.conftest import ROOT

KIND = {kind: i for i, kind in enumerate(OUTCOME_KINDS)}
WHO = ("consumer", 77)
SHARES = (("bank", 700), ("trust", 300))


def test_reports_release_and_restore() -> None:
    ledger = Ledger()
    ledger.approve(1, WHO, 1000, SHARES)
    ledger.approve(2, WHO, 500, ())
    assert (ledger.exposure(WHO), ledger.lent) == (1500, {"bank": 700, "trust": 300})
    ledger.report(1, KIND["principal_repaid"], 100)
    assert (ledger.exposure(WHO), ledger.lent) == (1400, {"bank": 630, "trust": 270})
    ledger.report(1, KIND["principal_repaid"], 5000)
    assert (ledger.exposure(WHO), ledger.lent) == (500, {"bank": 0, "trust": 0})
    ledger.report(1, KIND["retracted"], 0)
    assert (ledger.exposure(WHO), ledger.lent) == (1500, {"bank": 700, "trust": 300})
    for kind in ("repaid", "not_taken_up", "expired"):
        ledger.report(1, KIND[kind], 0)
        assert (ledger.exposure(WHO), ledger.lent) == (500, {"bank": 0, "trust": 0})
        ledger.report(1, KIND["retracted"], 0)
    for kind in ("past_due_90", "fraud_confirmed", "disbursed"):
        ledger.report(1, KIND[kind], 9)
        ledger.report(9, KIND[kind], 9)  # never approved: nothing to release
    assert ledger.exposure(WHO) == 1500 and ledger.exposure(("auto", 77)) == 0


def test_what_was_paid_out_is_outstanding_whatever_was_said_before() -> None:
    ledger = Ledger()
    ledger.approve(1, WHO, 1000, SHARES)
    for kind, amount, left in (
        ("expired", 0, 0), ("disbursed", 0, 1000), ("principal_repaid", 400, 600), ("disbursed", 0, 600),
        ("repaid", 0, 0), ("expired", 0, 0), ("disbursed", 0, 0), ("retracted", 0, 1000), ("not_taken_up", 0, 0),
        ("repaid", 0, 0), ("disbursed", 0, 0), ("retracted", 0, 1000), ("repaid", 0, 0), ("disbursed", 0, 0),
    ):  # fmt: skip
        ledger.report(1, KIND[kind], amount)
        assert ledger.exposure(WHO) == sum(ledger.lent.values()) == left


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 999)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(sorted(KIND.values())), st.integers(0, 2000)), max_size=12),
)
def test_what_funders_have_lent_is_what_borrowers_owe(
    loans: list[tuple[int, int]], reports: list[tuple[int, int, int]]
) -> None:
    ledger = Ledger()
    for row, (borrower, amount) in enumerate(loans):
        ledger.approve(
            row,
            ("consumer", borrower),
            amount,
            (("a", amount // 3), ("b", amount // 3), ("c", amount - 2 * (amount // 3))),
        )
    for row, kind, amount in itertools.chain(reports, [(0, KIND["expired"], 0)]):
        ledger.report(row, kind, amount)
        owed = [ledger.exposure(("consumer", borrower)) for borrower in range(4)]
        assert sum(owed) == sum(ledger.lent.values()) and min(*owed, *ledger.lent.values()) >= 0
        assert sum(owed) <= sum(amount for _, amount in loans)


def test_funders_get_back_what_the_store_gives_them(redis_url: str) -> None:
    """To the fen, also where a product is beyond 2^53, and Lua's numbers would not hold it."""
    text = (ROOT / "features/functions.lua").read_text(encoding="utf-8")
    body = re.search(r"^local function portion.*?^local function spread.*?^end$", text, re.DOTALL | re.MULTILINE)
    assert body is not None
    script = (
        body[0]
        + """
      local shares, out = cjson.decode(ARGV[1]), {}
      for n, case in ipairs(shares) do
        local open, back, left = {}, {}, 0
        for k, minor in ipairs(case[1]) do open[k], back[k], left = {'', minor}, 0, left + minor end
        out[n] = spread(open, back, case[2], left)
      end
      return out"""
    )
    rng, cases = random.Random(1), [([626149152, 268349636], 447249394), ([517268500, 221686500], 730087540)]
    for _ in range(3000):
        amount = rng.randint(1, 10**9)
        part = -(-7 * amount // 10)
        cases.append(([part, amount - part], max(1, rng.choice([rng.randint(1, amount), amount // 2, amount // 12]))))
    with Redis.from_url(redis_url) as redis:
        expected = redis.eval(script, 0, json.dumps(cases))
    for (open_minor, freed), parts in zip(cases, expected, strict=True):
        ledger = Ledger()
        ledger.approve(1, WHO, sum(open_minor), [("bank", open_minor[0]), ("trust", open_minor[1])])
        ledger.report(1, KIND["principal_repaid"], freed)
        left = [minor - part for minor, part in zip(open_minor, parts, strict=True)]
        assert [ledger.lent["bank"], ledger.lent["trust"]] == left, (open_minor, freed)
