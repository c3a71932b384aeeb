"""Decisions taken again under another policy, as they would have come one after another (R17).

Rows go in the order in which they were decided, in chunks that end before a borrower repeats or a report moves what
is owed, so that every row sees the exposure and the funders' money that simulated approvals left: the same as deciding
them one by one. Without funders borrowers do not touch each other, and parts of them run in processes of their own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policy import versions
from policy.decide import POLICY, Decisions, Outcome, Policy
from policy.device import run_at
from policy.inputs import Asked, Known, input_values
from policy.ledger import Borrower, Ledger
from policy.records import Decided, Numbers, Part, Records, Reports, Resolved, Shares, bare
from policy.specs import EXPOSURE
from policy.workers import Workers

CHUNK, DEVICE_CHUNK = 2048, 65_536  # rows decided in one call at most, here and on a device
PARTS = 8  # of the borrowers, which run apart
BY_PERSON = -1  # what a person decided, beside the kinds of reports
OUTPUTS = ("outcome", "approved_amount_minor", "annual_rate", "grade")


class SimulationError(ValueError):
    """A simulation that cannot be run; the message names the product, schema or option."""


@dataclass(frozen=True)
class View:
    """What a run sees of the records: the rows of each schema, and what is known beside them."""

    parts: tuple[Part, ...]
    known: Known


@dataclass(frozen=True)
class Run:
    """One column of the report. policies: a folder as MIAOPI_POLICIES names; a product that has none there stays as it
    was recorded. reasons: whether the codes of the reasons are wanted, which costs time.
    """

    name: str
    policies: Path
    view: View
    reasons: bool = False


@dataclass(frozen=True)
class Task:
    """A part of a run, whole in itself: `rows`, int64 [n] ascending, of the records, and all that concerns them."""

    run: str
    policies: Mapping[str, tuple[Path, str]]  # by product, where it lies and its version
    reasons: bool
    rows: Numbers
    as_of: Numbers
    products: tuple[str, ...]
    product: Numbers
    applicant: NDArray[np.uint64]
    asked: Asked
    view: View
    reports: Reports
    recorded: Decided | None
    resolved: Resolved
    shares: Sequence[Shares]
    device: str


def check(records: Records, policies: Path) -> dict[str, Policy]:
    """The policies in service in a folder by product of the records, whose cases pass. Raises PolicyError,
    SimulationError where one is missing and nothing was recorded that could stay, or where there is none at all."""
    return {name: policy for name, (_, policy) in _in_service(records, policies).items()}


def _in_service(records: Records, policies: Path) -> dict[str, tuple[Path, Policy]]:
    """By product, where the policy lies that a server of this folder would decide by, and the policy."""
    found = {}
    for part in records.parts:
        for code in np.unique(records.product[part.rows]).tolist():
            name = records.products[code]
            place = versions.in_service(policies / name)
            if place != policies / name or (place / POLICY).exists():
                found[name] = place, versions.load(place, name, part.schema)
            elif records.recorded is None:
                raise SimulationError(f"{place / POLICY}: does not exist, and nothing was recorded to keep")
    if not found:
        raise SimulationError(f"{policies}: has no policy of {', '.join(records.products)}")
    return found


def simulate(
    records: Records, runs: Sequence[Run], workers: Workers, progress: Callable[[int], None] = lambda done: None,
    device: str = "cpu",
) -> dict[str, Decided]:  # fmt: skip
    """By name of the run, what is decided; `progress` is told how many decisions are done. device: policy.device."""
    done = {run.name: Decided.empty(len(records)) for run in runs}
    for task, found in workers.run(walk, [task for run in runs for task in _tasks(records, run, device)]):
        into = done[task.run]
        for field in fields(Decided):
            if field.name != "reasons":
                getattr(into, field.name)[task.rows] = getattr(found, field.name)
        for row, codes in zip(task.rows.tolist(), found.reasons, strict=True):
            into.reasons[row] = codes
        progress(len(task.rows))
    return done


def _tasks(records: Records, run: Run, device: str) -> Iterator[Task]:
    policies = _in_service(records, run.policies)
    places = {name: (place, policy.version) for name, (place, policy) in policies.items()}
    every = np.arange(len(records))
    parts = 1 if any(policy.funders for _, policy in policies.values()) else PARTS
    group = (records.applicant % np.uint64(parts)).astype(np.int64)
    for number in range(parts):
        rows = every[group == number]
        if len(rows):
            yield _task(records, run, places, rows, device)


def _task(
    records: Records, run: Run, policies: Mapping[str, tuple[Path, str]], rows: Numbers, device: str
) -> Task:  # fmt: skip
    at = np.full(len(records), -1, dtype=np.int64)
    at[rows] = np.arange(len(rows))
    view, known = run.view, run.view.known
    parts = []
    for part in view.parts:
        mine = np.flatnonzero(at[part.rows] >= 0)
        seen = bare(part.snapshot.features[mine], part.snapshot.source_state[mine])  # a policy reads no neighbours
        parts.append(Part(part.schema, at[part.rows[mine]], seen))
    reports, resolved = records.reports.take(at[records.reports.row] >= 0), records.resolved
    by_people = at[resolved.row] >= 0
    return Task(
        run.name, policies, run.reasons, rows, records.as_of[rows], records.products,
        records.product[rows], records.applicant[rows], records.asked.take(rows),
        View(tuple(parts), Known(*(getattr(known, f.name)[rows] for f in fields(Known)))),
        Reports(reports.sequence, at[reports.row], reports.kind, reports.amount_minor),
        None if records.recorded is None else records.recorded.take(rows),
        Resolved(resolved.as_of[by_people], at[resolved.row[by_people]], resolved.amount_minor[by_people]),
        [records.shares[row] for row in rows.tolist()] if records.shares else (), device,
    )  # fmt: skip


def walk(task: Task) -> Decided:
    """What is decided of a task's rows. Raises SimulationError where its policies have changed since it was made."""
    walker = _Walker(task)
    for row, as_of in enumerate(task.as_of.tolist()):
        walker.hear(as_of)
        walker.add(row)
    walker.flush()
    reviewed = walker.decided.outcome[task.resolved.row] == Outcome.REVIEW
    walker.decided.by_person_minor[task.resolved.row] = task.resolved.amount_minor * reviewed
    return walker.decided


