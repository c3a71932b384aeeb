"""Growing changes nothing: not while a hash moves, not while somebody still looks at the memory that grows."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.events import APPLICATION, EVENT, EVENT_VERSION, Events
from features.graph import EntityGraph
from features.graph_kernels import NODE, PLACE, ROW
from features.graph_memory import Rows
from features.lists import Lists
from features.rebuild import record
from features.schema import SLOTS_MAX
from tests.test_graph import cut

SENT = 20_000


@pytest.fixture(scope="module")
def events() -> Events:
    """Applications that name more entities than there is room for at first, some of them again and again."""
    rng = np.random.default_rng(3)
    fields = np.zeros(SENT, dtype=EVENT)
    fields["version"], fields["kind"], fields["sequence"] = EVENT_VERSION, APPLICATION, np.arange(1, SENT + 1)
    fields["amount"] = rng.random(SENT)
    fields["tokens"] = rng.integers(1, 400_000, (SENT, SLOTS_MAX), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return Events(fields, np.arange(SENT, dtype=np.int64) * 60_000)


def walked(events: Events, size: int, held: list[dict[str, NDArray[Any]]]) -> EntityGraph:
    """In batches; somebody holds the arrays of every tenth."""
    graph, lists = EntityGraph(), Lists()
    for start in range(0, SENT, size):
        record(graph, lists, cut(events, start, min(start + size, SENT)))
        if start // size % 10 == 0:
            held.append(graph.arrays())
    return graph


@pytest.mark.parametrize("size", [64, 1000])
def test_batches_while_it_grows(events: Events, size: int) -> None:
    held: list[dict[str, NDArray[Any]]] = []
    whole, batched = walked(events, SENT, []), walked(events, size, held)
    tokens, first = np.unique(events.fields["tokens"].ravel(), return_index=True)
    np.testing.assert_array_equal(whole.tokens(), tokens[np.argsort(first)])
    np.testing.assert_array_equal(batched.tokens(), whole.tokens())
    assert whole.nodes > 1 << 17  # it has grown
    for name, expected in whole.arrays().items():
        assert batched.arrays()[name].tobytes() == expected.tobytes(), name
    assert all(h["applications"]["amount"][0] == events.fields["amount"][0] for h in held)


def test_an_entity_takes_four_cache_lines() -> None:
    """What the documents say of memory: 256 bytes, and two to four places of the hash."""
    assert (NODE.itemsize, PLACE.itemsize, ROW.itemsize) == (256, 16, 192)
    assert NODE.itemsize + 4 * PLACE.itemsize <= 320


def test_rows_keep_what_they_hold() -> None:
    rows = Rows(np.dtype(np.int64), 1000)
    rows.array[:] = np.arange(1000)
    rows.grow(500_000)
    held = rows.array
    rows.grow(1_000_000)
    assert len(rows) == 1_000_000 and rows.array[:1000].tolist() == list(range(1000)) and not rows.array[1000:].any()
    held[0] = 7  # of the memory of before
    assert rows.array[0] == 0
