"""What a log says was forgotten, for those who learn from it: nothing is learned of whom a lender had to forget (R20).

Decisions stay as they were taken, so an archive still proves them; training leaves out the applications of a forgotten
applicant, also as neighbours of others, and reads nothing that stood on a consent withdrawn since.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.events import APPLICATION, EVENT, FORGETTING, FORGOTTEN, Events
from features.replay import Rows
from features.schema import Schema

_APPLICANT = np.uint64(1)  # bit of the applicant's slot: who is forgotten, is so altogether


@dataclass(frozen=True)
class Requests:
    """Every request to forget of a log. fields: FORGETTING [n], in the order of the log."""

    fields: NDArray[np.void]

    @staticmethod
    def read(log: Iterable[Events]) -> "Requests":
        """The requests among the events of a log."""
        found = [events.fields[events.fields["kind"] == FORGOTTEN] for events in log]
        return Requests(np.concatenate([np.empty(0, dtype=EVENT), *found]).view(FORGETTING))

    def emptied(self, events: Events) -> NDArray[np.uint64]:
        """uint64 [n]: for each event, by bit, the slots that a later request empties."""
        slots = np.zeros(len(events), dtype=np.uint64)
        applicant = events.fields["tokens"][:, 0]
        asked = (events.fields["kind"] == APPLICATION) & np.isin(applicant, self.fields["applicant"])
        for i in np.flatnonzero(asked):
            event = events.fields[i]
            mine = (self.fields["applicant"] == applicant[i]) & (self.fields["sequence"] > event["sequence"])
            mine &= (self.fields["schema"] == 0) | (self.fields["schema"] == event["schema"])
            slots[i] = np.bitwise_or.reduce(self.fields["slots"][mine])
        return slots


def without_records(events: Events, emptied: NDArray[np.uint64]) -> Events:
    """The events without the records of forgotten applicants, which their neighbours' rows would show."""
    gone = emptied & _APPLICANT != 0
    if not gone.any():
        return events
    fields = events.fields.copy()
    fields["record"][gone] = np.nan
    return Events(fields, events.time_ms)


def to_learn_from(
    made: Rows, emptied: NDArray[np.uint64], by_application: NDArray[np.uint64], warn: Callable[[str], None]
) -> Rows:
    """The rows that may be learned from, of which what stood on a withdrawn consent is missing.

    emptied: uint64 [N], as of Requests; by_application: that of all applications of the log, in its order. `warn` is
    told how many rows are left out, and how many lose something.
    """
    gone = emptied & _APPLICANT != 0
    if gone.any():
        warn(f"{gone.sum()} decisions are left out: their applicants are forgotten on request")
    made, emptied = made.take(np.flatnonzero(~gone)), emptied[~gone]
    if emptied.any():
        warn(f"{(emptied != 0).sum()} decisions lose what stood on a consent withdrawn since")
    for slots in np.unique(emptied[emptied != 0]):
        _empty(made, np.flatnonzero(emptied == slots), int(slots))
    if made.snapshot.hops is None or not by_application.any():
        return made
    hops = made.snapshot.hops.without(emptied, by_application)
    return replace(made, snapshot=replace(made.snapshot, hops=hops))


def _empty(made: Rows, rows: NDArray[np.int64], slots: int) -> None:
    """Make missing, in place, what some rows say of slots."""
    snapshot, taken = made.snapshot, np.flatnonzero([slots >> slot & 1 for slot in range(made.schema.slots)])
    columns = np.array([made.schema.column[name] for name in drawn_from(made.schema, slots)], dtype=np.int64)
    snapshot.features[np.ix_(rows, columns)] = np.nan
    snapshot.entity_state[np.ix_(rows, taken)] = np.nan
    snapshot.neighbor_state[np.ix_(rows, taken)] = 0
    snapshot.neighbor_mask[np.ix_(rows, taken)] = False


def drawn_from(schema: Schema, slots: int) -> set[str]:
    """Names of the features that slots (a bit each) go into: counts of them, links by them, and crosses of those."""
    entities = {e.name for e in schema.entities.values() if slots >> e.first_slot & ((1 << e.slots) - 1)}
    links = any(schema.entities[name].link for name in entities)
    names = {f.name for f in schema.features if f.entity in entities or (links and f.origin == "graph")}
    for column, expression in schema.crosses:
        if not names.isdisjoint(expression.names):
            names.add(schema.feature_names[column])
    return names
