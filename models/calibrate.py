"""Stacking and calibration in one: a logistic regression on log-odds, of the trees alone or with the graph network.

With one input this is Platt scaling (Platt 1999) with his smoothed targets; with two, the continuous stacker, in which
a difference of 1e-7 between machines never crosses a split. A second calibration on the same rows would be the
identity, so there is none. Weights are positive: a monotone margin gives a monotone probability.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STACK_MIN_POSITIVES = 50  # bad rows to stack on below which the graph network is left out
PLATT_MIN_POSITIVES = 10  # below which the trees' margin is taken as it is
NEWTON_STEPS = 50

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """probability = 1 / (1 + exp(-(intercept + Σ weight · input))); inputs: trees' margin, then the GNN's logit.

    gnn_mean: mean of the GNN's logit over the rows it was fitted on, from where its reason counts; None without one.
    """

    intercept: float
    weights: tuple[float, ...]
    gnn_mean: float | None = None

    def probability(self, *inputs: Doubles) -> Doubles:
        """float64 [B] from as many float64 [B] log-odds as there are weights."""
        log_odds: Doubles = self.weights[0] * inputs[0]
        log_odds += self.intercept
        for weight, given in zip(self.weights[1:], inputs[1:], strict=True):
            log_odds += weight * given
        odds: Doubles = np.exp(log_odds)  # log-odds of trees and GNN stay far below exp's limit of 709
        return odds / (1.0 + odds)


IDENTITY = Calibration(0.0, (1.0,))


def fit(labels: NDArray[np.int8], *inputs: Doubles) -> Calibration | None:
    """The calibration of float64 [N] log-odds on labels of 0 and 1; None if an input's weight would not be positive."""
    bad = int(labels.sum())
    targets = np.where(labels == 1, (bad + 1) / (bad + 2), 1 / (len(labels) - bad + 2))
    design = np.column_stack([np.ones(len(labels)), *inputs])
    weights = np.zeros(design.shape[1])
    weights[1] = 1.0
    loss = _loss(design, targets, weights)
    for _ in range(NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-design @ weights))
        slope = design.T @ (chance - targets)
        curvature = (design.T * (chance * (1 - chance))) @ design + 1e-9 * np.eye(len(weights))
        step, size = np.linalg.solve(curvature, slope), 1.0
        while (new := _loss(design, targets, weights - size * step)) > loss and size > 1e-6:
            size /= 2  # a full Newton step can overshoot where the margins are extreme
        weights, gain, loss = weights - size * step, loss - new, new
        if gain < 1e-10 * abs(loss):
            break
    if not (weights[1:] > 0).all():
        return None
    return Calibration(float(weights[0]), tuple(float(w) for w in weights[1:]))


def _loss(design: Doubles, targets: Doubles, weights: Doubles) -> float:
    log_odds = design @ weights
    return float(np.sum(np.logaddexp(0.0, log_odds) - targets * log_odds))
