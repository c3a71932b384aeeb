"""An archive: a tenant's log and decisions in a folder, checked as it is read; its rows train without any table (R14).

events.parquet holds the packed log, decisions.parquet the evidence of every decision in it, archive.json what they
are: epoch, last sequence number, schemas by hash, SHA-256 of the files. features.export writes it. Rows walk the log
through the code that serves and must meet the velocity and graph features that the evidence kept (R23); the rest of a
row is the evidence's own, since profiles live outside the log.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.application import Snapshot
from features.assemble import count, freshness, snapshot
from features.events import APPLICATION, EventFormatError, Events, unpack
from features.forgotten import Requests, to_learn_from, without_records
from features.graph import EntityGraph
from features.neighborhood import Neighborhood
from features.older import older
from features.place import CHUNK, HERE, Graph, Place
from features.replay import Rows
from features.schema import SLOTS_MAX, Schema, SchemaError
from features.statistics import STATISTICS

FORMAT = 1
MANIFEST, EVENTS, DECISIONS = "archive.json", "events.parquet", "decisions.parquet"
EVENT_COLUMNS: dict[str, Any] = {"sequence": pl.Int64, "time_ms": pl.Int64, "event": pl.Binary}
DECISION_COLUMNS: dict[str, Any] = {
    "sequence": pl.Int64, "as_of": pl.Int64, "time_ms": pl.Int64, "product": pl.String,
    "schema": pl.String, "bundle": pl.String, "policy": pl.String,
    "profiles": pl.List(pl.Struct({"source": pl.String, "fetched_at_ms": pl.Int64})), "features": pl.List(pl.Float32),
    "outcome": pl.String, "fraud_probability": pl.Float64, "default_probability": pl.Float64,
    "challengers": pl.List(pl.Struct({"version": pl.String, "fraud": pl.Float64, "default": pl.Float64})),
}  # fmt: skip


_NOTHING = np.empty(0, dtype=np.int64)


class ArchiveError(ValueError):
    """A log that cannot be archived or an archive that cannot be used; the message names the place and the reason."""


@dataclass(frozen=True)
class Archive:
    """An archive whose files are those of its manifest.

    sequence: number of the last event; schemas: by hash what it is of, a document and the statistics of entities and
    graph that were counted.
    """

    folder: Path
    sequence: int
    schemas: Mapping[str, Sequence[Any]]

    @classmethod
    def open(cls, folder: Path) -> "Archive":
        """The archive in a folder. Raises ArchiveError if a file is missing or changed."""
        at = folder / MANIFEST
        try:
            manifest = json.loads(at.read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise ArchiveError(f"{at}: format {manifest['format']!r}, {FORMAT} is read here")
            for name in (EVENTS, DECISIONS):
                if digest(folder / name) != manifest["files"][name]:
                    raise ArchiveError(f"{folder / name}: differs from the manifest's sha256")
            for name, of in manifest["schemas"].items():
                if not (isinstance(of, list) and len(of) == 1 + len(STATISTICS) and isinstance(of[0], dict)):
                    raise ArchiveError(f"{at}: schema {name}: is no document with the statistics it counted")
            return cls(folder, int(manifest["sequence"]), manifest["schemas"])
        except ArchiveError:
            raise
        except OSError as error:
            raise ArchiveError(f"{error.filename}: cannot be read: {error.strerror}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ArchiveError(f"{at}: is no manifest: {error!r}") from None

    def decisions(self, columns: Collection[str]) -> pl.DataFrame:
        """Every decision by the number of its application: some columns, of which no other is read.

        Raises ArchiveError where one is not there: archives of before have none of export.POLICY_COLUMNS.
        """
        every = pl.scan_parquet(self.folder / DECISIONS)
        if absent := [name for name in columns if name not in every.collect_schema().names()]:
            place = f"{self.folder / DECISIONS}: has no column {', '.join(absent)}"
            raise ArchiveError(f"{place}: an older version wrote it; archive the store again")
        found = every.select(columns).collect().sort("sequence")
        sequence, as_of = found["sequence"], found["as_of"]
        wrong = ~(sequence.is_between(1, self.sequence) & as_of.is_between(sequence - 1, self.sequence))
        wrong |= sequence.is_duplicated()
        if wrong.any():
            place = f"{self.folder / DECISIONS}: sequence {sequence.filter(wrong)[0]}"
            raise ArchiveError(f"{place}: is decided twice, or as of no place of this log")
        return found

    def log(self, stops: NDArray[np.int64], most: int = CHUNK) -> Iterator[Events]:
        """The events in order, in stretches of at most `most` that end at every number of `stops`, and at the last."""
        every, start = pl.scan_parquet(self.folder / EVENTS), 0
        for end in np.unique([*range(most, self.sequence, most), *stops.tolist(), self.sequence]).tolist():
            page = every.slice(start, end - start).collect()
            try:
                events = unpack(page["event"].to_list(), page["time_ms"].to_list())
            except EventFormatError as error:
                raise ArchiveError(f"{self.folder / EVENTS}: after event {start}: {error}") from None
            if not np.array_equal(events.fields["sequence"], np.arange(start + 1, end + 1)):
                raise ArchiveError(f"{self.folder / EVENTS}: not all of the events {start + 1} to {end}")
            yield events
            start = end

    def is_of(self, name: str, products: Collection[str], schema: Schema) -> bool:
        """Whether the schema of hash `name` is a version of `schema`; one that is not known, by its products."""
        if name in self.schemas:
            return bool(self.schemas[name][0].get("name") == schema.name)
        return name == schema.hash or not {*products}.isdisjoint(schema.products)

    def version(self, name: str, schema: Schema) -> Schema:
        """The schema of hash `name`, `schema` or an older one of it that reads as it by name.

        Raises ArchiveError where it is not known, or something of the same name meant something else.
        """
        if name == schema.hash:
            return schema
        place = f"{self.folder / MANIFEST}: schema {name}"
        if name not in self.schemas:
            raise ArchiveError(f"{place}: is not there")
        try:
            return older(place, name, self.schemas[name], schema)
        except SchemaError as error:
            raise ArchiveError(str(error)) from None


def digest(file: Path) -> str:
    """SHA-256 of a file, hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def rows(
    folder: Path, schema: Schema, *, warn: Callable[[str], None] = lambda problem: None, place: Place = HERE,
    deep: bool = False,
) -> Rows:  # fmt: skip
    """Training rows of a schema's decisions in log order, with hops if `deep`; their ids are sequence numbers, labels
    those of the end.

    Rows of an older version of the schema are read by feature name: what is new is NaN, counts of the log are made;
    `warn` is told how many decisions of versions that cannot be read are left out, and why. Retries after a crash are
    looked at from their `as_of` with their own marks masked, as they were decided; applicants whom the log forgets are
    left out. The log is walked at `place`. Raises ArchiveError where none can be read, and with sequence number and
    feature where the log does not give what the evidence kept.
    """
    archive = Archive.open(folder)
    kept = kept_rows(archive, schema, warn)
    requests = Requests.read(archive.log(_NOTHING))
    walked = place.walked(lambda graph, chunk: _walked(archive, schema, kept, requests, graph, chunk), deep)
    left = to_learn_from(*walked, warn)
    if not left.application_ids:
        raise ArchiveError(f"{folder}: every applicant of schema {schema.name} is forgotten")
    return left


