"""Shipped policies on a device, against policy.kernel: any bits that differ, and times."""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bench.gpu_times import WARM_ROUNDS, Clock, Timed
from bench.policy import random_inputs, usual
from features import schema as schemas
from gpu_kernels.device import Device
from gpu_kernels.policy import DevicePolicy
from policy.decide import POLICY, Policy
from policy.device import differences
from policy.kernel import judge
from policy.program import Judged
from policy.specs import AUTHORITY

PRODUCTS, SCHEMAS = Path("policy/products"), Path("features/schemas")
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 2.2e-308, 1e308, -1e308, 1e300, -1e15])
Floats = NDArray[np.float64]


def shipped() -> list[Policy]:
    """The policy of every product."""
    found = []
    for schema in [schemas.load(path) for path in sorted(SCHEMAS.glob("*.yaml"))]:
        folders = [PRODUCTS / name for name in schema.products if (PRODUCTS / name / POLICY).exists()]
        found += [Policy.load(folder, folder.name, schema) for folder in folders]
    return found


def odd_values(rng: np.random.Generator, policy: Policy, rows: int, odd_rate: float) -> Floats:
    """float64 [rows, inputs]: half as of usual applicants, half anything that cells name, and a share of the numbers
    next to a bound of a cell, missing, infinite, denormal or far away.
    """
    tables = [table for name, table in policy.tables.items() if name != AUTHORITY]
    anything = random_inputs(rng, tables, policy.columns, rows)
    made = np.where(rng.random((rows, 1)) < 0.5, usual(rng, tables, policy.columns, anything), anything)
    for i, name in enumerate(policy.columns):
        tests = [row.tests[name] for _, row in policy.rows if name in row.tests]
        cuts = np.array([bound for test in tests for span in test.spans for bound in span] or [0.0])
        odd = np.concatenate([ODD, cuts, np.nextafter(cuts, -np.inf), np.nextafter(cuts, np.inf)])
        made[:, i] = np.where(rng.random(rows) < odd_rate, rng.choice(odd, rows), made[:, i])
    return made


def amounts(rng: np.random.Generator, rows: int) -> NDArray[np.int64]:
    """int64 [rows] minor units asked for."""
    return np.exp(rng.uniform(np.log(1e4), np.log(1e9), rows)).astype(np.int64)


def policy_differences(device: Device, policy: Policy, values: Floats, asked: NDArray[np.int64]) -> list[str]:
    """What the device says of a batch otherwise than policy.kernel, in any bit."""
    program, plan, names, votes_max = policy.compiled
    there, here = (Judged.empty(len(asked), program, votes_max) for _ in range(2))
    DevicePolicy(device, program, plan, names).judge(values, asked, there)
    judge(program, plan, values, asked, here)
    return differences(there, here)


def shipped_differences(device: Device, rows: int, seed: int = 2) -> list[str]:
    """What differs of any shipped policy, on so many rows of each."""
    found = []
    for policy in shipped():
        rng = np.random.default_rng(seed)
        names = policy_differences(device, policy, odd_values(rng, policy, rows, 0.05), amounts(rng, rows))
        found += [f"policy of {policy.product}: {name}" for name in names]
    return found


def policy_times(device: Device, clock: Clock, sizes: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """The consumer policy's tables on a device, copies there and back included, and on one core of the CPU, on the same
    rows, drawn anew each round; `differing`: rounds whose bits were not the same. `kernel_p50_ms` is without copies.
    """
    policy, rng, found = next(p for p in shipped() if p.product == "consumer"), np.random.default_rng(12), []
    program, plan, names, votes_max = policy.compiled
    timed = Timed(device, clock)
    there = DevicePolicy(timed, program, plan, names)
    drawn = odd_values(rng, policy, 2 * max(sizes), 0.01)
    for size in sizes:
        times: dict[str, list[float]] = defaultdict(list)
        differing = 0
        for _ in range(rounds + WARM_ROUNDS):
            values, asked = drawn[rng.integers(0, len(drawn), size)], amounts(rng, size)
            one, other = (Judged.empty(size, program, votes_max) for _ in range(2))
            timed.taken()
            began = time.perf_counter()  # it ends with what came back, so the host's clock sees all of it
            there.judge(values, asked, one)
            between = time.perf_counter()
            judge(program, plan, values, asked, other)
            times["cpu"].append((time.perf_counter() - between) * 1e3)
            times["there"].append((between - began) * 1e3)
            times["kernel"].append(timed.taken()["judge"])
            differing += bool(differences(one, other))
        kernel, both, cpu = (np.array(times[name][WARM_ROUNDS:]) for name in ("kernel", "there", "cpu"))
        found.append({
            "batch": size, "p50_ms": float(np.median(both)), "p99_ms": float(np.percentile(both, 99)),
            "kernel_p50_ms": float(np.median(kernel)), "cpu_p50_ms": float(np.median(cpu)),
            "decisions_per_s": size / float(np.median(both)) * 1e3,
            "cpu_decisions_per_s": size / float(np.median(cpu)) * 1e3, "differing": differing,
        })  # fmt: skip
    return found


def policy_table(rows: list[dict[str, Any]]) -> Table:
    """Of policy_times, for a reader."""
    table = Table(title="tables of the consumer policy, copied there and back; rates and funders stay on the CPU")
    for column in ("batch", "p50 ms", "p99 ms", "kernel", "CPU p50 ms", "decisions/s", "CPU"):
        table.add_column(column, justify="right")
    for row in rows:
        times = (f"{row[name]:.3f}" for name in ("p50_ms", "p99_ms", "kernel_p50_ms", "cpu_p50_ms"))
        table.add_row(str(row["batch"]), *times, *(f"{row[f'{on}decisions_per_s']:,.0f}" for on in ("", "cpu_")))
    return table
