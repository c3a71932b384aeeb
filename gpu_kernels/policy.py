"""Launches policy.cu: a policy's tables over a batch, with all that policy.kernel's `judge` fills.

What a loan costs (policy.rates: exponentials, which no two machines round alike) and who lends it (one after another)
stay on the host.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_kernels.device import Device
from gpu_kernels.layout import FOLDER, Struct
from gpu_kernels.stage import stage

_TABLES, _BATCH = (Struct.read(FOLDER / "policy.cu", name) for name in ("Tables", "Batch"))
# As in policy.cu: of a batch, integers with their places, and what steps of an output mean.
INTEGERS, COUNT, CAP_MINOR, SHOWN_AT = 7, 1, 7, 14
LOAD, ADD, NEGATE = 1, 2, 6
STACK, TABLES_MAX, OUTPUTS_MAX, SOURCES_MAX = 64, 64, 124, 31
PLACES, FIRST_TABLES = 17, 4
Program = Any  # this and the next two are policy.program's: policy stands above this layer
Plan = Any
Judged = Any


class ProgramError(ValueError):
    """Tables that the kernel cannot run; the message names the table."""


class DevicePolicy:
    """A program and its plan on a device. names: of its tables. Raises ProgramError."""

    def __init__(self, device: Device, program: Program, plan: Plan, names: Sequence[str]) -> None:
        _check(program, plan, names)
        rows, sources = plan.names_source.shape
        self._sizes = {"rows": rows, "width": program.width, "sources": sources}
        self._votes = _votes_max(program, plan)
        integers = {**self._sizes, "capacities": len(plan.capacities), "terms": plan.capacities.shape[1]}
        given = {
            "table": program.tables, "row": program.rows, "test": program.tests[:, [0, 1, 4]],
            "span": program.tests[:, 2:4], "output": program.outputs[:, [0, 3, 4]], "range": program.outputs[:, 1:3],
            "step": _steps(program.steps), "number": program.steps[:, 1], "mark": plan.marks,
            "names_source": plan.names_source, "source_column": plan.source_column, "capacity": plan.capacities,
            "decided_by": _decided_by(program), "place": plan.places,
        }  # fmt: skip
        typed = {name: np.ascontiguousarray(a, dtype=_TABLES.fields[name]) for name, a in given.items()}
        self._tables, self._device = stage(device, _TABLES, integers, typed, {}, {}), device
        self._inputs_max = int(plan.places[SHOWN_AT])
        self._launch = device.kernels(FOLDER / "policy.cu")

    def judge(self, values: NDArray[np.float64], asked: NDArray[np.int64], out: Judged) -> None:
        """Every vote on B applications but those on what their loans cost and on funders, into `out`: policy.program's
        Judged.empty, all but its all-in rates.

        values: float64 [B, inputs], NaN where missing; asked: minor units, int64 [B]. Raises ProgramError where `out`
        has no room for all votes, ValueError where `values` are not of these applications or too wide.
        """
        batch, rows, room = len(asked), self._sizes["rows"], out.votes.shape[1]
        inputs = values.shape[1]
        if len(values) != batch or inputs > self._inputs_max:
            raise ValueError(f"values: {batch} rows of at most {self._inputs_max} expected, {values.shape} given")
        if room < self._votes:
            raise ProgramError(f"the tables may cast {self._votes} votes, there is room for {room}")
        if not batch:
            return
        scratch = {
            "memory": (np.float64, (self._sizes["width"], batch)), "status": (np.int8, (rows, batch)),
            "vote": (np.int64, (self._votes, batch)), "integer": (np.int64, (INTEGERS, batch)),
            "rate": (np.float64, (batch,)),
        }  # fmt: skip
        given = stage(
            self._device, _BATCH, {"batch": batch, "inputs": inputs}, {"value": values, "asked": asked}, scratch, {}
        )
        self._launch("judge", batch, self._tables.address, given.address)
        host, array = self._device.host, given.array
        out.ints[:], out.floats[0], out.status[:] = host(array("integer")), host(array("rate")), host(array("status"))
        out.memory[:inputs], out.memory[inputs:] = values.T, host(array("memory")[inputs:])
        most = int(out.ints[COUNT].max())  # few of all that may be cast
        out.votes[:, :most] = host(array("vote")[:most]).T


def _check(program: Program, plan: Plan, names: Sequence[str]) -> None:
    if len(plan.places) != PLACES:
        raise ProgramError(f"a plan of {len(plan.places)} places, {PLACES} expected")
    if len(names) != len(program.tables):
        raise ProgramError(f"{len(program.tables)} tables, {len(names)} names")
    if len(names) > TABLES_MAX:
        raise ProgramError(f"{names[TABLES_MAX]}: is table {TABLES_MAX + 1}, the kernel runs {TABLES_MAX}")
    if plan.names_source.shape[1] > SOURCES_MAX:
        raise ProgramError(f"sources: {plan.names_source.shape[1]} of them, the kernel knows {SOURCES_MAX}")
    read = {"sources": plan.source_column, "limit": plan.capacities, "policy": plan.places[CAP_MINOR : SHOWN_AT + 1]}
    for name, columns in read.items():
        if not ((columns >= -1) & (columns < program.width)).all():
            raise ProgramError(f"{name}: reads beyond the memory of {program.width}")
    for (begin, end, _), name in zip(program.tables.tolist(), names, strict=True):
        for r in range(begin, end):
            _check_row(program, f"{name}: row {r - begin + 1}", *program.rows[r, :4].tolist())


def _check_row(program: Program, where: str, tests: int, tests_end: int, outputs: int, outputs_end: int) -> None:
    if outputs_end - outputs > OUTPUTS_MAX:
        raise ProgramError(f"{where} has {outputs_end - outputs} outputs, the kernel writes {OUTPUTS_MAX}")
    columns = program.tests[tests:tests_end, 0].tolist()
    for slot, _, _, begin, end in program.outputs[outputs:outputs_end].tolist():
        depth = deepest = 0
        columns.append(slot)
        for what, value in program.steps[int(begin) : int(end)].tolist():
            if what == LOAD:
                columns.append(value)
            depth += 1 if what <= LOAD else 0 if what == NEGATE else -1
            deepest = max(deepest, depth)
            if not 0 <= what <= NEGATE or depth < 1:
                raise ProgramError(f"{where} has an output that cannot be computed")
        if depth != 1:
            raise ProgramError(f"{where} leaves {depth} numbers, and not one")
        if deepest > STACK:
            raise ProgramError(f"{where} computes from {deepest} numbers at once, the kernel holds {STACK}")
    if any(not 0 <= column < program.width for column in columns):
        raise ProgramError(f"{where} reads or writes beyond the memory of {program.width}")


def _steps(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 2] what, and the column to load, 0 where none is."""
    return np.stack([steps[:, 0], np.where(steps[:, 0] == LOAD, steps[:, 1], 0)], axis=1)


def _decided_by(program: Program) -> NDArray[np.int64]:
    """int64 [width]: the first table of which it is an output, -1 for none."""
    found = np.full(program.width, -1)
    for t, (begin, end, first) in enumerate(program.tables.tolist()):
        if first and end > begin:
            outputs = program.outputs[program.rows[begin, 2] : program.rows[end - 1, 3], 0]
            found[outputs.astype(np.int64)] = t
    return found


def _votes_max(program: Program, plan: Plan) -> int:
    """More than one application can get: of collect tables each row and what they lack, each source, other tables."""
    collect = program.tables[plan.places[:2][plan.places[:2] >= 0]]
    return int((collect[:, 1] - collect[:, 0] + 1).sum() + plan.names_source.shape[1] + FIRST_TABLES)
