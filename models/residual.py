"""The residual-value model: what a car fetches, as quantiles, from a table of sales (R8).

Trees give quantiles of the logarithm of the share of the list price that a sale brought, so an error is one of per
cent whatever the car. By time, the first sales fit, the next stop, the next calibrate (models.conformal), the last
test; then the last calibrate anew, so the figures are of what the same procedure said of sales that came after it.
Prices drift: what calibrates is restated at the level of its end by the trend of its kind. The same sales and seed
give the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features import columns, table
from features.schema import Schema, SchemaError
from features.specs import DAY_MS, ResidualValueSpec
from models import conformal, trees
from models.bundle import ResidualModel
from models.conformal import QUANTILES, Conformal
from models.scorer import ResidualScorer
from models.trees import TreesConfig

PART_MIN = 50  # sales of each part
SHARE_MAX = 3.0  # of the list price: beyond it the units differ
CUTS = (0.6, 0.7, 0.85)  # shares of the sales before which they fit, stop and calibrate; the rest tests
CONFIG = TreesConfig(
    rounds=150, learning_rate=0.2, min_child_weight=0.0, row_share=0.8, column_share=1.0, l2=20.0, patience=15
)
AGE_BANDS = {"0": 0, "1-36": 1, "37-60": 37, "61-84": 61, "85-": 85}  # months, each from
BAND_MIN = 20  # sales without which the baseline takes all ages of a kind

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Sales:
    """Sales in order of time. rows: float32 [N, n], the schema's features of the model; share: float64 [N], of the list
    price; kind and band, of age: int64 [N]."""

    rows: NDArray[np.float32]
    share: Doubles
    sold_at_ms: Ints
    kind: Ints
    band: Ints

    def __len__(self) -> int:
        return len(self.share)

    def take(self, rows: Ints | slice) -> "_Sales":
        return _Sales(*(values[rows] for values in vars(self).values()))


def train(
    schema: Schema, sales: pl.DataFrame, seed: int = 0, *, file: Path = Path("sales"),
    warn: Callable[[str], None] = lambda message: None,
) -> ResidualModel:  # fmt: skip
    """The model of a table of sales that the schema's section residual_value describes; `file` names it in errors.

    `warn` is told of values of a category that the schema does not list. Raises SchemaError where the schema has no
    such section, or naming column, rows and an example.
    """
    spec = schema.residual_value
    if spec is None:
        raise SchemaError(f"{schema.name}: residual_value: is missing, so {file} cannot be read")
    every = _read(schema, spec, sales, file, warn)
    fit, stop, calibrate, test = _parts(every, f"{file}: column {spec.sales.sold_at}")
    kinds = schema.features[schema.column[spec.kind]].values
    known = np.bincount(fit.kind, minlength=len(kinds)) >= conformal.GROUP_MIN
    if min(int(known[part.kind].sum()) for part in (calibrate, test)) < PART_MIN:
        raise SchemaError(
            f"{file}: {spec.kind}: too few sales to calibrate or test are of kinds with {conformal.GROUP_MIN} to fit on"
        )
    unshifted = Conformal(((0.0,) * len(QUANTILES),) * len(kinds))
    model = ResidualModel(_onnx(spec, fit, stop, seed), unshifted, _presence(every, len(kinds)), {})
    scorer = ResidualScorer(model, schema)
    raw, earlier = scorer.log_shares(every.rows), slice(len(every) - len(test))
    before, _ = _calibrated(every.take(earlier), raw[earlier], len(calibrate), known)
    newest, drift = _calibrated(every, raw, len(test), known)
    found = ResidualScorer(replace(model, conformal=before), schema).shares(test.rows)
    figures: dict[str, Any] = {
        name: datetime.fromtimestamp(int(at) / 1000, UTC).date().isoformat()
        for name, at in (("from", fit.sold_at_ms[0]), ("tested_from", test.sold_at_ms[0]), ("to", test.sold_at_ms[-1]))
    }
    figures |= {"sales": [len(part) for part in (fit, stop, calibrate, test)], "seed": seed}
    figures |= _figures(found, _depreciation(calibrate, test), test, kinds)
    figures["drift_a_year"] = {kind: float(drift[k]) for k, kind in enumerate(kinds) if known[k]}
    return replace(model, conformal=newest, figures=figures)


def _read(
    schema: Schema, spec: ResidualValueSpec, sales: pl.DataFrame, file: Path, warn: Callable[[str], None]
) -> _Sales:
    names = {name: spec.sales.columns.get(name, name) for name in spec.features}
    columns.refuse_missing(file, sales, [spec.sales.sold_at, spec.sales.price, *names.values()])
    read = {}
    for name, column in names.items():
        feature = schema.features[schema.column[name]]
        values = pl.Series(table.feature_values(schema, file, name, sales[column], warn))
        if feature.values:
            values = values.replace_strict({text: i for i, text in enumerate(feature.values)}, return_dtype=pl.Float64)
        values = values.set(values.is_in(feature.missing), None)
        if name in (spec.list_price, spec.kind, spec.age_months):
            columns.refuse(file, column, sales[column], values.is_null(), f"have no {name}")
        columns.refuse(file, column, sales[column], (values < 0).fill_null(False), "are negative")
        read[name] = values.cast(pl.Float64)
    price = columns.numbers(file, sales[spec.sales.price])
    for column, money in ((spec.sales.price, price), (names[spec.list_price], read[spec.list_price])):
        columns.refuse(file, column, sales[column], ~(money > 0).fill_null(False), "are no price")
    share = price / read[spec.list_price]
    columns.refuse(
        file, spec.sales.price, price, share > SHARE_MAX, f"are more than {SHARE_MAX:g} times {names[spec.list_price]}"
    )
    times = columns.times_ms(file, sales, (spec.sales.sold_at,), DAY_MS, spec.sales.time_format)
    rows = pl.DataFrame(read).fill_null(np.nan).to_numpy().astype(np.float32)
    kind = read[spec.kind].cast(pl.Int64).to_numpy()
    band = np.digitize(read[spec.age_months].to_numpy(), list(AGE_BANDS.values())[1:])
    return _Sales(rows, share.to_numpy(), times, kind, band).take(np.argsort(times, kind="stable"))


def _parts(every: _Sales, place: str) -> list[_Sales]:
    """Sales to fit, stop, calibrate and test on; those of one moment stay together."""
    at = [int(np.searchsorted(every.sold_at_ms, every.sold_at_ms[int(cut * len(every))])) for cut in CUTS]
    parts = [every.take(slice(start, end)) for start, end in pairwise((0, *at, len(every)))]
    if min(map(len, parts)) < PART_MIN:
        lengths = ", ".join(str(len(part)) for part in parts)
        raise SchemaError(
            f"{place}: {lengths} sales by time to fit, stop, calibrate and test, at least {PART_MIN} are needed of each"
        )
    return parts


def _presence(every: _Sales, kinds: int) -> tuple[tuple[int, ...], ...]:
    """By kind and feature, 1 where every sale has it, -1 where none, else 0; of a kind without sales 1."""
    missing = [np.isnan(every.rows[every.kind == kind]) for kind in range(kinds)]
    return tuple(tuple((1 - m.any(axis=0) - (m.all(axis=0) & m.any(axis=0))).tolist()) for m in missing)


def _onnx(spec: ResidualValueSpec, fit: _Sales, stop: _Sales, seed: int) -> bytes:
    constraints = tuple(spec.features.values())
    rows = trees.matrix(fit.rows, np.log(fit.share))
    later = trees.matrix(stop.rows, np.log(stop.share), rows)
    boosters = [trees.fit_quantile(CONFIG, seed, constraints, rows, later, quantile) for quantile in QUANTILES]
    first, *others = map(trees.to_forest, boosters)
    return trees.to_onnx(first, len(constraints), *others)


def _calibrated(sales: _Sales, raw: Doubles, last: int, known: NDArray[np.bool_]) -> tuple[Conformal, Doubles]:
    """The shifts by the last sales, and the trend of each kind, log a year; raw: float64 [N, 3] by the trees."""
    years = (sales.sold_at_ms - sales.sold_at_ms[-1]) / (365 * DAY_MS)
    log_share = np.log(sales.share)
    drift = np.zeros(len(known))
    for kind in np.flatnonzero(known):
        of_kind = sales.kind == kind
        drift[kind] = np.polyfit(years[of_kind], (log_share - raw[:, 1])[of_kind], 1)[0]
    at_end = log_share - drift[sales.kind] * years
    return conformal.fit(raw[-last:], at_end[-last:], sales.kind[-last:], known), drift


def _depreciation(earlier: _Sales, later: _Sales) -> Doubles:
    """float64 [N, 3] quantiles of the share by kind and age band of earlier sales: the table to be better than."""
    found = np.full((len(later), len(QUANTILES)), np.nan)
    for kind in np.unique(later.kind):
        for band in np.unique(later.band):
            of_kind = earlier.share[earlier.kind == kind]
            alike = earlier.share[(earlier.kind == kind) & (earlier.band == band)]
            share = alike if len(alike) >= BAND_MIN else of_kind if len(of_kind) else earlier.share
            found[(later.kind == kind) & (later.band == band)] = np.quantile(share, QUANTILES)
    return found


def _figures(found: Doubles, baseline: Doubles, test: _Sales, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Of quantiles [N, 3] of the share, and of the baseline's; sales of a kind that is not known do not count."""
    told = np.flatnonzero(np.isfinite(found[:, 0]))
    found, baseline, test = found[told], baseline[told], test.take(told)
    covered = coverage(found, test.share)
    figures: dict[str, Any] = {}
    for name, quantiles in (("pinball", found), ("baseline", baseline)):
        for i, q in enumerate(QUANTILES):
            figures[f"{name}_{round(100 * q)}"] = trees.pinball(test.share, quantiles[:, i], q)
    thirds = np.arange(len(test)) * 3 // max(len(test), 1)
    return figures | {
        "mape_median": float(np.mean(np.abs(found[:, 1] / test.share - 1))),
        "below_low": float(np.mean(test.share < found[:, 0])),
        "coverage": float(np.mean(covered)),
        "coverage_by_kind": _by(kinds, test.kind, covered),
        "coverage_by_age": _by(tuple(AGE_BANDS), test.band, covered),
        "coverage_by_third": _by(("first", "second", "last"), thirds, covered),
    }


def coverage(quantiles: Doubles, given: Doubles) -> NDArray[np.bool_]:
    """bool [N]: whether the numbers given lie from the first to the last of their quantiles [N, 3]."""
    return np.asarray((quantiles[:, 0] <= given) & (given <= quantiles[:, -1]))


def _by(names: tuple[str, ...], groups: Ints, covered: NDArray[np.bool_]) -> dict[str, float]:
    return {name: float(np.mean(covered[groups == i])) for i, name in enumerate(names) if (groups == i).any()}
