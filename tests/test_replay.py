"""Replay by column is replay event by event, bit for bit: events packed as the store's, rows assembled one by one."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from features import place
from features.application import Application, Profile, Report, Snapshot
from features.assemble import assemble
from features.events import finish, pack_application, pack_report, unpack
from features.graph import EntityGraph
from features.profiles import Profiles, ProfileTable
from features.replay import History, replay
from features.schema import Schema
from tests.conftest import application
from tests.test_engine import past

__all__ = ["past"]
NONE = np.empty(0, dtype=np.int64)


def one_by_one(history: History) -> dict[str, dict[str, Snapshot]]:
    """By schema and application, the row that comes of observing each event alone."""
    graph, seen = EntityGraph(), dict[str, tuple[int, Schema]]()
    rows: dict[str, dict[str, Snapshot]] = {}
    for sequence, event in enumerate(history.events, 1):
        if isinstance(event, Report):
            subject, schema = seen[event.application_id]
            blob, own = finish(pack_report(event, schema), subject, sequence), NONE
        else:
            schema, own = event.schema, np.array([sequence])
            seen[event.application_id] = sequence, schema
            blob = finish(pack_application(event), 0, sequence)
        view = graph.observe(unpack([blob], [event.event_time_ms]), own, schema.link_slots[None, :][: len(own)])
        if isinstance(event, Application):
            held = {s.name: history.profiles.get(int(event.tokens[s.slot]), {}).get(s.name)
                    for s in schema.sources.values()}  # fmt: skip
            known = Profiles.of(schema, [{name: profile for name, profile in held.items() if profile}])
            made = assemble(schema, [event], known, view, np.array([0]))
            rows.setdefault(schema.name, {})[event.application_id] = made
    return rows


def same(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("chunk", [7, 2048])
def test_equals_event_by_event(past: History, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "CHUNK", chunk)
    some = replace(past, events=past.events[:700])
    expected, found = one_by_one(some), replay(some)
    assert found.keys() == expected.keys() and len(found) > 1
    for name, rows in found.items():
        whole = Snapshot.join(list(expected[name].values()))
        assert rows.application_ids == list(expected[name])
        for array in ("features", "entity_state", "neighbor_state", "neighbor_mask", "source_state"):
            assert same(getattr(rows.snapshot, array), getattr(whole, array)), (name, array)
        times = {a.application_id: a.event_time_ms for a in some.events if isinstance(a, Application)}
        assert rows.event_time_ms.tolist() == [times[i] for i in rows.application_ids]


def test_a_report_without_its_application(consumer: Schema) -> None:
    asked, report = application(consumer, "a", event_time_ms=5), Report("o", "a", "fraud_confirmed", 5)
    wrong: list[list[Application | Report]] = [[report], [report, asked], [asked, Report("o", "b", "repaid", 5)]]
    for events in wrong:
        with pytest.raises(KeyError):
            replay(History(events))
    assert replay(History([asked, report]))["consumer"].labels["fraud"].tolist() == [1]
    assert replay(History([])) == {}


def test_profiles_of_another_width_are_refused(consumer: Schema) -> None:
    one = application(consumer, "a")
    source = next(iter(consumer.sources.values()))
    wide = Profile(source.name, 1, np.zeros(len(source.features) + 1, dtype=np.float32))
    table = ProfileTable({int(one.tokens[source.slot]): {source.name: wide}})
    with pytest.raises(ValueError, match=f"profiles of {source.name}"):
        table.of(consumer, one.tokens[None, :])
    assert not ProfileTable({}).of(consumer, one.tokens[None, :]).fetched_at_ms.any()
