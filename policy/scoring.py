"""What another bundle says of the records. Policy knows no models: whoever calls gives the scores (policy.bundles)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.application import Snapshot
from policy.inputs import Known
from policy.records import Numbers, Part, Records
from policy.workers import Workers

SCORED = 2048  # rows in one call
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Of B rows, float64 [B], NaN where there is no model: as of policy.inputs.Known."""

    fraud_probability: Doubles
    default_probability: Doubles
    residual_low: Doubles


class Score(Protocol):
    """A bundle's scoring, which travels to other processes."""

    @property
    def version(self) -> str:
        """Of the bundle."""
        ...

    @property
    def alone(self) -> bool:
        """Whether one process alone may score by it."""
        ...

    def __call__(self, snapshot: Snapshot) -> Scored:
        """What it says of a snapshot of its schema."""
        ...


@dataclass(frozen=True)
class Task:
    """Rows of the records to score by a bundle."""

    score: Score
    rows: Numbers
    snapshot: Snapshot


def outdated(records: Records, scores: Mapping[str, Score]) -> list[Task]:
    """What the bundles of some schemas, by name, have to score: rows that a bundle of another version scored."""
    found: list[Task] = []
    for part, score in _scored_parts(records.parts, scores):
        others = np.array([records.bundle[row] != score.version for row in part.rows.tolist()], dtype=np.bool_)
        found += _tasks(part, score, np.flatnonzero(others))
    return found


def changed(before: Sequence[Part], after: Sequence[Part], scores: Mapping[str, Score]) -> list[Task]:
    """What they have to score of `after`: rows that are not as in `before`."""
    found: list[Task] = []
    for was, (part, score) in zip(before, _scored_parts(after, scores), strict=True):
        differs = _differs(was.snapshot.features, part.snapshot.features)
        if part.snapshot.neighbor_state is not was.snapshot.neighbor_state:
            differs |= _differs(was.snapshot.neighbor_state, part.snapshot.neighbor_state)
        found += _tasks(part, score, np.flatnonzero(differs))
    return found


def known_by(
    known: Known, tasks: Sequence[Task], workers: Workers, progress: Callable[[int], None] = lambda done: None
) -> Known:
    """What is known once the tasks are scored; `progress` is told how many rows are."""
    known = replace(known, **{f.name: getattr(known, f.name).copy() for f in fields(Scored)})
    if any(task.score.alone for task in tasks):
        workers = Workers()
    for task, found in workers.run(scored, tasks):
        for field in fields(Scored):
            getattr(known, field.name)[task.rows] = getattr(found, field.name)
        progress(len(task.rows))
    return known


def scored(task: Task) -> Scored:
    """What the bundle says of a task's rows."""
    return task.score(task.snapshot)


def _scored_parts(parts: Sequence[Part], scores: Mapping[str, Score]) -> list[tuple[Part, Score]]:
    return [(part, scores[part.schema.name]) for part in parts if part.schema.name in scores]


def _tasks(part: Part, score: Score, places: Numbers) -> Iterator[Task]:
    for start in range(0, len(places), SCORED):
        some = places[start : start + SCORED]
        yield Task(score, part.rows[some], part.snapshot.take(some))


def _differs(was: NDArray[np.float32], now: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [B]: rows of which a number differs, missing or not."""
    apart = (was != now) & ~(np.isnan(was) & np.isnan(now))
    return np.asarray(apart.reshape(len(was), -1).any(axis=1))
