"""Reads a strict subset of GoRules' JSON decision model (JDM): one chain of decision tables.

Source: the files that the open GoRules editor writes and zen-engine 2.1.3 runs. Only what we give a meaning to is
accepted; any other key, node type or hit policy refuses to load, because zen ignores or skips what it does not know.
Every table passes its input through and puts its result under its own name, so a later table reads `grade.grade`.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTENT_TYPE = "application/vnd.gorules.decision"


class PolicyError(ValueError):
    """A policy that cannot be used: `file`, and where known `table`, `row` and `column`, then `reason` and `zh`, the
    same in Chinese.
    """

    def __init__(
        self, file: Path, reason: str, table: str = "", row: str = "", column: str = "", zh: str = ""
    ) -> None:
        places = (("table", "表", table), ("row", "行", row), ("column", "列", column))
        where = ", ".join(f"{en} {name!r}" for en, _, name in places if name)
        where_zh = "、".join(f"{word} {name!r}" for _, word, name in places if name)
        chinese = " | " + "：".join(filter(None, (where_zh, zh))) if zh else ""
        super().__init__(": ".join(filter(None, (str(file), where, reason))) + chinese)
        self.file, self.reason, self.zh, self.table, self.row, self.column = file, reason, zh, table, row, column


@dataclass(frozen=True)
class Sheet:
    """One decision table as written: field by column id, and by row id the cells by column id."""

    name: str
    hit_policy: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    rows: Mapping[str, Mapping[str, str]]


def read_sheets(path: Path, raw: bytes) -> tuple[Sheet, ...]:
    """The tables of a JDM file in the order of its chain. Raises PolicyError."""
    try:
        document = json.loads(raw, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PolicyError(path, f"is not JSON: {error}") from None
    _keys(path, document, {"contentType", "nodes", "edges"}, set(), "the file")
    if document["contentType"] != CONTENT_TYPE:
        raise PolicyError(path, f"contentType must be {CONTENT_TYPE}")
    nodes: dict[str, dict[str, Any]] = {}
    for node in _list(path, document["nodes"], "nodes"):
        _keys(path, node, {"id", "type", "name"}, {"position", "content"}, "a node")
        if node["type"] not in ("inputNode", "decisionTableNode", "outputNode"):
            raise PolicyError(path, f"node type {node['type']!r} is not supported", str(node["name"]))
        if str(node["id"]) in nodes:
            raise PolicyError(path, f"two nodes have the id {node['id']!r}", str(node["name"]))
        nodes[str(node["id"])] = node
    return tuple(_sheet(path, node) for node in _chain(path, nodes, document["edges"]))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"key {twice[0]!r} stands twice in one object")
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON value")


def _chain(path: Path, nodes: Mapping[str, dict[str, Any]], edges: Any) -> list[dict[str, Any]]:
    """The table nodes from the input node to the output node; every node stands on the way exactly once."""
    after: dict[str, str] = {}
    for edge in _list(path, edges, "edges"):
        _keys(path, edge, {"id", "sourceId", "targetId"}, {"type"}, "an edge")
        source = str(edge["sourceId"])
        if source in after:
            raise PolicyError(path, f"two edges leave node {source!r}; the tables must form one chain")
        after[source] = str(edge["targetId"])
    starts = [node for node in nodes.values() if node["type"] == "inputNode"]
    if len(starts) != 1:
        raise PolicyError(path, f"needs one inputNode, has {len(starts)}")
    walked = [starts[0]]
    while (here := str(walked[-1]["id"])) in after and len(walked) <= len(nodes):
        if after[here] not in nodes:
            raise PolicyError(path, f"an edge leads to {after[here]!r}, which is no node")
        walked.append(nodes[after[here]])
    tables = walked[1:-1]
    straight = len(walked) == len(nodes) == len(after) + 1 and walked[-1]["type"] == "outputNode"
    if not straight or any(node["type"] != "decisionTableNode" for node in tables):
        raise PolicyError(path, "the nodes must form one chain inputNode → decision tables → outputNode")
    for node in (walked[0], walked[-1]):
        if node.get("content") not in (None, {}, {"schema": ""}):
            raise PolicyError(path, "input and output nodes carry no schema; names come from the feature schema")
    return tables


def _sheet(path: Path, node: Mapping[str, Any]) -> Sheet:
    name = str(node["name"])
    need = {"hitPolicy", "inputs", "outputs", "rules", "passThrough", "outputPath"}
    content = _keys(path, node.get("content"), need, {"inputField", "executionMode"}, "content", name)
    if content["hitPolicy"] not in ("first", "collect"):
        raise PolicyError(path, f"hit policy must be first or collect, is {content['hitPolicy']!r}", name)
    if content["passThrough"] is not True or content["outputPath"] != name:
        raise PolicyError(path, f"passThrough must be true and outputPath {name!r}", name)
    if content.get("inputField") is not None or content.get("executionMode", "single") != "single":
        raise PolicyError(path, "inputField and executionMode 'loop' are not supported", name)
    inputs = _columns(path, name, content["inputs"], "inputs")
    outputs = _columns(path, name, content["outputs"], "outputs")
    if set(inputs) & set(outputs):
        raise PolicyError(path, f"two columns have the id {min(set(inputs) & set(outputs))!r}", name)
    rows: dict[str, dict[str, str]] = {}
    for i, rule in enumerate(_list(path, content["rules"], "rules", name)):
        row = rule.get("_id") if isinstance(rule, dict) else None
        if not isinstance(row, str) or not row:
            raise PolicyError(path, "has no _id", name, f"#{i + 1}")
        if row in rows:
            raise PolicyError(path, "two rows have this _id", name, row)
        rows[row] = _cells(path, name, row, rule, {**inputs, **outputs})
    if not rows:
        raise PolicyError(path, "has no rows", name)
    return Sheet(name, content["hitPolicy"], inputs, outputs, rows)


def _columns(path: Path, table: str, raw: Any, what: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for column in _list(path, raw, what, table):
        _keys(path, column, {"id", "name", "field"}, set(), f"a column of {what}", table)
        key, field = column["id"], column["field"]
        if not isinstance(key, str) or not isinstance(field, str) or not field or key.startswith("_"):
            raise PolicyError(path, f"{what} need an id and a field, not {column!r}", table)
        if key in columns or field in columns.values():
            raise PolicyError(path, "the column stands twice", table, column=field)
        columns[key] = field
    return columns


def _cells(path: Path, table: str, row: str, rule: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """Cells by column id."""
    cells: dict[str, str] = {}
    for key, text in rule.items():
        if key in ("_id", "_description"):
            continue
        if key not in columns:
            raise PolicyError(path, "there is no such column", table, row, key)
        if not isinstance(text, str):
            raise PolicyError(path, f"a cell is text, not {text!r}", table, row, columns[key])
        cells[key] = text
    for key, field in columns.items():
        if key not in cells:
            raise PolicyError(path, "the row has no such cell", table, row, field)
    return cells


def _keys(
    path: Path, mapping: Any, need: Collection[str], may: Collection[str], what: str, table: str = ""
) -> dict[str, Any]:
    if not isinstance(mapping, dict):
        raise PolicyError(path, f"{what} must be an object", table)
    if missing := sorted(set(need) - set(mapping)):
        raise PolicyError(path, f"{what} has no {missing[0]!r}", table)
    if unknown := sorted(set(mapping) - set(need) - set(may)):
        raise PolicyError(path, f"{what} has an unknown key {unknown[0]!r}", table)
    return mapping


def _list(path: Path, raw: Any, what: str, table: str = "") -> list[Any]:
    if not isinstance(raw, list):
        raise PolicyError(path, f"{what} must be a list", table)
    return raw
