"""DeviceGraph: features.graph.EntityGraph with its arrays on a CUDA device, equal to it bit for bit.

A batch is parallel and its rows still see strictly what came before each: (1) events are cut where something is
forgotten; (2) new tokens enter the hash at once and are numbered in log order; (3) uses are sorted by (entity, position
in the log), reports by (application, position): what was before is a binary search; (4) neighbours, links and recent
rates are gathered from the sorted uses and the rings of before; (5) one thread an entity moves its counters on, one an
application its labels, one a slot its totals, each in log order, so that sums of doubles round as on the CPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_kernels import apply, gather
from gpu_kernels.apply import RECORD, SLOTS, TOTALS, Apply
from gpu_kernels.device import Device
from gpu_kernels.gather import RING, Gather, View
from gpu_kernels.hops import DeviceHops, HopGather
from gpu_kernels.layout import FOLDER, Struct
from gpu_kernels.stage import Staged, stage

APPLICATION, FORGOTTEN = 1, 4
NEVER = np.iinfo(np.int32).max
ROOM = (1 << 12, 1 << 10, 1 << 10)  # nodes, applications and sequence numbers to begin with, powers of two
EVENTS_MAX = 1 << 22  # of a batch: its place and slot are 26 bits of a hash place, 32 of a key
_STATE, _BATCH = (Struct.read(FOLDER / "graph.cuh", name) for name in ("State", "Batch"))


class Log(Protocol):
    """A stretch of the log in order."""

    @property
    def fields(self) -> NDArray[np.void]:
        """features.events.EVENT [n]."""
        ...

    @property
    def time_ms(self) -> NDArray[np.int64]:
        """int64 [n], not negative."""
        ...


class DeviceGraph:
    """One tenant's graph on a device. `sequence` is the number of the last event recorded; `deep`: whether views carry
    hops.
    """

    def __init__(self, device: Device, room: tuple[int, int, int] = ROOM, deep: bool = False) -> None:
        self.deep = deep
        self.sequence = 0
        self.last_ms = 0
        self._device = device
        self._apply, self._gather, self._hops = Apply.on(device), Gather.on(device), HopGather.on(device)
        self._room = room
        self._at_most = [0, 0]  # nodes, applications: known without asking the device
        self._hold(self._allocated(room))

    def reserve(self, nodes: int, applications: int, sequence: int) -> None:
        """Make room for so many in all."""
        self._grow([nodes, applications, sequence + 1])

    def put(self, name: str, at: Any, rows: Any) -> None:
        """Write rows of one of its arrays (State in graph.cuh); at: a slice, or places as an array of the device."""
        self._arrays[name][at] = rows

    def name(self, tokens: Any, nodes: Any) -> None:
        """Find nodes by their tokens from here on; uint64 and int32 [n] of the device, none known before."""
        batch = stage(self._device, _BATCH, {}, {}, {}, {"use_key": tokens, "at": nodes})
        self._apply.rehash(self._words, batch, len(tokens))

    def stand(self, nodes: int, applications: int, sequence: int, last_ms: int) -> None:
        """What is there is a graph of so many, up to an event."""
        self.sequence, self.last_ms, self._at_most = sequence, last_ms, [nodes, applications]
        self._arrays["sizes"][:] = self._device.xp.asarray(np.array([nodes, applications], dtype=np.int64))

    def observe(self, log: Log, own: NDArray[np.int64], links: NDArray[np.bool_]) -> View:
        """Record events that continue the log; the view strictly before each own one.

        own: int64 [B] sequence numbers, ascending. links: bool [B, 16]. Raises ValueError where events do not continue
        the log, are too many, or `own` is not among them, before anything is recorded.
        """
        fields, sequence = log.fields, np.ascontiguousarray(log.fields["sequence"])
        if not np.array_equal(sequence, np.arange(self.sequence + 1, self.sequence + 1 + len(sequence))):
            raise ValueError(f"events from {self.sequence + 1} on expected")
        first = self.sequence + 1
        if len(sequence) > EVENTS_MAX or not np.all((own >= first) & (own < first + len(sequence))):
            raise ValueError(f"at most {EVENTS_MAX} events, own ones among them")
        view = View.empty(self._device.xp, own - 1, log.time_ms[own - first])
        cuts, hops = np.flatnonzero(fields["kind"] == FORGOTTEN).tolist(), list[DeviceHops]()
        for start, end in zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(fields)], strict=True):
            rows = slice(*np.searchsorted(own, [first + start, first + end]).tolist())
            if end > start:
                part = fields[start:end], log.time_ms[start:end], own[rows], links[rows]
                hops += self._record(*part, view.rows(rows))
            if end < len(fields):
                self._forget(fields[end])
        if len(fields):
            self.sequence, self.last_ms = int(sequence[-1]), int(log.time_ms[-1])
        return replace(view, hops=DeviceHops.join(self._device.xp, hops)) if self.deep else view

    def review(self, sequences: NDArray[np.int64], links: NDArray[np.bool_]) -> View:
        """The present view of applications recorded before, each with its own marks masked out.

        sequences: int64 [B]; links as in `observe`. Raises ValueError for an event that is no application recorded.
        """
        sequences = np.asarray(sequences, dtype=np.int64)
        known = (sequences > 0) & (sequences <= self.sequence)
        masked = self._host(self._arrays["of_sequence"][self._device.xp.asarray(np.where(known, sequences, 0))])
        if (masked < 0).any():
            raise ValueError("an event is no application recorded before")
        time_ms = np.full(len(sequences), self.last_ms, dtype=np.int64)
        view = View.empty(self._device.xp, np.full(len(sequences), self.sequence, dtype=np.int64), time_ms)
        amount = self._host(self._arrays["amount"][self._device.xp.asarray(masked)])
        rows = _rows(np.full(len(masked), -1), np.full(len(masked), NEVER), masked, time_ms, amount, links)
        batch = self._staged({"rows": len(masked)}, rows, view.rows(slice(None)))
        self._gather.neighbors(self._words, batch, len(masked))
        self._gather.counters(self._words, batch, len(masked))
        self._gather.outcomes(self._words, batch, len(masked))
        return replace(view, hops=self._hops.gather(self._words, batch, len(masked), 0, True)) if self.deep else view

    def labels(self, sequences: NDArray[np.int64]) -> NDArray[np.int8]:
        """int8 [B, 2], fraud and default, 1 bad, 0 good, -1 unknown: what is known by now of applications recorded."""
        applications = self._arrays["of_sequence"][self._device.xp.asarray(sequences)]
        return self._host(self._arrays["label"][applications])

    def _record(
        self, fields: NDArray[np.void], time_ms: NDArray[np.int64], own: NDArray[np.int64], links: NDArray[np.bool_],
        out: Mapping[str, Any],
    ) -> list[DeviceHops]:  # fmt: skip
        """Record events of which none forgets; write the rows of the own ones, in order, to `out`; their hops."""
        is_application, at = fields["kind"] == APPLICATION, own - int(fields["sequence"][0])
        applied = np.flatnonzero(is_application)
        row_of = np.full(len(fields), -1, dtype=np.int32)
        row_of[at] = np.arange(len(own))
        given = {
            "token": fields["tokens"][applied], "app_time": time_ms[applied], "app_amount": fields["amount"][applied],
            "app_schema": fields["schema"][applied], "app_record": fields["record"][applied],
            "app_sequence": fields["sequence"][applied], "app_row": row_of[applied],
        }  # fmt: skip
        reported = _reports(fields)
        place = np.where(is_application[at], np.searchsorted(applied, at), -1)
        rows = _rows(place, at, np.full(len(own), -1), time_ms[at], fields["amount"][at], links)
        self._reserve(len(applied), int(fields["sequence"][-1]))
        reports = len(reported["report_event"])
        sizes = {"applications": len(applied), "reports": reports, "rows": len(own)}
        batch = self._staged(sizes, {**given, **reported, **rows}, out)
        self._apply.begin(self._words, batch, len(applied), reports)
        self._gather.neighbors(self._words, batch, len(own))
        self._apply.move(self._words, batch, len(applied), reports)
        self._gather.outcomes(self._words, batch, len(own))
        hops = [self._hops.gather(self._words, batch, len(own), reports, False)] if self.deep else []
        self._apply.commit(self._words, batch, reports)
        return hops

    def _forget(self, event: np.void) -> None:
        tokens = np.zeros((1, SLOTS), dtype=np.uint64)
        tokens[0, 0] = event["tokens"][0]
        given = {"token": tokens, "app_schema": np.array([event["schema"], event["tokens"][1]], dtype=np.uint64)}
        uses = self._apply.uses_of(self._words, self._staged({}, given, {}, {"at": (np.int32, (1,))}))
        batch = self._staged({}, given, {}, {"at": (np.int32, (max(uses, 1), SLOTS))})
        self._apply.forget(self._words, batch)

    def _staged(
        self, sizes: Mapping[str, int], given: Mapping[str, NDArray[Any]], out: Mapping[str, Any], scratch: Any = None
    ) -> Staged:
        if scratch is None:
            counts = [sizes.get(name, 0) for name in ("applications", "reports", "rows")]
            scratch = {**apply.scratch(*counts[:2]), **gather.scratch(counts[2])}
        return stage(self._device, _BATCH, sizes, given, scratch, out)

    def _reserve(self, applications: int, sequence: int) -> None:
        """Make room, doubling what is too small; the device is asked for its nodes only before they cost memory."""
        need = [self._at_most[0] + applications * SLOTS, self._at_most[1] + applications, sequence + 1]
        if need[0] > self._room[0]:
            self._at_most[0] = int(self._host(self._arrays["sizes"])[0])
            need[0] = self._at_most[0] + applications * SLOTS
        self._at_most = need[:2]
        self._grow(need)

    def _grow(self, need: Sequence[int]) -> None:
        room = tuple(_doubled(*pair) for pair in zip(self._room, need, strict=True))
        if room == self._room:
            return
        old, new = self._arrays, self._allocated((room[0], room[1], room[2]))
        for name, array in old.items():
            if name not in ("key", "place"):
                new[name][: len(array)] = array
        self._room = (room[0], room[1], room[2])
        self._hold(new)
        others = {"use_key": old["key"], "at": old["place"]}
        self._apply.rehash(self._words, stage(self._device, _BATCH, {}, {}, {}, others), len(old["key"]))
        self._host(new["sizes"])  # waits: what goes back to the pool may be given to another stream

    def _allocated(self, room: tuple[int, int, int]) -> dict[str, Any]:
        """Empty arrays; the hash has twice as many places as there may be nodes."""
        nodes, applications, sequences = room
        shapes = {
            "sizes": (2,), "key": (2 * nodes,), "place": (2 * nodes,), "uses": (nodes,), "first_ms": (nodes, 2),
            "amount_sum": (nodes, 2), "amount_max": (nodes, 2), "bucket": (nodes, 4, 6), "bucket_epoch": (nodes, 4),
            "label_count": (nodes, 2, 2), "ring": (nodes, RING + 1), "slot": (nodes,), "totals": (SLOTS, 2, TOTALS),
            "newest": (nodes,), "time_ms": (applications,), "amount": (applications,), "schema": (applications,),
            "node": (applications, SLOTS), "previous": (applications, SLOTS), "record": (applications, RECORD),
            "label": (applications, 2), "report_of": (applications,), "of_sequence": (sequences,),
        }  # fmt: skip
        arrays = {name: self._device.xp.zeros(shape, dtype=_STATE.fields[name]) for name, shape in shapes.items()}
        arrays["place"].fill(NEVER)
        arrays["report_of"].fill(-1)
        arrays["of_sequence"].fill(-1)
        return arrays

    def _hold(self, arrays: dict[str, Any]) -> None:
        self._arrays = arrays
        words = _STATE.words({**arrays, "places": len(arrays["key"])}, self._device.address)
        self._struct = self._device.xp.asarray(words)
        self._words = self._device.address(self._struct)

    def _host(self, array: Any) -> NDArray[Any]:
        return self._device.host(array)


def _doubled(room: int, need: int) -> int:
    while room < need:
        room *= 2
    return room


def _rows(
    place: NDArray[Any], event: NDArray[Any], masked: NDArray[Any], time_ms: NDArray[np.int64],
    amount: NDArray[np.float64], links: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:  # fmt: skip
    return {
        "row_application": place.astype(np.int32), "row_event": event.astype(np.int32),
        "row_masked": masked.astype(np.int32), "row_time": time_ms, "row_amount": amount,
        "links": links.astype(np.uint8),
    }  # fmt: skip


def _reports(fields: NDArray[np.void]) -> dict[str, NDArray[Any]]:
    """The reports about applications that came before them, by application and then as they came."""
    subject, sequence = fields["subject"], fields["sequence"]
    events = np.flatnonzero((fields["kind"] != APPLICATION) & (subject > 0) & (subject < sequence))
    events = events[np.argsort(subject[events], kind="stable")]
    about = np.ascontiguousarray(subject[events])
    report_at = np.full(len(fields), -1, dtype=np.int32)
    report_at[events] = np.arange(len(events))
    return {
        "report_subject": about, "report_event": events.astype(np.int32),
        "reported": np.stack([fields["fraud"][events], fields["default"][events]], axis=1).astype(np.int8),
        "report_head": np.diff(about, prepend=-1).astype(np.bool_).astype(np.uint8), "report_at": report_at,
    }  # fmt: skip