def _walked(
    archive: Archive, schema: Schema, kept: "Kept", requests: Requests, graph: Graph, chunk: int
) -> tuple[Rows, NDArray[np.uint64], NDArray[np.uint64]]:
    """The rows of every decision, and the slots that a later request empties: of each, and of every application."""
    folder, retried = archive.folder, kept.as_of >= kept.sequence
    links = np.zeros((len(kept.sequence), SLOTS_MAX), dtype=np.bool_)
    links[:] = schema.link_slots
    snapshots, order, times = [], [], np.zeros(len(kept.sequence), dtype=np.int64)
    emptied, by_application = np.zeros(len(kept.sequence), dtype=np.uint64), []
    for events in archive.log(kept.as_of[retried], chunk):
        first, end = graph.sequence + 1, graph.sequence + len(events)
        inside = np.arange(*np.searchsorted(kept.sequence, (first, end + 1)))
        other = events.fields["kind"][kept.sequence[inside] - first] != APPLICATION
        if other.any():
            raise ArchiveError(f"{folder}: sequence {kept.sequence[inside][other][0]}: is no application")
        times[inside] = events.time_ms[kept.sequence[inside] - first]
        later = requests.emptied(events)
        emptied[inside] = later[kept.sequence[inside] - first]
        by_application.append(later[events.fields["kind"] == APPLICATION])
        own, again = inside[~retried[inside]], np.flatnonzero(retried & (kept.as_of == end))
        view = graph.observe(without_records(events, later), kept.sequence[own], links[own])
        for at, seen in ((own, view), (again, graph.review(kept.sequence[again], links[again]))):
            if len(at):
                snapshots.append(_snapshot(folder, schema, kept, at, seen))
                order.append(at)
    labels = graph.labels(kept.sequence)
    joined = Snapshot.join(snapshots)
    if retried.any():
        joined = joined.take(np.argsort(np.concatenate(order)))
    ids = [str(number) for number in kept.sequence]
    made = Rows(schema, joined, ids, times, {name: labels[name] for name in schema.labels}, graph.last_ms)
    return made, emptied, np.concatenate(by_application)


