"""Champion against challenger on the same rows: figures of both, and whom a change of models would swap (R18).

Rows come from a table, from the service's archive, or are those on which a challenger was recorded beside the champion
in service. Both stop the same share of the rows, their worst, so that bad rates compare at equal approval. Bad rates
are of the rows whose label is known; the difference of AUC carries its 95 % interval by paired bootstrap.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features import archive, table
from features.archive import ArchiveError
from features.events import LABELS
from features.replay import Rows
from models.bundle import Bundle, BundleError
from models.evaluate import Labels, Probability, metrics, paired_difference, psi, span
from models.history_scorer import HistoryScorer
from models.tables import Say, replayed, silent

STOPPED_SHARE = 0.1
RESAMPLES = 1000
FIGURES = ("auc", "auprc", "ks", "brier", "ece")


@dataclass(frozen=True)
class Side:
    """One of the two models. probability: float64 [N] by label; learned_ms: first and last time that it trained on.

    None where that cannot be told: rows have no time, or scores were recorded.
    """

    version: str
    probability: Mapping[str, Probability]
    learned_ms: tuple[int, int] | None = None


@dataclass(frozen=True)
class Contest:
    """Both models on the same N rows. labels: int8 [N] by label, -1 unknown; time_ms: int64 [N]."""

    champion: Side
    challenger: Side
    labels: Mapping[str, Labels]
    time_ms: NDArray[np.int64]


def on_table(
    champion: Bundle, challenger: Bundle, data: Path, history: Path | None = None, *,
    label_delay_rows: int, warn: Say = silent, progress: Say = silent,
) -> Contest:  # fmt: skip
    """Both on the rows of a file, each by its own schema; `history`: earlier rows that warm the graph.

    Raises BundleError where they are of other labels, or their schemas read the file as other rows.
    """

    def read(bundle: Bundle) -> Rows:
        past = table.read(bundle.schema, history, warn=warn) if history else []
        every = table.merged(past, table.read(bundle.schema, data, warn=warn))
        rows = replayed(bundle.schema, every, label_delay_rows, settled=True, progress=progress, deep=deep)
        return rows.take(np.array([i for i, row in enumerate(every) if not row.past], dtype=np.int64))

    _same_labels(champion, challenger)
    deep = champion.deep or challenger.deep
    first = read(champion)
    second = first if _same_schema(champion, challenger) else read(challenger)
    timed = champion.schema.table is not None and bool(champion.schema.table.time)
    if not timed:
        warn(no_time(data))
    return _contest(champion, challenger, first, second, timed)


def no_time(data: Path) -> str:
    """A warning of a table without time."""
    return f"{data}: has no time: whether a bundle learned from its rows cannot be told, and figures on those flatter"


def on_archive(
    champion: Bundle, challenger: Bundle, folder: Path, *, warn: Say = silent, progress: Say = silent
) -> Contest:
    """Both on the archived decisions of their schema. Raises ArchiveError; BundleError where schemas differ in name."""
    _same_labels(champion, challenger)
    names = champion.schema.name, challenger.schema.name
    if names[0] != names[1]:
        raise BundleError(f"bundle {champion.version} is of schema {names[0]}, {challenger.version} of {names[1]}")
    progress(f"replay of the archive {folder.name}")
    deep = champion.deep or challenger.deep
    first = archive.rows(folder, champion.schema, warn=warn, deep=deep)
    same = _same_schema(champion, challenger)
    second = first if same else archive.rows(folder, challenger.schema, warn=warn, deep=deep)
    return _contest(champion, challenger, first, second, True)


def recorded(folder: Path) -> list[Contest]:
    """Each champion with each challenger that scored beside it in service, as recorded. Raises ArchiveError."""
    found = archive.recorded(folder).filter(pl.col("challengers").list.len() > 0)
    if not len(found):
        raise ArchiveError(f"{folder}: holds no scores of a challenger")
    contests = []
    pairs = found.explode("challengers").unnest("challengers").group_by("bundle", "version", maintain_order=True)
    for (bundle, version), rows in pairs:
        sides = [
            Side(str(name), {label: rows[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for label, c in of.items()})
            for name, of in (
                (bundle, {label: f"{label}_probability" for label in LABELS}),
                (version, {label: label for label in LABELS}),
            )
        ]
        labels = {label: rows[f"{label}_label"].to_numpy() for label in LABELS}
        contests.append(Contest(sides[0], sides[1], labels, rows["time_ms"].to_numpy()))
    return contests


def comparison(contest: Contest, stopped_share: float = STOPPED_SHARE) -> dict[str, Any]:
    """All figures of a contest, as JSON has them: None where there is none."""
    labels = {}
    for label, known in contest.labels.items():
        first, second = contest.champion.probability[label], contest.challenger.probability[label]
        both = ~(np.isnan(first) | np.isnan(second))
        if both.any():
            labels[label] = _label(known[both], first[both], second[both], stopped_share)
    sides = {
        name: {"version": side.version, "rows_learned_from": _learned(side, contest)}
        for name, side in (("champion", contest.champion), ("challenger", contest.challenger))
    }
    return {"rows": len(contest.time_ms), "stopped_share": stopped_share, **sides, "labels": labels}


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What flatters a side of a comparison."""
    return [
        f"{found[name]['rows_learned_from']} of {found['rows']} rows lie in the training window of the {name} "
        f"{found[name]['version']}: figures on rows learned from flatter"
        for name in ("champion", "challenger")
        if found[name]["rows_learned_from"]
    ]


