"""Applications as the log has them: what it lacks is empty, and nothing else is touched."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.consent import as_logged
from features.neighborhood import empty_view
from features.schema import SLOTS_MAX, Schema
from features.statistics import ENTITY_STATS
from tests.conftest import application

_COUNT_ALL = list(ENTITY_STATS).index("count_all")
bits = st.lists(st.booleans(), min_size=SLOTS_MAX, max_size=SLOTS_MAX)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(bits, bits, st.booleans()), min_size=1, max_size=4))
def test_tokens_are_those_of_the_log(consumer: Schema, every: list[tuple[list[bool], list[bool], bool]]) -> None:
    """Of each application: slots with a token, slots that the log has one in, and whether it has a row in the view."""
    view, given = empty_view(len(every), np.zeros(len(every), dtype=np.int64)), []
    rows = np.array([row if has_row else -1 for row, (_, _, has_row) in enumerate(every)])
    expected = []
    for row, (named, logged, has_row) in enumerate(every):
        tokens = np.where(named, np.arange(1, SLOTS_MAX + 1), 0).astype(np.uint64)
        given.append(application(consumer, str(row))._replace(tokens=tokens))
        view.entity_state[row, logged, _COUNT_ALL] = 0
        expected.append(np.where(logged, tokens, 0).tolist() if has_row else tokens.tolist())
    found = as_logged(given, view, rows)
    assert [a.tokens.tolist() for a in found] == expected
    assert (found is given) == all(a.tokens.tolist() == want for a, want in zip(given, expected, strict=True))
