"""A flat table (Parquet or CSV) of a schema, read by its `table` section: one row an application, its label an outcome.

Labels enter the log `label_delay_rows` rows after their application, as they would be reported, so whatever is counted
from them uses only what was known. What is wrong with the data is a SchemaError with column, rows and an example.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from features import columns
from features.application import Application, InvalidFieldError, Report, category_code, entity_tokens, feature_entry
from features.columns import EPOCH_MS
from features.replay import History
from features.schema import Schema, SchemaError
from features.specs import MISSING_CODE, TableLabelSpec, TableSpec
from features.tokens import Tokenizer


@dataclass(frozen=True)
class TableRow:
    """One row, identifiers in clear; `outcome_kinds` are what will be reported of it.

    applicant_id: empty where the table names none. position: its place in the file; row_id: what the table's id column
    holds, else that place; past: it only warms the graph for others.
    """

    application_id: str
    event_time_ms: int
    amount_minor: int
    applicant_id: str
    entities: tuple[tuple[str, str], ...]
    features: dict[str, float | str]
    outcome_kinds: tuple[str, ...]
    position: int = 0
    row_id: str = ""
    past: bool = False

    @property
    def applicant(self) -> str:
        """Whoever has no name is nobody else, in whichever file."""
        return self.applicant_id or f"unnamed {self.application_id}"


def read(
    schema: Schema, path: Path, *, labelled: bool = True, warn: Callable[[str], None] = lambda message: None
) -> list[TableRow]:
    """The rows of a file in order of time, equal times in the order of the file.

    Unless `labelled`, columns of labels are neither needed nor looked at. `warn` is told of values of a category that
    the schema does not list: they count as missing. Raises SchemaError.
    """
    table = schema.table
    if table is None:
        raise SchemaError(f"{schema.name}: table: is missing, so {path} cannot be read")
    frame = columns.read_frame(path)
    features = feature_columns(schema, table)
    _refuse_missing(path, frame, table, features, labelled)
    times = pl.Series(range(EPOCH_MS, EPOCH_MS + len(frame)), dtype=pl.Int64).to_numpy()
    if table.time:
        times = columns.times_ms(path, frame, table.time, table.time_unit_ms, table.time_format)
    values = {name: feature_values(schema, path, name, frame[column], warn) for name, column in features.items()}
    for name, column in table.days_since.items():
        values[name] = columns.days_between(path, frame[column], times, table.time_format).to_list()
    amounts = _amounts(schema, path, frame[table.amount]) if table.amount else [0] * len(frame)
    ids = _ids(path, frame, table)
    named = {e: columns.texts(frame[column]).to_list() for e, column in table.entities.items()}
    applicant = next(iter(schema.entities))
    applicants = named.pop(applicant, [None] * len(frame))
    outcomes = [_outcomes(schema, path, frame, label, spec) for label, spec in table.labels.items() if labelled]
    return [
        TableRow(
            f"row-{n}",
            int(times[i]),
            amounts[i],
            applicants[i] or "",
            tuple((e, text) for e, every in named.items() if (text := every[i]) is not None),
            {name: value for name, every in values.items() if (value := every[i]) is not None},
            tuple(kind for kinds in outcomes if (kind := kinds[i])),
            i,
            ids[i],
        )
        for n, i in enumerate(times.argsort(kind="stable").tolist())
    ]


def feature_columns(schema: Schema, table: TableSpec) -> dict[str, str]:
    """Column of each feature of the request, the feature's own name unless the table says another."""
    made = {*table.days_since, *(f"{f.name}{MISSING_CODE}" for f in schema.features if f.missing)}
    given = [f.name for f in schema.features if f.origin == "request" and f.name not in made]
    return {name: table.features.get(name, name) for name in given}


def _refuse_missing(
    path: Path, frame: pl.DataFrame, table: TableSpec, features: dict[str, str], labelled: bool
) -> None:
    wanted = [*table.time, *table.entities.values(), *table.days_since.values(), *features.values()]
    wanted += [c for c in (table.amount, table.id) if c]
    wanted += [spec.column for spec in table.labels.values() if labelled]
    columns.refuse_missing(path, frame, wanted)


def feature_values(
    schema: Schema, path: Path, name: str, series: pl.Series, warn: Callable[[str], None]
) -> list[float | None] | list[str | None]:
    """Values of a feature, None where missing; `warn` and errors as of `read`."""
    feature = schema.features[schema.column[name]]
    if not feature.category:
        read = columns.numbers(path, series)
        if feature.range is not None:
            outside = ~read.is_between(*feature.range) & ~read.is_in(list(feature.missing))
            low, high = feature.range
            columns.refuse(path, series.name, series, outside.fill_null(False), f"are not from {low:g} to {high:g}")
        return read.to_list()
    text = columns.texts(series)
    if feature.values:
        unlisted = text.is_not_null() & ~text.is_in(list(feature.values))
        if unlisted.any():
            example = text.filter(unlisted)[0]
            warn(
                f"{path}: column {series.name}: {unlisted.sum()} of {len(text)} rows hold a value that the schema does"
                f" not list, for example {example!r}: taken as missing"
            )
            text = text.set(unlisted, None)
    return text.to_list()


