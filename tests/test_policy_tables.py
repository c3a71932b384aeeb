"""Compiled tables equal zen-engine on every typed input that is there, and refuse or say so where zen fails open."""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zen
from hypothesis import given, settings
from hypothesis import strategies as st

from features import schema as schemas
from policy.cells import Column, Value, parse_test
from policy.specs import SPECS, policy_columns
from policy.tables import Output, PolicyError, Result, Spec, Table, load_tables

Values = Mapping[str, Value | None]

ROOT = Path(__file__).parent.parent
PRODUCTS = {"consumer": "consumer", "auto": "auto", "small_business": "small_business", "card_transaction": "sffsd"}
NUMBER = Column("number")
INPUTS = {"x": NUMBER, "y": NUMBER, "kind": Column("string", ("new", "used")), "flag": Column("boolean")}
COLLECT = {"t": Spec("collect", {"out": Output(NUMBER)})}
FIRST = {"t": Spec("first", {"out": Output(NUMBER)})}


def product_path(product: str) -> Path:
    return ROOT / "policy/products" / product / "policy.json"


def product_document(product: str) -> Any:
    return json.loads(product_path(product).read_text())


def table_of(document: Any, name: str) -> Any:
    return next(node["content"] for node in document["nodes"] if node["name"] == name)


def jdm(hit_policy: str, rows: list[dict[str, str]], inputs: tuple[str, ...] = ("x",)) -> Any:
    """A policy of one table `t` with the column `out`; rows map fields to cells, ids are r0, r1 …"""
    rules = [
        {"_id": f"r{i}", **{f: row.get(f, "") for f in inputs}, "o": row.get("out", "1")} for i, row in enumerate(rows)
    ]
    content = {
        "hitPolicy": hit_policy, "inputs": [{"id": f, "name": f, "field": f} for f in inputs],
        "outputs": [{"id": "o", "name": "out", "field": "out"}], "rules": rules, "passThrough": True, "outputPath": "t",
    }  # fmt: skip
    nodes = [
        {"id": "i", "type": "inputNode", "name": "request"},
        {"id": "t", "type": "decisionTableNode", "name": "t", "content": content},
        {"id": "o", "type": "outputNode", "name": "response"},
    ]
    edges = [{"id": "1", "sourceId": "i", "targetId": "t"}, {"id": "2", "sourceId": "t", "targetId": "o"}]
    return {"contentType": "application/vnd.gorules.decision", "nodes": nodes, "edges": edges}


def load(document: Any, specs: Mapping[str, Spec], inputs: Mapping[str, Column] = INPUTS) -> dict[str, Table]:
    return load_tables(Path("some.json"), json.dumps(document).encode(), inputs, specs)


def in_both_languages(error: PolicyError) -> bool:
    """Whether it says what is wrong, and where, in English and in Chinese."""
    english, _, chinese = str(error).partition(" | ")
    places = [place for place in (error.table, error.row, error.column) if place]
    return (
        any("\u4e00" <= letter <= "\u9fff" for letter in error.zh)
        and error.reason in english and chinese.endswith(error.zh)
        and all(repr(place) in english and repr(place) in chinese for place in places)
    )  # fmt: skip


def ask_zen(document: Any) -> Callable[[Values], dict[str, Any]]:
    for node in document["nodes"]:
        node.setdefault("position", {"x": 0, "y": 0})
    decision = zen.ZenEngine().create_decision(json.dumps(document))
    return lambda values: dict(decision.evaluate(dict(values))["result"])


def collect(rows: list[dict[str, str]], values: Values, inputs: tuple[str, ...] = ("x",)) -> Result:
    return load(jdm("collect", rows, inputs), COLLECT)["t"].evaluate(values, {})


def complete_values(
    rng: random.Random, columns: Mapping[str, Column], cuts: Mapping[str, list[float]]
) -> dict[str, Value]:
    """A value for every input, most of them on or beside a number that a cell names; zen keeps 16 digits."""
    values: dict[str, Value] = {}
    for name, column in columns.items():
        if column.kind == "boolean":
            values[name] = rng.random() < 0.5
        elif column.kind == "string":
            values[name] = rng.choice(column.values or ("officer", "manager", "committee"))
        else:
            near = rng.choice(cuts.get(name) or [0.0]) + rng.choice([0, 0, 1, -1, 1e-6, -1e-6])
            low, high = max(column.range[0], -1e6), min(column.range[1], 1e6)
            values[name] = round(near if rng.random() < 0.8 else rng.uniform(low, high), 6)
    return values


