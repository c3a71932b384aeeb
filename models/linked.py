"""A history as applications and what they share, for statistics of the whole graph: offline, never for serving.

Entities whose sharing ties people together are those that the schema calls `link`; employers, dealers, officers and IP
addresses are hubs. What a log forgets is left out, as of training (R20). Entities are tokens (R21).
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import table
from features.application import Application
from features.archive import Archive, ArchiveError
from features.events import APPLICATION, LABEL_UNKNOWN, LABELS, label_value, settle
from features.forgotten import Requests
from features.graph import EntityGraph
from features.replay import History
from features.schema import SLOTS_MAX, Schema, SchemaError
from features.tokens import Tokenizer

Ints = NDArray[np.int64]
Warn = Callable[[str], None]
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Linked:
    """N applications in the order of the log and U uses of entities by them.

    ids: as the source names them; time_ms: int64 [N]; applicant: uint64 [N]; bad: int8 [N], 1 bad, 0 good, -1 unknown,
    as known at the end. row: int64 [U] ascending, whose use it is; token: uint64 [U]; kind: int64 [U], of `kinds`.
    ties: bool [kinds], whether sharing one ties people together. The applicant is no entity here.
    """

    ids: Sequence[str]
    time_ms: Ints
    applicant: NDArray[np.uint64]
    bad: NDArray[np.int8]
    row: Ints
    token: NDArray[np.uint64]
    kind: Ints
    kinds: Sequence[str]
    ties: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


def from_history(history: History, label: str) -> Linked:
    """The applications of a history, whose `label` is what its reports say."""
    schemas: list[Schema] = []
    known: dict[str, int] = {}
    applications: dict[str, Application] = {}
    for event in history.events:
        if isinstance(event, Application):
            applications[event.application_id], known[event.application_id] = event, LABEL_UNKNOWN
            if event.schema not in schemas:
                schemas.append(event.schema)
        else:
            said = label_value(applications[event.application_id].schema, label, event.kind)
            known[event.application_id] = int(settle(known[event.application_id], said))
    every = list(applications.values())
    return _linked(
        list(applications), np.array([a.event_time_ms for a in every], dtype=np.int64),
        np.array([a.tokens for a in every], dtype=np.uint64).reshape(-1, SLOTS_MAX),
        np.array(list(known.values()), dtype=np.int8),
        np.array([schemas.index(a.schema) for a in every], dtype=np.int64),
        {i: schema.document for i, schema in enumerate(schemas)},
    )  # fmt: skip


def from_table(schema: Schema, data: Path, label: str, warn: Warn = lambda message: None) -> Linked:
    """The rows of a file, by the table's id or their place, with all their labels. Raises SchemaError."""
    if label not in schema.labels:
        raise SchemaError(f"{schema.name}: has no label {label}")
    rows = table.read(schema, data, warn=warn)
    in_order = [(row, None) for row in rows]
    history = table.history(schema, Tokenizer(secrets.token_bytes(32)), in_order, settled=True)
    made = from_history(history, label)
    return Linked([row.row_id for row in rows], *(getattr(made, name) for name in list(Linked.__annotations__)[1:]))


def from_archive(folder: Path, label: str, warn: Warn = lambda message: None) -> Linked:
    """Every application of an archive's log by its sequence number, but for those of forgotten applicants.

    `warn` is told of applications whose schema the archive does not hold. Raises ArchiveError.
    """
    archive, graph, none = Archive.open(folder), EntityGraph(), np.empty((0, SLOTS_MAX), dtype=np.bool_)
    documents = {int.from_bytes(bytes.fromhex(name), "little"): of[0] for name, of in archive.schemas.items()}
    requests, found = Requests.read(archive.log(_NONE)), []
    for events in archive.log(_NONE):
        graph.observe(events, _NONE, none)
        emptied = requests.emptied(events)
        kept = (events.fields["kind"] == APPLICATION) & (emptied & np.uint64(1) == 0)
        tokens = events.fields["tokens"][kept].copy()
        tokens[(emptied[kept, None] >> np.arange(SLOTS_MAX, dtype=np.uint64) & np.uint64(1)).astype(np.bool_)] = 0
        found.append((events.fields["sequence"][kept], events.time_ms[kept], tokens, events.fields["schema"][kept]))
    sequence, time_ms, tokens, schema = (np.concatenate([some[i] for some in found]) for i in range(4))
    if not len(sequence):
        raise ArchiveError(f"{folder}: its log holds no application")
    if unread := int((~np.isin(schema, np.array(list(documents), dtype=np.uint64))).sum()):
        warn(f"{unread} applications tie nobody: the archive does not hold their schema")
    bad = graph.labels(sequence)[label]
    return _linked([str(number) for number in sequence], time_ms, tokens, bad, schema, documents)


def _slots(document: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Kind and whether it ties people together, of each slot of a schema's document after the applicant's."""
    found: list[tuple[str, bool]] = []
    for name, told in (document.get("entities") or {}).items():
        of = told or {}
        found += [(name, bool(of.get("link")))] * of.get("slots", 1)
    return found[1:]


def _linked(
    ids: Sequence[str], time_ms: Ints, tokens: NDArray[np.uint64], bad: NDArray[np.int8], schema: NDArray[np.integer],
    documents: Mapping[int, Mapping[str, Any]],
) -> Linked:  # fmt: skip
    """schema: [N], key of `documents`."""
    slots = {key: _slots(document) for key, document in documents.items()}
    tying = {name: link for of in slots.values() for name, link in of}
    kinds = sorted(tying)
    kind = np.full((len(ids), SLOTS_MAX), -1, dtype=np.int64)
    for key, of in slots.items():
        kind[np.ix_(schema == key, np.arange(1, 1 + len(of)))] = [kinds.index(name) for name, _ in of]
    row, slot = np.nonzero((kind >= 0) & (tokens != 0))
    ties = np.array([tying[name] for name in kinds], dtype=np.bool_)
    return Linked(ids, time_ms, tokens[:, 0], bad, row, tokens[row, slot], kind[row, slot], kinds, ties)


def check_label(label: str) -> str:
    """The label. Raises ArchiveError where there is none of that name."""
    if label not in LABELS:
        raise ArchiveError(f"--label: must be {' or '.join(LABELS)}")
    return label
