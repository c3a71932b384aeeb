"""Why a policy cannot be used, in the words of both languages and with the place in its file."""

from pathlib import Path


class PolicyError(ValueError):
    """A policy that cannot be used: `file`, and where known `table`, `row` and `column`, then `reason` and `zh`, the
    same in Chinese.
    """

    def __init__(self, file: Path, reason: str, table: str = "", row: str = "", column: str = "", zh: str = "") -> None:
        places = (("table", "表", table), ("row", "行", row), ("column", "列", column))
        where = ", ".join(f"{en} {name!r}" for en, _, name in places if name)
        where_zh = "、".join(f"{word} {name!r}" for _, word, name in places if name)
        chinese = " | " + "：".join(filter(None, (where_zh, zh))) if zh else ""
        super().__init__(": ".join(filter(None, (str(file), where, reason))) + chinese)
        self.file, self.reason, self.zh, self.table, self.row, self.column = file, reason, zh, table, row, column
