"""Decisions to look at again: what N applications asked, what was known of them, what was decided, what came of it.

From a tenant's archive, where all of it was recorded, or from a table, where nothing was decided (R17). Identifiers
are tokens (R21).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from features.schema import Schema
from policy.decide import Outcome
from policy.inputs import Asked, Known

HUBS = ("dealer", "officer")
CHANNEL = "channel"
Warn = Callable[[str], None]
Numbers = NDArray[np.int64]
Shares = tuple[tuple[str, int], ...]  # funder and minor units


@dataclass(frozen=True)
class Decided:
    """What was decided on N applications.

    outcome: int8 [N]; approved_amount_minor: int64 [N]; annual_rate: float64 [N]; grade: int8 [N], index of GRADES, -1
    for none; exposure_minor: int64 [N], the borrower's before. reasons: codes of each, the worst vote's first, empty
    where they were not kept. by_person_minor: int64 [N], what a person approved of a review.
    """

    outcome: NDArray[np.int8]
    approved_amount_minor: Numbers
    annual_rate: NDArray[np.float64]
    grade: NDArray[np.int8]
    exposure_minor: Numbers
    reasons: list[tuple[str, ...]]
    by_person_minor: Numbers

    @property
    def approved(self) -> NDArray[np.bool_]:
        """bool [N]."""
        return np.isin(self.outcome, (Outcome.APPROVE, Outcome.LIMIT))

    @classmethod
    def empty(cls, rows: int) -> "Decided":
        """To be filled in."""
        return cls(
            np.zeros(rows, np.int8), np.zeros(rows, np.int64), np.zeros(rows), np.full(rows, -1, np.int8),
            np.zeros(rows, np.int64), [()] * rows, np.zeros(rows, np.int64),
        )  # fmt: skip

    def take(self, rows: Numbers) -> "Decided":
        """Of some of them."""
        some = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "reasons"}
        return Decided(**some, reasons=[self.reasons[row] for row in rows.tolist()])


@dataclass(frozen=True)
class Part:
    """The applications of one schema: their places among the records, int64 [n] ascending, and their rows.

    What the graph tells is empty (no columns) unless it was asked for.
    """

    schema: Schema
    rows: Numbers
    snapshot: Snapshot


@dataclass(frozen=True)
class Reports:
    """M reports that release or restore what was reserved, in log order; int64 [M]. row: place among the records;
    kind: index of OUTCOME_KINDS."""

    sequence: Numbers
    row: Numbers
    kind: Numbers
    amount_minor: Numbers

    def take(self, chosen: NDArray[np.bool_] | Numbers) -> "Reports":
        """Some of them."""
        return Reports(*(getattr(self, f.name)[chosen] for f in fields(self)))


@dataclass(frozen=True)
class Resolved:
    """M reviews that a person approved, int64 [M]: the last event before, place among the records, amount."""

    as_of: Numbers
    row: Numbers
    amount_minor: Numbers

    @classmethod
    def nothing(cls) -> "Resolved":
        """Where nobody has."""
        return cls(*np.empty((3, 0), dtype=np.int64))


@dataclass(frozen=True)
class Records:
    """N decisions in the order in which they were taken.

    ids: how each is named to a reader: sequence number, or id of a table's row. as_of: int64 [N], last event seen.
    time_ms: int64 [N], None without a time. product: index of `products`. hubs: uint64 [N] tokens by name of HUBS, 0
    none. channel: text, "" unknown, None where no schema has one. bad: int8 [N], 1 fraud or default, 0 neither, -1 not
    known. bundle: version that scored. minor_per_major: int64 [N]. left_out: how many are not here, by reason.
    shares: of each, who lends what was approved, by the decision or by a person; empty where nothing was recorded.
    """

    ids: list[str]
    as_of: Numbers
    time_ms: Numbers | None
    products: tuple[str, ...]
    product: Numbers
    applicant: NDArray[np.uint64]
    hubs: Mapping[str, NDArray[np.uint64]]
    channel: list[str] | None
    asked: Asked
    known: Known
    bad: NDArray[np.int8]
    bundle: list[str]
    minor_per_major: Numbers
    parts: tuple[Part, ...]
    reports: Reports
    recorded: Decided | None
    left_out: Mapping[str, int]
    resolved: Resolved = field(default_factory=Resolved.nothing)
    shares: Sequence[Shares] = ()

    def __len__(self) -> int:
        return len(self.ids)


def bare(features: NDArray[np.float32], source_state: NDArray[np.uint8]) -> Snapshot:
    """A Snapshot that holds nothing of the graph: what a policy reads of it."""
    n = len(features)
    nothing = np.empty((n, 0, 0), dtype=np.float32)
    return Snapshot(features, nothing, nothing[..., None], np.empty((n, 0, 0), dtype=np.bool_), source_state)


def channels(parts: Collection[Part], rows: int) -> list[str] | None:
    """The category `channel` of each record; of an open category its code."""
    with_one = [part for part in parts if CHANNEL in part.schema.column]
    if not with_one:
        return None
    named = [""] * rows
    for part in with_one:
        column = part.schema.column[CHANNEL]
        values = part.schema.features[column].values
        for row, number in zip(part.rows.tolist(), part.snapshot.features[:, column].tolist(), strict=True):
            if number == number:
                named[row] = values[int(number)] if values else f"{number:g}"
    return named


def bad_of(parts: Collection[Part], labels: Mapping[str, NDArray[np.int8]]) -> NDArray[np.int8]:
    """int8 [N]: 1 where a label is bad, 0 where that of default (of fraud, if there is no other) is good, else -1."""
    bad = np.full(len(next(iter(labels.values()))), -1, dtype=np.int8)
    for part in parts:
        known = [labels[name][part.rows] for name in ("fraud", "default") if name in part.schema.labels]
        bad[part.rows] = np.where(np.any([k == 1 for k in known], axis=0), 1, np.where(known[-1] == 0, 0, -1))
    return bad
