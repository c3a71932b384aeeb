"""How the rows of one label are used: which fit, which stop and choose, which stack and calibrate.

Where a row's features count other rows, folds go forward in time: random ones would fit on the bursts they validate.
Elsewhere they are random, which keeps more rows to learn from, and a row calibrates by the margin of trees that had
not seen it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.replay import Rows
from features.schema import Schema
from models import calibrate
from models.search import Pair, forward_pairs, stratified_pairs

Ints = NDArray[np.int64]


class TrainingError(ValueError):
    """Rows that no model can be trained on; the message names the label and what is missing."""


@dataclass(frozen=True)
class Folds:
    """All int64 of the rows whose label is known.

    pairs: what the search fits and validates on. learned: what the trees are then fitted on, None where those of the
    folds vote. stop and stack are the same rows where too few are bad, which `split` says.
    """

    pairs: list[Pair]
    learned: Ints | None
    fit: Ints
    stop: Ints
    stack: Ints
    split: str
    learned_until_ms: int


def aggregate_columns(schema: Schema, label: str) -> NDArray[np.bool_]:
    """bool [n]: which of `schema.columns(label)` count other rows."""
    return schema.counting()[schema.columns(label)]


def cut_ms(rows: Rows, share: float) -> int:
    """The time before which that share of all rows lies."""
    return int(rows.event_time_ms[int(len(rows.snapshot) * share)])


def folds(rows: Rows, label: str, known: Ints, split: str, fit_share: float, seed: int) -> Folds:
    """The folds of the rows `known`. By time, `fit_share` of all rows, the earliest, fit. Raises TrainingError."""
    labels, times = rows.labels[label][known], rows.event_time_ms[known]
    end, every = int(rows.event_time_ms[-1]) + 1, np.arange(len(known))
    if split == "time" and aggregate_columns(rows.schema, label).any():
        return _forward(rows, label, known, fit_share)
    stack = np.flatnonzero(times >= cut_ms(rows, fit_share)) if split == "time" else every
    if not len(stack):
        raise TrainingError(f"label {label}: no row after {fit_share:.0%} of all has it: nothing to calibrate on")
    pairs, how = stratified_pairs(labels, seed), "each scored by trees of random folds that had not seen it"
    return Folds(pairs, None, every, every, stack, how, end)


def _forward(rows: Rows, label: str, known: Ints, fit_share: float) -> Folds:
    """Rows after `fit_share` of all are halved by time unless too few bad ones would be left in a half."""
    labels, times = rows.labels[label][known], rows.event_time_ms[known]
    cut, end = cut_ms(rows, fit_share), int(rows.event_time_ms[-1]) + 1
    validation = times[times >= cut]
    middle = int(validation[len(validation) // 2]) if len(validation) else end  # rows of one instant stay together
    halves = [int(labels[part].sum()) for part in ((times >= cut) & (times < middle), times >= middle)]
    needed, split = calibrate.STACK_MIN_POSITIVES, "halved by time"
    stop_until = stack_from = middle
    if min(halves) < needed:
        split = f"whole, as its halves have {halves[0]} and {halves[1]} bad rows where {needed} are needed"
        stop_until, stack_from = end, cut
    earlier = [cut_ms(rows, 2 * fit_share - 1)] if fit_share > 0.5 else []
    pairs = forward_pairs(labels, times, (*earlier, cut, stop_until))
    if not pairs:
        raise TrainingError(f"label {label}: needs bad and good rows both before and after {fit_share:.0%} of them")
    learned, stack = np.flatnonzero(times < stack_from), np.flatnonzero(times >= stack_from)
    return Folds(pairs, learned, *pairs[-1], stack, split, stack_from)
