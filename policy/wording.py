"""The words of a vote: a Reason with its evidence, prepared once for each vote that a policy can cast (R2, R21, R22).

Of a personal input, or an output computed from one, evidence has the name only.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial

from features.application import Reason
from policy import kernel
from policy.cells import Column
from policy.rows import Row, Table
from policy.specs import Capacity

HUMAN_REVIEW = "HUMAN_REVIEW_REQUESTED"
HUMAN_REVIEW_LAW = "个人信息保护法 第24条"

Status = Sequence[int]
Make = Callable[[Sequence[float], Status], Reason]  # from a row of memory and of status
Show = Callable[[float], str]
Piece = tuple[str, tuple[int, Show] | None]  # text, and what stands in memory after it


class Wording(dict[int, Make]):
    """By vote, what makes its Reason."""

    def __init__(
        self, tables: Mapping[str, Table], texts: Mapping[str, tuple[str, str]], slot: Mapping[str, int],
        columns: Mapping[str, Column], private: Set[str], sources: Sequence[str], bounds: Sequence[Capacity],
    ) -> None:  # fmt: skip
        super().__init__()
        self._tables, self._texts, self._slot, self._private = list(tables.values()), texts, slot, private
        self._rows = [(table, row) for table in tables.values() for row in table.rows]
        self._at = {id(row): i for i, (_, row) in enumerate(self._rows)}
        self._sources, self._bounds = sources, bounds
        self._show = {name: _shower(column) for name, column in columns.items()}
        self.asked_for_a_person = self._reason(HUMAN_REVIEW, "human_review_requested=true", HUMAN_REVIEW_LAW)

    def __missing__(self, vote: int) -> Make:
        kind, number = vote >> 32 & 255, vote & 0xFFFF_FFFF
        made = self._make(kind, number)
        self[vote] = made
        return made

    def _make(self, kind: int, number: int) -> Make:
        match kind:
            case kernel.BY_ROW:
                return self._by_row(*self._rows[number])
            case kernel.MISSING_IN:
                table = self._tables[number]
                return partial(self._missing, table, table.rows, table.name)
            case kernel.MISSING_FOR:
                table, row = self._rows[number]
                return partial(self._missing, table, (row,), f"{table.name}.{row.id}")
            case kernel.GAP:
                table = self._tables[number]
                return self._template("POLICY_GAP", self._facts(n for n in table.inputs if "." not in n), table.name)
            case kernel.SOURCE_MISSING | kernel.SOURCE_STALE:
                state = "stale" if kind == kernel.SOURCE_STALE else "missing"
                return self._template(f"SOURCE_{state.upper()}", [(f"{self._sources[number]}_state={state}", None)], "")
            case kernel.NO_CAPACITY:
                bound, row = self._bounds[number >> 16], self._rows[number & 0xFFFF][1]
                return lambda m, status: self._no_capacity(bound, row, m)
            case kernel.LIMITED | kernel.TOO_LOW:
                return self._bound(kind, self._bounds[number >> 16], self._rows[number & 0xFFFF][1])
            case kernel.TOO_SMALL:
                pieces = [self._amount("amount_minor", "asked"), self._amount("minimum_minor", "limit.minimum_minor")]
                return self._template("LIMIT_TOO_LOW", pieces, f"limit.{self._rows[number][1].id}")
            case kernel.ABOVE_CAP:
                row = self._rows[number][1]
                rate = ("all_in_rate=", (self._slot["all_in_rate"], "{:.4f}".format))
                pieces = [rate, self._fact("cap_rate", "price.cap_rate")]
                legal = str(row.literals.get("legal", ""))
                return self._template("ALL_IN_RATE_ABOVE_CAP", pieces, f"price.{row.id}", legal)
            case kernel.FUNDED_LESS:
                return self._template("LIMIT_BY_FUNDERS", [self._amount("fundable_minor", "fundable")], "funders")
        return self._template("NO_FUNDER", [self._amount("amount_minor", "offered")], "funders")

    def _by_row(self, table: Table, row: Row) -> Make:
        pieces: list[Piece] = [(f"grade={row.literals['grade']}", None)] if "grade" in row.literals else []
        legal = str(row.literals.get("legal", ""))
        return self._template(
            str(row.literals["reason"]), [*pieces, *self._facts(row.tests)], f"{table.name}.{row.id}", legal
        )

    def _bound(self, kind: int, bound: Capacity, row: Row) -> Make:
        pieces = [*self._facts(bound.inputs), self._fact(bound.output, f"limit.{bound.output}")]
        code = "LIMIT_TOO_LOW" if kind == kernel.TOO_LOW else bound.reason
        return self._template(code, pieces, f"limit.{row.id}", str(row.literals.get(bound.legal, "")))

    def _no_capacity(self, bound: Capacity, row: Row, m: Sequence[float]) -> Reason:
        names = (name for name in bound.inputs if not math.isfinite(m[self._slot[name]]))
        return self._reason("INPUT_MISSING", f"{', '.join(names)} (limit.{row.id})")

    def _missing(self, table: Table, rows: Iterable[Row], where: str, m: Sequence[float], status: Status) -> Reason:
        """Of rows that may or may not hold: what they lack, or the output that is out of range."""
        names: dict[str, None] = {}
        for row in rows:
            said = status[self._at[id(row)]]
            if said > kernel.UNKNOWN:
                written = [*(row.literals if table.spec.hit_policy == "first" else ()), *row.computed]
                names[written[said - kernel.UNKNOWN - 1]] = None
            elif said == kernel.UNKNOWN:
                names.update((n, None) for n in row.undecided_by if self._lacks(n, m, status))
        return self._reason("INPUT_MISSING", f"{', '.join(names)} ({where})")

    def _lacks(self, name: str, m: Sequence[float], status: Status) -> bool:
        """An output is missing where its table did not decide, and that voted already."""
        table, dot, _ = name.partition(".")
        decided = not dot or any(
            status[i] == kernel.HIT for i, (other, _) in enumerate(self._rows) if other.name == table
        )
        return decided and math.isnan(m[self._slot[name]])

    def _facts(self, names: Iterable[str]) -> list[Piece]:
        return [self._fact(name, name) for name in names]

    def _fact(self, name: str, key: str) -> Piece:
        """A name with its value, unless the input or output `key` is personal."""
        return (name, None) if key in self._private else (f"{name}=", (self._slot[key], self._show[key]))

    def _amount(self, name: str, key: str) -> Piece:
        return f"{name}=", (self._slot[key], "{:.0f}".format)

    def _reason(self, code: str, evidence: str, legal: str = "") -> Reason:
        zh, en = self._texts[code]
        return Reason(code, zh, en, 0.0, evidence, legal)

    def _template(self, code: str, pieces: Sequence[Piece], where: str, legal: str = "") -> Make:
        """Makes the Reason whose evidence is the pieces filled in; the same object where nothing is to fill in."""
        heads, filled, head = [], [], ""
        for i, (text, fill) in enumerate(pieces):
            head += (", " if i else "") + text
            if fill is not None:
                heads.append(head)
                filled.append(fill)
                head = ""
        tail = head + (f" ({where})" if where else "")
        if not filled:
            constant = self._reason(code, tail.lstrip(), legal)
            return lambda m, status: constant
        fields = vars(self._reason(code, "", legal))
        (one, (at, show)), several = (heads[0], filled[0]), list(zip(heads, filled, strict=True))

        def evidence(m: Sequence[float]) -> str:
            if len(several) == 1:
                return one + show(m[at]) + tail
            return "".join([head + show(m[at]) for head, (at, show) in several]) + tail

        def make(m: Sequence[float], status: Status) -> Reason:
            # a frozen dataclass sets its fields one by one, three times as slow as this, and most of a decision is reasons
            reason = object.__new__(Reason)
            reason.__dict__.update(fields, evidence=evidence(m))
            return reason

        return make


def _shower(column: Column) -> Show:
    """How evidence shows a number of this column."""
    if column.kind == "string":
        return lambda x: "missing" if x != x else column.values[int(x)]
    return lambda x: "missing" if x != x else f"{x:g}"