def _amounts(schema: Schema, path: Path, series: pl.Series) -> list[int]:
    """Minor units; a missing amount counts as 0."""
    minor = (columns.numbers(path, series).fill_null(0.0) * schema.minor_per_major).round()
    columns.refuse(path, series.name, series, ~minor.is_between(*schema.amount_minor), "are no amount of the schema")
    return [int(amount) for amount in minor]


def _ids(path: Path, frame: pl.DataFrame, table: TableSpec) -> list[str]:
    if not table.id:
        return [str(i) for i in range(len(frame))]
    text = columns.texts(frame[table.id])
    columns.refuse(path, table.id, text, text.is_null(), "have no id")
    columns.refuse(path, table.id, text, ~text.is_first_distinct(), "repeat an id")
    return text.to_list()


def _outcomes(schema: Schema, path: Path, frame: pl.DataFrame, label: str, spec: TableLabelSpec) -> list[str | None]:
    """Outcome kind of each row."""
    bad, good = bad_and_good(frame[spec.column], spec)
    text = columns.texts(frame[spec.column])
    if not bad.any() or not good.any():
        found = text.drop_nulls().unique().sort().head(8).to_list()
        raise SchemaError(
            f"{path}: column {spec.column}: {bad.sum()} of {len(text)} rows are bad and {good.sum()} good by "
            f"table.labels.{label}; it holds {', '.join(map(repr, found))}"
        )
    kinds = schema.labels[label]
    outcome = pl.Series([None] * len(text), dtype=pl.String)
    return outcome.set(good, (kinds.good or kinds.presumed_good)[0]).set(bad, kinds.bad[0]).to_list()


def bad_and_good(series: pl.Series, spec: TableLabelSpec) -> tuple[pl.Series, pl.Series]:
    """Masks of the rows that a label's column calls bad and good; the rest is unknown."""
    text = columns.texts(series)
    folded = text.str.to_lowercase()
    text = text.zip_with(~folded.is_in(["true", "false"]).fill_null(False), folded)  # True is as YAML has it
    bad = text.is_in(list(spec.bad)).fill_null(False)
    good = text.is_not_null() & ~bad if spec.good is None else text.is_in(list(spec.good)).fill_null(False)
    return bad, good


def category_names(schema: Schema, rows: Sequence[TableRow]) -> dict[str, dict[int, str]]:
    """By feature, the text of each code of its open categories."""
    open_ones = [f.name for f in schema.features if f.category and not f.values and f.origin == "request"]
    texts = {name: {row.features[name] for row in rows if name in row.features} for name in open_ones}
    return {name: {int(category_code(str(t))): str(t) for t in found} for name, found in texts.items()}


def application(schema: Schema, tokenizer: Tokenizer, row: TableRow) -> Application:
    """A row as the wire would have made it. Raises InvalidFieldError naming the row."""
    try:
        numbers = dict(feature_entry(schema, name, value, name) for name, value in row.features.items())
        tokens = entity_tokens(schema, tokenizer, row.applicant, row.entities, ())
    except InvalidFieldError as error:
        raise InvalidFieldError(f"row {row.position}: {error.field}", error.reason) from None
    if "amount" in schema.column and schema.features[schema.column["amount"]].origin == "application":
        numbers["amount"] = row.amount_minor / schema.minor_per_major
    return Application(
        row.application_id, "", schema, schema.products[0], row.amount_minor, 0, tokens, numbers,
        event_time_ms=row.event_time_ms,
    )  # fmt: skip


def merged(past: Sequence[TableRow], later: Sequence[TableRow]) -> list[TableRow]:
    """Rows of two files in one order of time; of equal times the past is first."""
    together = sorted([*(replace(row, past=True) for row in past), *later], key=lambda row: row.event_time_ms)
    return [replace(row, application_id=f"row-{n}") for n, row in enumerate(together)]


def in_log_order(rows: Sequence[TableRow], label_delay_rows: int) -> Iterator[tuple[TableRow, TableRow | None]]:
    """Each row with the row whose outcomes are reported after it, if any."""
    for i, row in enumerate(rows):
        yield row, rows[i - label_delay_rows] if i >= label_delay_rows else None


def history(
    schema: Schema, tokenizer: Tokenizer, in_order: Sequence[tuple[TableRow, TableRow | None]], *, settled: bool = False
) -> History:
    """What `in_log_order` gives, as events: each row, then the outcomes that are due after it.

    `settled` adds the outcomes that are not yet due at the end: what training knows of the last rows.
    """
    events: list[Application | Report] = []
    for row, due in in_order:
        events.append(application(schema, tokenizer, row))
        if due is not None:
            events += _reports(due, row.event_time_ms)
    if settled:
        reported = {due.application_id for _, due in in_order if due is not None}
        for row, _ in in_order:
            if row.application_id not in reported:
                events += _reports(row, in_order[-1][0].event_time_ms)
    return History(events)


def _reports(row: TableRow, event_time_ms: int) -> list[Report]:
    return [
        Report(f"{row.application_id}-{kind}", row.application_id, kind, event_time_ms) for kind in row.outcome_kinds
    ]
