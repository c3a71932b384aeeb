"""A float32 becomes the decimal that was meant: limits are written in decimals."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.inputs import decimal


@settings(max_examples=300, deadline=None)
@given(numbers=st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_decimals_of_any_float32_are_as_it_is_written(numbers: list[float]) -> None:
    of = np.array(numbers, dtype=np.float32)
    want = np.array([float(str(number)) for number in of])
    assert np.array_equal(decimal(of), want, equal_nan=True)


def test_decimals_of_every_size_and_edge() -> None:
    rng = np.random.default_rng(3)
    powers = np.ldexp(1.0, np.arange(-149, 128)).astype(np.float32)
    edges = np.concatenate([powers, np.nextafter(powers, np.float32(0)), np.nextafter(powers, np.float32(1e30))])
    written = (rng.integers(0, 10**7, 20_000) / 10.0 ** rng.integers(0, 8, 20_000)).astype(np.float32)
    any_bits = rng.integers(0, 2**32, size=20_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    for numbers in (edges, written, any_bits[np.isfinite(any_bits)]):
        for signed in (numbers, -numbers):
            assert np.array_equal(decimal(signed), np.array([float(str(number)) for number in signed]))
    assert decimal(np.array([[0.7, 0.1], [np.nan, 3]], dtype=np.float32)).shape == (2, 2)
