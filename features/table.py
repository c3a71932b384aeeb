"""A flat table (Parquet) of a schema, read by its `table` section: one row an application, its label an outcome later.

Labels enter the log `label_delay_rows` rows after their application, as they would be reported, so whatever is counted
from them uses only what was known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from features.application import Application, Report, entity_tokens, feature_number
from features.replay import History
from features.schema import Schema, SchemaError
from features.tokens import Tokenizer

EPOCH_MS = 1_577_836_800_000  # where a table's own time starts: 2020-01-01 UTC


@dataclass(frozen=True)
class TableRow:
    """One row, identifiers in clear; `outcome_kinds` are what will be reported of it."""

    application_id: str
    event_time_ms: int
    amount_minor: int
    applicant_id: str
    entities: tuple[tuple[str, str], ...]
    features: dict[str, float | str]
    outcome_kinds: tuple[str, ...]


def read(schema: Schema, path: Path) -> list[TableRow]:
    """The rows of a Parquet file in order of time. Raises SchemaError naming the column."""
    table = schema.table
    if table is None:
        raise SchemaError(f"{schema.name}: table: is missing, so {path} cannot be read")
    frame = pl.read_parquet(path)
    wanted = [table.time, table.amount, *table.entities.values(), *table.features.values()]
    missing = [c for c in [*wanted, *(spec.column for spec in table.labels.values())] if c not in frame.columns]
    if missing:
        raise SchemaError(f"{path}: no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    for column in (table.time, table.amount, table.entities[next(iter(schema.entities))]):
        if frame[column].null_count():
            raise SchemaError(f"{path}: column {column}: {frame[column].null_count()} rows are empty")
    applicant, *others = schema.entities
    rows = []
    for i, row in enumerate(frame.sort(table.time, maintain_order=True).iter_rows(named=True)):
        kinds = []
        for name, spec in table.labels.items():
            if row[spec.column] in spec.bad:
                kinds.append(schema.labels[name].bad[0])
            elif row[spec.column] in spec.good:
                kinds.append(schema.labels[name].good[0])
        rows.append(
            TableRow(
                f"row-{i}",
                EPOCH_MS + int(row[table.time]) * table.time_unit_ms,
                round(row[table.amount] * schema.minor_per_major),
                str(row[table.entities[applicant]]),
                tuple(
                    (e, str(row[table.entities[e]]))
                    for e in others
                    if e in table.entities and row[table.entities[e]] is not None
                ),
                {name: row[column] for name, column in table.features.items() if row[column] is not None},
                tuple(kinds),
            )
        )
    return rows


def application(schema: Schema, tokenizer: Tokenizer, row: TableRow) -> Application:
    """A row as the wire would have made it. Raises InvalidFieldError."""
    numbers = {name: feature_number(schema, name, value, name) for name, value in row.features.items()}
    if "amount" in schema.column:
        numbers["amount"] = row.amount_minor / schema.minor_per_major
    tokens = entity_tokens(schema, tokenizer, row.applicant_id, row.entities, ())
    return Application(
        row.application_id, "", schema, schema.products[0], row.amount_minor, 0, tokens, numbers,
        event_time_ms=row.event_time_ms,
    )  # fmt: skip


def in_log_order(rows: Sequence[TableRow], label_delay_rows: int) -> Iterator[tuple[TableRow, TableRow | None]]:
    """Each row with the row whose outcomes are reported after it, if any."""
    for i, row in enumerate(rows):
        yield row, rows[i - label_delay_rows] if i >= label_delay_rows else None


def history(schema: Schema, tokenizer: Tokenizer, in_order: Sequence[tuple[TableRow, TableRow | None]]) -> History:
    """What `in_log_order` gives, as events: each row, then the outcomes that are due after it."""
    events: list[Application | Report] = []
    for row, due in in_order:
        events.append(application(schema, tokenizer, row))
        if due is not None:
            events += [
                Report(f"{due.application_id}-{kind}", due.application_id, kind, row.event_time_ms)
                for kind in due.outcome_kinds
            ]
    return History(events)
