"""What decision tables must keep for every input: no gap, no row out of reach, no overlap, fraud never helps (R16).

Exact: cells test one input each, so they cut every input into regions, and one point of every region is tried, missing
included.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy.cells import Column
from policy.errors import PolicyError
from policy.kernel import HIT, walk
from policy.program import Floats, assemble, slots
from policy.rows import Table

POINTS_MAX = 200_000  # combinations tried
FRAUD = "fraud_probability"
VOTES = ("approve", "review", "decline")  # each worse than the one before


@dataclass(frozen=True)
class Regions:
    """values: float64 [N, inputs], a point of every region; status: int8 [N, rows], see policy.kernel."""

    values: Floats
    status: NDArray[np.int8]
    shape: tuple[int, ...]


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


def _regions(path: Path, table: Table, first: bool) -> Regions:
    """Every combination of points; `first`: as the table decides, else whether each row by itself holds."""
    points = [_points(table, name) for name in table.inputs]
    shape = tuple(map(len, points))
    if math.prod(shape) > POINTS_MAX:
        raise PolicyError(
            path, f"more than {POINTS_MAX} combinations, too many to check for gaps", table.name,
            zh=f"组合超过 {POINTS_MAX} 种，无法逐一检查是否有遗漏",
        )  # fmt: skip
    values = np.stack([axis.ravel() for axis in np.meshgrid(*points, indexing="ij")], axis=1) if points else None
    if values is None:
        values = np.empty((1, 0))
    program = assemble([table], slots([table], list(table.inputs)))
    if not first:
        program.tables[:, 2] = 0
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
    return f"{value:g}" if isinstance(value, float) else None if value is None else str(value).lower()
