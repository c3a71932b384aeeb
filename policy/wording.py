"""The words of a vote: a Reason with its evidence, prepared once for each vote that a policy can cast (R2, R21, R22).

Of a personal input, or an output computed from one, evidence has the name only.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Reason
from policy import kernel
from policy.cells import Column
from policy.rows import Row, Table
from policy.specs import Capacity

HUMAN_REVIEW = "HUMAN_REVIEW_REQUESTED"
HUMAN_REVIEW_LAW = "个人信息保护法 第24条"

LOST_MAX = 10_000  # combinations of lost sources kept
NOTHING, SEVERAL = -1, -2  # what a reason shows, where it is not one number
KEPT = 256  # Reasons of a vote remembered: of counts and months all, of a probability a few

Status = NDArray[np.int8]  # [rows, B]
Item = Callable[[int, int], float]  # of memory: place, application
Make = Callable[[Item, int, Status], Reason]  # of one of the batch
Show = Callable[[float], str]
Piece = tuple[str, tuple[int, str, Show] | None]  # text, and what follows: place, % format if a number, in words


class Lost(dict[int, tuple[str, ...]]):
    """`degraded` by two bits a source: 1 missing, 2 stale."""

    def __init__(self, sources: Sequence[str]) -> None:
        super().__init__()
        self._names = [("", f"source:{name}:missing", f"source:{name}:stale") for name in sources]

    def __missing__(self, bits: int) -> tuple[str, ...]:
        if len(self) >= LOST_MAX:
            self.clear()
        said = [names[bits >> 2 * i & 3] for i, names in enumerate(self._names)]
        self[bits] = lost = tuple([name for name in said if name])
        return lost


class Words(dict[float, Reason]):
    """The Reason of a vote: by the one number that its evidence shows, of which the first KEPT are remembered; or by
    `whole` from all that is known of an application, where it shows none or several.
    """

    def __init__(self, whole: Make, of: Callable[[float], Reason] | None = None) -> None:
        super().__init__()
        self.whole, self._of = whole, of

    def __missing__(self, number: float) -> Reason:
        if self._of is None:
            raise KeyError(number)
        reason = self._of(number)
        if len(self) < KEPT:
            self[number] = reason
        return reason


class Wording(dict[int, Words]):
    """By vote its Words. `shown`: int64 [rows], by row of the tables where in memory the one number stands that the
    reason of its vote shows, else NOTHING or SEVERAL.
    """

    def __init__(
        self, tables: Sequence[Table], texts: Mapping[str, tuple[str, str]], slot: Mapping[str, int],
        columns: Mapping[str, Column], private: Set[str], sources: Sequence[str], bounds: Sequence[Capacity],
    ) -> None:  # fmt: skip
        super().__init__()
        self._tables, self._texts, self._slot, self._private = tables, texts, slot, private
        self._rows = [(table, row) for table in tables for row in table.rows]
        self._at = {id(row): i for i, (_, row) in enumerate(self._rows)}
        self._sources, self._bounds = sources, bounds
        self.lost = Lost(sources)
        self._show = {name: _shower(column) for name, column in columns.items()}
        told = [[name for name in row.tests if name not in private] for _, row in self._rows]
        self.shown = np.array(
            [slot[names[0]] if len(names) == 1 else SEVERAL if names else NOTHING for names in told], dtype=np.int64
        )
        self.asked_for_a_person = self.reason(HUMAN_REVIEW, "human_review_requested=true", HUMAN_REVIEW_LAW)

    def __missing__(self, vote: int) -> Words:
        kind, number = vote >> 32 & 255, vote & 0xFFFF_FFFF
        made = self._make(kind, number)
        self[vote] = made
        return made

    def _make(self, kind: int, number: int) -> Words:
        match kind:
            case kernel.BY_ROW:
                return self._by_row(*self._rows[number])
            case kernel.MISSING_IN:
                table = self._tables[number]
                return Words(self._missing(table, table.rows, table.name))
            case kernel.MISSING_FOR:
                table, row = self._rows[number]
                return Words(self._missing(table, (row,), f"{table.name}.{row.id}"))
            case kernel.GAP:
                table = self._tables[number]
                return self._template("POLICY_GAP", self._facts(n for n in table.inputs if "." not in n), table.name)
            case kernel.SOURCE_MISSING | kernel.SOURCE_STALE:
                state = "stale" if kind == kernel.SOURCE_STALE else "missing"
                return self._template(f"SOURCE_{state.upper()}", [(f"{self._sources[number]}_state={state}", None)], "")
            case kernel.NO_CAPACITY:
                bound, row = self._bounds[number >> 16], self._rows[number & 0xFFFF][1]
                return Words(partial(self._no_capacity, bound, row))
            case kernel.LIMITED | kernel.TOO_LOW:
                return self._bound(kind, self._bounds[number >> 16], self._rows[number & 0xFFFF][1])
            case kernel.TOO_SMALL:
                row = self._rows[number][1]
                pieces = [self._amount("amount_minor", "asked"), self._said(row, "limit", "minimum_minor", "{:.0f}")]
                return self._template("LIMIT_TOO_LOW", pieces, f"limit.{row.id}")
            case kernel.ABOVE_CAP:
                row = self._rows[number][1]
                rate = ("all_in_rate=", (self._slot["all_in_rate"], "%.4f", _number))
                pieces = [rate, self._said(row, "price", "cap_rate")]
                legal = str(row.literals.get("legal", ""))
                return self._template("ALL_IN_RATE_ABOVE_CAP", pieces, f"price.{row.id}", legal)
            case kernel.FUNDED_LESS:
                return self._template("LIMIT_BY_FUNDERS", [self._amount("fundable_minor", "fundable")], "funders")
        return self._template("NO_FUNDER", [self._amount("amount_minor", "offered")], "funders")

    def _by_row(self, table: Table, row: Row) -> Words:
        pieces: list[Piece] = [(f"grade={row.literals['grade']}", None)] if "grade" in row.literals else []
        legal = str(row.literals.get("legal", ""))
        return self._template(
            str(row.literals["reason"]), [*pieces, *self._facts(row.tests)], f"{table.name}.{row.id}", legal
        )

    def _bound(self, kind: int, bound: Capacity, row: Row) -> Words:
        pieces = [*self._facts(bound.inputs), self._said(row, "limit", bound.output)]
        code = "LIMIT_TOO_LOW" if kind == kernel.TOO_LOW else bound.reason
        return self._template(code, pieces, f"limit.{row.id}", str(row.literals.get(bound.legal, "")))

    def _no_capacity(self, bound: Capacity, row: Row, item: Item, i: int, status: Status) -> Reason:
        names = (name for name in bound.inputs if not math.isfinite(item(self._slot[name], i)))
        return self.reason("INPUT_MISSING", f"{', '.join(names)} (limit.{row.id})")

    def _missing(self, table: Table, rows: Sequence[Row], where: str) -> Make:
        """Of rows, one after another in their table, that may or may not hold: what they lack."""
        first = self._at[id(rows[0])]
        wanted = [
            ([(n, self._slot[n], self._deciding(n)) for n in row.undecided_by], table.written(row, self._slot))
            for row in rows
        ]

        def reason(item: Item, i: int, status: Status) -> Reason:
            names: dict[str, None] = {}
            for said, (inputs, written) in zip(status[first : first + len(wanted), i].tolist(), wanted, strict=True):
                if said >= kernel.OUT_OF_RANGE:
                    names[written[said - kernel.OUT_OF_RANGE]] = None
                elif said == kernel.UNKNOWN:
                    for name, slot, deciding in inputs:
                        if math.isnan(item(slot, i)) and (
                            deciding is None or any(status.item(at, i) == kernel.HIT for at in deciding)
                        ):
                            names[name] = None
            return self.reason("INPUT_MISSING", f"{', '.join(names)} ({where})")

        return reason

    def _deciding(self, name: str) -> list[int] | None:
        """The rows of the table that an output is of, None for an input: where none holds, that table did not decide,
        which was said already.
        """
        source, dot, _ = name.partition(".")
        return [at for at, (table, _) in enumerate(self._rows) if table.name == source] if dot else None

    def _facts(self, names: Iterable[str]) -> list[Piece]:
        return [self._fact(name, name) for name in names]

    def _fact(self, name: str, key: str) -> Piece:
        """A name with its value, unless the input or output `key` is personal."""
        if key in self._private:
            return name, None
        show = self._show[key]
        return f"{name}=", (self._slot[key], "%g" if show is _number else "", show)

    def _said(self, row: Row, table: str, field: str, form: str = "{:g}") -> Piece:
        """An output of a row that holds."""
        if field in row.literals and f"{table}.{field}" not in self._private:
            return f"{field}={form.format(row.literals[field])}", None
        return self._fact(field, f"{table}.{field}")

    def _amount(self, name: str, key: str) -> Piece:
        return f"{name}=", (self._slot[key], "%.0f", _number)

    def reason(self, code: str, evidence: str, legal: str = "") -> Reason:
        """In this policy's words."""
        zh, en = self._texts[code]
        return Reason(code, zh, en, 0.0, evidence, legal)

    def _template(self, code: str, pieces: Sequence[Piece], where: str, legal: str = "") -> Words:
        """Those of the Reason whose evidence is the pieces filled in; the same object where nothing is to fill in."""
        heads, fills, head = [], [], ""
        for i, (text, fill) in enumerate(pieces):
            head += (", " if i else "") + text
            if fill is not None:
                heads.append(head)
                fills.append(fill)
                head = ""
        tail = head + (f" ({where})" if where else "")
        if not fills:
            reason = self.reason(code, tail.lstrip(), legal)
            return Words(lambda item, i, status: reason, lambda number: reason)
        zh, en = self._texts[code]
        places, form = [place for place, _, _ in fills], ""
        if all(written for _, written, _ in fills):
            form = "".join(h.replace("%", "%%") + f[1] for h, f in zip(heads, fills, strict=True))
            form += tail.replace("%", "%%")

        def shown(values: Sequence[float]) -> str:
            if form and (total := sum(values)) == total:  # none is NaN
                return form % tuple(values)
            return "".join([h + show(x) for h, x, (_, _, show) in zip(heads, values, fills, strict=True)]) + tail

        def of_one(x: float) -> Reason:
            return new(Reason, (code, zh, en, 0.0, form % x if simple and x == x else shown((x,)), legal))

        def of_many(item: Item, i: int, status: Status) -> Reason:
            return new(Reason, (code, zh, en, 0.0, shown([item(place, i) for place in places]), legal))

        simple, new = bool(form), tuple.__new__  # as policy.decide makes a Decision
        return Words(of_many, of_one if len(places) == 1 else None)


@njit(cache=True, nogil=True)
def votes_heard(votes, counts, by_row, shown, memory, begin):  # type: ignore[no-untyped-def]
    """Each vote on the applications from `begin` on, the one number that its reason shows, else NaN, and the
    application: int64 [n], float64 [n], int64 [n]. by_row: the kind of votes that Wording.shown is of.
    """
    heard, k = counts.sum(), 0
    cast, numbers, of = np.empty(heard, np.int64), np.full(heard, np.nan), np.empty(heard, np.int64)
    for i in range(len(counts)):
        for n in range(counts[i]):
            vote = cast[k] = votes[begin + i, n]
            of[k] = begin + i
            if vote >> 32 & 255 == by_row:
                place = shown[vote & 0xFFFF_FFFF]
                if place != SEVERAL:
                    numbers[k] = 0.0 if place == NOTHING else memory[place, begin + i] + 0.0  # -0 is 0
            k += 1
    return cast, numbers, of


def _number(x: float) -> str:
    return f"{x:g}" if x == x else "missing"


def _shower(column: Column) -> Show:
    """How evidence shows a number of this column."""
    if column.kind == "string":
        return lambda x: "missing" if x != x else column.values[int(x)]
    return _number
