"""A policy's tables on a device = policy.kernel, bit for bit; what the kernel cannot run is refused by name."""

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.gpu_policy import amounts, odd_values, policy_differences, shipped
from gpu_kernels import policy as launcher
from gpu_kernels.layout import FOLDER
from gpu_kernels.policy import DevicePolicy, ProgramError
from policy import kernel, program
from policy.decide import Policy
from policy.device import differences
from policy.program import Compiled, Judged
from tests.gpu_devices import NAMES, opened
from tests.perturbed import perturbed
from tests.test_policy_properties import asked_of, inputs_of
from tests.test_policy_tables import PRODUCTS


@cache
def policies() -> tuple[Policy, ...]:
    return tuple(shipped())


def test_names_mean_what_they_mean_to_the_cpu() -> None:
    source = (FOLDER / "policy.cu").read_text()
    names = [re.findall(r"(\w+)(?: = (\d+))?", body) for body in re.findall(r"^enum \{(.*?)\};", source, re.M | re.S)]
    assert len(names) == 7
    for enum in names:
        at = 0
        for name, value in enum:
            at = int(value or at)
            theirs = {getattr(module, name) for module in (kernel, program, launcher) if hasattr(module, name)}
            assert theirs == {at}, name
            at += 1
    assert len(program.Plan._fields) == 5 and len(policies()[0].compiled.plan.places) == launcher.PLACES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_policies_say_the_same(name: str) -> None:
    """Of applicants who are approved too."""
    assert {policy.product for policy in policies()} == set(PRODUCTS)
    device, outcomes = opened(name), set()
    for policy in policies():
        for seed, odd_rate in enumerate((0.0, 0.01, 0.1, 0.4)):
            rng = np.random.default_rng(seed)
            values, asked = odd_values(rng, policy, 300, odd_rate), amounts(rng, 300)
            assert policy_differences(device, policy, values, asked) == []
            outcomes |= set(judged(policy, values, asked).ints[program.OUTCOME].tolist())
    assert outcomes == {kernel.APPROVE, kernel.LIMIT, kernel.REVIEW, kernel.DECLINE}


def judged(policy: Policy, values: Any, asked: Any) -> Judged:
    tables, plan, _, votes_max = policy.compiled
    out = Judged.empty(len(asked), tables, votes_max)
    kernel.judge(tables, plan, values, asked, out)
    return out


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(PRODUCTS)), st.sampled_from([0.0, 0.02, 0.3]))
def test_any_policy_says_the_same(name: str, seed: int, product: str, odd_rate: float) -> None:
    """Policies made at random that load, on good borrowers with something changed and on anything at all."""
    rng = random.Random(seed)
    policy, device = perturbed(rng, product), opened(name, seed)
    values, asked = np.ascontiguousarray(inputs_of(rng, policy, product)), asked_of(rng, 500_000_000).amount_minor
    assert policy_differences(device, policy, values, asked) == []
    numbers = np.random.default_rng(seed)
    odd = odd_values(numbers, policy, 40, odd_rate)
    assert policy_differences(device, policy, odd, amounts(numbers, 40)) == []


def scrambled(rng: np.random.Generator, compiled: Compiled) -> Compiled:
    """Tables that no policy has: other intervals and truths, ranges that few outputs meet, arithmetic of any depth,
    rows that vote for anything.
    """
    tables, plan, *_ = compiled
    tests, outputs, marks = tables.tests.copy(), tables.outputs.copy(), plan.marks.copy()
    some = rng.random(len(tests)) < rng.choice([0.05, 0.4])
    tests[some, 1] = rng.integers(0, 3, int(some.sum()))
    wide = rng.random(len(tests)) < rng.choice([0, 0.1])
    tests[wide, 2], tests[wide, 3] = rng.choice([-np.inf, -1e300, 0.0, 5e-324], (2, int(wide.sum())))
    tests[wide, 3] = np.where(rng.random(int(wide.sum())) < 0.8, np.inf, tests[wide, 3])
    steps: list[tuple[float, float]] = []
    for output in outputs:
        written = tables.steps[int(output[3]) : int(output[4])]
        kept = (len(written) == 1 and rng.random() < 0.8) or output[1] == 1.0  # what rounds stays at least 1
        made = written.tolist() if kept else arithmetic(rng, int(plan.places[program.SHOWN_AT]))
        output[3:] = len(steps), len(steps) + len(made)
        steps += made
        if not kept and rng.random() < 0.5:
            output[1:3] = -1e18, 1e18
    other = rng.random(len(marks)) < 0.1
    marks[other, 0] = rng.integers(1, 4, int(other.sum()))
    marks[other, 1] = 1 - marks[other, 1]
    rows = tables.rows.copy()
    rows[:, 4:] = [(outputs[at, 3], outputs[end - 1, 4]) if end > at else (0, 0) for at, end in rows[:, 2:4].tolist()]
    if computing := np.flatnonzero(rows[:, 3] > rows[:, 2]).tolist():
        for begin, end, _ in tables.tables[plan.places[:2][plan.places[:2] >= 0]].tolist():
            rows[rng.integers(begin, end), 2:] = rows[rng.choice(computing), 2:]  # a knock-out that computes
    for r in np.flatnonzero(rng.random(len(rows)) < 0.2):  # one test more
        column, if_missing = rng.integers(plan.places[program.SHOWN_AT]), rng.integers(3)
        more = [*tests[rows[r, 0] : rows[r, 1]], np.array([column, if_missing, -np.inf, np.inf, 0])]
        rows[r, :2] = len(tests), len(tests) + len(more)
        tests = np.concatenate([tests, more])
    made_of = tables._replace(rows=rows, tests=tests, outputs=outputs, steps=np.array(steps).reshape(-1, 2))
    places = plan.places.copy()
    places[program.CAP_BY_GRADE] = rng.integers(2)
    return compiled._replace(program=made_of, plan=plan._replace(marks=marks, places=places))


