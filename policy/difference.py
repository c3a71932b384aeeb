"""What differs between two policies of a product, in a risk officer's words, English then Chinese: tables, rows, cells,
reasons (R16).

Read from the files as written, so a cell shows what someone typed. That the drawing or a description changed is said
too: it makes another version that decides the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from policy.cases import Case, decide
from policy.decide import POLICY, Decision, Policy
from policy.jdm import Sheet, read_sheets
from policy.reasons import REASONS_PATH, reason_texts


def differences(old: Path, new: Path) -> list[str]:
    """One line for each thing that differs between the policies in two folders that load. Raises PolicyError."""
    before, after = _sheets(old), _sheets(new)
    found = [f"table {name}: removed | 表 {name}：删除" for name in before if name not in after]
    for name, sheet in after.items():
        if name in before:
            found += _table(before[name], sheet)
        else:
            found.append(f"table {name}: added, {len(sheet.rows)} rows | 表 {name}：新增，共 {len(sheet.rows)} 行")
    found += _words(_texts(old), _texts(new))
    if not found and any(a != b for a, b in zip(_contents(old), _contents(new), strict=True)):
        found = ["descriptions or the drawing only: nothing that decides | 仅说明或图形不同：不影响决策"]
    return found


def decided_otherwise(old: Policy, new: Policy, cases: Sequence[Case]) -> list[str]:
    """The cases that two policies decide otherwise, each with what of it differs."""
    found = []
    for case in cases:
        before, after = _decision(decide(old, case)[0]), _decision(decide(new, case)[0])
        if changed := [f"{name} {before[name]} → {after[name]}" for name in after if before[name] != after[name]]:
            found.append(f"case {case.name}: {', '.join(changed)} | 案例 {case.name}：{'，'.join(changed)}")
    return found


def _decision(decision: Decision) -> dict[str, str]:
    return {
        "outcome": decision.outcome.name.lower(),
        "amount_minor": str(decision.approved_amount_minor),
        "annual_rate": f"{decision.annual_rate:g}",
        "grade": decision.grade or "none",
        "reasons": " ".join(reason.code for reason in decision.reasons) or "none",
        "funding": " ".join(f"{s.offer.funder}:{s.amount_minor}" for s in decision.shares) or "none",
    }


def _sheets(folder: Path) -> dict[str, Sheet]:
    return {sheet.name: sheet for sheet in read_sheets(folder / POLICY, (folder / POLICY).read_bytes())}


def _words_file(folder: Path) -> Path:
    words = folder / REASONS_PATH.name
    return words if words.exists() else REASONS_PATH


def _texts(folder: Path) -> Mapping[str, tuple[str, str]]:
    return reason_texts(_words_file(folder), _words_file(folder).read_bytes())


def _contents(folder: Path) -> tuple[bytes, bytes]:
    return (folder / POLICY).read_bytes(), _words_file(folder).read_bytes()


def _table(old: Sheet, new: Sheet) -> list[str]:
    """What differs in a table that both have."""
    found, name = [], new.name
    if old.hit_policy != new.hit_policy:
        change = f"{old.hit_policy} → {new.hit_policy}"
        found.append(f"table {name}: hit policy {change} | 表 {name}：命中策略 {change}")
    before, after = _fields(old), _fields(new)
    found += [f"table {name}: column {f} removed | 表 {name}：删除列 {f}" for f in before if f not in after]
    found += [f"table {name}: column {f} added | 表 {name}：新增列 {f}" for f in after if f not in before]
    for row in (row for row in old.rows if row not in new.rows):
        found.append(f"table {name}: row {row} removed ({_row(old, row)}) | 表 {name}：删除行 {row}")
    above = ""
    for row in new.rows:
        if row not in old.rows:
            en, zh = _place(above)
            found.append(f"table {name}: row {row} added {en} ({_row(new, row)}) | 表 {name}：新增行 {row}，{zh}")
        above = row
    for row, above in _moved(old, new):
        en, zh = _place(above)
        found.append(f"table {name}: row {row} moved {en} | 表 {name}：行 {row} 移动，{zh}")
    for row in (row for row in new.rows if row in old.rows):
        for field, was, now in _cells(old, new, row):
            if was != now:
                english, chinese = (f"{was or empty} → {now or empty}" for empty in ("(empty)", "（空）"))
                found.append(
                    f"table {name}, row {row}, column {field}: {english} | 表 {name}、行 {row}、列 {field}：{chinese}"
                )
    return found


def _fields(sheet: Sheet) -> dict[str, str]:
    """Column id by field."""
    return {field: key for key, field in (*sheet.inputs.items(), *sheet.outputs.items())}


def _cells(old: Sheet, new: Sheet, row: str) -> Iterator[tuple[str, str, str]]:
    """(field, old text, new text) of a row that both have; empty where a table has no such column."""
    before, after = _fields(old), _fields(new)
    for field in dict.fromkeys((*before, *after)):
        was = old.rows[row][before[field]].strip() if field in before else ""
        yield field, was, new.rows[row][after[field]].strip() if field in after else ""


def _moved(old: Sheet, new: Sheet) -> Iterator[tuple[str, str]]:
    """(row, the row above it now) of rows whose moves make the order of the old table that of the new."""
    before, after = [r for r in old.rows if r in new.rows], [r for r in new.rows if r in old.rows]
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    stayed = {after[block.b + i] for block in blocks for i in range(block.size)}
    order = list(new.rows)
    yield from ((row, order[i - 1] if i else "") for i, row in enumerate(order) if row in after and row not in stayed)


def _place(above: str) -> tuple[str, str]:
    return (f"below {above}", f"位于 {above} 之下") if above else ("to the top", "位于最上")


def _row(sheet: Sheet, row: str) -> str:
    cells = sheet.rows[row]
    return ", ".join(f"{field} {cells[key].strip()}" for field, key in _fields(sheet).items() if cells[key].strip())


def _words(old: Mapping[str, tuple[str, str]], new: Mapping[str, tuple[str, str]]) -> list[str]:
    found = [f"reason {code}: removed | 原因 {code}：删除" for code in old if code not in new]
    for code, words in new.items():
        if code not in old:
            found.append(f"reason {code}: added, {words[1]} | 原因 {code}：新增，{words[0]}")
        else:
            found += [
                f"reason {code}, {language}: {was} → {now} | 原因 {code}：{was} → {now}"
                for language, was, now in zip(("zh", "en"), old[code], words, strict=True)
                if was != now
            ]
    return found
