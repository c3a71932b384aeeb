"""SuperLender's three files as one flat table: a loan, its customer, and the previous loans known at its approval."""

from pathlib import Path

import polars as pl

_DATES = ("approveddate", "closeddate", "firstduedate", "firstrepaiddate")


def joined(folder: Path, part: str = "dev") -> pl.DataFrame:
    """One row a loan. Of previous loans only what happened strictly before the loan's `approveddate` counts."""
    loans = pl.read_parquet(folder / f"superlender_perf_{part}.parquet").with_columns(_date("approveddate"))
    people = pl.read_parquet(folder / f"superlender_demographics_{part}.parquet").unique("customerid", keep="first")
    previous = pl.read_parquet(folder / f"superlender_prevloans_{part}.parquet").with_columns(map(_date, _DATES))
    loans = loans.with_columns(pl.col("referredby").is_not_null().alias("referred"))
    known = previous.join(loans.select("customerid", asked=pl.col("approveddate")), on="customerid")
    facts = _facts(known.filter(pl.col("approveddate") < pl.col("asked")))
    return loans.join(people, on="customerid", how="left").join(facts, on="customerid", how="left")


def _date(name: str) -> pl.Expr:
    return pl.col(name).str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ms")


def _days(later: str, earlier: str) -> pl.Expr:
    return (pl.col(later) - pl.col(earlier)).dt.total_seconds() / 86_400


def _facts(known: pl.DataFrame) -> pl.DataFrame:
    """Facts of each customer's previous loans; a date not yet passed when the new loan was asked is not known."""
    for name in ("closeddate", "firstrepaiddate"):
        known = known.with_columns(pl.when(pl.col(name) < pl.col("asked")).then(pl.col(name)).alias(name))
    held, first_late = _days("closeddate", "approveddate"), _days("firstrepaiddate", "firstduedate")
    late = held - pl.col("termdays")
    return (
        known.sort("approveddate")
        .group_by("customerid", maintain_order=True)
        .agg(
            pl.len().alias("previous_loans"),
            pl.col("closeddate").is_null().sum().alias("previous_open"),
            (late > 0).mean().alias("previous_late_rate"),
            late.mean().alias("previous_late_days_mean"),
            late.max().alias("previous_late_days_max"),
            first_late.mean().alias("previous_first_late_days_mean"),
            (first_late > 0).mean().alias("previous_first_late_rate"),
            held.mean().alias("previous_days_held_mean"),
            pl.col("loanamount").mean().alias("previous_amount_mean"),
            pl.col("loanamount").max().alias("previous_amount_max"),
            (pl.col("totaldue") / pl.col("loanamount")).mean().alias("previous_due_ratio_mean"),
            late.last().alias("last_late_days"),
            first_late.last().alias("last_first_late_days"),
            pl.col("loanamount").last().alias("last_amount"),
            held.last().alias("last_days_held"),
            _days("asked", "closeddate").min().alias("days_since_last_closed"),
            _days("asked", "approveddate").min().alias("days_since_last_approved"),
            _days("asked", "approveddate").max().alias("days_since_first_approved"),
        )
    )
