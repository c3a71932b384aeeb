"""A real table through the whole service: train on its first part, decide the rest one by one in order of time.

What the server answers must equal the offline replay of the same rows, and beat boosted trees on raw columns and causal
entity velocity, trained in the same run on the same rows.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from redis.asyncio import Redis
from rich.progress import Progress, track

from bench.serving import SECRET, client, server_process
from features import schema as schemas
from features import table
from features.embedded import embedded_store
from features.load import load_history
from features.replay import History, replay
from features.schema import Schema
from features.specs import OUTCOME_KINDS
from features.store import Store
from features.table import TableRow
from features.tokens import Tokenizer
from models import registry
from models.bundle import Bundle
from models.evaluate import auc
from models.scorer import Scorer
from models.tables import LABEL_DELAY_ROWS
from models.train import train
from proto.miaopi.v1 import decision_pb2 as pb

TRAIN_SHARE = 0.6


def run(schema_path: Path, data: Path) -> dict[str, float]:
    """Figures of the last line: decisions, auc_server, auc_offline, auc_baseline, max_abs_difference."""
    schema = schemas.load(schema_path)
    rows = table.read(schema, data)
    cut = int(len(rows) * TRAIN_SHARE)
    tokenizer = Tokenizer(SECRET.encode())
    every = list(table.in_log_order(rows, LABEL_DELAY_ROWS))
    past = table.history(schema, tokenizer, every[:cut])
    with tempfile.TemporaryDirectory(prefix="miaopi-") as folder:
        with Progress() as progress:
            task = progress.add_task("replay for training", total=len(past.events))
            seen = replay(past, lambda n: progress.advance(task, n))[schema.name]
        bundle, bundles = train(seen, Path(folder) / "trained"), Path(folder) / "bundles"
        registry.promote(bundles, bundle, schema)
        served = asyncio.run(_serve(schema, schema_path.parent, bundles, past, every[cut:]))
        offline = replay(table.history(schema, tokenizer, every))[schema.name].snapshot.take(slice(cut, None))
        scores = Scorer(Bundle.load(bundle, schema)).score(offline).fraud_probability
    truth = outcomes(rows)
    known = truth[cut:] >= 0
    return {
        "decisions": len(served),
        "auc_server": auc(truth[cut:][known], served[known]),
        "auc_offline": auc(truth[cut:][known], scores[known]),
        "auc_baseline": auc(truth[cut:][known], baseline(data, schema, seen.labels["fraud"])[known]),
        "max_abs_difference": float(np.abs(served - scores).max()),
    }


def outcomes(rows: Sequence[TableRow]) -> NDArray[np.int8]:
    """int8 [N]: 1 fraud, 0 not, -1 never labelled."""
    return np.array([-1 if not r.outcome_kinds else int("fraud_confirmed" in r.outcome_kinds) for r in rows], np.int8)


async def _serve(
    schema: Schema, schema_folder: Path, bundles: Path, past: History, rest: Sequence[tuple[TableRow, TableRow | None]]
) -> NDArray[np.float64]:
    """float64 [n] fraud probabilities that a server over the past gives to the rest, in order."""
    with embedded_store() as url:
        redis = Redis.from_url(url)
        store = Store(redis, "demo", Tokenizer(SECRET.encode()), [schema])
        await store.open()
        await load_history(store, past)
        await redis.aclose()
        with server_process(url, replay="true", schemas=schema_folder, bundles=bundles) as (address, _):
            return await asyncio.to_thread(_decide_all, schema, address, rest)


def _decide_all(schema: Schema, address: str, rest: Sequence[tuple[TableRow, TableRow | None]]) -> NDArray[np.float64]:
    probabilities = []
    with client(address) as stub:
        for row, due in track(rest, "decide"):
            probabilities.append(stub.Decide(decide_request(schema, row)).fraud_probability)
            if due is None:
                continue
            for kind in due.outcome_kinds:
                stub.ReportOutcome(report_request(due, kind, row.event_time_ms))
    return np.array(probabilities)


def decide_request(schema: Schema, row: TableRow) -> pb.DecideRequest:
    """The request of a table's row."""
    return pb.DecideRequest(
        application_id=row.application_id,
        tenant="demo",
        product=schema.products[0],
        currency=schema.currency,
        amount_minor=row.amount_minor,
        repayment_method=pb.REPAYMENT_METHOD_BULLET,
        applicant_id=row.applicant,
        entities=[pb.Entity(type=kind, id=identifier) for kind, identifier in row.entities],
        features={
            name: pb.FeatureValue(text=value) if isinstance(value, str) else pb.FeatureValue(number=value)
            for name, value in row.features.items()
        },
        event_time_ms=row.event_time_ms,
    )


def report_request(row: TableRow, kind: str, event_time_ms: int) -> pb.ReportOutcomeRequest:
    """The report of a row's outcome."""
    return pb.ReportOutcomeRequest(
        tenant="demo",
        application_id=row.application_id,
        outcome_id=f"{row.application_id}-{kind}",
        kind=pb.OutcomeKind.Name(OUTCOME_KINDS.index(kind) + 1),
        event_time_ms=event_time_ms,
    )


def baseline(data: Path, schema: Schema, labels: NDArray[np.int8]) -> NDArray[np.float64]:
    """float64 [N - cut] of the rows after the labelled ones: untuned LightGBM on the raw columns and the causal
    velocity of each entity, made by polars alone. labels: int8 [cut], -1 unknown, as our own training sees them.
    """
    import lightgbm

    table_of = schema.table
    assert table_of is not None
    amount, entities = pl.col(table_of.amount), list(table_of.entities.values())
    frame = pl.read_parquet(data).sort(table_of.time, maintain_order=True).with_row_index("n")
    columns = [amount.alias("amount")]
    for entity in entities:
        before = amount.cum_sum().over(entity) - amount
        count = pl.int_range(pl.len()).over(entity)
        columns += [
            pl.col(entity).cast(pl.Categorical).to_physical().alias(entity),
            count.alias(f"{entity}_count"),
            (pl.col("n") - pl.col("n").shift(1).over(entity)).cast(pl.Float64).alias(f"{entity}_gap"),
            (before / count).alias(f"{entity}_mean"),
            (amount / (before / count)).alias(f"{entity}_ratio"),
            (amount / amount.shift(1).over(entity)).alias(f"{entity}_last_ratio"),
            (pl.col("n") - pl.col("n").shift(10).over(entity)).cast(pl.Float64).alias(f"{entity}_gap_10"),
        ]
    matrix = frame.select(columns).to_numpy().astype(np.float64)
    known = np.flatnonzero(labels >= 0)
    model = lightgbm.LGBMClassifier(n_jobs=1, random_state=0, verbose=-1).fit(matrix[known], labels[known])
    return np.asarray(model.predict_proba(matrix[len(labels) :]), dtype=np.float64)[:, 1]
