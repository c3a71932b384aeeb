"""History becomes training rows by walking it through the code that serves: no train/serve skew by construction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.application import Application, Profile, Report, Snapshot
from features.assemble import assemble
from features.events import finish, pack_application, pack_report, unpack
from features.graph import EntityGraph
from features.profiles import Profiles
from features.schema import SLOTS_MAX, Schema

CHUNK = 2048  # events observed in one call; bounds the memory of a neighbourhood


@dataclass(frozen=True)
class History:
    """Applications and reports in the order of the log, and profiles by token of whom they know and by source."""

    events: Sequence[Application | Report]
    profiles: Mapping[int, Mapping[str, Profile]] = field(default_factory=dict)


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


# by schema name: sequence numbers, applications and snapshot of each chunk
_Parts = dict[str, list[tuple[Sequence[int], Sequence[Application], Snapshot]]]


def replay(history: History, progress: Callable[[int], None] = lambda done: None) -> dict[str, Rows]:
    """Rows by schema name. A report of an application not seen before is an error, as it is on the wire (KeyError)."""
    graph = EntityGraph()
    sequence_of: dict[str, int] = {}
    parts: _Parts = {}
    for start in range(0, len(history.events), CHUNK):
        chunk = history.events[start : start + CHUNK]
        own: list[tuple[int, Application]] = []
        blobs = []
        for sequence, event in enumerate(chunk, graph.sequence + 1):
            if isinstance(event, Application):
                blobs.append(finish(pack_application(event), 0, sequence))
                sequence_of[event.application_id] = sequence
                own.append((sequence, event))
            else:
                subject = sequence_of[event.application_id]
                schema = history_schema(history, subject)
                blobs.append(finish(pack_report(event, schema), subject, sequence))
        _observe(graph, chunk, blobs, own, history.profiles, parts)
        progress(len(chunk))
    return {name: _rows(part, graph) for name, part in parts.items()}


def history_schema(history: History, sequence: int) -> Schema:
    """The schema of the application at a sequence number, counted from 1."""
    event = history.events[sequence - 1]
    assert isinstance(event, Application)
    return event.schema


def _observe(
    graph: EntityGraph,
    chunk: Sequence[Application | Report],
    blobs: list[bytes],
    own: list[tuple[int, Application]],
    profiles: Mapping[int, Mapping[str, Profile]],
    parts: _Parts,
) -> None:
    """Observe one chunk and add the snapshots of its applications to `parts`."""
    links = np.zeros((len(own), SLOTS_MAX), dtype=np.bool_)
    for row, (_, application) in enumerate(own):
        links[row] = application.schema.link_slots
    events = unpack(blobs, [event.event_time_ms for event in chunk])
    view = graph.observe(events, np.array([sequence for sequence, _ in own], dtype=np.int64), links)
    by_schema: dict[str, list[int]] = {}
    for row, (_, application) in enumerate(own):
        by_schema.setdefault(application.schema.name, []).append(row)
    for name, rows in by_schema.items():
        sequences, applications = zip(*(own[row] for row in rows), strict=True)
        known = [_profiles_of(a, profiles) for a in applications]
        schema = applications[0].schema
        snapshot = assemble(schema, applications, Profiles.of(schema, known), view, np.array(rows))
        parts.setdefault(name, []).append((sequences, applications, snapshot))


def _profiles_of(application: Application, profiles: Mapping[int, Mapping[str, Profile]]) -> dict[str, Profile]:
    """By source, what each source knows of the entity that it is about."""
    found = {}
    for source in application.schema.sources.values():
        profile = profiles.get(int(application.tokens[source.slot]), {}).get(source.name)
        if profile is not None:
            found[source.name] = profile
    return found


def _rows(part: Sequence[tuple[Sequence[int], Sequence[Application], Snapshot]], graph: EntityGraph) -> Rows:
    applications = [a for _, some, _ in part for a in some]
    schema = applications[0].schema
    labels = graph.labels(np.array([s for some, _, _ in part for s in some], dtype=np.int64))
    return Rows(
        schema,
        Snapshot.join([snapshot for _, _, snapshot in part]),
        [a.application_id for a in applications],
        np.array([a.event_time_ms for a in applications], dtype=np.int64),
        {name: labels[name] for name in schema.labels},
        graph.last_ms,
    )
