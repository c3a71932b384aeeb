"""The compiled policy against zen-engine on the same files: same rows, same outputs, the decision that follows from
them, and how long each takes.

Inputs are complete and typed: drawn at random on and beside the numbers that cells name, half of them so that a row of
some table holds, and as of usual applicants, of whom few rows hold and many are approved. Where zen fails open we
differ on purpose: what a missing input or a mistyped cell does is tested in tests/, and so is a row that asks for
`null`. Times are medians over rounds of many batches, the two engines in turn on the same inputs: zen from a dict a
decision, ours from the batch's matrix to Decisions with reasons.
"""

import gc
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zen
from rich.progress import track

from bench.expected import ROW, expect
from features import schema as schemas
from features.schema import SOURCE_STATES, Schema
from policy.cells import Column, Test, Value
from policy.decide import POLICY, Decision, Outcome, Policy
from policy.inputs import Asked
from policy.kernel import FALSE, HIT, walk
from policy.program import Floats, assemble, output_name, slots
from policy.rows import Row, Table
from policy.specs import SPECS, policy_columns
from policy.tables import load_tables

PRODUCTS = Path("policy/products")
SCHEMAS = Path("features/schemas")
BATCH, ROUNDS = 32, 11
BATCHES_MAX = 80  # in a round
SUMS = ("mismatches", "inputs", "inputs_usual", "approved", "rows", "rows_hit", "rows_asking_null")
Numbers = np.random.Generator


class Reached(NamedTuple):
    """The rows that held, table and id, and how many inputs are approved."""

    rows: set[tuple[str, str]]
    approved: int


