"""A lender's own policy for consumer loans: the shipped one with an exposure cap, funders and reviewers' authority."""

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

PRODUCTS = ROOT / "policy/products"
FUNDERS = ("funder", "mode", "share_max", "cap_minor", "funder_rate")


def write_policies(
    folder: Path,
    *,
    exposure_max_minor: int | None = None,
    funders: Sequence[tuple[str, str, float, int, float]] = (),
    authority: Sequence[tuple[str, str, int]] = (),
    certain: bool = False,
) -> Path:
    """The shipped products in `folder`, consumer changed. funders: rows of FUNDERS; authority: rows of authority,
    grades (cells) and amount_max_minor. certain: whatever a model says and
    however many come in a day, it is no fraud and of grade A.
    """
    shutil.copytree(PRODUCTS, folder, dirs_exist_ok=True)
    (folder / "consumer/cases.csv").unlink(missing_ok=True)  # they are of the shipped policy
    path = folder / "consumer/policy.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    tables = {n["name"]: n["content"] for n in document["nodes"] if n["type"] == "decisionTableNode"}
    tables.pop("funders"), tables.pop("authority")
    limit = tables["limit"]
    shipped = {o["id"] for o in limit["outputs"] if o["field"].startswith("exposure_")}
    limit["outputs"] = [o for o in limit["outputs"] if o["id"] not in shipped]
    limit["rules"] = [{k: cell for k, cell in rule.items() if k not in shipped} for rule in limit["rules"]]
    if exposure_max_minor is not None:
        limit["outputs"].append({"id": "exposure", "name": "exposure_max_minor", "field": "exposure_max_minor"})
        for rule in limit["rules"]:
            rule["exposure"] = str(exposure_max_minor)
    if certain:
        (reason,) = (o["id"] for o in tables["knockouts"]["outputs"] if o["field"] == "reason")
        tables["knockouts"]["rules"] = [r for r in tables["knockouts"]["rules"] if r[reason] != "'VELOCITY_HIGH'"]
        _almost_always(tables["fraud"], "outcome", "'approve'")
        _almost_always(tables["grade"], "grade", "'A'")
    if funders:
        rows = [{field: _literal(value) for field, value in zip(FUNDERS, row, strict=True)} for row in funders]
        tables["funders"] = _table("funders", (), FUNDERS, rows)
    if authority:
        columns = ("authority", "grade.grade")
        rows = [dict(zip((*columns, "amount_max_minor"), (a, g, str(most)), strict=True)) for a, g, most in authority]
        tables["authority"] = _table("authority", columns, ("amount_max_minor",), rows)
    path.write_text(json.dumps(_chained(tables), ensure_ascii=False), encoding="utf-8")
    return folder


def _almost_always(table: dict[str, Any], field: str, value: str) -> None:
    """Make a table of one probability give its row with `value` below 0.99, the others above."""
    (column,) = table["inputs"]
    (output,) = (o["id"] for o in table["outputs"] if o["field"] == field)
    others = [rule for rule in table["rules"] if rule[output] != value]
    if field == "outcome":
        others.reverse()  # the worst one last: a worse probability helps nobody
    edges = [0.99 + 0.001 * n for n in range(len(others))]
    for rule in table["rules"]:
        rule[column["id"]] = "< 0.99"
    for rule, low in zip(others, edges, strict=True):
        rule[column["id"]] = f">= {low:g}" if rule is others[-1] else f"[{low:g}..{low + 0.001:g})"


def _literal(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _table(name: str, inputs: Sequence[str], outputs: Sequence[str], rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    # a collect table needs an input column
    columns = list(inputs) or ["amount_minor"]
    return {
        "hitPolicy": "collect",
        "inputs": [{"id": f"in_{f}", "name": f, "field": f} for f in columns],
        "outputs": [{"id": f"out_{f}", "name": f, "field": f} for f in outputs],
        "rules": [
            {"_id": f"{name}-{n}", "_description": ""}
            | {f"in_{f}": row.get(f, "") for f in columns} | {f"out_{f}": row[f] for f in outputs}
            for n, row in enumerate(rows)
        ],
        "passThrough": True, "inputField": None, "outputPath": name, "executionMode": "single",
    }  # fmt: skip


def _chained(tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A policy file of the tables in the order that policies have."""
    order = ("knockouts", "sources", "fraud", "grade", "limit", "price", "funders", "authority")
    names = [*(n for n in order if n in tables)]
    nodes: list[dict[str, Any]] = [{"id": "request", "type": "inputNode", "name": "request"}]
    nodes += [{"id": n, "type": "decisionTableNode", "name": n, "content": tables[n]} for n in names]
    nodes.append({"id": "response", "type": "outputNode", "name": "response"})
    ids = ["request", *names, "response"]
    edges = [{"id": f"{a}-{b}", "sourceId": a, "targetId": b} for a, b in itertools.pairwise(ids)]
    return {"contentType": "application/vnd.gorules.decision", "nodes": nodes, "edges": edges}
