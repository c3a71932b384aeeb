"""Decisions to look at again: what N applications asked, what was known of them, what was decided, what came of it.

From a tenant's archive, where all of it was recorded, or from a table, where nothing was decided (R17). Identifiers
are tokens (R21).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features import archive
from features.application import REPAYMENT_METHODS, Snapshot
from features.archive import Archive, ArchiveError
from features.events import REPORT, REPORTED
from features.export import ASKED, POLICY_COLUMNS
from features.graph import EntityGraph
from features.schema import SLOTS_MAX, Schema
from policy.decide import Outcome
from policy.inputs import Asked, Known
from policy.ledger import MOVING
from policy.specs import GRADES, LISTS

HUBS = ("dealer", "officer")
CHANNEL = "channel"
Warn = Callable[[str], None]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Decided:
    """What was decided on N applications.

    outcome: int8 [N]; approved_amount_minor: int64 [N]; annual_rate: float64 [N]; grade: int8 [N], index of GRADES, -1
    for none; exposure_minor: int64 [N], the borrower's before. reasons: codes of each, the worst vote's first, empty
    where they were not kept.
    """

    outcome: NDArray[np.int8]
    approved_amount_minor: Numbers
    annual_rate: NDArray[np.float64]
    grade: NDArray[np.int8]
    exposure_minor: Numbers
    reasons: list[tuple[str, ...]]

    @property
    def approved(self) -> NDArray[np.bool_]:
        """bool [N]."""
        return np.isin(self.outcome, (Outcome.APPROVE, Outcome.LIMIT))

    @classmethod
    def empty(cls, rows: int) -> "Decided":
        """To be filled in."""
        return cls(
            np.zeros(rows, np.int8), np.zeros(rows, np.int64), np.zeros(rows), np.full(rows, -1, np.int8),
            np.zeros(rows, np.int64), [()] * rows,
        )  # fmt: skip


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
class Records:
    """N decisions in the order in which they were taken.

    ids: how each is named to a reader: sequence number, or id of a table's row. as_of: int64 [N], last event seen.
    time_ms: int64 [N], None without a time. product: index of `products`. hubs: uint64 [N] tokens by name of HUBS, 0
    none. channel: text, "" unknown, None where no schema has one. bad: int8 [N], 1 fraud or default, 0 neither, -1 not
    known. bundle: version that scored. minor_per_major: int64 [N]. left_out: how many are not here, by reason.
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

    def __len__(self) -> int:
        return len(self.ids)


def from_archive(
    folder: Path, schemas: Collection[Schema], scored_by: Mapping[str, str], whole: bool, warn: Warn
) -> Records:
    """The archived decisions of some schemas, of which those that an archive has none of do not matter.

    scored_by: by schema name the version of the bundle that will score; what the graph tells is there where another
    version scored before, and everywhere if `whole`. Raises ArchiveError where nothing can be read, or an older
    version wrote the archive.
    """
    opened = Archive.open(folder)
    frame = opened.decisions(["sequence", "as_of", "time_ms", "product", "schema", "bundle", "outcome",
                              "fraud_probability", "default_probability", *POLICY_COLUMNS])  # fmt: skip
    sequence, parts = frame["sequence"].to_numpy(), []
    place, taken = np.full(opened.sequence + 1, -1, dtype=np.int64), np.zeros(len(frame), dtype=np.bool_)
    place[sequence] = np.arange(len(frame))
    for schema in schemas:
        mine = _of(opened, frame, schema)
        if mine.any():
            others = frame["bundle"].filter(pl.Series(mine)) != scored_by.get(schema.name, "")
            anew = schema.name in scored_by and (whole or bool(others.any()))
            numbers, snapshot = _rows(opened, schema, anew, warn)
            parts.append(Part(schema, place[numbers], snapshot))
            taken[parts[-1].rows] = True
    told = pl.all_horizontal(pl.col(f"{ASKED}amount_minor", "listed", "outcome").is_not_null())
    said = frame.select(told).to_series().to_numpy()
    left_out = {"evidence of before does not say what was asked": int((taken & ~said).sum()),
                "of a schema or version that cannot be read": int((~taken).sum())}  # fmt: skip
    if not (taken & said).any():
        raise ArchiveError(f"{folder}: none of its {len(frame)} decisions can be simulated: {left_out}")
    order = np.flatnonzero(taken & said)
    order = order[np.lexsort((sequence[order], frame["as_of"].to_numpy()[order]))]
    return _joined(opened, frame, order, parts, {why: rows for why, rows in left_out.items() if rows})


def _of(opened: Archive, frame: pl.DataFrame, schema: Schema) -> NDArray[np.bool_]:
    """bool [n]: decisions of a version of the schema."""
    versions = frame.group_by("schema").agg(pl.col("product").unique())
    mine = [name for name, products in versions.iter_rows() if opened.is_of(name, products, schema)]
    return frame["schema"].is_in(mine).to_numpy()


def _rows(opened: Archive, schema: Schema, whole: bool, warn: Warn) -> tuple[Numbers, Snapshot]:
    """Sequence numbers and rows of a schema's decisions."""
    if whole:
        made = archive.rows(opened.folder, schema, warn=warn)
        return np.array(made.application_ids, dtype=np.int64), made.snapshot
    kept = archive.kept_rows(opened, schema, warn)
    return kept.sequence, bare(kept.features, kept.source_state)