def arithmetic(rng: np.random.Generator, columns: int) -> list[tuple[float, float]]:
    """Postfix steps over inputs and odd numbers, that leave one number."""
    steps, depth = list[tuple[float, float]](), 0
    for _ in range(int(rng.integers(1, 60))):
        what = int(rng.integers(kernel.NEGATE + 1)) if depth > 1 else int(rng.choice([0, 1, 1, 6])) if depth else 1
        steps.append((what, float(rng.integers(columns)) if what == 1 else float(rng.choice([0, 0.1, -3, 1e300]))))
        depth += 1 if what <= 1 else 0 if what == kernel.NEGATE else -1
    return steps + [(float(rng.integers(kernel.ADD, kernel.NEGATE)), 0.0) for _ in range(depth - 1)]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31))
def test_tables_that_no_policy_has_say_the_same(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy = policies()[seed % len(policies())]
    compiled = scrambled(rng, policy.compiled)
    values, asked = odd_values(rng, policy, 40, rng.choice([0.0, 0.02, 0.2])), amounts(rng, 40)
    values[rng.random(values.shape) < rng.choice([0.0, 0.02, 0.3])] = np.nan
    there, here = (Judged.empty(40, compiled.program, compiled.votes_max) for _ in range(2))
    DevicePolicy(opened(name, seed), *compiled[:3]).judge(values, asked, there)
    kernel.judge(compiled.program, compiled.plan, values, asked, here)
    assert differences(there, here) == []


def consumer() -> Compiled:
    return next(policy for policy in policies() if policy.product == "consumer").compiled


def with_steps(steps: Sequence[tuple[float, float]]) -> Compiled:
    """The consumer's, the first output of its first row of prices computed in so many steps."""
    compiled = consumer()
    tables = compiled.program
    outputs, price = tables.outputs.copy(), tables.tables[compiled.names.index("price"), 0]
    outputs[tables.rows[price, 2], 3:] = len(tables.steps), len(tables.steps) + len(steps)
    return compiled._replace(
        program=tables._replace(outputs=outputs, steps=np.concatenate([tables.steps, np.array(steps)]))
    )


def many_outputs() -> Compiled:
    rows = consumer().program.rows.copy()
    rows[2, 2:4] = 0, launcher.OUTPUTS_MAX + 1
    return consumer()._replace(program=consumer().program._replace(rows=rows))


def many_tables() -> Compiled:
    tables, _, names, _ = consumer()
    more = np.concatenate([tables.tables, np.repeat(tables.tables[:1], 64, axis=0)])
    return consumer()._replace(program=tables._replace(tables=more), names=(*names, *(f"more {i}" for i in range(64))))


def many_sources() -> Compiled:
    names = np.zeros((len(consumer().program.rows), launcher.SOURCES_MAX + 1), dtype=np.bool_)
    return consumer()._replace(plan=consumer().plan._replace(names_source=names))


def wide_capacities() -> Compiled:
    plan = consumer().plan
    return consumer()._replace(plan=plan._replace(capacities=np.full_like(plan.capacities, 62)))


DEEP = [(kernel.LOAD, 0.0)] * 65 + [(kernel.ADD, 0.0)] * 64


@pytest.mark.parametrize(
    ("compiled", "message"),
    [
        (lambda: with_steps(DEEP), "price: row 1 computes from 65 numbers at once, the kernel holds 64"),
        (lambda: with_steps([(kernel.NUMBER, 1.0)] * 2), "price: row 1 leaves 2 numbers"),
        (lambda: with_steps([(kernel.ADD, 0.0)]), "price: row 1 has an output that cannot be computed"),
        (lambda: with_steps([(9, 0.0)]), "price: row 1 has an output that cannot be computed"),
        (lambda: with_steps([(kernel.LOAD, 999.0)]), "price: row 1 reads or writes beyond the memory of 62"),
        (many_outputs, "knockouts: row 3 has 125 outputs, the kernel writes 124"),
        (many_tables, "more 57: is table 65, the kernel runs 64"),
        (wide_capacities, "limit: reads beyond the memory of 62"),
        (many_sources, "sources: 32 of them, the kernel knows 31"),
    ],
)
def test_tables_beyond_the_kernel_are_refused_by_name(compiled: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)):
        DevicePolicy(opened("shim"), *compiled()[:3])


def test_what_does_not_fit_is_refused_before_the_launch() -> None:
    tables, plan, names, votes_max = consumer()
    device = opened("shim")
    there, values, asked = DevicePolicy(device, tables, plan, names), np.zeros((3, 50)), np.ones(3, dtype=np.int64)
    with pytest.raises(ProgramError, match=r"the tables may cast \d+ votes, there is room for 8"):
        there.judge(values, asked, Judged.empty(3, tables, 8))
    for wrong in (np.zeros((2, 50)), np.zeros((3, 60))):
        with pytest.raises(ValueError, match="3 rows of at most 58 expected"):
            there.judge(wrong, asked, Judged.empty(3, tables, votes_max))
    with pytest.raises(TypeError, match="value: float64 expected, float32 given"):
        there.judge(values.astype(np.float32), asked, Judged.empty(3, tables, votes_max))
    there.judge(values[:0], asked[:0], Judged.empty(0, tables, votes_max))
