"""Training: rows of a history become a bundle, trees for every label and a graph network for fraud.

What the bundle is worth is told by a test part, which chose nothing: the same recipe (models/recipe.py) is carried out
on the rows before it and scores it. The bundle itself then learns from all rows.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.replay import Rows
from models import export
from models.bundle import ResidualModel
from models.evaluate import intervals, metrics
from models.folds import TrainingError, cut_ms
from models.recipe import TrainConfig, Trained, known_rows, train_label
from models.report import LabelTrial, Sample, card_lines, render
from models.scorer import LabelScorer, in_parts
from models.tables import Say, silent

Ints = NDArray[np.int64]


def train(
    rows: Rows, out: Path, config: TrainConfig | None = None, *, command: str = "", progress: Say = silent,
    residual: ResidualModel | None = None,
) -> Path:  # fmt: skip
    """Train every label of the schema on its rows with a known label into the bundle folder `out`, which is returned.

    `command` is what reproduces the bundle, for its card. `progress` is told each step. Raises TrainingError, and
    BundleError if `out` exists and is no bundle.
    """
    config = config or TrainConfig()
    export.check_place(out)
    models, findings = {}, {}
    for label in rows.labels:
        trained = train_label(rows, label, config, progress)
        models[label], findings[label] = trained.model, dict(trained.findings)
    training: dict[str, Any] = {
        "split": config.split, "from_ms": int(rows.event_time_ms[0]), "fit_until_ms": cut_ms(rows, config.fit_share),
        "until_ms": int(rows.event_time_ms[-1]), "rows": len(rows.snapshot), "fit_share": config.fit_share,
        "test_share": config.test_share, "search_seconds": config.search_seconds, "seed": config.seed,
        "command": command,
    }  # fmt: skip
    trials = trial(rows, config, progress) if config.test_share else {}
    for label, one in trials.items():
        findings[label]["test"] = _test_figures(one)
    notes = {label: card_lines(rows.schema, one) for label, one in trials.items()}
    page = (
        render(rows.schema, training, list(trials.values()), residual.figures if residual else None) if trials else ""
    )
    return export.write(out, rows.schema, models, training, findings, residual, notes, page)


def trial(rows: Rows, config: TrainConfig, progress: Say = silent) -> dict[str, LabelTrial]:
    """By label, the recipe carried out on the rows before the test part and what it says of that part.

    By time, rows that are not mature when the test part starts are not learned from, as then they could not be; labels
    reported later of those that are mature still count. A label without bad or good rows on either side has no trial.
    """
    before, later = held_out(rows, config)
    earlier, trials = rows.take(before), {}
    if config.split == "time":
        earlier = replace(earlier, ended_ms=int(rows.event_time_ms[later[0]]))
    for label in rows.labels:
        test = np.intersect1d(known_rows(rows, label), later)
        try:
            trained = train_label(earlier, label, config, lambda s: progress(f"trial: {s}"), ablate=True)
        except TrainingError as error:
            progress(f"no trial of {label}: {error}")
            continue
        if len(np.unique(rows.labels[label][test])) == 2:
            trials[label] = _label_trial(earlier, rows, label, trained, test)
        else:
            progress(f"no trial of {label}: its test part has no bad or no good rows")
    return trials


def held_out(rows: Rows, config: TrainConfig) -> tuple[Ints, Ints]:
    """int64 rows before the test part, and in it: by time the latest, else drawn by outcome. Raises TrainingError."""
    if config.split == "time":
        later = rows.event_time_ms >= cut_ms(rows, 1 - config.test_share)
    else:
        later = np.zeros(len(rows.snapshot), dtype=np.bool_)
        kinds = np.unique(np.stack(list(rows.labels.values())), axis=1, return_inverse=True)[1]
        for kind in np.unique(kinds):  # as many of each kind of outcome as its share
            drawn = np.random.default_rng(config.seed).permutation(np.flatnonzero(kinds == kind))
            later[drawn[: round(config.test_share * len(drawn))]] = True
    if later.all() or not later.any():
        raise TrainingError(f"a test part of {config.test_share:.0%} leaves no row on one side")
    return np.flatnonzero(~later), np.flatnonzero(later)


def _label_trial(earlier: Rows, rows: Rows, label: str, trained: Trained, test: Ints) -> LabelTrial:
    scorers = {name: LabelScorer(model, rows.schema.columns(label)) for name, model in trained.variants.items()}
    validated, tested = earlier.snapshot.take(trained.stack), rows.snapshot.take(test)
    return LabelTrial(
        label, trained.chosen, scorers[trained.chosen], earlier.snapshot.features[trained.learned],
        Sample(earlier.labels[label][trained.stack], earlier.event_time_ms[trained.stack], validated,
               trained.validation),
        Sample(rows.labels[label][test], rows.event_time_ms[test], tested,
               {name: in_parts(scorer.score, tested) for name, scorer in scorers.items()}),
    )  # fmt: skip


def _test_figures(one: LabelTrial) -> dict[str, Any]:
    """Figures of the test part by variant, with 95 % intervals of those the trial chose."""
    labels, probability = one.test.labels, one.test.probability
    return {
        "chosen": one.chosen, "metrics": {name: metrics(labels, given) for name, given in probability.items()},
        "intervals": {name: list(bounds) for name, bounds in intervals(labels, probability[one.chosen]).items()},
    }  # fmt: skip
