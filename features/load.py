"""Bulk loading of a store: history through the same verbs as serving, profiles in batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from features.application import Application, Profile, Report
from features.replay import History
from features.schema import Schema
from features.store import Store, StoreError

BATCH = 512


async def load_history(store: Store, history: History, progress: Callable[[int], None] = lambda done: None) -> None:
    """Append a history, whose events must carry their times, to the log of an opened store.

    Applications are begun and never decided. Raises StoreError at the first event that the log refuses.
    """
    product_of: dict[str, Schema] = {}
    for kind, run in _runs(history.events):
        if kind is Application:
            applications = [event for event in run if isinstance(event, Application)]
            product_of.update({a.application_id: a.schema for a in applications})
            statuses = [begun.status for begun in (await store.begin(applications)).begun]
        else:
            reports = [(event, product_of[event.application_id]) for event in run if isinstance(event, Report)]
            statuses = [status for status, _ in await store.report(reports)]
        refused = [f"{e.application_id}: {s}" for e, s in zip(run, statuses, strict=True) if s != "NEW"]
        if refused:
            raise StoreError(f"history is refused: {', '.join(refused[:3])}")
        progress(len(run))


async def load_profiles(
    store: Store,
    profiles: Iterable[tuple[int, Schema, Profile]],
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Store (token of whom it knows, schema, profile); how many were newer than what was there."""
    items, stored = iter(profiles), 0
    while batch := list(islice(items, BATCH)):
        stored += sum(await store.put_profiles(batch))
        progress(len(batch))
    return stored


def profiles_by_subject(profiles: Iterable[tuple[int, Schema, Profile]]) -> Mapping[int, Mapping[str, Profile]]:
    """What `load_profiles` would store, as replay takes it."""
    known: dict[int, dict[str, Profile]] = {}
    for token, _, profile in sorted(profiles, key=lambda item: item[2].fetched_at_ms):
        known.setdefault(token, {})[profile.source] = profile
    return known


def _runs(events: Sequence[Application | Report]) -> Iterable[tuple[type, Sequence[Application | Report]]]:
    """Stretches of events of one kind, at most BATCH long."""
    start = 0
    while start < len(events):
        kind, end = type(events[start]), start + 1
        while end < len(events) and end - start < BATCH and type(events[end]) is kind:
            end += 1
        yield kind, events[start:end]
        start = end
