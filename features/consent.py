"""Which identifiers of an application stand on a consent (R20), and what is left of one whose consent was withdrawn.

A consent counts if it was given after the applicant last withdrew it: one that is presented again does not. Only the
store knows the newest withdrawal when an application enters the log, so `begin` empties the slots there
(functions.lua), and everything downstream takes an application as the log has it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Application, tokens_of
from features.events import TOKENS_AT
from features.neighborhood import Neighborhood
from features.schema import SLOTS_MAX, Schema
from features.statistics import ENTITY_STATS

_COUNT_ALL = list(ENTITY_STATS).index("count_all")  # a number for every slot that is taken


def consent_slots(document: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """By purpose, the slots that stand on it, after a schema's document: any version's, also one not known here.

    What is made of identifiers that stand on a consent stands on it too.
    """
    purposes_of: dict[str, set[str]] = {}
    slots: dict[str, tuple[int, ...]] = {}
    first = 0
    for name, entity in (document.get("entities") or {}).items():
        own = {entity["consent"]} if entity.get("consent") else set()
        purposes_of[name] = own.union(*(purposes_of[part] for part in entity.get("of", ())))
        end = first + entity.get("slots", 1)
        for purpose in purposes_of[name]:
            slots[purpose] = slots.get(purpose, ()) + tuple(range(first, end))
        first = end
    return slots


@cache
def _packed_slots(schema: Schema) -> list[tuple[str, list[int], bytes]]:
    """Purpose, slots, and where each slot's token stands in a packed event, a byte each."""
    return [
        (purpose, list(slots), bytes(TOKENS_AT + 8 * slot for slot in slots))
        for purpose, slots in consent_slots(schema.document).items()
    ]


def presented(applications: Sequence[Application], places: Sequence[int]) -> list[bytes | str]:
    """The last arguments of `begin`: five for each purpose that an application names somebody for.

    places: of the applications' events among the arguments, counted from 1.
    """
    arguments: list[bytes | str] = []
    for application, place in zip(applications, places, strict=True):
        tokens = application.tokens.tolist()
        for purpose, slots, offsets in _packed_slots(application.schema):
            if any([tokens[slot] for slot in slots]):
                given_at_ms = application.consents.get(purpose, 0)
                arguments += [str(place), f"{tokens[0]:016x}", purpose, str(given_at_ms), offsets]
    return arguments


def logged(view: Neighborhood) -> NDArray[np.bool_]:
    """bool [rows, 16]: the slots that the log has an identifier in."""
    return ~np.isnan(view.entity_state[:, :, _COUNT_ALL])


def as_logged(
    applications: Sequence[Application], view: Neighborhood, rows: NDArray[np.int64]
) -> Sequence[Application]:
    """Applications without the identifiers that the log does not have, or no longer.

    rows: int64 [B], the application's in `view`, -1 where it has none and is left as it is. Nearly always all have
    theirs: then they are the very same.
    """
    tokens = tokens_of([application.tokens for application in applications])
    if not _lacks(tokens, view.entity_state, rows):
        return applications
    return within(applications, logged(view)[rows] | (rows < 0)[:, None])


def within(applications: Sequence[Application], slots: NDArray[np.bool_]) -> Sequence[Application]:
    """Applications with the identifiers of some slots only, bool [B, 16]: the very same where they have no others."""
    if not (tokens_of([application.tokens for application in applications])[~slots]).any():
        return applications
    return [a._replace(tokens=np.where(s, a.tokens, np.uint64(0))) for a, s in zip(applications, slots, strict=True)]


@njit(cache=True, nogil=True)
def _lacks(tokens, entity_state, rows):  # type: ignore[no-untyped-def]
    """bool: whether the log lacks any of the tokens, uint64 [B, 16]."""
    for i in range(len(rows)):
        if rows[i] >= 0:
            for e in range(SLOTS_MAX):
                if tokens[i, e] != 0 and np.isnan(entity_state[rows[i], e, _COUNT_ALL]):
                    return True
    return False