def _learned(side: Side, contest: Contest) -> int | None:
    """How many rows lie in the training window of a side: a figure on them flatters it."""
    if side.learned_ms is None:
        return None
    return int(np.sum((contest.time_ms >= side.learned_ms[0]) & (contest.time_ms <= side.learned_ms[1])))


def _label(labels: Labels, champion: Probability, challenger: Probability, share: float) -> dict[str, Any]:
    known = labels >= 0
    truth, scores = labels[known], {"champion": champion, "challenger": challenger}
    figures = {name: metrics(truth, probability[known]) for name, probability in scores.items()}
    stopped = {name: _stopped(probability, share) for name, probability in scores.items()}
    low, high = math.nan, math.nan
    if not math.isnan(figures["champion"]["auc"]):
        drawn = paired_difference(truth, challenger[known], champion[known], np.random.default_rng(0), RESAMPLES)
        low, high = span(drawn)
    return {
        "rows": len(labels), "known": len(truth), "bad": int(truth.sum()),
        **{
            name: {f: _number(figures[name][f]) for f in FIGURES} | {"approved": _group(labels[~stopped[name]])}
            for name in scores
        },
        "auc_difference": {
            "challenger_less_champion": _number(figures["challenger"]["auc"] - figures["champion"]["auc"]),
            "low": _number(low), "high": _number(high),
        },
        "swap_in": _group(labels[stopped["champion"] & ~stopped["challenger"]]),
        "swap_out": _group(labels[stopped["challenger"] & ~stopped["champion"]]),
        "psi": _number(psi(champion, challenger)),
    }  # fmt: skip


def _stopped(probability: Probability, share: float) -> NDArray[np.bool_]:
    """bool [N]: the worst `share` of the rows; of equal probability the first."""
    mask = np.zeros(len(probability), dtype=np.bool_)
    mask[np.argsort(-probability, kind="stable")[: round(share * len(probability))]] = True
    return mask


def _group(labels: Labels) -> dict[str, Any]:
    known = labels[labels >= 0]
    return {"rows": len(labels), "known": len(known), "bad_rate": _number(known.mean() if len(known) else math.nan)}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _same_labels(champion: Bundle, challenger: Bundle) -> None:
    labels = [", ".join(sorted(bundle.models)) for bundle in (champion, challenger)]
    if labels[0] != labels[1]:
        raise BundleError(f"bundle {champion.version} is of {labels[0]}, {challenger.version} of {labels[1]}")


def _same_schema(champion: Bundle, challenger: Bundle) -> bool:
    return champion.schema.hash == challenger.schema.hash


def _contest(champion: Bundle, challenger: Bundle, first: Rows, second: Rows, timed: bool) -> Contest:
    """The contest on rows that each read by its schema. Raises BundleError where they are not the same."""
    same = np.array_equal(first.event_time_ms, second.event_time_ms) and all(
        np.array_equal(known, second.labels[label]) for label, known in first.labels.items()
    )
    if not same:
        raise BundleError(f"the schemas of {champion.version} and {challenger.version} read other rows or labels")
    sides = []
    for bundle, rows in ((champion, first), (challenger, second)):
        scorer, window = HistoryScorer(bundle), bundle.manifest["training"]
        probability = {label: scorer.probability(rows.snapshot, label) for label in bundle.models}
        sides.append(Side(bundle.version, probability, (window["from_ms"], window["until_ms"]) if timed else None))
    return Contest(sides[0], sides[1], first.labels, first.event_time_ms)
