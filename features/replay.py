"""History becomes training rows by walking it through the code that serves: no train/serve skew by construction."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from features.application import Application, Profile, Report, Snapshot, tokens_of
from features.assemble import complete, declared, empty_snapshot
from features.events import APPLICATION, EVENT, EVENT_VERSION, LABEL_UNCHANGED, LABELS, REPORT, Events, label_value
from features.hops import Hops
from features.neighborhood import Neighborhood
from features.place import HERE, Graph, Place
from features.profiles import Profiles, ProfileTable
from features.schema import SLOTS_MAX, Schema


@dataclass(frozen=True)
class History:
    """Applications and reports in the order of the log, and profiles by token of whom they know and by source."""

    events: Sequence[Application | Report]
    profiles: Mapping[int, Mapping[str, Profile]] = field(default_factory=dict)

    @cached_property
    def profile_table(self) -> ProfileTable:
        """The profiles by column; made once, which takes longer than to replay a history."""
        return ProfileTable(self.profiles)


@dataclass(frozen=True)
class Rows:
    """Training rows of one schema, in log order.

    snapshot: N rows; event_time_ms: int64 [N]; labels: int8 [N] for each label of the schema, 1 bad, 0 good,
    -1 unknown, as known at the end of the history, the time `ended_ms`.
    """

    schema: Schema
    snapshot: Snapshot
    application_ids: list[str]
    event_time_ms: NDArray[np.int64]
    labels: dict[str, NDArray[np.int8]]
    ended_ms: int

    def take(self, rows: NDArray[np.int64]) -> "Rows":
        """Some of the rows, in their order."""
        return Rows(
            self.schema, self.snapshot.take(rows), [self.application_ids[i] for i in rows], self.event_time_ms[rows],
            {name: known[rows] for name, known in self.labels.items()}, self.ended_ms,
        )  # fmt: skip


class _Part:
    """The rows of one schema, written as they come into arrays for all of them."""

    def __init__(self, schema: Schema, rows: int) -> None:
        self.schema, self.done = schema, 0
        self.snapshot = empty_snapshot(schema, rows)
        self.sequences = np.empty(rows, dtype=np.int64)
        self.ids: list[str] = []
        self.hops: list[Hops] = []

    def add(
        self, applications: Sequence[Application], declared: NDArray[np.float64], profiles: Profiles,
        view: Neighborhood, rows: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Rows of the view become the next ones here; their sequence numbers follow `as_of`."""
        place = slice(self.done, self.done + len(rows))
        done = complete(self.schema, declared, profiles, view, rows, self.snapshot.take(place))
        self.hops += [] if done.hops is None else [done.hops]
        self.sequences[place] = view.as_of[rows] + 1
        self.ids += [a.application_id for a in applications]
        self.done = place.stop


def replay(
    history: History, progress: Callable[[int], None] = lambda done: None, place: Place = HERE, *, deep: bool = False
) -> dict[str, Rows]:
    """Rows by schema name, walked at a place, with hops if `deep`. `progress` is told how many events more are walked:
    fewer, where a device failed and the walk begins again. A report of an application not seen before is an error, as
    on the wire (KeyError).
    """
    schemas = [event.schema for event in history.events if isinstance(event, Application)]
    rows, by_name = Counter([schema.name for schema in schemas]), {schema.name: schema for schema in schemas}
    times_ms = np.array([event.event_time_ms for event in history.events], dtype=np.int64)
    told = 0

    def walk(graph: Graph, chunk: int) -> dict[str, Rows]:
        nonlocal told
        progress(-told)
        told = 0
        parts = {name: _Part(by_name[name], count) for name, count in rows.items()}
        known: dict[str, tuple[int, Schema]] = {}
        for start in range(0, len(history.events), chunk):
            some = history.events[start : start + chunk]
            _observe(graph, some, times_ms[start : start + chunk], known, history.profile_table, parts)
            progress(len(some))
            told += len(some)
        return {name: _rows(part, times_ms, graph) for name, part in parts.items()}

    return place.walked(walk, deep)


def _observe(
    graph: Graph, chunk: Sequence[Application | Report], times_ms: NDArray[np.int64],
    known: dict[str, tuple[int, Schema]], profiles: ProfileTable, parts: Mapping[str, _Part],
) -> None:  # fmt: skip
    """Observe one chunk, whose applications become `known`, and add their rows to `parts`."""
    fields = np.zeros(len(chunk), dtype=EVENT)
    fields["version"], fields["fraud"], fields["default"] = EVENT_VERSION, LABEL_UNCHANGED, LABEL_UNCHANGED
    fields["sequence"] = np.arange(graph.sequence + 1, graph.sequence + 1 + len(chunk))
    at, own, reports = list[int](), list[Application](), list[tuple[int, Report]]()
    for i, event in enumerate(chunk):
        if isinstance(event, Application):
            at.append(i)
            own.append(event)
            known[event.application_id] = graph.sequence + 1 + i, event.schema
        else:
            reports.append((i, event))
    _pack_reports(fields, reports, known)
    tokens = tokens_of([a.tokens for a in own])
    fields["kind"][at], fields["tokens"][at] = APPLICATION, tokens
    by_schema: dict[str, list[int]] = {}
    for row, application in enumerate(own):
        by_schema.setdefault(application.schema.name, []).append(row)
    links = np.zeros((len(own), SLOTS_MAX), dtype=np.bool_)
    told = {}
    for name, rows in by_schema.items():
        schema, some, place = parts[name].schema, [own[row] for row in rows], np.array(at)[rows]
        links[rows] = schema.link_slots
        told[name] = some, declared(schema, some)
        fields["schema"][place] = int.from_bytes(schema.fingerprint, "little")
        fields["amount"][place] = [a.amount_minor / schema.minor_per_major for a in some]
        record = told[name][1][:, [schema.column[feature] for feature in schema.record]]
        fields["record"][place] = np.nan
        fields["record"][place, : len(schema.record)] = record
    view = graph.observe(Events(fields, times_ms), fields["sequence"][at], links)
    for name, rows in by_schema.items():
        some, numbers = told[name]
        parts[name].add(some, numbers, profiles.of(parts[name].schema, tokens[rows]), view, np.array(rows))


def _pack_reports(
    fields: NDArray[np.void], reports: Sequence[tuple[int, Report]], known: Mapping[str, tuple[int, Schema]]
) -> None:
    """Fill the events of a chunk's reports, as far as the graph reads them."""
    if not reports:
        return
    at, subjects, labels = list[int](), list[int](), list[tuple[int, ...]]()
    for i, report in reports:
        subject, schema = known[report.application_id]
        at.append(i)
        subjects.append(subject)
        labels.append(_labels(schema, report.kind))
    if (np.array(subjects) > fields["sequence"][at]).any():
        raise KeyError("a report comes before its application")
    fields["kind"][at], fields["subject"][at] = REPORT, subjects
    for name, values in zip(LABELS, zip(*labels, strict=True), strict=True):
        fields[name][at] = values


@cache
def _labels(schema: Schema, kind: str) -> tuple[int, ...]:
    return tuple(label_value(schema, name, kind) for name in LABELS)


def _rows(part: _Part, times_ms: NDArray[np.int64], graph: Graph) -> Rows:
    labels = graph.labels(part.sequences)
    snapshot = replace(part.snapshot, hops=Hops.join(part.hops)) if part.hops else part.snapshot
    return Rows(
        part.schema, snapshot, part.ids, times_ms[part.sequences - 1],
        {name: labels[name] for name in part.schema.labels}, graph.last_ms,
    )  # fmt: skip