def run(inputs: int, seed: int = 11) -> dict[str, Any]:
    """Figures of all products together; times are means over the products."""
    every = {}
    found = sorted((name, path) for path in SCHEMAS.glob("*.yaml") for name in schemas.load(path).products)
    products = [(name, schemas.load(path)) for name, path in found if (PRODUCTS / name / POLICY).exists()]
    for name, schema in products:
        every[name] = _product(name, schema, -(-inputs // len(products)), np.random.default_rng(seed))
    sums = {key: sum(p[key] for p in every.values()) for key in SUMS}
    return {**_together(every, "usual"), **sums, **_together(every, "random", "_random"), "products": every}


def _together(every: Mapping[str, Mapping[str, Any]], inputs: str, mark: str = "") -> dict[str, float]:
    """Times of all products on some inputs."""
    us = {key: statistics.mean(p[inputs][key] for p in every.values()) for key in ("us_compiled", "us_zen")}
    times = {**us, "ratio": us["us_zen"] / us["us_compiled"]}
    return {key + mark: round(value, 1 if key == "ratio" else 2) for key, value in times.items()}


def _product(name: str, schema: Schema, inputs: int, rng: Numbers) -> dict[str, Any]:
    path = PRODUCTS / name / POLICY
    raw = path.read_bytes()
    policy, columns = Policy.load(path.parent, name, schema), policy_columns(schema)
    tables = list(load_tables(path, raw, columns, SPECS).values())
    read = {n: c for t in tables for n, c in t.inputs.items() if "." not in n}  # also of tables that decide nothing
    names = dict.fromkeys([*policy.inputs, *read, "amount_minor", "term_months", "repayment"])
    columns = {n: read.get(n, columns[n]) for n in names}
    values = random_inputs(rng, tables, columns, inputs)
    calm = usual(rng, tables, columns, values)
    (mismatches, at_random), (more, as_usual) = (
        compare(name, json.loads(raw), policy, tables, columns, some, schema.minor_per_major) for some in (values, calm)
    )
    rows = {(table.name, row.id) for table in tables for row in table.rows}
    asking_null = {(table.name, row.id) for table in tables for row in table.rows if asks_null(row)}
    timed = BATCH * ROUNDS * min(inputs // (BATCH * ROUNDS), BATCHES_MAX)
    return {
        "mismatches": mismatches + more, "inputs": len(values), "inputs_usual": len(calm),
        "approved": at_random.approved + as_usual.approved, "rows": len(rows - asking_null),
        "rows_hit": len(at_random.rows - asking_null), "rows_asking_null": len(asking_null),
        "usual": _times(raw, policy, columns, calm[:timed]), "random": _times(raw, policy, columns, values[:timed]),
    }  # fmt: skip


def asks_null(row: Row) -> bool:
    """Whether it can hold for nothing that is there."""
    return any(test.if_missing and not test.spans for test in row.tests.values())


def random_inputs(rng: Numbers, tables: Sequence[Table], columns: Mapping[str, Column], count: int) -> Floats:
    """float64 [count, columns]: complete inputs."""
    cuts: dict[str, list[float]] = {}
    for table in tables:
        for row in table.rows:
            for name, test in row.tests.items():
                cuts.setdefault(name, []).extend(test.numbers)
    values = np.stack([_column(rng, c, cuts.get(name, []), count) for name, c in columns.items()], axis=1)
    places = {name: i for i, name in enumerate(columns)}
    rows = [(table, row) for table in tables for row in table.rows]
    for i in range(0, count, 2):
        table, row = rows[rng.integers(len(rows))]
        for name, number in _aimed(rng, {t.name: t for t in tables}, table, row):
            if name in places:
                values[i, places[name]] = number
    return values


def _column(rng: Numbers, column: Column, cuts: list[float], count: int) -> Floats:
    if column.kind == "boolean":
        return rng.integers(2, size=count).astype(np.float64)
    if column.kind == "string":
        return rng.integers(len(column.values), size=count).astype(np.float64)
    low, high = max(column.range[0], -1e7), min(column.range[1], 1e7)
    anywhere = rng.uniform(low, high, size=count)
    beside = rng.choice([0, 0, 1, -1, 1e-6, -1e-6, 0.5], size=count)
    near = rng.choice(np.array(cuts), size=count) + beside if cuts else anywhere
    mixed = np.where(rng.random(count) < 0.8, near, anywhere)
    return np.round(mixed, 6).astype(np.float64)  # zen keeps 16 digits


def _aimed(rng: Numbers, tables: Mapping[str, Table], table: Table, row: Row) -> Iterator[tuple[str, float]]:
    """Inputs by which a row holds, if no row above takes them; what reads an earlier table aims at a row there."""
    for name, test in row.tests.items():
        source, dot, field = name.partition(".")
        if dot:
            column = tables[source].outputs[field]
            said = [r for r in tables[source].rows if field in r.literals and holds(test, column, r.literals[field])]
            if said:
                yield from _aimed(rng, tables, tables[source], said[rng.integers(len(said))])
        elif test.spans:
            low, high = test.spans[rng.integers(len(test.spans))]
            low, high = max(low, table.inputs[name].range[0], -1e9), min(high, table.inputs[name].range[1], 1e9)
            whole = table.inputs[name].kind != "number"
            yield name, low if whole else round(float(rng.choice([low, high, (low + high) / 2])), 6)


def holds(test: Test, column: Column, value: Value) -> bool:
    """Whether a test holds for a value that is there."""
    return any(low <= column.number(value) <= high for low, high in test.spans)


def compare(
    product: str, document: Any, policy: Policy, tables: list[Table], columns: Mapping[str, Column], values: Floats,
    minor_per_major: int,
) -> tuple[int, Reached]:  # fmt: skip
    """On how many inputs, float64 [n, columns], `policy` does not decide what follows from what zen says of `document`,
    or rows of `tables`, which are the document's, do not hold as there; and what is reached.
    """
    for node in document["nodes"]:
        if node["type"] == "decisionTableNode":
            node["content"]["outputs"].append({"id": ROW, "name": ROW, "field": ROW})
            for rule in node["content"]["rules"]:
                rule[ROW] = repr(rule["_id"])
    oracle = zen.ZenEngine().create_decision(json.dumps(document))
    slot = slots(tables, list(columns))
    program, order = assemble(tables, slot), [list(columns).index(name) for name in policy.inputs]
    mismatches, hit, approved = 0, set[tuple[str, str]](), 0
    for begin in track(range(0, len(values), 1000), description=product):
        some, lent = values[begin : begin + 1000], dict[str, int]()
        status, memory = walk(program, some)
        asked = _asked(columns, some)
        decisions = policy.decide(asked, some[:, order])
        for i, named in enumerate(_dicts(columns, some)):
            want = oracle.evaluate(named)["result"]
            got = _said(tables, status[:, i], memory[:, i], slot)
            hit.update((table, str(row[ROW])) for table, rows in got.items() for row in rows)
            said = {table.name: want[table.name] for table in tables}
            expected = expect(said, named, int(asked.amount_minor[i]), tables, minor_per_major, lent)
            mismatches += not (_same(tables, got, said) and expected.is_of(decisions[i]))
            approved += expected.outcome <= Outcome.LIMIT
    return mismatches, Reached(hit, approved)


def _said(tables: list[Table], status: Any, memory: Floats, slot: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    """By table the rows that hold: their ids and outputs."""
    said: dict[str, list[dict[str, Any]]] = {}
    at = 0
    for table in tables:
        said[table.name] = []
        for row in table.rows:
            if status[at] == HIT:
                computed = {f: float(memory[slot[output_name(table, row, f)]]) for f in row.computed}
                said[table.name].append({**row.literals, **computed, ROW: row.id})
            assert status[at] in (FALSE, HIT), "inputs are complete and outputs in range"
            at += 1
    return said


def _same(tables: list[Table], got: dict[str, list[dict[str, Any]]], want: Any) -> bool:
    for table in tables:
        theirs = want[table.name] if table.spec.hit_policy == "collect" else [want[table.name]]
        ours = got[table.name]
        if len(ours) != len(theirs) or any(mine.keys() != other.keys() for mine, other in zip(ours, theirs)):  # noqa: B905
            return False
        pairs = [(mine[key], other[key]) for mine, other in zip(ours, theirs, strict=True) for key in mine]
        if any(a != b if isinstance(a, str | bool) else not math.isclose(a, b, rel_tol=1e-12) for a, b in pairs):
            return False
    return True


def _asked(columns: Mapping[str, Column], values: Floats) -> Asked:
    names = list(columns)
    amount, term, method = (
        values[:, names.index(n)].astype(np.int64) for n in ("amount_minor", "term_months", "repayment")
    )
    nothing = np.zeros(len(values), dtype=np.int64)
    return Asked(np.maximum(amount, 1), np.maximum(term, 1), method, nothing, nothing, nothing)


def _dicts(columns: Mapping[str, Column], values: Floats) -> list[dict[str, Value | None]]:
    return [
        {n: c.value(x) for (n, c), x in zip(columns.items(), row, strict=True)} for row in values.tolist()
    ]  # fmt: skip


def is_against(row: Row) -> bool:
    """Whether it votes for less than approval."""
    return row.literals.get("outcome", "approve") != "approve"


def usual(rng: Numbers, tables: Sequence[Table], columns: Mapping[str, Column], values: Floats) -> Floats:
    """Inputs as of most applicants: sources answer, and what a row against them tests is drawn anew, forty times; then
    up to three inputs of each at random.
    """
    program, names = assemble(tables, slots(tables, list(columns))), list(columns)
    against = [
        np.array([names.index(n) for n in row.tests if n in columns and is_against(row)], dtype=np.int64)
        for table in tables for row in table.rows
    ]  # fmt: skip
    calm = values.copy()
    calm[:, [name.endswith("_state") for name in names]] = SOURCE_STATES.index("fresh")
    for _ in range(40):
        status, drawn = walk(program, calm)[0], values[rng.permutation(len(values))]
        for at, tested in enumerate(against):
            held = np.flatnonzero(status[at] == HIT)
            calm[np.ix_(held, tested)] = drawn[np.ix_(held, tested)]
    several = rng.permuted(np.tile(np.arange(len(names)) < 3, (len(calm), 1)), axis=1)
    return np.where(several & (rng.random(calm.shape) < 0.5), values[rng.permutation(len(values))], calm)


def _times(raw: bytes, policy: Policy, columns: Mapping[str, Column], values: Floats) -> dict[str, float]:
    """Median microseconds a decision, ours and zen's in turn, over rounds of some batches each; reasons a decision."""
    oracle = zen.ZenEngine().create_decision(raw.decode())
    order = [list(columns).index(name) for name in policy.inputs]
    ours, theirs, heard = [], [], list[Decision]()
    for some in np.split(values, ROUNDS):
        named = _dicts(columns, some)
        batches = [
            (_asked(columns, batch), np.ascontiguousarray(batch[:, order]))
            for batch in np.split(some, len(some) // BATCH)
        ]  # fmt: skip
        heard += [decision for batch in batches[:8] for decision in _decide(policy, *batch)]
        gc.collect()
        _decide(policy, *batches[0])
        start = time.perf_counter()
        for batch in batches:
            _decide(policy, *batch)
        between = time.perf_counter()
        for one in named:
            oracle.evaluate(one)
        ours.append((between - start) / len(some) * 1e6)
        theirs.append((time.perf_counter() - between) / len(some) * 1e6)
    us_compiled, us_zen = (statistics.median(us[1:]) for us in (ours, theirs))
    return {
        "us_compiled": round(us_compiled, 2), "us_zen": round(us_zen, 1), "ratio": round(us_zen / us_compiled, 1),
        "reasons": round(statistics.mean(len(decision.reasons) for decision in heard), 1),
        "approved": round(statistics.mean(decision.outcome <= Outcome.LIMIT for decision in heard), 2),
    }  # fmt: skip


def _decide(policy: Policy, asked: Asked, values: Floats) -> list[Decision]:
    """A batch as a server has it: every decision whole, with its reasons."""
    decisions = policy.decide(asked, values)
    return [decisions[i] for i in range(len(decisions))]
