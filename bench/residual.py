"""The residual-value model where the truth is known: trained on one seed's sales, then asked about another's cars."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import history, world
from bench.serving import SECRET
from features.replay import replay
from features.tokens import Tokenizer
from models import residual
from models.card import figure_words
from models.scorer import ResidualScorer

SALES_SEED, SALES = 21, 20_000
WORLD_SEED, APPLICATIONS = 22, 20_000


def run() -> dict[str, Any]:
    """Figures of the sales that test, and of applications' cars: how often the interval holds their true value."""
    of_product = history.schemas_by_product()
    model = residual.train(of_product["auto"], world.sales(SALES_SEED, SALES), SALES_SEED)
    made = world.build(WORLD_SEED, APPLICATIONS)
    rows = replay(history.history(made.events, (), of_product, Tokenizer(SECRET.encode())))["auto"]
    found = ResidualScorer(model, rows.schema).score(rows.snapshot)
    value = np.array([made.truth[application_id].vehicle_value for application_id in rows.application_ids])
    figures = {
        **model.figures,
        "coverage_applications": float(np.mean(residual.coverage(found, value))),
        "below_low_applications": float(np.mean(value < found[:, 0])),
    }
    table = Table("figure", "value")
    for name, words in figure_words(figures):
        table.add_row(name, words)
    Console().print(table)
    return figures
