"""A table as if each row had applied: what `simulate --data` looks at. Nothing was decided there."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features import table
from features.application import Application, InvalidFieldError, Report
from features.place import HERE, Place
from features.replay import replay
from features.schema import Schema
from features.specs import OUTCOME_KINDS
from features.tokens import Tokenizer
from policy.inputs import Asked, Known
from policy.ledger import MOVING
from policy.records import HUBS, Part, Records, Reports, Warn, bad_of, channels
from policy.specs import LISTS

TERM = "term_months"


def from_table(
    schema: Schema, file: Path, label_delay_rows: int, amount_minor: int, term_months: int, warn: Warn,
    place: Place = HERE,
) -> Records:  # fmt: skip
    """The rows of a file in order of time, outcomes reported so many rows later; unscored, nothing recorded. They are
    walked at `place`.

    amount_minor and term_months are asked where the table has no amount and no feature `term_months`. Raises
    SchemaError, and InvalidFieldError where such a number is outside what the schema lends.
    """
    found = table.read(schema, file, warn=warn)
    ordered = list(table.in_log_order(found, label_delay_rows))
    history = table.history(schema, Tokenizer(secrets.token_bytes(32)), ordered, settled=True)
    made = replay(history, place=place)[schema.name]
    applications = [event for event in history.events if isinstance(event, Application)]
    n, part = len(applications), Part(schema, np.arange(len(applications)), made.snapshot)
    tokens = np.array([a.tokens for a in applications])
    sequence = np.array([i for i, e in enumerate(history.events, 1) if isinstance(e, Application)], dtype=np.int64)
    nothing, nobody = np.full(n, np.nan), np.zeros(n, dtype=np.uint64)
    timed = schema.table is not None and bool(schema.table.time)
    return Records(
        [row.row_id for row in found], sequence - 1, made.event_time_ms if timed else None, schema.products[:1],
        np.zeros(n, dtype=np.int64), tokens[:, 0],
        {name: tokens[:, schema.entities[name].first_slot] if name in schema.entities else nobody for name in HUBS},
        channels([part], n), _asked(schema, applications, made.snapshot.features, amount_minor, term_months),
        Known(nothing, nothing, nothing, np.zeros(n, np.int64), np.zeros((n, len(LISTS)), np.int64)),
        bad_of([part], made.labels), [""] * n, np.full(n, schema.minor_per_major), (part,),
        _reports(history.events), None, {},
    )  # fmt: skip


def _reports(events: Sequence[Application | Report]) -> Reports:
    """Those that release, by the row of their application."""
    row_of: dict[str, int] = {}
    found = []
    for sequence, event in enumerate(events, 1):
        if isinstance(event, Application):
            row_of[event.application_id] = len(row_of)
        elif (kind := OUTCOME_KINDS.index(event.kind)) in MOVING:
            found.append((sequence, row_of[event.application_id], kind, event.amount_minor))
    return Reports(*np.array(found, dtype=np.int64).reshape(-1, 4).T)


def _asked(
    schema: Schema, applications: list[Application], features: NDArray[np.float32], amount: int, term: int
) -> Asked:
    asked = Asked.of(applications)
    if schema.table is not None and not schema.table.amount and amount:
        asked = replace(asked, amount_minor=np.full(len(asked), amount, dtype=np.int64))
    if TERM in schema.column:
        terms = np.nan_to_num(features[:, schema.column[TERM]]).astype(np.int64)
    else:
        terms = np.full(len(asked), term, dtype=np.int64)
    asked = replace(asked, term_months=terms)
    for name, (low, high) in (("amount_minor", schema.amount_minor), (TERM, schema.term_months)):
        numbers = getattr(asked, name)
        if len(wrong := np.flatnonzero((numbers < low) | (numbers > high))):
            reason = f"{numbers[wrong[0]]} of row {wrong[0]} is not from {low} to {high}, which {schema.name} lends"
            raise InvalidFieldError(name, reason)
    return asked
