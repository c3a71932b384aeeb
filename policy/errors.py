"""Why a policy cannot be used, in the words of both languages and with the place in its file."""

from pathlib import Path


class PolicyError(ValueError):
    """A policy that cannot be used: `file`, and where known `table`, `row` and `column` or `line`, then `reason` and
    `zh`, the same in Chinese.
    """

    def __init__(
        self, file: Path, reason: str, table: str = "", row: str = "", column: str = "", zh: str = "", line: int = 0
    ) -> None:
        places = (("table", "表", table), ("row", "行", row), ("column", "列", column))
        named = [(f"{en} {name!r}", f"{word} {name!r}") for en, word, name in places if name]
        where = [(f"line {line}", f"第 {line} 行")] * bool(line) + named
        english, chinese = ", ".join(en for en, _ in where), "、".join(word for _, word in where)
        zh_too = " | " + "：".join(filter(None, (chinese, zh))) if zh else ""
        super().__init__(": ".join(filter(None, (str(file), english, reason))) + zh_too)
        self.file, self.reason, self.zh, self.line = file, reason, zh, line
        self.table, self.row, self.column = table, row, column


def cannot_read(file: Path, error: OSError) -> PolicyError:
    """Of a file that the system does not give."""
    return PolicyError(file, f"cannot be read: {error.strerror}", zh=f"无法读取：{error.strerror}")
