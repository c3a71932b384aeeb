"""Sets of numbers as closed intervals, sorted and apart: what a cell holds for.

An open end is the next double inside, so `> 5` is exactly the closed interval from the double after 5, and membership
needs nothing but two comparisons. NaN, which is missing, is in none.
"""

import math

Spans = tuple[tuple[float, float], ...]

EVERY: Spans = ((-math.inf, math.inf),)
NONE: Spans = ()


def point(number: float) -> Spans:
    """One number alone."""
    return ((number, number),)


def from_to(low: float, high: float, with_low: bool, with_high: bool) -> Spans:
    """An interval; none where nothing lies between."""
    start = low if with_low else math.nextafter(low, math.inf)
    end = high if with_high else math.nextafter(high, -math.inf)
    return ((start, end),) if start <= end else NONE


def either(*sets: Spans) -> Spans:
    """Their union."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted(span for spans in sets for span in spans):
        if merged and low <= math.nextafter(merged[-1][1], math.inf):
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def but(spans: Spans) -> Spans:
    """All other numbers."""
    gaps, start = [], -math.inf
    for low, high in spans:
        if low > start:
            gaps.append((start, math.nextafter(low, -math.inf)))
        if high == math.inf:
            return tuple(gaps)
        start = math.nextafter(high, math.inf)
    return (*gaps, (start, math.inf))


def both(*sets: Spans) -> Spans:
    """Their intersection."""
    return but(either(*(but(spans) for spans in sets)))
