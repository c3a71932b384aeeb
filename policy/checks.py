"""What decision tables must keep for every input: no gap, no row out of reach, no overlap; neither fraud nor what is
missing ever helps (R16, R24).

Exact: cells test one input each, so they cut every input into regions, and one point of every region is tried, missing
included.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.schema import SOURCE_STATES
from policy.cells import Column
from policy.errors import PolicyError
from policy.kernel import HIT, UNKNOWN, walk
from policy.program import Floats, assemble, slots
from policy.rows import Row, Table
from policy.specs import MODEL_OF

POINTS_MAX = 200_000  # combinations tried
FRAUD = "fraud_probability"
VOTES = ("approve", "review", "decline")  # each worse than the one before


@dataclass(frozen=True)
class Regions:
    """values: float64 [N, inputs], a point of every region; status: int8 [N, rows], see policy.kernel."""

    values: Floats
    status: NDArray[np.int8]
    shape: tuple[int, ...]

    def along(self, axis: int, numbers: NDArray[Any]) -> NDArray[Any]:
        """What belongs to the points, [N, ·], with the points of one input first, the last of which is missing."""
        return np.moveaxis(numbers.reshape(*self.shape, *numbers.shape[1:]), axis, 0)


def check_regions(path: Path, table: Table) -> None:
    """Raises PolicyError with an example that no row of a `first` table takes, or with a row that nothing reaches."""
    regions = _regions(path, table, first=True)
    gaps = ~regions.status.any(axis=1)
    if gaps.any():
        en, zh = _shown(table, regions.values[np.argmax(gaps)])
        raise PolicyError(path, f"no row for {en}", table.name, zh=f"以下情形没有任何一行匹配：{zh}")
    # a row that a missing input leaves open is not reached by it: there must be something that it takes
    complete = ~np.isnan(regions.values).any(axis=1)
    reached = (regions.status == HIT).any(axis=0) | (regions.status[complete] != 0).any(axis=0)
    for row, is_reached in zip(table.rows, reached, strict=True):
        if not is_reached:
            raise PolicyError(
                path, "can never be reached: the rows above take all of it", table.name, row.id,
                zh="永远不会命中：上面各行已覆盖全部情形",
            )  # fmt: skip


def check_overlaps(path: Path, table: Table) -> None:
    """Raises PolicyError where two rows hold for one input: order must not decide in such a table."""
    regions = _regions(path, table, first=False)
    holds = regions.status == HIT
    many = holds.sum(axis=1) > 1
    if many.any():
        example = int(np.argmax(many))
        one, other = (table.rows[i].id for i in np.flatnonzero(holds[example])[:2])
        en, zh = _shown(table, regions.values[example])
        raise PolicyError(
            path, f"overlaps row {other!r}: both hold for {en}", table.name, one,
            zh=f"与行 {other!r} 重叠：两行同时匹配 {zh}",
        )  # fmt: skip


def check_fraud(path: Path, tables: Mapping[str, Table]) -> None:
    """Raises PolicyError where a worse fraud probability could be better for the applicant."""
    for table in tables.values():
        for name in table.inputs:
            if table.name != "fraud" and (name == FRAUD or name.startswith("fraud.")):
                raise PolicyError(
                    path, "only the table 'fraud' may look at fraud, so that more of it never helps", table.name,
                    column=name, zh="只有 fraud 表可以使用欺诈概率及其结果，以保证概率越高结果不会越好",
                )  # fmt: skip
    if "fraud" in tables and FRAUD in tables["fraud"].inputs:
        _check_rising(path, tables["fraud"])


def _check_rising(path: Path, table: Table) -> None:
    regions = _regions(path, table, first=True)
    outcomes = np.array([VOTES.index(str(row.literals["outcome"])) for row in table.rows])
    rows = np.argmax(regions.status == HIT, axis=1)
    votes = np.where((regions.status == HIT).any(axis=1), outcomes[rows], VOTES.index("review"))
    axis = list(table.inputs).index(FRAUD)
    grid, order = votes.reshape(regions.shape), np.argsort(_points(table, FRAUD)[:-1])  # the last is missing
    rising = np.moveaxis(grid, axis, -1)[..., order]
    better = rising[..., 1:] < rising[..., :-1]
    if better.any():
        index = list(np.unravel_index(np.argmax(better), better.shape))
        step = index.pop()
        at = [int(np.ravel_multi_index([*index[:axis], int(order[k]), *index[axis:]], regions.shape))
              for k in (step, step + 1)]  # fmt: skip
        low, high = (regions.values[k] for k in at)
        before, after = (VOTES[votes[k]] for k in at)
        (low_en, low_zh), (high_en, high_zh) = _shown(table, low), _shown(table, high)
        raise PolicyError(
            path, f"a worse fraud probability helps: {before} for {low_en}, {after} for {high_en}", table.name,
            table.rows[rows[at[1]]].id, FRAUD,
            f"欺诈概率升高反而结果更好：{low_zh} 时为 {before}，{high_zh} 时为 {after}",
        )  # fmt: skip


def check_missing(path: Path, tables: Mapping[str, Table]) -> None:
    """Raises PolicyError where leaving out an input could help: a vote against becomes none, or another row decides.

    A row that asks for `!= null` is false where the input is missing. That is only allowed where another row votes
    instead, or says `null` of the input and so what its absence means; of a model's probability nothing may say that.
    """
    for name, label in MODEL_OF.items():
        if name in tables:
            _check_told(path, tables[name], f"{label}_probability")
    sources = tables.get("sources")
    accepted = {} if sources is None else {
        name: [state for state in range(1, len(SOURCE_STATES))
               if any(not _is_against(row) and _may_hold(row, name, state) for row in sources.rows)]
        for name, column in sources.inputs.items() if column.values == SOURCE_STATES
    }  # fmt: skip
    for name in ("knockouts", "sources"):
        if name in tables:
            _check_kept(path, tables[name], accepted)
    for name in ("limit", "price"):
        if name in tables:
            _check_taken(path, tables[name])
    if "funders" in tables:  # of each funder the first row counts
        by_funder: dict[str, list[Row]] = {}
        for row in tables["funders"].rows:
            by_funder.setdefault(str(row.literals["funder"]), []).append(row)
        for rows in by_funder.values():
            _check_taken(path, _part(tables["funders"], rows))


def _check_told(path: Path, table: Table, column: str) -> None:
    """No row of a model's table approves where the model says nothing."""
    regions = _regions(path, table, first=True)
    untold = np.isnan(regions.values[:, list(table.inputs).index(column)])
    for row, holds in zip(table.rows, (regions.status[untold] == HIT).any(axis=0), strict=True):
        if holds and not _is_against(row):
            raise PolicyError(
                path, f"approves where {column} is missing", table.name, row.id, column, f"{column} 缺失时仍予通过"
            )


