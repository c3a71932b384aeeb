"""EntityGraph: who applied with which device, contact, card …, in typed arrays, read strictly before each event.

`observe` walks events in log order; for an own application it first gathers what was known before it, then records it
(TGN's `find_before`, Rossi et al. 2020: no look-ahead by construction). The K most recent applications of an entity
are its neighbours: no sampling, so a decision can be recomputed. Windows are counted in six fixed buckets each: a count
covers the present bucket and the five before, that is 5/6 to 1 of the window. Distinct counts look at the last 16.
A score is an empirical-Bayes rate: beta-binomial, its prior by the method of moments (Kleinman 1973) over all entities
first seen in the same slot, kept as running totals.
What is forgotten (R20) leaves every entity as if the applicant's applications had never named it: it is counted again.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import hop_kernels
from features.events import FORGOTTEN, LABELS, Events
from features.graph_kernels import follow, gather, index, move, walk
from features.graph_memory import GraphMemory
from features.hops import Hops
from features.neighborhood import Neighborhood, empty_view
from features.schema import SLOTS_MAX


class SequenceGapError(RuntimeError):
    """Events are missing, repeated or out of order: the graph must be rebuilt from the log."""


class EntityGraph:
    """One tenant's graph. `sequence` is the number of the last event recorded; `deep`: whether views carry hops."""

    def __init__(self, deep: bool = False) -> None:
        self.deep = deep
        self.sequence = 0
        self.last_ms = 0
        self._memory = GraphMemory()
        self._state = self._memory.state()

    @property
    def nodes(self) -> int:
        """Number of entities seen."""
        return int(self._state.sizes[0])

    @property
    def applications(self) -> int:
        """Number of applications seen."""
        return int(self._state.sizes[1])

    def observe(self, events: Events, own: NDArray[np.int64], links: NDArray[np.bool_]) -> Neighborhood:
        """Record `events`, which must continue the log without a gap; return the view strictly before each own one.

        own: int64 [B] sequence numbers, ascending, all among `events`. links: bool [B, 16], slots whose sharing ties
        people together. Raises SequenceGapError before anything is recorded.
        """
        fields, own = _as_read(events), np.ascontiguousarray(own)
        if not follow(fields, self.sequence, own):
            after = f"events after {self.sequence}, {own[:3].tolist()} … among them, expected"
            raise SequenceGapError(f"{after}, {events.fields['sequence'][:3].tolist()} … found")
        view = empty_view(len(own), own - 1)
        if room := len(events):
            nodes, applications, _ = self._state.sizes.tolist()
            self._reserve(nodes + room * SLOTS_MAX, applications + room, self.sequence + room + 1)
            found = self._deep_walk(fields, events.time_ms, own, links, view) if self.deep else None
            if found is None:
                self._walk(fields, events.time_ms, own, links, view)
            self._state = self._memory.moved(self._state)
            self.sequence += room
            self.last_ms = int(events.time_ms[-1])
            return view._replace(hops=found)
        return view._replace(hops=hop_kernels.review(self._state, own, own)) if self.deep else view

    def _walk(
        self, fields: NDArray[np.void], time_ms: NDArray[np.int64], own: NDArray[np.int64], links: NDArray[np.bool_],
        view: Neighborhood,
    ) -> None:  # fmt: skip
        """Record events and fill the view."""
        walk(
            self._state, fields, time_ms, own, links, view.entity_state, view.graph_state, view.neighbor_state,
            view.neighbor_mask, view.time_ms,
        )  # fmt: skip

    def _deep_walk(
        self, fields: NDArray[np.void], time_ms: NDArray[np.int64], own: NDArray[np.int64], links: NDArray[np.bool_],
        view: Neighborhood,
    ) -> Hops:  # fmt: skip
        """As `_walk`, and the hops. They are walked before the next event that forgets, which unties what it names."""
        cuts, found = np.flatnonzero(fields["kind"] == FORGOTTEN).tolist(), []
        for start, end in pairwise([0, *(cut for cut in cuts if cut), len(fields)]):
            part, first = fields[start:end], int(fields["sequence"][start])
            rows = slice(*np.searchsorted(own, [first, first + end - start]).tolist())
            before = hop_kernels.labels_before(self._state, part)
            arrays: Any = (array[rows] for array in view[:-1])
            seen = Neighborhood(*arrays)
            self._walk(part, time_ms[start:end], own[rows], links[rows], seen)
            found.append(hop_kernels.gather(self._state, part, own[rows], before, seen.time_ms))
        return Hops.join(found)

    def follows(self, events: Events, own: NDArray[np.int64]) -> bool:
        """Whether `events` continue the log without a gap, with `own` among them, as `observe` takes them."""
        return bool(follow(_as_read(events), self.sequence, np.ascontiguousarray(own)))

    def review(self, sequences: NDArray[np.int64], links: NDArray[np.bool_]) -> Neighborhood:
        """The present view of applications recorded before, each with its own marks masked out.

        For a retry after a crash between recording and deciding. sequences: int64 [B]; links as in `observe`.
        """
        view = empty_view(len(sequences), np.full(len(sequences), self.sequence))
        view.time_ms[:] = self.last_ms
        applications = np.empty(len(sequences), dtype=np.int64)
        for row, sequence in enumerate(sequences):
            application = int(self._state.of_sequence[sequence]) - 1 if 0 < sequence <= self.sequence else -1
            if application < 0:
                raise SequenceGapError(f"event {sequence} is no application recorded before")
            applications[row] = application
            nodes = self._state.node[application].astype(np.int64)
            gather(
                self._state, row, nodes, self.last_ms, self._state.amount[application], application, links,
                view.entity_state, view.graph_state, view.neighbor_state, view.neighbor_mask,
            )  # fmt: skip
        return view._replace(hops=hop_kernels.review(self._state, applications, view.time_ms)) if self.deep else view

    def labels(self, sequences: NDArray[np.int64]) -> dict[str, NDArray[np.int8]]:
        """int8 [B] by label, 1 bad, 0 good, -1 unknown: what is known by now of applications recorded before."""
        found = self._state.label[self._state.of_sequence[sequences] - 1]
        return {name: found[:, which].copy() for which, name in enumerate(LABELS)}

    @classmethod
    def sized(cls, nodes: int, applications: int, sequence: int, last_ms: int) -> "EntityGraph":
        """Room for a graph that was saved: the caller fills what `arrays` shows, then gives its tokens to `index`."""
        graph = cls()
        graph.sequence, graph.last_ms = sequence, last_ms
        graph._reserve(nodes, applications, sequence + 1)
        graph._state.sizes[:2] = nodes, applications
        return graph

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds, by name, as far as it is in use; the hash is what `tokens` says."""
        return self._memory.used(self.sequence)

    def tokens(self) -> NDArray[np.uint64]:
        """uint64 [nodes], the token of each entity in the order of first use."""
        tokens, state = np.zeros(self.nodes, dtype=np.uint64), self._state
        for key, place in ((state.old_key, state.old_place), (state.key, state.place)):
            tokens[place[key != 0]] = key[key != 0]
        return tokens

    def index(self, tokens: NDArray[np.uint64]) -> None:
        """Make a `sized` graph find its entities by their tokens."""
        index(self._state.key, self._state.place, tokens)

    def _reserve(self, nodes: int, applications: int, sequences: int) -> None:
        """Make room for so many in all."""
        if self._memory.fits(nodes, applications, sequences):
            return
        if self._memory.moving:  # more events at once than a hash takes to move
            move(self._state, len(self._state.old_key))
        del self._state  # else its arrays hold the memory where it is
        try:
            self._memory.grow(nodes, applications, sequences)
        finally:
            self._state = self._memory.state()


def _as_read(events: Events) -> NDArray[np.void]:
    """Their fields as read from a store: of another type they would be compiled for themselves."""
    fields = events.fields.view()
    fields.flags.writeable = False
    return fields
