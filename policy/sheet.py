"""One decision table as it is written in a JDM file: its columns and cells, checked for form only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.errors import PolicyError

_EDITORS_OWN = {"fieldType", "outputFieldType", "defaultValue"}  # how the editor shows a column and fills a new row


@dataclass(frozen=True)
class Sheet:
    """One decision table as written: field by column id, and by row id the cells by column id."""

    name: str
    hit_policy: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    rows: Mapping[str, Mapping[str, str]]


def read_sheet(path: Path, node: Mapping[str, Any]) -> Sheet:
    """The table of a decisionTableNode. Raises PolicyError."""
    name = str(node["name"])
    need = {"hitPolicy", "inputs", "outputs", "rules", "passThrough", "outputPath"}
    content = keys(path, node.get("content"), need, {"inputField", "executionMode"}, ("content", "content"), name)
    _check_mode(path, name, content)
    inputs = _columns(path, name, content["inputs"], "inputs")
    outputs = _columns(path, name, content["outputs"], "outputs")
    if both := sorted(set(inputs) & set(outputs)):
        zh = f"有两列的 id 都是 {both[0]!r}"
        raise PolicyError(path, f"two columns have the id {both[0]!r}", name, zh=zh)
    rows: dict[str, dict[str, str]] = {}
    for i, rule in enumerate(items(path, content["rules"], "rules", name)):
        row = rule.get("_id") if isinstance(rule, dict) else None
        if not isinstance(row, str) or not row:
            raise PolicyError(path, "has no _id", name, f"#{i + 1}", zh="没有 _id")
        if row in rows:
            raise PolicyError(path, "two rows have this _id", name, row, zh="有两行的 _id 相同")
        rows[row] = _cells(path, name, row, rule, {**inputs, **outputs})
    if not rows:
        raise PolicyError(path, "has no rows", name, zh="没有任何行")
    return Sheet(name, content["hitPolicy"], inputs, outputs, rows)


def _check_mode(path: Path, name: str, content: Mapping[str, Any]) -> None:
    if content["hitPolicy"] not in ("first", "collect"):
        policy = content["hitPolicy"]
        zh = f"命中策略必须是 first 或 collect，而不是 {policy!r}"
        raise PolicyError(path, f"hit policy must be first or collect, is {policy!r}", name, zh=zh)
    if content["passThrough"] is not True or content["outputPath"] != name:
        zh = f"passThrough 必须为 true，outputPath 必须为 {name!r}"
        raise PolicyError(path, f"passThrough must be true and outputPath {name!r}", name, zh=zh)
    if content.get("inputField") or (content.get("executionMode") or "single") != "single":
        zh = "不支持 inputField 与 executionMode 'loop'（循环）"
        raise PolicyError(path, "inputField and executionMode 'loop' are not supported", name, zh=zh)


def _columns(path: Path, table: str, raw: Any, what: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for column in items(path, raw, what, table):
        keys(path, column, {"id"}, {"name", "field", *_EDITORS_OWN}, (f"a column of {what}", f"{what} 的列"), table)
        key, field = column["id"], column.get("field")
        if field in (None, ""):
            raise PolicyError(
                path, f"column {column.get('name')!r} has no field: cells that are whole expressions are not supported",
                table, zh=f"列 {column.get('name')!r} 没有 field：不支持整格表达式",
            )  # fmt: skip
        if not isinstance(key, str) or not isinstance(field, str) or key.startswith("_"):
            zh = f"{what} 的列必须有 id 与 field，而不是 {column!r}"
            raise PolicyError(path, f"{what} need an id and a field, not {column!r}", table, zh=zh)
        if key in columns or field in columns.values():
            raise PolicyError(path, "the column stands twice", table, column=field, zh="该列出现两次")
        columns[key] = field
    return columns


def _cells(path: Path, table: str, row: str, rule: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """Cells by column id."""
    cells: dict[str, str] = {}
    for key, text in rule.items():
        if key in ("_id", "_description"):
            continue
        if key not in columns:
            raise PolicyError(path, "there is no such column", table, row, key, zh="没有这一列")
        if text is not None and not isinstance(text, str):
            zh = f"单元格必须是文本，而不是 {text!r}"
            raise PolicyError(path, f"a cell is text, not {text!r}", table, row, columns[key], zh=zh)
        cells[key] = text or ""
    for key, field in columns.items():
        if key not in cells:
            raise PolicyError(path, "the row has no such cell", table, row, field, zh="该行缺少这个单元格")
    return cells


def keys(
    path: Path, mapping: Any, need: Collection[str], may: Collection[str], what: tuple[str, str], table: str = ""
) -> dict[str, Any]:
    """The object, which has all of `need` and nothing beside `may`; `what` it is, in English and Chinese."""
    en, zh = what
    if not isinstance(mapping, dict):
        raise PolicyError(path, f"{en} must be an object", table, zh=f"{zh}必须是对象")
    if missing := sorted(set(need) - set(mapping)):
        raise PolicyError(path, f"{en} has no {missing[0]!r}", table, zh=f"{zh}缺少 {missing[0]!r}")
    if unknown := sorted(set(mapping) - set(need) - set(may)):
        raise PolicyError(path, f"{en} has an unknown key {unknown[0]!r}", table, zh=f"{zh}有未知的键 {unknown[0]!r}")
    return mapping


def items(path: Path, raw: Any, what: str, table: str = "") -> list[Any]:
    """The list."""
    if not isinstance(raw, list):
        raise PolicyError(path, f"{what} must be a list", table, zh=f"{what} 必须是列表")
    return raw