def _check_kept(path: Path, table: Table, accepted: Mapping[str, Sequence[int]]) -> None:
    """Whom a row of a voting table stops is stopped without any one input too, unless a row says that is meant.

    accepted: of each source the states, as numbers, that a row of `sources` approves; all others vote REVIEW.
    """
    for row in table.rows:
        if table.name == "knockouts" and not _is_against(row) and not any(_says_null(row, name) for name in row.tests):
            raise PolicyError(
                path, "spares nobody: a knock-out approves only to say of an input what `null` means", table.name,
                row.id, "outcome", "不能豁免任何人：knockouts 的行只有在以 null 说明缺失的含义时才可为 approve",
            )  # fmt: skip
        for name in row.tests:
            for lost in (*accepted.get(name, ()), -1):
                if not _may_hold(row, name, lost):
                    _check_instead(path, table, row, name, lost)


def _check_instead(path: Path, table: Table, row: Row, name: str, lost: int) -> None:
    """`lost`: the point of the input `name` that it may get worse to; -1 is missing."""
    states = [n for n in row.tests if table.name == "sources" and table.inputs[n].values == SOURCE_STATES]
    others = [
        one for one in table.rows
        if one is not row and (not one.tests.keys().isdisjoint(states) or _may_hold(one, name, lost))
    ]  # fmt: skip
    like = [one for one in others if one.tests.keys() <= row.tests.keys()]  # far fewer combinations, mostly enough
    for rows in (others,) if states else (like, others):
        some = _part(table, [row, *rows])
        regions = _regions(path, some, first=False)
        passes = _let_through(some, regions, name, lost, states)
        if not passes.any():
            return
    en, zh = _shown(some, regions.along(list(some.inputs).index(name), regions.values)[lost][passes][0])
    what = "null" if lost < 0 else repr(SOURCE_STATES[lost])
    raise PolicyError(
        path, f"stops nobody where {name} is {what}, nor does another row; let through: {en}. Add a row for {what}: "
        "review, or for null approve where that is meant", table.name, row.id, name,
        f"{name} 为 {what} 时该行不命中，也没有其他行命中，因而放行：{zh}。请补一行：转人工，或 null 有意时 approve",
    )  # fmt: skip