def bare(features: NDArray[np.float32], source_state: NDArray[np.uint8]) -> Snapshot:
    """A Snapshot that holds nothing of the graph: what a policy reads of it."""
    n = len(features)
    nothing = np.empty((n, 0, 0), dtype=np.float32)
    return Snapshot(features, nothing, nothing[..., None], np.empty((n, 0, 0), dtype=np.bool_), source_state)


def _joined(
    opened: Archive, frame: pl.DataFrame, order: Numbers, parts: list[Part], left_out: Mapping[str, int]
) -> Records:
    """The decisions `order` of the frame as Records, with what the log says of them."""
    at = np.full(len(frame), -1, dtype=np.int64)
    at[order] = np.arange(len(order))
    kept = [_placed(part, at[part.rows]) for part in parts]
    chosen = frame[order]
    sequence = chosen["sequence"].to_numpy()
    tokens, labels, reports = _log(opened, sequence)
    hubs = {name: np.zeros(len(order), dtype=np.uint64) for name in HUBS}
    minor_per_major = np.ones(len(order), dtype=np.int64)
    for part in kept:
        minor_per_major[part.rows] = part.schema.minor_per_major
        for name in HUBS:
            if name in part.schema.entities:
                hubs[name][part.rows] = tokens[part.rows, part.schema.entities[name].first_slot]
    products = tuple(sorted(set(chosen["product"])))
    return Records(
        [str(number) for number in sequence], chosen["as_of"].to_numpy(), chosen["time_ms"].to_numpy(), products,
        np.array([products.index(name) for name in chosen["product"]], dtype=np.int64), tokens[:, 0], hubs,
        channels(kept, len(order)), _asked(chosen), _known(chosen), bad_of(kept, labels), chosen["bundle"].to_list(),
        minor_per_major, tuple(kept), reports, _decided(chosen), left_out,
    )  # fmt: skip


def _placed(part: Part, rows: Numbers) -> Part:
    """A part whose rows have new places, -1 for none; ascending again."""
    kept = np.flatnonzero(rows >= 0)
    kept = kept[np.argsort(rows[kept])]
    return Part(part.schema, rows[kept], part.snapshot.take(kept))


def _log(opened: Archive, sequence: Numbers) -> tuple[NDArray[np.uint64], dict[str, NDArray[np.int8]], Reports]:
    """uint64 [N, 16] tokens of the applications, their labels at the end, and the reports on them."""
    graph, nothing = EntityGraph(), np.empty(0, dtype=np.int64)
    row_of = np.full(opened.sequence + 1, -1, dtype=np.int64)
    row_of[sequence] = np.arange(len(sequence))
    tokens, found = np.zeros((len(sequence), SLOTS_MAX), dtype=np.uint64), []
    for events in opened.log(nothing):
        graph.observe(events, nothing, np.empty((0, SLOTS_MAX), dtype=np.bool_))
        rows = row_of[events.fields["sequence"]]
        tokens[rows[rows >= 0]] = events.fields["tokens"][rows >= 0]
        reports = events.fields[events.fields["kind"] == REPORT]
        said, subjects = reports.view(REPORTED), row_of[reports["subject"]]
        kind = said["outcome"].astype(np.int64) - 1
        moves = (subjects >= 0) & np.isin(kind, list(MOVING))
        found.append((reports["sequence"][moves], subjects[moves], kind[moves], said["amount_minor"][moves]))
    columns = [np.concatenate([some[i] for some in found]).astype(np.int64) for i in range(4)]
    return tokens, graph.labels(sequence), Reports(*columns)


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


def _asked(chosen: pl.DataFrame) -> Asked:
    names = [f.name for f in fields(Asked)]
    code = {name: i for i, name in enumerate(REPAYMENT_METHODS)}
    repayment = chosen[f"{ASKED}repayment"].replace_strict(code, return_dtype=pl.Int64).to_numpy()
    return Asked(*(repayment if n == "repayment" else chosen[f"{ASKED}{n}"].to_numpy() for n in names))


def _known(chosen: pl.DataFrame) -> Known:
    fraud, default, residual_low = (
        chosen[name].fill_null(np.nan).to_numpy()
        for name in ("fraud_probability", "default_probability", "residual_low")
    )
    listed = np.array(chosen["listed"].to_list(), dtype=np.int64).reshape(-1, len(LISTS))
    return Known(fraud, default, residual_low, chosen["exposure_minor"].fill_null(0).to_numpy(), listed)


def _decided(chosen: pl.DataFrame) -> Decided:
    grade = {name: i for i, name in enumerate(GRADES)} | {"": -1}
    return Decided(
        np.array([Outcome[name] for name in chosen["outcome"]], dtype=np.int8),
        chosen["approved_amount_minor"].fill_null(0).to_numpy(), chosen["annual_rate"].fill_null(0.0).to_numpy(),
        np.array([grade[name or ""] for name in chosen["grade"]], dtype=np.int8),
        chosen["exposure_minor"].fill_null(0).to_numpy(), [tuple(some or ()) for some in chosen["reasons"].to_list()],
    )  # fmt: skip
