"""How well the five kinds of fraud of the world are found, by what the models may look at, and how soon.

The recipe of training is carried out on the earlier part of a world and scores the later part, all applications of
which are judged by what they really are. A ring counts where all its members apply in the later part; its delay is how
many of them pass before the first is stopped.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench import history, rings, world
from bench.world import Truth
from features.replay import Rows
from models.bundle import DEEP
from models.evaluate import metrics
from models.recipe import AGGREGATES, NETWORK, TrainConfig, known_rows, train_label
from models.scorer import LabelScorer, in_parts
from models.train import held_out

CONFIG = TrainConfig(test_share=0.25, search_seconds=0)
FALSE_ALARMS = 0.01  # share of honest validation rows that the cut-off stops
DEEP_NETWORK = "trees + aggregates + deep GNN"
RESAMPLES = 200
KINDS = (rings.DEVICE_FARM, rings.SHARED_CONTACTS, rings.COLLUSION, rings.IDENTITY_MIXING, rings.SHELL_COMPANIES)

Doubles = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Judged:
    """Later applications of one product: by variant, float64 [n] fraud probabilities and the cut-off.

    chosen: the variant that a bundle takes. default: labels int8 [m] and probabilities float64 [m] of default.
    """

    truth: Sequence[Truth]
    times: NDArray[np.int64]
    probability: Mapping[str, Doubles]
    cutoff: Mapping[str, float]
    chosen: str
    default: tuple[NDArray[np.int8], Doubles]


def run(seed: int, applications: int, deep: bool = False) -> dict[str, object]:
    """Figures of the last line: AUPRC by kind and variant, rings found and their delay, calibration of the bundle; with
    `deep`, by product whether the deep network beats the default one.
    """
    made = world.build(seed, applications)
    rows = history.rows(made, deep=deep)
    console = Console(width=120)
    with console.status("training") as status:
        judged = [_judge(rows[name], made.truth, deep, status.update) for name in history.SCHEMAS]
    variants = list(judged[0].probability)
    size_of = Counter(t.ring for t in made.truth.values())
    fraud = np.array([t.fraud for part in judged for t in part.truth], dtype=np.int8)
    default, of_default = (np.concatenate(some) for some in zip(*(part.default for part in judged), strict=True))
    figures: dict[str, object] = {
        "seed": seed, "applications": applications, "later": sum(len(part.truth) for part in judged),
        "auprc": {variant: _auprc_by_kind(judged, variant) for variant in variants},
        "rings": {variant: _rings(judged, variant, size_of) for variant in variants},
        "bundle": {name: part.chosen for name, part in zip(history.SCHEMAS, judged, strict=True)},
        "ece_fraud": round(metrics(fraud, np.concatenate([p.probability[p.chosen] for p in judged]))["ece"], 5),
        "ece_default": round(metrics(default, of_default)["ece"], 5),
    }  # fmt: skip
    if deep:
        contest = {name: _contest(part) for name, part in zip(history.SCHEMAS, judged, strict=True)}
        figures["deep"] = contest | {"all": _contest(*judged)}
    _show(console, figures)
    return figures


def _contest(*judged: Judged) -> dict[str, Any]:
    """AUPRC of the later part by either network with the trees, over all frauds, and whether the deep one's is more;
    its difference with a 95 % interval by the bootstrap, paired.
    """
    labels = np.array([t.fraud for part in judged for t in part.truth], dtype=np.int8)
    small, deep = (np.concatenate([part.probability[name] for part in judged]) for name in (NETWORK, DEEP_NETWORK))
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        some = rng.integers(0, len(labels), len(labels))
        drawn.append(metrics(labels[some], deep[some])["auprc"] - metrics(labels[some], small[some])["auprc"])
    figures = [metrics(labels, probability)["auprc"] for probability in (small, deep)]
    return {
        "gnn": round(figures[0], 4), "deep": round(figures[1], 4), "difference": round(figures[1] - figures[0], 4),
        "interval": [round(float(bound), 4) for bound in np.quantile(drawn, [0.025, 0.975])],
        "beats": figures[1] > figures[0],
    }  # fmt: skip


def _judge(rows: Rows, truth: Mapping[str, Truth], deep: bool, say: Say) -> Judged:
    before, later = held_out(rows, CONFIG)
    earlier, columns = rows.take(before), rows.schema.columns("fraud")
    trained = train_label(earlier, "fraud", CONFIG, say, ablate=True)
    honest = earlier.labels["fraud"][trained.stack] == 0
    snapshot = rows.snapshot.take(later)
    probability = {
        name: in_parts(LabelScorer(model, columns).score, snapshot) for name, model in trained.variants.items()
    }
    cutoff = {name: float(np.quantile(p[honest], 1 - FALSE_ALARMS)) for name, p in trained.validation.items()}
    probability.setdefault(NETWORK, probability[AGGREGATES])  # a network that cannot join the trees changes nothing
    cutoff.setdefault(NETWORK, cutoff[AGGREGATES])
    if deep:
        big = train_label(earlier, "fraud", replace(CONFIG, network=DEEP), say)
        name = NETWORK if NETWORK in big.variants else AGGREGATES
        probability[DEEP_NETWORK] = in_parts(LabelScorer(big.variants[name], columns).score, snapshot)
        cutoff[DEEP_NETWORK] = float(np.quantile(big.validation[name][honest], 1 - FALSE_ALARMS))
    default = train_label(earlier, "default", CONFIG, say).model
    test = np.intersect1d(later, known_rows(rows, "default"))
    scorer = LabelScorer(default, rows.schema.columns("default"))
    return Judged(
        [truth[rows.application_ids[i]] for i in later], rows.event_time_ms[later], probability, cutoff,
        trained.chosen, (rows.labels["default"][test], in_parts(scorer.score, rows.snapshot.take(test))),
    )  # fmt: skip


def _auprc_by_kind(judged: Sequence[Judged], variant: str) -> dict[str, float]:
    """AUPRC of the frauds of a kind among all that are honest, and of all frauds."""
    kinds = np.array([t.fraud_kind for part in judged for t in part.truth])
    probability = np.concatenate([part.probability[variant] for part in judged])
    found = {}
    for kind in KINDS:
        asked = (kinds == "") | (kinds == kind)
        found[kind] = round(metrics((kinds[asked] == kind).astype(np.int8), probability[asked])["auprc"], 4)
    return found | {"all": round(metrics((kinds != "").astype(np.int8), probability)["auprc"], 4)}


def _rings(judged: Sequence[Judged], variant: str, size_of: Mapping[int, int]) -> dict[str, float]:
    """Rings, how many have a member stopped, and how many members pass before, of the found and of all."""
    members: dict[int, list[tuple[int, bool]]] = {}
    for part in judged:
        stopped = part.probability[variant] >= part.cutoff[variant]
        for truth, time_ms, stop in zip(part.truth, part.times.tolist(), stopped.tolist(), strict=True):
            if truth.fraud:
                members.setdefault(truth.ring, []).append((time_ms, stop))
    passed, found = [], 0
    for ring, some in members.items():
        if len(some) == size_of[ring]:
            stops = [stop for _, stop in sorted(some)]
            passed.append(stops.index(True) if any(stops) else len(stops))
            found += any(stops)
    return {
        "rings": len(passed), "found": found, "passed_mean": round(float(np.mean(passed)), 2),
        "passed_median": float(np.median(passed)), "members_mean": round(
            float(np.mean([size_of[ring] for ring, some in members.items() if len(some) == size_of[ring]])), 1),
    }  # fmt: skip


def _show(console: Console, figures: Mapping[str, Any]) -> None:
    printed = Table("", *figures["auprc"])
    for kind in (*KINDS, "all"):
        printed.add_row(f"AUPRC {kind}", *(f"{some[kind]:.3f}" for some in figures["auprc"].values()))
    for name in ("rings", "found", "passed_mean", "passed_median", "members_mean"):
        printed.add_row(name, *(f"{some[name]:g}" for some in figures["rings"].values()))
    console.print(printed)