def _let_through(table: Table, regions: Regions, name: str, lost: int, states: Sequence[str]) -> NDArray[np.bool_]:
    """Where the first row stops somebody, and none of the table once `name` is lost; axes as of Regions.along."""
    against = np.array([_is_against(row) for row in table.rows])
    means = np.array([_says_null(row, name) for row in table.rows])
    stops = (regions.status == UNKNOWN) | ((regions.status == HIT) & against)
    instead = (stops | ((regions.status == HIT) & means)).any(axis=1)
    for state in states:  # a source that is not fresh votes for REVIEW where no row names it
        names = np.array([state in row.tests for row in table.rows])
        is_fresh = regions.values[:, list(table.inputs).index(state)] == SOURCE_STATES.index("fresh")
        instead |= ~is_fresh & ~(regions.status[:, names] == HIT).any(axis=1)
    axis = list(table.inputs).index(name)
    found = regions.along(axis, stops[:, 0])[:lost].any(axis=0) & ~regions.along(axis, instead)[lost]
    return np.asarray(found)


def _check_taken(path: Path, table: Table) -> None:
    """Where an input is missing, the row that decides does so whatever the input is, or says `null` of it."""
    for name in table.inputs:
        if all(name not in row.tests or row.tests[name].if_missing is not False for row in table.rows):
            continue
        regions = _regions(path, table, first=True)
        axis = list(table.inputs).index(name)
        for k, row in enumerate(table.rows):
            holds = regions.along(axis, regions.status[:, k] == HIT)
            only = holds[-1] & ~holds[:-1].all(axis=0)
            if only.any() and not _says_null(row, name):
                en, zh = _shown(table, regions.along(axis, regions.values)[-1][only][0])
                raise PolicyError(
                    path, f"decides only because {name} is missing and a row above says `!= null`, for {en}; write "
                    "`null` where that is meant", table.name, row.id, name,
                    f"仅因 {name} 缺失、而上方有行写 != null，才由该行决定：{zh}；确属有意请写 null",
                )  # fmt: skip


def _is_against(row: Row) -> bool:
    return row.literals["outcome"] != "approve"


def _may_hold(row: Row, name: str, point: int) -> bool:
    """Whether the row's cell for an input is not false at a number of it; -1: where it is missing."""
    if name not in row.tests:
        return False
    test = row.tests[name]
    return test.if_missing is not False if point < 0 else any(low <= point <= high for low, high in test.spans)


def _says_null(row: Row, name: str) -> bool:
    return name in row.tests and row.tests[name].if_missing is True


def _part(table: Table, rows: Sequence[Row]) -> Table:
    """Of a table some rows, with the inputs that they look at."""
    names = {name for row in rows for name in (*row.tests, *row.reads)}
    return replace(table, rows=tuple(rows), inputs={n: c for n, c in table.inputs.items() if n in names})


def _regions(path: Path, table: Table, first: bool) -> Regions:
    """Every combination of points; `first`: as if the first row that may hold decides, else each row by itself."""
    points = [_points(table, name) for name in table.inputs]
    shape = tuple(map(len, points))
    if math.prod(shape) > POINTS_MAX:
        raise PolicyError(
            path, f"more than {POINTS_MAX} combinations, too many to check", table.name,
            zh=f"组合超过 {POINTS_MAX} 种，无法逐一检查",
        )  # fmt: skip
    values = np.stack([axis.ravel() for axis in np.meshgrid(*points, indexing="ij")], axis=1) if points else None
    if values is None:
        values = np.empty((1, 0))
    program = assemble([table], slots([table], list(table.inputs)))
    program.tables[:, 2] = first
    return Regions(values, walk(program, values)[0].T, shape)


def _points(table: Table, name: str) -> Floats:
    """One number of every region between the numbers that the cells name, those numbers, and NaN last."""
    column = table.inputs[name]
    if column.kind == "boolean":
        return np.array([1.0, 0.0, np.nan])
    if column.kind == "string":
        others = [-1] if column.is_open else []
        return np.array([*others, *range(len(column.values)), np.nan], dtype=np.float64)
    numbers = {n for row in table.rows if name in row.tests for n in row.tests[name].numbers}
    low, high = column.range
    cuts = sorted(float(n) for n in numbers if low <= n <= high) or [max(low, min(high, 0.0))]
    between = [(a + b) / 2 for a, b in itertools.pairwise(cuts)]
    ends = [max(low, cuts[0] - 1), min(high, cuts[-1] + 1)]
    return np.array([*cuts, *between, *ends, np.nan])


def _shown(table: Table, point: Floats) -> tuple[str, str]:
    """A point in words, English and Chinese."""
    pairs = [(name, _text(column, float(x))) for (name, column), x in zip(table.inputs.items(), point, strict=True)]
    english = ", ".join(f"{name}={'missing' if text is None else text}" for name, text in pairs)
    return english, "，".join(f"{name}={'缺失' if text is None else text}" for name, text in pairs)


def _text(column: Column, number: float) -> str | None:
    value = column.value(number)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else value