class _Walker:
    """Goes through the rows of a task; `_chunk` are those added and not yet decided."""

    def __init__(self, task: Task) -> None:
        self._task, self._ledger = task, Ledger()
        self._policies: dict[int, Policy] = {}
        self._values: dict[int, NDArray[np.float64]] = {}  # by product, the inputs of the rows that have it
        self._place = np.zeros(len(task.rows), dtype=np.int64)
        for part in task.view.parts:
            for code in np.unique(task.product[part.rows]).tolist():
                self._prepare(part, code)
        self._funded = any(policy.funders for policy in self._policies.values())
        self._careful = self._funded or any(EXPOSURE.inputs[0] in p.columns for p in self._policies.values())
        self._chunk: list[int] = []
        self._chunk_max = CHUNK if task.device == "cpu" else DEVICE_CHUNK
        self._borrowers: set[Borrower] = set()
        self._told = self._next = 0
        self._events = _events(task)
        self._early: dict[int, int] = {}  # by row, what a person approved of it as of where it was decided
        self._product = task.product.tolist()
        schema_of = {
            code: part.schema.name for part in task.view.parts for code in np.unique(task.product[part.rows]).tolist()
        }
        self._borrower: list[Borrower] = [
            (schema_of.get(code, ""), token) for code, token in zip(self._product, task.applicant.tolist(), strict=True)
        ]
        self.decided = Decided.empty(len(task.rows))

    def _prepare(self, part: Part, code: int) -> None:
        task, name = self._task, self._task.products[code]
        if name not in task.policies:
            return
        place, version = task.policies[name]
        policy = Policy.load(place, name, part.schema)
        if policy.version != version:
            raise SimulationError(f"{place / POLICY}: changed meanwhile")
        run_at(policy, task.device)
        mine = np.flatnonzero(task.product[part.rows] == code)
        rows, known = part.rows[mine], task.view.known
        self._policies[code], self._place[rows] = policy, np.arange(len(rows))
        self._values[code] = input_values(
            part.schema, policy.columns, part.snapshot.take(mine), task.asked.take(rows),
            Known(*(getattr(known, f.name)[rows] for f in fields(Known))),
        )  # fmt: skip

    def hear(self, as_of: int) -> None:
        """Every report and resolution up to a place in the log."""
        while self._told < len(self._events) and self._events[self._told][0] <= as_of:
            _, kind, row, amount = self._events[self._told]
            self._told += 1
            if not self._careful:
                continue
            if kind == BY_PERSON and row >= self._next:
                self._early[row] = amount
                continue
            if self._borrower[row] in self._borrowers or (
                self._funded and (kind == BY_PERSON or self._ledger.holds(row))
            ):
                self.flush()
            if kind == BY_PERSON:
                self._resolve(row, amount)
            else:
                self._ledger.report(row, kind, amount)

    def _resolve(self, row: int, amount: int) -> None:
        """What a person approved counts as then, if it is a review still."""
        if self.decided.outcome[row] == Outcome.REVIEW:
            self._ledger.approve(row, self._borrower[row], amount, self._task.shares[row])

    def add(self, row: int) -> None:
        """The next row, decided at the latest by `flush`."""
        if self._careful:
            other = self._funded and self._chunk and self._product[row] != self._product[self._chunk[-1]]
            if other or self._borrower[row] in self._borrowers:
                self.flush()
            self._borrowers.add(self._borrower[row])
            self.decided.exposure_minor[row] = self._ledger.exposure(self._borrower[row])
        self._chunk.append(row)
        self._next = row + 1
        if len(self._chunk) >= self._chunk_max or row in self._early:
            self.flush()
        if row in self._early:
            self._resolve(row, self._early.pop(row))

    def flush(self) -> None:
        """Decide what was added, each product in one batch."""
        rows = np.array(self._chunk, dtype=np.int64)
        for code in np.unique(self._task.product[rows]).tolist():
            mine = rows[self._task.product[rows] == code]
            if code in self._policies:
                self._decide(code, mine)
            else:
                self._keep(mine)
        self._chunk.clear()
        self._borrowers.clear()

    def _decide(self, code: int, rows: Numbers) -> None:
        policy = self._policies[code]
        values = self._values[code][self._place[rows]]
        if EXPOSURE.inputs[0] in policy.columns:
            values[:, list(policy.columns).index(EXPOSURE.inputs[0])] = self.decided.exposure_minor[rows]
        found = policy.decide(self._task.asked.take(rows), values, self._ledger.lent)
        for name in OUTPUTS:
            getattr(self.decided, name)[rows] = getattr(found, name)
        if self._task.reasons:
            for i, row in enumerate(rows.tolist()):
                self.decided.reasons[row] = tuple(reason.code for reason in found[i].reasons)
        if self._careful:
            self._reserve(rows, found)

    def _reserve(self, rows: Numbers, found: Decisions) -> None:
        for i in np.flatnonzero(found.approved_amount_minor > 0).tolist():
            row, shares = int(rows[i]), found[i].shares if self._funded else ()
            amount = int(found.approved_amount_minor[i])
            parts = [(share.offer.funder, share.amount_minor) for share in shares]
            self._ledger.approve(row, self._borrower[row], amount, parts)

    def _keep(self, rows: Numbers) -> None:
        """What was recorded stays, and counts as owed."""
        recorded = self._task.recorded
        if recorded is None:  # check() has refused this
            raise SimulationError("nothing was recorded to keep")
        for name in OUTPUTS:
            getattr(self.decided, name)[rows] = getattr(recorded, name)[rows]
        for row in rows.tolist():
            self.decided.reasons[row] = recorded.reasons[row]
            if self._careful and (amount := int(recorded.approved_amount_minor[row])) > 0:
                self._ledger.approve(row, self._borrower[row], amount, self._task.shares[row])


def _events(task: Task) -> list[tuple[int, int, int, int]]:
    """(place in the log, kind, row, amount) of reports and resolutions in the order in which they came."""
    of, by_people = task.reports, task.resolved
    reports = zip(*(column.tolist() for column in (of.sequence, of.kind, of.row, of.amount_minor)), strict=True)
    resolved = zip(
        *(column.tolist() for column in (by_people.as_of, by_people.row, by_people.amount_minor)), strict=True
    )
    later = [(as_of, BY_PERSON, row, amount) for as_of, row, amount in resolved]
    return sorted([*reports, *later], key=lambda event: (event[0], event[1] == BY_PERSON))
