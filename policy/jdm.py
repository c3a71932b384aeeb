"""Reads a strict subset of GoRules' JSON decision model (JDM): one chain of decision tables.

Source: the files that the open GoRules editor writes and zen-engine 2.1.3 runs. Only what we give a meaning to is
accepted; any other key, node type or hit policy refuses to load, because zen ignores or skips what it does not know.
Every table passes its input through and puts its result under its own name, so a later table reads `grade.grade`.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policy.errors import PolicyError as PolicyError
from policy.sheet import Sheet as Sheet
from policy.sheet import items, keys, read_sheet

CONTENT_TYPE = "application/vnd.gorules.decision"
# What the editor can also put into a graph, in words.
NODES = {
    "expressionNode": ("an expression", "表达式"),
    "functionNode": ("a function in JavaScript", "JavaScript 函数"),
    "switchNode": ("a switch", "分支开关"),
    "decisionNode": ("another decision", "引用其他决策"),
    "customNode": ("a custom node", "自定义节点"),
}


def read_sheets(path: Path, raw: bytes) -> tuple[Sheet, ...]:
    """The tables of a JDM file in the order of its chain. Raises PolicyError."""
    try:
        document = json.loads(raw, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PolicyError(path, f"is not JSON: {error}", zh=f"不是 JSON：{error}") from None
    keys(path, document, {"contentType", "nodes", "edges"}, {"settings"}, ("the file", "文件"))
    if document["contentType"] != CONTENT_TYPE:
        raise PolicyError(path, f"contentType must be {CONTENT_TYPE}", zh=f"contentType 必须是 {CONTENT_TYPE}")
    if any(_written(document.get("settings"))):
        raise PolicyError(path, "settings are not supported", zh="不支持 settings")
    nodes: dict[str, dict[str, Any]] = {}
    for node in items(path, document["nodes"], "nodes"):
        keys(path, node, {"id", "type", "name"}, {"position", "content", "description"}, ("a node", "节点"))
        if (kind := node["type"]) not in ("inputNode", "decisionTableNode", "outputNode"):
            name, zh = NODES.get(str(kind), (str(kind), str(kind)))
            raise PolicyError(
                path, f"node type {kind!r} is not supported: {name}; only decision tables decide", str(node["name"]),
                zh=f"不支持节点类型 {kind!r}：{zh}；只有决策表可以作出决定",
            )  # fmt: skip
        if str(node["id"]) in nodes:
            zh = f"有两个节点的 id 都是 {node['id']!r}"
            raise PolicyError(path, f"two nodes have the id {node['id']!r}", str(node["name"]), zh=zh)
        nodes[str(node["id"])] = node
    return tuple(read_sheet(path, node) for node in _chain(path, nodes, document["edges"]))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"key {twice[0]!r} stands twice in one object")
    return dict(pairs)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON value")


def _written(value: Any) -> Iterator[Any]:
    """What is not null or empty inside."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    yield from itertools.chain.from_iterable(map(_written, inner))
    if value not in (None, "", {}, []) and not isinstance(value, dict | list):
        yield True


def _chain(path: Path, nodes: Mapping[str, dict[str, Any]], edges: Any) -> list[dict[str, Any]]:
    """The table nodes from the input node to the output node; every node stands on the way exactly once."""
    after: dict[str, str] = {}
    for edge in items(path, edges, "edges"):
        may = {"type", "name", "sourceHandle", "targetHandle"}
        keys(path, edge, {"id", "sourceId", "targetId"}, may, ("an edge", "连线"))
        if edge.get("sourceHandle") is not None or edge.get("targetHandle") is not None:
            zh = "不支持带 sourceHandle 的连线（分支）"
            raise PolicyError(path, "an edge with a sourceHandle, a branch of a switch, is not supported", zh=zh)
        source = str(edge["sourceId"])
        if source in after:
            zh = f"节点 {source!r} 引出两条连线；各表必须连成一条链"
            raise PolicyError(path, f"two edges leave node {source!r}; the tables must form one chain", zh=zh)
        after[source] = str(edge["targetId"])
    starts = [node for node in nodes.values() if node["type"] == "inputNode"]
    if len(starts) != 1:
        zh = f"必须有一个 inputNode，现有 {len(starts)} 个"
        raise PolicyError(path, f"needs one inputNode, has {len(starts)}", zh=zh)
    walked = [starts[0]]
    while (here := str(walked[-1]["id"])) in after and len(walked) <= len(nodes):
        if after[here] not in nodes:
            zh = f"连线指向 {after[here]!r}，但没有这个节点"
            raise PolicyError(path, f"an edge leads to {after[here]!r}, which is no node", zh=zh)
        walked.append(nodes[after[here]])
    tables = walked[1:-1]
    straight = len(walked) == len(nodes) == len(after) + 1 and walked[-1]["type"] == "outputNode"
    if not straight or any(node["type"] != "decisionTableNode" for node in tables):
        zh = "节点必须连成一条链：inputNode → 决策表 → outputNode"
        raise PolicyError(path, "the nodes must form one chain inputNode → decision tables → outputNode", zh=zh)
    for node in (walked[0], walked[-1]):
        if node.get("content") not in (None, {}, {"schema": ""}, {"schema": None}):
            zh = "输入与输出节点不能带 schema；字段名来自特征 schema"
            raise PolicyError(path, "input and output nodes carry no schema; names come from the feature schema", zh=zh)
    return tables
