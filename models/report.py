"""The validation report of a training: one HTML file that needs nothing else (SR 11-7 outcomes analysis; R18).

What is shown is computed here and in evaluate, stability, behaviour and fairness, drawn by plots, and laid out by
report.html.j2. The same rows give the same bytes. Training only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from features.application import Snapshot
from features.schema import Schema
from models import behaviour, fairness, plots, stability, verdict
from models.behaviour import Influence, Sweep
from models.conformal import QUANTILES
from models.evaluate import Band, Ranking, auc, gains, intervals, paired_difference, psi, psi_by_chance, span
from models.fairness import Group
from models.scorer import LabelScorer
from models.stability import Period

FIGURES = {
    "auc": "AUC", "gini": "Gini", "auprc": "AUPRC", "ks": "KS", "recall_at_fpr_0.01": "recall at 1 % FPR",
    "recall_at_fpr_0.05": "recall at 5 % FPR", "brier": "Brier", "ece": "ECE",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """N rows with a known label, scored: labels int8 [N] 1 bad and 0 good, time_ms int64 [N].

    probability: float64 [N] by the name of a variant, from the simplest.
    """

    labels: NDArray[np.int8]
    time_ms: NDArray[np.int64]
    snapshot: Snapshot
    probability: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class LabelTrial:
    """The recipe carried out for a label on the rows before a test part, and the rows that judge it.

    chosen: the variant that it chose; scorer: its model, which is not the bundle's, as that learned from all rows.
    learned: float32 [M, F] feature rows learned from. validation: rows that chose and calibrated; test: rows that did
    neither, some bad and some good.
    """

    label: str
    chosen: str
    scorer: LabelScorer
    learned: NDArray[np.float32]
    validation: Sample
    test: Sample

    @property
    def samples(self) -> dict[str, Sample]:
        """By name."""
        return {"validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class Scored:
    """Figures of one variant on one sample, by the keys of FIGURES, with their 95 % intervals."""

    sample: str
    variant: str
    values: Mapping[str, float]
    spans: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Findings:
    """All that the page says of a label.

    differences: of each variant, than which, its AUC less that one's, and the interval. missing: share of empty values
    by feature, learned from and judged. entities: share of the judged rows that name it, and that meet earlier rows by
    it. drift: PSI of each feature from the rows learned from, chance: what equal rows would have. score_psi: from
    validation to test rows.
    """

    trial: LabelTrial
    scored: list[Scored]
    differences: list[tuple[str, str, float, tuple[float, float]]]
    bands: list[Band]
    missing: dict[str, tuple[float, float]]
    entities: dict[str, tuple[float, float]]
    drift: dict[str, float]
    chance: float
    score_psi: float
    periods: list[Period]
    sweeps: list[Sweep]
    influences: list[Influence]
    groups: dict[str, list[Group]]

    def of(self, sample: str) -> Scored:
        """The figures of the chosen variant."""
        return next(s for s in self.scored if (s.sample, s.variant) == (sample, self.trial.chosen))


def render(
    schema: Schema, training: Mapping[str, Any], trials: Sequence[LabelTrial], cars: Mapping[str, Any] | None = None
) -> str:
    """The page. training: as in the bundle's manifest; cars: figures of a residual-value model.

    Raises KeyError if a sample lacks the chosen variant.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "number": _number, "span": _span, "date": _date}
    labels = []
    for trial in trials:
        found = findings(schema, trial)
        labels.append({"found": found, "checks": verdict.checks(found), "plots": _plots(found)})
    return environment.get_template("report.html.j2").render(
        schema=schema, training=training, labels=labels, names=FIGURES, fairness=fairness, stability=stability,
        timed=_timed(schema), cars=cars, quantiles=[round(100 * q) for q in QUANTILES],
    )  # fmt: skip


def card_lines(schema: Schema, trial: LabelTrial) -> list[str]:
    """Lines of the model card, Markdown: the chosen variant on the test rows, and fairness."""
    scored = _scored("test", trial.chosen, trial.test)
    lines = [
        f"Test rows: {len(trial.test.labels)}, {int(trial.test.labels.sum())} bad, by {trial.chosen} of the trial.", "",
        "| figure | test | 95 % interval |", "|---|---|---|",
        *(f"| {FIGURES[key]} | {value:.4g} | {scored.spans[key][0]:.4g} to {scored.spans[key][1]:.4g} |"
          for key, value in scored.values.items()),
    ]  # fmt: skip
    groups = _groups(schema, trial)
    if not groups:
        return [*lines, "", "Fairness is not measured: the schema declares no groups."]
    lines += [
        "", f"Fairness at the cut-off that stops {fairness.STOPPED_GOOD_RATE:.0%} of good validation rows:", "",
        "| feature | group | rows | bad | approved | to the largest group | good declined |", f"|{'---|' * 7}",
    ]  # fmt: skip
    for feature, parts in groups.items():
        for g in parts:
            shown = f"{_percent(g.approval_rate)} | {g.approval_ratio:.2f} | {_percent(g.false_decline_rate)}"
            lines.append(
                f"| {feature} | {g.name} | {g.rows} | {g.bad} | {'too small to judge | | ' if g.too_small else shown} |"
            )
    return lines