def recorded(folder: Path) -> pl.DataFrame:
    """Every decision without its row; `fraud_label` and `default_label`, int8, are the labels known at the end."""
    archive, graph = Archive.open(folder), EntityGraph()
    found = archive.decisions([name for name in DECISION_COLUMNS if name != "features"])
    for events in archive.log(_NOTHING):
        graph.observe(events, _NOTHING, np.empty((0, SLOTS_MAX), dtype=np.bool_))
    labels = graph.labels(found["sequence"].to_numpy())
    return found.with_columns(**{f"{name}_label": pl.Series(known) for name, known in labels.items()})


@dataclass(frozen=True)
class Kept:
    """What the evidence of N decisions kept, by sequence number.

    sequence, as_of, time_ms: int64 [N]; features: float32 [N, F] in the columns of the schema asked for, NaN where
    the decision's own had none; counted: bool [N, F], the features that the log must give again; source_state: uint8
    [N, S].
    """

    sequence: NDArray[np.int64]
    as_of: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    features: NDArray[np.float32]
    counted: NDArray[np.bool_]
    source_state: NDArray[np.uint8]


def kept_rows(archive: Archive, schema: Schema, warn: Callable[[str], None]) -> Kept:
    """The decisions of `rows`, without what the log says of them. Raises ArchiveError."""
    every = archive.decisions(("sequence", "as_of", "time_ms", "product", "schema", "profiles", "features"))
    mine, versions = _mine(archive, schema, every, warn)
    features = np.full((len(mine), len(schema.features)), np.nan, dtype=np.float32)
    counted = np.zeros(features.shape, dtype=np.bool_)
    for name, version in versions.items():
        of_it = (mine["schema"] == name).to_numpy()
        shared = [n for n in schema.feature_names if n in version.column]
        columns = np.array([schema.column[n] for n in shared])
        place = np.ix_(np.flatnonzero(of_it), columns)
        try:
            stored = mine["features"].filter(of_it).list.to_array(len(version.features)).to_numpy()
        except pl.exceptions.ComputeError:
            wanted = len(version.features)
            raise ArchiveError(
                f"{archive.folder / DECISIONS}: schema {name}: rows of {wanted} features wanted"
            ) from None
        features[place] = stored[:, [version.column[n] for n in shared]]
        counted[place] = [schema.features[i].origin in ("velocity", "graph") for i in columns]
    sequence, as_of, time_ms = (mine[name].to_numpy() for name in ("sequence", "as_of", "time_ms"))
    return Kept(sequence, as_of, time_ms, features, counted, _source_state(schema, mine))


def _mine(
    archive: Archive, schema: Schema, every: pl.DataFrame, warn: Callable[[str], None]
) -> tuple[pl.DataFrame, dict[str, Schema]]:
    """The decisions of a schema that can be read, and its versions by hash. `warn` is told how many cannot, and why.

    Raises ArchiveError where none can.
    """
    versions, problems = {}, []
    for name, products, decided in (
        every.group_by("schema").agg(pl.col("product").unique(), pl.len()).sort("schema").iter_rows()
    ):
        if archive.is_of(name, products, schema):
            try:
                versions[name] = archive.version(name, schema)
            except ArchiveError as error:
                problems.append(f"{decided} decisions cannot be read: {error}")
    if not versions:
        raise ArchiveError("; ".join(problems) or f"{archive.folder}: holds no decision of schema {schema.name}")
    for problem in problems:
        warn(problem)
    return every.filter(pl.col("schema").is_in(list(versions))), versions


def _source_state(schema: Schema, decisions: pl.DataFrame) -> NDArray[np.uint8]:
    fetched_at_ms = np.zeros((len(decisions), len(schema.sources)), dtype=np.int64)
    place = {name: i for i, name in enumerate(schema.sources)}
    known = decisions.select("profiles").with_row_index("row").explode("profiles").drop_nulls("profiles")
    flat = known.select("row", pl.col("profiles").struct.unnest())
    for row, source, fetched in zip(*(column.to_list() for column in flat), strict=True):
        if source in place:
            fetched_at_ms[row, place[source]] = fetched
    return freshness(schema, fetched_at_ms, decisions["time_ms"].to_numpy())[1]


def _snapshot(folder: Path, schema: Schema, kept: Kept, at: NDArray[np.int64], view: Neighborhood) -> Snapshot:
    """The rows `at` of what was kept, with what the log says of them. Raises ArchiveError where the two differ."""
    every, features, stored = np.arange(len(at)), kept.features[at], kept.features[at]
    count(schema, features, view, every)
    differs = kept.counted[at] & (features != stored) & ~(np.isnan(features) & np.isnan(stored))
    if differs.any():
        row, column = np.argwhere(differs)[0]
        raise ArchiveError(
            f"{folder}: sequence {kept.sequence[at[row]]}: {schema.feature_names[column]}: the log gives "
            f"{features[row, column]}, the evidence says {stored[row, column]}"
        )
    if (wrong := view.time_ms != kept.time_ms[at]).any():
        raise ArchiveError(f"{folder}: sequence {kept.sequence[at][wrong][0]}: the log gives another time")
    return snapshot(schema, features, kept.source_state[at], view, every)
