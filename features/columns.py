"""Columns of a flat table as numbers, texts and times, whatever their type in the file.

What cannot be read is a SchemaError with the column, how many rows, and the first of them; nothing is guessed. An
empty cell, NaN or empty text is missing.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.schema import SchemaError
from features.specs import DAY_MS

EPOCH_MS = 1_577_836_800_000  # where a table's own count of time starts: 2020-01-01 UTC
TIMES_MS = (-2_208_988_800_000, 7_258_118_400_000)  # 1900 to 2200: what lies beyond was counted otherwise
CSV_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]

# Ways to write a time that need no `time_format`; the first that reads every row is taken. A month is its first day.
TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.fZ", "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d",
    "%Y-%m", "%Y/%m", "%Y %m", "%Y %b", "%Y %B", "%b-%Y", "%b %Y", "%B %Y",
)  # fmt: skip


def read_frame(path: Path) -> pl.DataFrame:
    """A Parquet file, or CSV by its ending. Raises SchemaError if it is neither."""
    try:
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema_length=None, null_values=CSV_MISSING)
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from None


def refuse_missing(path: Path, frame: pl.DataFrame, wanted: Iterable[str]) -> None:
    """Raises SchemaError unless the table has rows and all the columns wanted."""
    missing = dict.fromkeys(c for c in wanted if c not in frame.columns)
    if missing:
        raise SchemaError(f"{path}: no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    if not len(frame):
        raise SchemaError(f"{path}: has no rows")


def refuse(path: Path, column: str, series: pl.Series, bad: pl.Series, reason: str) -> None:
    """Raises SchemaError if `bad`, a mask over `series`, has rows: how many, and the first as an example."""
    if bad.any():
        row = int(bad.arg_true()[0])
        raise SchemaError(
            f"{path}: column {column}: {bad.sum()} of {len(series)} rows {reason}, "
            f"the first is row {row}: {series[row]!r}"
        )


def numbers(path: Path, series: pl.Series) -> pl.Series:
    """Float64, null where missing."""
    if series.dtype.is_temporal():
        raise SchemaError(f"{path}: column {series.name}: holds dates; read it with table.days_since")
    if series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null):
        read = series.cast(pl.Float64).fill_nan(None)
    else:
        text = texts(series)
        read = text.str.strip_chars().cast(pl.Float64, strict=False)
        refuse(path, series.name, text, text.is_not_null() & read.is_null(), "are no number")
        read = read.fill_nan(None)
    refuse(path, series.name, read, read.is_infinite().fill_null(False), "are infinite")
    return read


def texts(series: pl.Series) -> pl.Series:
    """String, null where missing; a whole number is written without its point, so 1.0 and 1 are one category."""
    if series.dtype.is_float():
        series = series.fill_nan(None)
        whole = series.is_finite() & (series == series.floor()) & (series.abs() < 2**53)
        text = series.cast(pl.String).zip_with(
            ~whole.fill_null(False), series.cast(pl.Int64, strict=False).cast(pl.String)
        )
    else:
        text = series.cast(pl.String)
    return text.set(text == "", None)


def times_ms(path: Path, frame: pl.DataFrame, columns: tuple[str, ...], unit_ms: int, form: str) -> NDArray[np.int64]:
    """int64 [N] event times: numbers count steps of `unit_ms`, texts are dates; several columns join with a space."""
    series = frame[columns[0]]
    if len(columns) > 1:
        series = frame.select(pl.concat_str([texts(frame[c]) for c in columns], separator=" ")).to_series()
    name = " ".join(columns)
    refuse(path, name, series, series.is_null(), "have no time")
    if series.dtype.is_numeric() and not form:
        times = EPOCH_MS + numbers(path, series) * unit_ms
        outside = ~times.is_between(*TIMES_MS)
        refuse(path, name, series, outside, f"lie beyond 1900 to 2200 as steps of time_unit_ms {unit_ms} from 2020")
        return times.cast(pl.Int64).to_numpy()
    return _moments(path, series.alias(name), form).to_numpy()


def days_between(path: Path, series: pl.Series, until_ms: NDArray[np.int64], form: str) -> pl.Series:
    """Float64 days from the dates in a column to the times, null where missing."""
    return (pl.Series(until_ms) - _moments(path, series, form)) / DAY_MS


def _moments(path: Path, series: pl.Series, form: str) -> pl.Series:
    """Int64 ms since 1970 of dates, null where missing."""
    if series.dtype.is_temporal():
        return series.cast(pl.Datetime("ms")).cast(pl.Int64)
    text = texts(series)
    best = text.is_not_null()
    for known in (form,) if form else TIME_FORMATS:
        day_less = "%d" not in known
        padded = text + " 01" if day_less else text
        parsed = padded.str.to_datetime(known + " %d" * day_less, strict=False, time_unit="ms", ambiguous="earliest")
        failed = text.is_not_null() & parsed.is_null()
        if not failed.any():
            return parsed.cast(pl.Int64)
        best = failed if failed.sum() < best.sum() else best
    refuse(path, series.name, text, best, "are no date of one form; say it with table.time_format")
    raise AssertionError  # a form that reads all was returned above