def findings(schema: Schema, trial: LabelTrial) -> Findings:
    """All figures of a label. Raises KeyError if a sample lacks the chosen variant."""
    columns, judge = schema.columns(trial.label), trial.test
    chosen = [sample.probability[trial.chosen] for sample in trial.samples.values()]
    labels, times = (np.concatenate([getattr(s, k) for s in trial.samples.values()]) for k in ("labels", "time_ms"))
    return Findings(
        trial,
        [_scored(name, variant, s) for name, s in trial.samples.items() for variant in s.probability],
        _differences(judge),
        gains(judge.labels, judge.probability[trial.chosen]),
        _missing(schema, columns, trial.learned, judge.snapshot.features),
        _entities(schema, judge.snapshot),
        stability.drift(schema, columns, trial.learned, judge.snapshot.features),
        psi_by_chance(len(trial.learned), len(judge.labels)),
        psi(*chosen),
        stability.periods(times, labels, np.concatenate(chosen)) if _timed(schema) else [],
        behaviour.sweeps(schema, trial.label, trial.scorer, judge.snapshot, trial.learned),
        behaviour.influences(schema, columns, trial.scorer, judge.snapshot),
        _groups(schema, trial),
    )


def _timed(schema: Schema) -> bool:
    """False for a flat table without a time: the times of its rows are their places in the file."""
    return schema.table is None or bool(schema.table.time)


def _plots(found: Findings) -> dict[str, Markup]:
    trial, judge = found.trial, found.trial.test
    chosen = {name: (s.labels, s.probability[trial.chosen]) for name, s in trial.samples.items()}
    drawn = {
        "ranking": plots.ranking({name: (judge.labels, p) for name, p in judge.probability.items()}),
        "probabilities": plots.probabilities(chosen, (judge.labels, judge.probability[trial.chosen])),
        "influences": plots.influences(found.influences),
    }
    if found.periods:
        drawn["stability"] = plots.stability(found.periods)
    return {name: Markup(svg) for name, svg in drawn.items()}


def _scored(name: str, variant: str, sample: Sample) -> Scored:
    probability = sample.probability[variant]
    values, spans = Ranking(sample.labels, probability).figures(), intervals(sample.labels, probability)
    return Scored(name, variant, {key: values[key] for key in FIGURES}, spans)


def _differences(judge: Sample) -> list[tuple[str, str, float, tuple[float, float]]]:
    found = []
    for (simple, before), (name, after) in pairwise(judge.probability.items()):
        drawn = paired_difference(judge.labels, after, before, np.random.default_rng(0))
        gain = auc(judge.labels, after) - auc(judge.labels, before)
        found.append((name, simple, gain, span(drawn)))
    return found


def _missing(
    schema: Schema, columns: NDArray[np.int64], learned: NDArray[np.float32], judged: NDArray[np.float32]
) -> dict[str, tuple[float, float]]:
    """Features of which some value is missing, the emptiest first."""
    shares = {
        schema.feature_names[i]: (float(np.isnan(learned[:, i]).mean()), float(np.isnan(judged[:, i]).mean()))
        for i in columns
    }
    return dict(sorted(((name, pair) for name, pair in shares.items() if any(pair)), key=lambda item: -item[1][1]))


def _entities(schema: Schema, rows: Snapshot) -> dict[str, tuple[float, float]]:
    """Empty where nothing ties rows together."""
    found = {}
    for entity in schema.entities.values():
        slots = slice(entity.first_slot, entity.first_slot + entity.slots)
        named = ~np.isnan(rows.entity_state[:, slots]).all(axis=(1, 2))
        met = rows.neighbor_mask[:, slots].any(axis=(1, 2))
        found[entity.en] = float(named.mean()), float(met.mean())
    return found if rows.neighbor_mask.any() else {}


def _groups(schema: Schema, trial: LabelTrial) -> dict[str, list[Group]]:
    """Fairness on the test rows, at the cut-off of the validation."""
    cutoff = fairness.cut_off(trial.validation.labels, trial.validation.probability[trial.chosen])
    test = trial.test
    return fairness.compare(schema, test.snapshot.features, test.labels, test.probability[trial.chosen], cutoff)


def _percent(share: float, digits: int = 1) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f} %"


def _number(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _span(bounds: tuple[float, float]) -> str:
    return f"{_number(bounds[0])}–{_number(bounds[1])}"


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(int(time_ms) / 1000, UTC).date().isoformat()