@pytest.mark.parametrize("product", PRODUCTS)
def test_shipped_tables_equal_zen(product: str) -> None:
    columns = policy_columns(schemas.load(ROOT / f"features/schemas/{PRODUCTS[product]}.yaml"))
    tables = load_tables(product_path(product), product_path(product).read_bytes(), columns, SPECS)
    columns = {name: columns[name] for table in tables.values() for name in table.inputs if name in columns}
    cuts: dict[str, list[float]] = {}
    for table in tables.values():
        for row in table.rows:
            for name, test in row.tests.items():
                cuts.setdefault(name, []).extend(test.numbers)
    oracle = ask_zen(product_document(product))
    rng = random.Random(product)
    hit: set[tuple[str, str]] = set()
    for _ in range(2000):
        values = complete_values(rng, columns, cuts)
        want = oracle(values)
        earlier: dict[str, Mapping[str, Value]] = {}
        for name, table in tables.items():
            result = table.evaluate(values, earlier)
            assert not result.undecided
            got = [dict(h.outputs) for h in result.hits]
            assert got == (want[name] if SPECS[name].hit_policy == "collect" else [want[name]]), (name, values)
            hit.update((name, h.row) for h in result.hits)
            if SPECS[name].hit_policy == "first":
                earlier[name] = result.hits[0].outputs
    rows = [(table.name, row) for table in tables.values() for row in table.rows]
    of_missing = {(name, row.id) for name, row in rows if any(not test.spans for test in row.tests.values())}
    assert {(name, row.id) for name, row in rows} - hit == of_missing  # `null` holds for no value that is there


numbers = st.integers(-8, 8).map(str) | st.decimals(-9, 9, places=2).map(str)
comparisons = st.builds(lambda sign, n: f"{sign} {n}", st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers)
lists = st.lists(numbers, min_size=1, max_size=3).map(lambda some: f"[{', '.join(some)}]")
ranges = st.builds(
    lambda start, low, width, end: f"{start}{low}..{low + width}{end}",
    st.sampled_from("[("), st.integers(-6, 6), st.integers(1, 5), st.sampled_from("])"),
)  # fmt: skip
members = st.builds(lambda word, some: f"{word} {some}", st.sampled_from(["in", "not in"]), lists | ranges)
asked_null = st.sampled_from(["== null", "!= null"])
cells = st.builds(
    lambda word, tests: word.join(tests),
    st.sampled_from([" and ", " or ", ", "]),
    st.lists(
        comparisons | members | numbers | ranges | st.sampled_from(["null", "== null", "!= null"]),
        min_size=1,
        max_size=4,
    ),
) | st.just("")


@settings(max_examples=400, deadline=None)
@given(cell=cells, x=st.integers(-9, 9) | st.decimals(-9, 9, places=2).map(float))
def test_any_cell_equals_zen(cell: str, x: float) -> None:
    document = jdm("collect", [{"x": cell}])
    test = parse_test(cell, INPUTS["x"])
    if test is not None and not (test.spans or test.if_missing):
        with pytest.raises(PolicyError, match="holds for nothing"):
            load(document, COLLECT)
        return
    want = len(ask_zen(document)({"x": x})["t"])
    assert len(load(document, COLLECT)["t"].evaluate({"x": x}, {}).hits) == want


@settings(max_examples=200, deadline=None)
@given(
    terms=st.lists(st.sampled_from(["x", "y", "2", "0.5", "(x - y)", "-x", "(y / 4)"]), min_size=2, max_size=5),
    signs=st.lists(st.sampled_from("+-*"), min_size=4, max_size=4),
    x=st.integers(-50, 50), y=st.decimals(-9, 9, places=2).map(float),
)  # fmt: skip
def test_arithmetic_equals_zen(terms: list[str], signs: list[str], x: int, y: float) -> None:
    text = terms[0] + "".join(f" {s} {t}" for s, t in zip(signs, terms[1:], strict=False))
    document = jdm("collect", [{"out": text}])
    (want,) = ask_zen(document)({"x": x, "y": y})["t"]
    (hit,) = load(document, COLLECT)["t"].evaluate({"x": x, "y": y}, {}).hits
    assert hit.outputs["out"] == pytest.approx(want["out"], rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("cell", "column", "if_missing"),
    [
        ("> 5", "x", None), ("5", "x", None), ("!= 5", "x", None), ("not in [5]", "x", None), ("[1..5]", "x", None),
        ("1, 5", "x", None), ("> 1 and < 5", "x", None), ("< 1 or > 5", "x", None), ("!= 'new'", "kind", None),
        ("false", "flag", None),
        ("null", "x", True), ("== null", "kind", True), ("== null or > 5", "x", True), ("null, 5", "x", True),
        ("!= null", "x", False), ("!= null and > 5", "x", False),
    ],
)  # fmt: skip
def test_truth_of_a_cell_where_the_input_is_missing(cell: str, column: str, if_missing: bool | None) -> None:
    test = parse_test(cell, INPUTS[column])
    assert test is not None and test.if_missing is if_missing
    for missing in ({}, {column: None}, {column: math.nan}):
        hits, undecided = collect([{column: cell}], missing, (column,))
        assert (bool(hits), bool(undecided)) == (if_missing is True, if_missing is None)
        assert [u.missing for u in undecided] == ([(column,)] if if_missing is None else [])


def test_a_false_cell_makes_a_row_false_whatever_is_missing() -> None:
    assert collect([{"x": "> 5", "y": "> 5"}], {"x": 1}, ("x", "y")) == Result((), ())
    assert collect([{"x": "> 5", "y": "> 5"}], {"x": 9}, ("x", "y")).undecided[0].missing == ("y",)


