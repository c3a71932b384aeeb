"""Lists: which tokens are on the black, grey and white list, by the log and strictly before each event (R10).

Fed the same events in the same order as EntityGraph, so every replica counts the same for the same application. A token
may be put on a list more than once, by the tenant and by the consortium, with different expiry: it is on it until the
last of these expires. A removal takes off what its own side, tenant or consortium, had put on. Expiry is looked at by
the application's time, never by a clock.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.events import LISTED, LISTING, Events
from features.specs import LISTS

_SIDES = ("own", "shared")
_NEVER_MS = int(np.iinfo(np.int64).max)


class Lists:
    """One tenant's lists, its own and what it takes from the consortium."""

    def __init__(self) -> None:
        # by token for each list until when it is on it, ms, 0 where it is not: the tenant's own, the consortium's
        self._until: tuple[dict[int, list[int]], dict[int, list[int]]] = ({}, {})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it holds: uint64 [n] tokens and int64 [n, 3] until when, the tenant's own and the consortium's."""
        held = dict[str, NDArray[Any]]()
        for side, until in zip(_SIDES, self._until, strict=True):
            held[f"{side}_tokens"] = np.array(list(until), dtype=np.uint64)
            held[f"{side}_until_ms"] = np.array(list(until.values()), dtype=np.int64).reshape(-1, len(LISTS))
        return held

    @classmethod
    def of(cls, held: Mapping[str, NDArray[Any]]) -> "Lists":
        """The lists that `arrays` gave."""
        made = cls()
        for side, until in zip(_SIDES, made._until, strict=True):
            tokens, until_ms = held[f"{side}_tokens"].tolist(), held[f"{side}_until_ms"].tolist()
            until.update(zip(tokens, until_ms, strict=True))
        return made

    def observe(self, events: Events, own: NDArray[np.int64], shared: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Record `events`, which continue the log; how many tokens of each own application were on each list before it.

        own: int64 [B] sequence numbers, ascending, all among `events`. shared: uint64 [B, 16], the applications' tokens
        under the consortium's secret, which are in no event; 0 where there are none. Returns int64 [B, 3] in the order
        of specs.LISTS.
        """
        counts = np.zeros((len(own), len(LISTS)), dtype=np.int64)
        if LISTED not in events.fields["kind"].tobytes() and not (len(own) and any(self._until)):
            return counts  # as nearly always
        changes = np.flatnonzero(events.fields["kind"] == LISTED)
        place = own - events.fields["sequence"][0]
        tokens, time_ms = events.fields["tokens"][place], events.time_ms[place]
        row = 0
        said = events.fields[changes].view(LISTING)
        names = ("list", "remove", "shared", "expires_at_ms", "token")
        for at, *change in zip(changes.tolist(), *(said[name].tolist() for name in names), strict=True):
            end = int(np.searchsorted(place, at))
            if end > row:
                counts[row:end] = self.count(tokens[row:end], shared[row:end], time_ms[row:end])
                row = end
            self._apply(*change)
        counts[row:] = self.count(tokens[row:], shared[row:], time_ms[row:])
        return counts

    def count(
        self, tokens: NDArray[np.uint64], shared: NDArray[np.uint64], time_ms: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """How many tokens of applications are on each list by now, int64 [B, 3]; for a retry, which looks from here.

        tokens, shared: uint64 [B, 16], the tenant's and the consortium's tokens of the same identifiers by slot: one
        that is on both sides' list counts once. time_ms: int64 [B].
        """
        listed = np.zeros((*tokens.shape, len(LISTS)), dtype=np.bool_)
        for until, some in zip(self._until, (tokens, shared), strict=True):
            if until and len(some):
                for token in until.keys() & set(some.ravel().tolist()):
                    row, slot = np.nonzero(some == np.uint64(token))
                    listed[row, slot] |= np.array(until[token]) > time_ms[row, None]
        counts: NDArray[np.int64] = listed.sum(axis=1, dtype=np.int64)
        return counts

    def _apply(self, kind: int, remove: int, shared: int, expires_at_ms: int, token: int) -> None:
        until = self._until[shared].setdefault(token, [0] * len(LISTS))
        until[kind - 1] = 0 if remove else max(until[kind - 1], expires_at_ms or _NEVER_MS)
        if not any(until):
            del self._until[shared][token]
