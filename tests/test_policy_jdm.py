"""Only the subset of JDM that has a meaning here loads; every refusal names file, table, row and column."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features import schema as schemas
from policy.specs import SPECS, policy_columns
from policy.tables import PolicyError, load_tables
from tests.test_policy_tables import COLLECT, INPUTS, ROOT, in_both_languages, jdm, load, product_document, table_of


def _set(*path: Any) -> Callable[[Any], None]:
    """Sets document[path[0]][path[1]]… to the last of `path`."""

    def change(document: Any) -> None:
        for key in path[:-2]:
            document = document[key]
        document[path[-2]] = path[-1]

    return change


CONTENT = ("nodes", 1, "content")
STRUCTURE: list[tuple[Callable[[Any], None], str, str, str, str]] = [
    (_set("contentType", "text"), "", "", "", "contentType"),
    (_set("extra", 1), "", "", "", "unknown key 'extra'"),
    (_set("nodes", 1, "type", "expressionNode"), "t", "", "", "'expressionNode' is not supported: an expression"),
    (_set("nodes", 1, "type", "functionNode"), "t", "", "", "'functionNode' is not supported: a function"),
    (_set("nodes", 1, "type", "switchNode"), "t", "", "", "'switchNode' is not supported: a switch"),
    (_set("nodes", 1, "id", "i"), "t", "", "", "two nodes"),
    (_set("nodes", 1, "name", "u"), "u", "", "", "outputPath"),
    (_set("nodes", 2, "content", {"schema": "{}"}), "", "", "", "carry no schema"),
    (_set("edges", []), "", "", "", "one chain"),
    (_set("edges", 1, "sourceId", "i"), "", "", "", "two edges leave"),
    (_set("edges", 1, "targetId", "nowhere"), "", "", "", "no node"),
    (_set("edges", 1, "targetId", "t"), "", "", "", "one chain"),
    (_set("edges", 0, "sourceHandle", "a"), "", "", "", "sourceHandle, a branch of a switch"),
    (_set(*CONTENT, "hitPolicy", "unique"), "t", "", "", "first or collect"),
    (_set(*CONTENT, "hitPolicy", "first"), "t", "", "", "must be collect"),
    (_set(*CONTENT, "passThrough", False), "t", "", "", "passThrough"),
    (_set(*CONTENT, "executionMode", "loop"), "t", "", "", "loop"),
    (_set(*CONTENT, "inputField", "x"), "t", "", "", "inputField"),
    (_set(*CONTENT, "inputs", 0, "field", "z"), "t", "", "z", "unknown input"),
    (_set(*CONTENT, "inputs", 0, "id", "o"), "t", "", "", "two columns"),
    (_set(*CONTENT, "inputs", 0, "field", None), "t", "", "", "has no field"),
    (_set(*CONTENT, "outputs", 0, "rule", "1"), "t", "", "", "unknown key 'rule'"),
    (_set("settings", {"validation": {"inputSchema": {"type": "object"}}}), "", "", "", "settings"),
    (_set("nodes", 1, "type", "decisionNode"), "t", "", "", "another decision"),
    (_set("nodes", 1, "type", "customNode"), "t", "", "", "a custom node"),
    (_set("nodes", 1, "type", "noteNode"), "t", "", "", "'noteNode' is not supported"),
    (_set(*CONTENT, "outputs", 0, "field", "z"), "t", "", "z", "unknown output"),
    (_set(*CONTENT, "rules", []), "t", "", "", "no rows"),
    (_set(*CONTENT, "rules", 1, "_id", "r0"), "t", "r0", "", "two rows"),
    (_set(*CONTENT, "rules", 1, "_id", ""), "t", "#2", "", "no _id"),
    (_set(*CONTENT, "rules", 1, "y", "> 5"), "t", "r1", "y", "no such column"),
    (_set(*CONTENT, "rules", 1, "x", 5), "t", "r1", "x", "a cell is text"),
    (lambda d: table_of(d, "t")["rules"][1].pop("x"), "t", "r1", "x", "no such cell"),
    (lambda d: table_of(d, "t").pop("hitPolicy"), "t", "", "", "no 'hitPolicy'"),
]


@pytest.mark.parametrize(("change", "table", "row", "column", "reason"), STRUCTURE)
def test_structure_refuses_and_says_where(
    change: Callable[[Any], None], table: str, row: str, column: str, reason: str
) -> None:
    document = jdm("collect", [{"x": "> 1"}, {"x": "> 2"}])
    load(document, COLLECT)
    change(document)
    with pytest.raises(PolicyError, match=reason) as refused:
        load(document, COLLECT)
    assert (refused.value.table, refused.value.row, refused.value.column) == (table, row, column)
    assert in_both_languages(refused.value)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"nodes": NaN}', b'{"nodes": [], "nodes": []}', b"\xff"])
def test_what_is_no_jdm_file_refuses(raw: bytes) -> None:
    with pytest.raises(PolicyError, match=r"^some.json: "):
        load_tables(Path("some.json"), raw, INPUTS, COLLECT)


def test_table_out_of_order_or_unknown_refuses() -> None:
    columns = policy_columns(schemas.load(ROOT / "features/schemas/consumer.yaml"))
    document = product_document("consumer")
    nodes, edges = document["nodes"], document["edges"]
    nodes[3], nodes[4] = nodes[4], nodes[3]  # fraud and grade
    for edge, (a, b) in zip(edges, itertools.pairwise(nodes), strict=True):
        edge["sourceId"], edge["targetId"] = a["id"], b["id"]
    with pytest.raises(PolicyError, match="out of order"):
        load_tables(Path("some.json"), json.dumps(document).encode(), columns, SPECS)
    with pytest.raises(PolicyError, match="no such table"):
        load(jdm("collect", [{}]), SPECS)


def test_a_file_as_the_editor_writes_it_loads() -> None:
    """Its keys that mean nothing to either engine: places, descriptions, defaults of new rows, types of columns."""
    document = jdm("collect", [{"x": "> 1"}, {"x": ""}])
    document["settings"] = {"validation": {"inputSchema": None, "outputSchema": None}}
    for i, node in enumerate(document["nodes"]):
        node.update(position={"x": 110 + 260.5 * i, "y": 243.5}, description="")
        if node["type"] != "decisionTableNode":
            node["content"] = {"schema": ""}
    for edge in document["edges"]:
        edge.update(type="edge", sourceHandle=None)
    content = table_of(document, "t")
    content.update(inputField=None, executionMode="single")
    content["inputs"][0].update(name=None, defaultValue="", fieldType={"type": "number"})
    content["outputs"][0].update(defaultValue="0", outputFieldType={"type": "number"})
    content["rules"][0]["_description"] = "why"
    content["rules"][1].update(x=None, _description=None)
    table = load(document, COLLECT)["t"]
    assert (
        [row.id for row in table.rows] == ["r0", "r1"] and [*table.rows[0].tests] == ["x"] and not table.rows[1].tests
    )
    assert [hit.row for hit in table.evaluate({"x": 0}, {}).hits] == ["r1"]
