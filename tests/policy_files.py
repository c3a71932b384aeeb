"""Policy files written by tests."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any


def table(name: str, hit_policy: str, inputs: Sequence[str], outputs: Sequence[str], rows: Sequence[str]) -> Any:
    """The node of a table; a row's cells are parted by bars, inputs first."""
    columns = [*inputs, *outputs]
    rules = [
        {"_id": f"r{i}", **{c: cell.strip() for c, cell in zip(columns, row.split("|"), strict=True)}}
        for i, row in enumerate(rows)
    ]
    content = {
        "hitPolicy": hit_policy, "inputs": [{"id": c, "name": c, "field": c} for c in inputs],
        "outputs": [{"id": c, "name": c, "field": c} for c in outputs], "rules": rules, "passThrough": True,
        "outputPath": name,
    }  # fmt: skip
    return {"id": name, "type": "decisionTableNode", "name": name, "content": content}


def chained(tables: Sequence[Any]) -> dict[str, Any]:
    """The document of some tables' nodes in their order."""
    nodes = [{"id": "in", "type": "inputNode", "name": "request"}, *tables,
             {"id": "out", "type": "outputNode", "name": "response"}]  # fmt: skip
    pairs = pairwise(nodes)
    edges = [{"id": f"e{i}", "sourceId": a["id"], "targetId": b["id"]} for i, (a, b) in enumerate(pairs)]
    return {"contentType": "application/vnd.gorules.decision", "nodes": nodes, "edges": edges}


def write(folder: Path, product: str, document: Mapping[str, Any]) -> Path:
    """`document` as the policy of a product in a folder of policies."""
    (folder / product).mkdir(parents=True, exist_ok=True)
    (folder / product / "policy.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return folder


def read_tables(folder: Path, product: str) -> list[Any]:
    """The nodes of the tables in a policy file."""
    document = json.loads((folder / product / "policy.json").read_text(encoding="utf-8"))
    return [node for node in document["nodes"] if node["type"] == "decisionTableNode"]
