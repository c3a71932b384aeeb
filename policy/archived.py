"""The decisions of a tenant's archive as records: what was recorded, and how many cannot be read (R17, R23)."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features import archive
from features.application import REPAYMENT_METHODS, Snapshot
from features.archive import Archive, ArchiveError
from features.events import REPORT, REPORTED
from features.export import ASKED, POLICY_COLUMNS
from features.place import HERE, Graph, Place
from features.schema import SLOTS_MAX, Schema
from policy.decide import Outcome
from policy.inputs import Asked, Known
from policy.ledger import MOVING
from policy.records import HUBS, Decided, Numbers, Part, Records, Reports, Resolved, Warn, bad_of, bare, channels
from policy.specs import GRADES, LISTS


def from_archive(
    folder: Path, schemas: Collection[Schema], scored_by: Mapping[str, str], whole: bool, warn: Warn,
    place: Place = HERE,
) -> Records:  # fmt: skip
    """The archived decisions of some schemas, of which those that an archive has none of do not matter.

    scored_by: by schema name the version of the bundle that will score; what the graph tells is there where another
    version scored before, and everywhere if `whole`. The log is walked at `place`. Raises ArchiveError where nothing
    can be read, or an older version wrote the archive.
    """
    opened = Archive.open(folder)
    frame = opened.decisions(["sequence", "as_of", "time_ms", "product", "schema", "bundle", "outcome",
                              "fraud_probability", "default_probability", *POLICY_COLUMNS])  # fmt: skip
    sequence, parts = frame["sequence"].to_numpy(), []
    row_of, taken = np.full(opened.sequence + 1, -1, dtype=np.int64), np.zeros(len(frame), dtype=np.bool_)
    row_of[sequence] = np.arange(len(frame))
    for schema in schemas:
        mine = _of(opened, frame, schema)
        if mine.any():
            others = frame["bundle"].filter(pl.Series(mine)) != scored_by.get(schema.name, "")
            anew = schema.name in scored_by and (whole or bool(others.any()))
            numbers, snapshot = _rows(opened, schema, anew, warn, place)
            parts.append(Part(schema, row_of[numbers], snapshot))
            taken[parts[-1].rows] = True
    told = pl.all_horizontal(pl.col(f"{ASKED}amount_minor", "listed", "outcome").is_not_null())
    said = frame.select(told).to_series().to_numpy()
    left_out = {"evidence of before does not say what was asked": int((taken & ~said).sum()),
                "of a schema or version that cannot be read": int((~taken).sum())}  # fmt: skip
    if not (taken & said).any():
        raise ArchiveError(f"{folder}: none of its {len(frame)} decisions can be simulated: {left_out}")
    order = np.flatnonzero(taken & said)
    order = order[np.lexsort((sequence[order], frame["as_of"].to_numpy()[order]))]
    unplaced = frame[order].filter(pl.col("resolved_amount_minor") > 0, pl.col("resolved_as_of").is_null())
    if len(unplaced):
        warn(f"{len(unplaced)} approvals by people have no place in the log, since an older version took them, and are "
             "not counted")  # fmt: skip
    return _joined(opened, frame, order, parts, {why: rows for why, rows in left_out.items() if rows}, place)


def _of(opened: Archive, frame: pl.DataFrame, schema: Schema) -> NDArray[np.bool_]:
    """bool [n]: decisions of a version of the schema."""
    versions = frame.group_by("schema").agg(pl.col("product").unique())
    mine = [name for name, products in versions.iter_rows() if opened.is_of(name, products, schema)]
    return frame["schema"].is_in(mine).to_numpy()


def _rows(opened: Archive, schema: Schema, whole: bool, warn: Warn, place: Place) -> tuple[Numbers, Snapshot]:
    """Sequence numbers and rows of a schema's decisions."""
    if whole:
        made = archive.rows(opened.folder, schema, warn=warn, place=place)
        return np.array(made.application_ids, dtype=np.int64), made.snapshot
    kept = archive.kept_rows(opened, schema, warn)
    return kept.sequence, bare(kept.features, kept.source_state)


def _joined(
    opened: Archive, frame: pl.DataFrame, order: Numbers, parts: list[Part], left_out: Mapping[str, int], place: Place
) -> Records:
    """The decisions `order` of the frame as Records, with what the log says of them."""
    at = np.full(len(frame), -1, dtype=np.int64)
    at[order] = np.arange(len(order))
    kept = [_placed(part, at[part.rows]) for part in parts]
    chosen = frame[order]
    sequence = chosen["sequence"].to_numpy()
    tokens, labels, reports = place.walked(lambda graph, chunk: _log(opened, sequence, graph, chunk))
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
        minor_per_major, tuple(kept), reports, _decided(chosen), left_out, _resolved(chosen),
        [tuple((share["funder"], share["amount_minor"]) for share in of or ()) for of in chosen["shares"].to_list()],
    )  # fmt: skip


def _placed(part: Part, rows: Numbers) -> Part:
    """A part whose rows have new places, -1 for none; ascending again."""
    kept = np.flatnonzero(rows >= 0)
    kept = kept[np.argsort(rows[kept])]
    return Part(part.schema, rows[kept], part.snapshot.take(kept))


def _log(
    opened: Archive, sequence: Numbers, graph: Graph, chunk: int
) -> tuple[NDArray[np.uint64], dict[str, NDArray[np.int8]], Reports]:
    """uint64 [N, 16] tokens of the applications, their labels at the end, and the reports on them."""
    nothing = np.empty(0, dtype=np.int64)
    row_of = np.full(opened.sequence + 1, -1, dtype=np.int64)
    row_of[sequence] = np.arange(len(sequence))
    tokens, found = np.zeros((len(sequence), SLOTS_MAX), dtype=np.uint64), []
    for events in opened.log(nothing, chunk):
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
        chosen.select(pl.when(pl.col("resolved_as_of").is_not_null()).then("resolved_amount_minor").fill_null(0))
        .to_series().to_numpy(),
    )  # fmt: skip


def _resolved(chosen: pl.DataFrame) -> Resolved:
    by_person = chosen.with_row_index("row").filter(
        pl.col("resolved_as_of").is_not_null() & (pl.col("resolved_amount_minor") > 0)
    )
    columns = ("resolved_as_of", "row", "resolved_amount_minor")
    return Resolved(*(by_person[name].cast(pl.Int64).to_numpy() for name in columns))