def test_collect_reports_unknown_rows_beside_its_hits() -> None:
    hits, undecided = collect([{"x": "> 5"}, {"y": "> 5"}, {}], {"y": 9}, ("x", "y"))
    assert [h.row for h in hits] == ["r1", "r2"] and [u.row for u in undecided] == ["r0"]
    assert hits[0].tested == ("y",)


def test_first_stops_at_an_unknown_row_before_a_true_one() -> None:
    table = load(jdm("first", [{"y": "> 5"}, {"x": "> 5"}, {}], ("x", "y")), FIRST)["t"]
    assert [h.row for h in table.evaluate({"x": 9, "y": 0}, {}).hits] == ["r1"]
    assert [h.row for h in table.evaluate({"y": 9}, {}).hits] == ["r0"]  # x is missing, after the row that holds
    result = table.evaluate({"x": 9}, {})
    assert not result.hits and result.undecided[0].row == "r0" and result.undecided[0].missing == ("y",)


def test_computed_output_that_is_missing_or_out_of_range_is_undecided() -> None:
    specs = {"t": Spec("first", {"out": Output(Column("number", range=(0.0, 1.0)))})}
    table = load(jdm("first", [{"x": "> 5", "out": "y / 10"}, {"out": "0"}]), specs)["t"]
    assert table.evaluate({"x": 9, "y": 5}, {}).hits[0].outputs == {"out": 0.5}
    assert table.evaluate({"x": 9}, {}).undecided[0].missing == ("y",)
    assert table.evaluate({"x": 9, "y": 11}, {}).undecided[0].missing == ("out",)
    assert table.evaluate({"x": 9, "y": math.inf}, {}).undecided[0].missing == ("out",)


MALFORMED = [
    ("x", "abc"), ("x", "> 5 and"), ("x", "> 5 5"), ("x", "(> 1 and < 5)"), ("x", "not (> 5)"), ("x", "$ > 5"),
    ("x", "> .5"), ("x", "[5..1]"), ("x", "(5..5]"), ("x", "in []"), ("x", "in (1, 2)"), ("x", "not [1..5]"),
    ("x", "-"),
    ("x", "]1..5["), ("x", "> y"), ("x", "1 or 2 and 3"), ("x", "> 1 and < 5, 7"), ("x", "1, 2 or 3"),
    ("x", "> 0.1234567890123456"), ("x", "> null"), ("x", "1 2"),
    ("x", "'5'"), ("x", "> '5'"), ("x", "true"), ("kind", "new"), ("kind", "> 'new'"), ("kind", "5"), ("kind", "'nwe'"),
    ("kind", "['new'..'used']"), ("kind", "'new"), ("flag", "1"), ("flag", "> true"), ("flag", "'true'"),
    ("x", "__import__('os')"), ("x", "> 1) or (True"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "cell"), MALFORMED)
def test_malformed_or_mistyped_cell_refuses_and_says_where(column: str, cell: str) -> None:
    """zen loads every one of them."""
    document = jdm("collect", [{}, {column: cell}], ("x", "kind", "flag"))
    with pytest.raises(PolicyError) as refused:
        load(document, COLLECT)
    error = refused.value
    assert (str(error.file), error.table, error.row, error.column) == ("some.json", "t", "r1", column)
    assert in_both_languages(error)
    ask_zen(document)({"x": 3, "kind": "new", "flag": False})


@pytest.mark.parametrize(
    "cell",
    ["", "'text'", "true", "x +", "x ** 2", "x // 2", "x % 2", "x / y", "x / 0", "x / (1 - 1)", "unknown * 2",
     "kind * 2", "min(x, y)", "x if y else 1", ".5 * x", "1e3", "x == 1", "x.real", "0x10", "x; y", "(x", "1_000",
     "True * 2", "-" * 90 + "x"],
)  # fmt: skip
def test_malformed_or_mistyped_output_refuses_and_says_where(cell: str) -> None:
    with pytest.raises(PolicyError) as refused:
        load(jdm("collect", [{"out": cell}]), COLLECT)
    assert (refused.value.table, refused.value.row, refused.value.column) == ("t", "r0", "out")
    assert in_both_languages(refused.value)


@pytest.mark.parametrize(
    ("rows", "row", "reason"),
    [
        ([{"x": "< 5"}, {"x": "> 5"}], "", "no row for x=5"),
        ([{"x": "< 5"}, {"x": "[6..9)"}, {"x": ">= 9"}], "", "no row for x=5"),
        ([{"x": "!= null"}], "", "no row for x=missing"),
        ([{"kind": "'new'", "x": "< 5"}, {"kind": "'used'"}, {"x": "> 5"}], "", "no row for x=5"),
        ([{"x": "< 5"}, {}, {"x": "> 5"}], "r2", "can never be reached"),
        ([{"x": "< 5"}, {"x": "< 4"}, {}], "r1", "can never be reached"),
    ],
)
def test_gap_or_unreachable_row_refuses(rows: list[dict[str, str]], row: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason) as refused:
        load(jdm("first", rows, ("x", "kind")), FIRST)
    assert (refused.value.table, refused.value.row) == ("t", row) and in_both_languages(refused.value)
