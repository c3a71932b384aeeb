"""A snapshot and the rest of the log are the whole log, bit for bit; what does not fit is never used (R11, R20)."""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import graph_snapshot
from features.events import EVENT, finish, pack_listing
from features.graph import EntityGraph
from features.graph_snapshot import MANIFEST, Manifest, SnapshotError, load, newest_first, write
from features.lists import Lists
from features.log import Place
from features.rebuild import record
from tests.test_graph import Item, applications, cut, links_for, own_of, reports
from tests.test_graph_forget import Forget, assert_same, log_of, requests
from tests.test_lists import ENTRY, Change, change

PLACE = Place("owner", "epoch", "5-0", 3, 0)


def walked(items: list[Item | Forget | Change], sizes: tuple[int, int]) -> tuple[EntityGraph, Lists]:
    """The state after the events from one to another, through a snapshot of the first where that is not 0."""
    events = log_of([Item(1, subject=0) if isinstance(i, Change) else i for i in items])
    for at, item in enumerate(items):
        if isinstance(item, Change):
            packed = pack_listing(ENTRY, item.kind, item.token, item.remove, item.shared, item.expires_after_ms)
            events.fields[at] = np.frombuffer(finish(packed, 0, at + 1), dtype=EVENT)[0]
    graph, lists = EntityGraph(), Lists()
    if sizes[0]:
        record(graph, lists, cut(events, 0, sizes[0]))
        with tempfile.TemporaryDirectory() as folder:
            written = write(Path(folder), replace(PLACE, sequence=sizes[0]), graph, lists)
            graph, lists = load(written, Manifest.read(written))
    record(graph, lists, cut(events, *sizes))
    return graph, lists


def assert_equal(found: tuple[EntityGraph, Lists], expected: tuple[EntityGraph, Lists]) -> None:
    assert (found[0].sequence, found[0].last_ms) == (expected[0].sequence, expected[0].last_ms)
    one, other = ({"tokens": g.tokens(), **g.arrays()} for g, _ in (found, expected))
    assert one.keys() == other.keys()
    for name in one:
        assert (one[name].dtype, one[name].shape) == (other[name].dtype, other[name].shape), name
        assert one[name].tobytes() == other[name].tobytes(), name
    assert found[1]._until == expected[1]._until


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_snapshot_and_tail_are_the_log(data: st.DataObject) -> None:
    items: list[Item | Forget | Change] = data.draw(
        st.lists(st.one_of(applications(), applications(), reports(), requests(), change), min_size=2, max_size=70)
    )
    taken = data.draw(st.integers(1, len(items)))
    found, whole = walked(items, (taken, len(items))), walked(items, (0, len(items)))
    assert_equal(found, whole)
    more = log_of([*(Item(1, subject=0) for _ in items), *data.draw(st.lists(applications(), min_size=1, max_size=9))])
    later = cut(more, len(items), len(more))
    views = [graph.observe(later, own_of(later), links_for(own_of(later))) for graph, _ in (found, whole)]
    assert_same(*views)


def test_growth_after_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of everything than there was room for, before and after."""
    monkeypatch.setattr("features.graph_memory.ROOM", (1024, 512, 1024))
    items: list[Item | Forget | Change] = [Item(1, (i, 3 * i, 7 * i, i % 50), float(i)) for i in range(1, 3000)]
    assert_equal(walked(items, (1500, len(items))), walked(items, (0, len(items))))


def test_a_file_of_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_snapshot, "PART_BYTES", 1000)
    monkeypatch.setattr(graph_snapshot, "_CHUNK_BYTES", 300)
    items: list[Item | Forget | Change] = [Item(1, (i % 7, i % 5, 1, 0), float(i)) for i in range(1, 60)]
    assert_equal(walked(items, (40, len(items))), walked(items, (0, len(items))))


@pytest.fixture
def held() -> tuple[EntityGraph, Lists]:
    items: list[Item | Forget | Change] = [Item(1, (1, 1, 1, 0), 5.0)]
    items += [Change("black", 9, False, shared, 0) for shared in (False, True)]
    return walked(items, (0, 3))


def test_what_is_damaged_is_refused(tmp_path: Path, held: tuple[EntityGraph, Lists]) -> None:
    for name in (*held[0].arrays(), *held[1].arrays(), "tokens"):
        written = write(tmp_path, PLACE, *held)
        whole = (written / name).read_bytes()
        for wrong in (whole[:-1], whole + b"\0", bytes([whole[0] ^ 1]) + whole[1:]):
            (written / name).write_bytes(wrong)
            with pytest.raises(SnapshotError, match=f"{name}: is not what"):
                load(written, Manifest.read(written))
        (written / name).unlink()
        with pytest.raises(SnapshotError, match=f"{name}: cannot be read"):
            load(written, Manifest.read(written))


def test_what_another_version_wrote_is_refused(
    tmp_path: Path, held: tuple[EntityGraph, Lists], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write(tmp_path, PLACE, *held)
    made = asdict(Manifest.read(written))
    for said in (made | {"format": 0}, made | {"code": "0"}):
        (written / MANIFEST).write_text(json.dumps(said))
        with pytest.raises(SnapshotError, match="another version"):
            Manifest.read(written)
    for text in ("{", "[]", json.dumps({**made, "place": {}}), json.dumps(made | {"more": 1})):
        (written / MANIFEST).write_text(text)
        with pytest.raises(SnapshotError, match="cannot be read"):
            Manifest.read(written)
    (written / MANIFEST).write_text(json.dumps(made | {"arrays": {}}))
    with pytest.raises(SnapshotError, match="other arrays"):
        load(written, Manifest.read(written))
    before = graph_snapshot.code()
    monkeypatch.setattr(graph_snapshot, "COUNTING", graph_snapshot.COUNTING[:-1])
    assert graph_snapshot.code() != before


def test_the_last_two_of_the_log_are_kept(tmp_path: Path, held: tuple[EntityGraph, Lists]) -> None:
    """Those of another log, of before `unlink` and of another version go as soon as there is one of now."""
    old = [write(tmp_path, other, *held) for other in (replace(PLACE, epoch="x"), replace(PLACE, owner="x"))]
    (tmp_path / ".new-dead").mkdir()
    first, second, third = (write(tmp_path, PLACE, *held) for _ in range(3))
    assert newest_first(tmp_path) == [third, second] and not any(path.exists() for path in (*old, first))
    assert newest_first(tmp_path) == [third, second]
    last = write(tmp_path, replace(PLACE, rewritten=3), *held)
    assert newest_first(tmp_path) == [last]
    assert (tmp_path / ".new-dead").exists()  # another writer may be at work


def test_a_tenant_is_a_folder_of_its_own() -> None:
    folders = [graph_snapshot.folder_of(Path("s"), name) for name in ("a", "a/b", "..", "", "a%2Fb")]
    assert len(set(folders)) == 5 and all(f.parent == Path("s") and f.name.startswith("tenant-") for f in folders)
