"""What a car fetches: monotone, ordered, made to hold, the same in ONNX, and refused where table or bundle is wrong."""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from bench import world
from features import schema as schemas
from features.replay import Rows
from features.schema import Schema, SchemaError
from models import export, residual, trees
from models.__main__ import app
from models.bundle import MANIFEST, RESIDUAL_VALUE, Bundle, BundleError, ResidualModel
from models.conformal import QUANTILES
from models.probe import random_snapshot
from models.recipe import TrainConfig
from models.scorer import ResidualScorer, Scorer
from models.train import train
from tests.conftest import ROOT

AUTO_FILE = ROOT / "features/schemas/auto.yaml"
AUTO = schemas.load(AUTO_FILE)
KINDS = AUTO.features[AUTO.column["vehicle_kind"]].values
KIND, LIST_PRICE, AGE, KM, BATTERY = range(5)

# Another lender with other cars, names and units: nothing but this file says so.
LENDER = """
name: lender
version: 1
features:
  - {name: body, type: category, values: [car, van]}
  - {name: new_price, range: [1, 1000000]}
  - {name: months}
  - {name: owners, missing: [-1]}
labels: {default: {}}
residual_value:
  list_price: new_price
  kind: body
  age_months: months
  features: {months: -1, body: 0, new_price: 0, owners: -1}
  sales: {sold_at: Datum, time_format: '%d.%m.%Y', price: Erlös, columns: {months: Alter, new_price: Neu, body: Bauart}}
"""


@pytest.fixture(scope="module")
def sales() -> pl.DataFrame:
    return world.sales(31, 12_000)


@pytest.fixture(scope="module")
def model(sales: pl.DataFrame) -> ResidualModel:
    return residual.train(AUTO, sales, 3)


@pytest.fixture(scope="module")
def scorer(model: ResidualModel) -> ResidualScorer:
    return ResidualScorer(model, AUTO)


def rows_of(frame: pl.DataFrame) -> NDArray[np.float32]:
    kind = frame["vehicle_kind"].replace_strict({name: i for i, name in enumerate(KINDS)}, return_dtype=pl.Int64)
    names = ["list_price", "vehicle_age_months", "vehicle_mileage_km", "battery_health"]
    return frame.select(kind, *names).fill_null(np.nan).to_numpy().astype(np.float32)


def lender_sales(count: int) -> pl.DataFrame:
    random = np.random.default_rng(2)
    months, price = random.integers(0, 100, count), random.integers(10_000, 80_000, count)
    return pl.DataFrame({
        "Bauart": random.choice(["car", "van"], count), "Neu": price, "Alter": months,
        "Datum": [f"{1 + i % 28:02d}.{1 + i * 12 // count:02d}.2024" for i in range(count)],
        "owners": random.choice([-1, 1, 2], count),
        "Erlös": price * np.exp(-0.01 * months + random.normal(0, 0.1, count)),
    })  # fmt: skip


def test_monotone_in_age_mileage_and_battery(scorer: ResidualScorer) -> None:
    rows = rows_of(world.sales(32, 300))
    for column, direction, highest in ((AGE, -1, 140), (KM, -1, 500_000), (BATTERY, 1, 1)):
        chosen = rows[~np.isnan(rows[:, column])]
        grid = np.repeat(chosen[:, None], 200, axis=1)
        grid[:, :, column] = np.linspace(0, highest, 200)
        shares = scorer.shares(grid.reshape(-1, rows.shape[1])).reshape(len(chosen), 200, len(QUANTILES))
        steps = direction * np.diff(shares, axis=1)
        assert steps.min() >= -1e-6, AUTO.feature_names[column]  # sums of float32 in another order
        assert (shares.max(axis=1) - shares.min(axis=1)).mean() > 0.01


def test_quantiles_never_cross_and_a_row_says_the_same_alone(scorer: ResidualScorer) -> None:
    rows = rows_of(world.sales(33, 4000))
    shares = scorer.shares(rows)
    assert (np.diff(shares, axis=1) >= 0).all() and (shares > 0).all()
    np.testing.assert_array_equal(np.vstack([scorer.shares(rows[i : i + 1]) for i in range(50)]), shares[:50])


def test_the_interval_holds_for_cars_of_another_seed(scorer: ResidualScorer) -> None:
    """Of those sold last, at whose level of prices the model stands."""
    frame = world.sales(34, 20_000)[-1600:]
    rows, share = rows_of(frame), (frame["sale_price"] / frame["list_price"]).to_numpy()
    shares = scorer.shares(rows)
    covered = residual.coverage(shares, share)
    assert np.mean(covered) == pytest.approx(0.8, abs=0.04)
    assert np.mean(share < shares[:, 0]) == pytest.approx(0.1, abs=0.03)
    for kind in range(len(KINDS)):
        assert np.mean(covered[rows[:, KIND] == kind]) == pytest.approx(0.8, abs=0.12), KINDS[kind]


def test_better_than_a_depreciation_table(model: ResidualModel) -> None:
    figures = model.figures
    for q in (10, 50, 90):
        assert 0 < figures[f"pinball_{q}"] < 0.75 * figures[f"baseline_{q}"]
    assert figures["mape_median"] < 0.1 and figures["coverage"] == pytest.approx(0.8, abs=0.06)
    assert figures["drift_a_year"]["new_energy"] == pytest.approx(-0.06, abs=0.02)  # the world's, but for scrap
    assert figures["from"] < figures["tested_from"] < figures["to"] and sum(figures["sales"]) == 12_000


def test_onnx_gives_the_quantiles_of_the_trees(sales: pl.DataFrame) -> None:
    rows, share = rows_of(sales), np.log((sales["sale_price"] / sales["list_price"]).to_numpy())
    fitted = trees.matrix(rows[::2], share[::2])
    later = trees.matrix(rows[1::2], share[1::2], fitted)
    boosters = [trees.fit_quantile(residual.CONFIG, 0, (0, 0, -1, -1, 1), fitted, later, q) for q in QUANTILES]
    first, *others = map(trees.to_forest, boosters)
    session = onnxruntime.InferenceSession(trees.to_onnx(first, 5, *others), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"row": rows})
    np.testing.assert_allclose(found, np.column_stack([trees.margins(b, rows) for b in boosters]), atol=1e-5, rtol=0)
    below = np.mean(share[1::2, None] < found[1::2], axis=0)
    np.testing.assert_allclose(below, QUANTILES, atol=0.03)


def test_same_sales_and_seed_same_model(sales: pl.DataFrame, model: ResidualModel) -> None:
    shuffled = sales.sample(fraction=1, shuffle=True, seed=1).sort("sold_at", maintain_order=True)
    assert residual.train(AUTO, sales, 3) == model
    assert residual.train(AUTO, sales, 4).onnx != model.onnx
    assert not shuffled.equals(sales)  # sales of one day in another order: no other parts, and figures as good
    again = residual.train(AUTO, shuffled, 3).figures
    assert again["sales"] == model.figures["sales"]
    assert again["pinball_50"] == pytest.approx(model.figures["pinball_50"], rel=0.1)


def test_unknown_where_something_needed_is_missing(model: ResidualModel, consumer: Schema) -> None:
    snapshot = random_snapshot(AUTO, 6, 0)
    snapshot.features[:, [AUTO.column[name] for name in AUTO.residual_value.features]] = np.array([  # type: ignore[union-attr]
        [1, 100_000, 40, 60_000, np.nan],
        [1, np.nan, 40, 60_000, np.nan],  # list price
        [np.nan, 100_000, 40, 60_000, np.nan],  # kind
        [2, 100_000, 40, 60_000, np.nan],  # battery health of a new-energy car
        [1, 100_000, 40, 60_000, 1.0],  # of a car without one: not looked at
        [2, 100_000, 40, 60_000, 0.9],
    ], dtype=np.float32)  # fmt: skip
    value = ResidualScorer(model, AUTO).score(snapshot)
    assert value.shape == (6, 3) and value.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(value).any(axis=1), [False, True, True, True, False, False])
    np.testing.assert_array_equal(value[4], value[0])
    assert (value[[0, 5]] > 20_000).all() and (value[[0, 5]] < 100_000).all()
    without = Scorer(Bundle(consumer, "", {}, {})).residual_value(random_snapshot(consumer, 2, 0))
    assert np.isnan(without).all() and without.shape == (2, 3)


def test_a_kind_without_sales_is_unknown(sales: pl.DataFrame, model: ResidualModel) -> None:
    trained = residual.train(AUTO, sales.filter(pl.col("vehicle_kind") != "new"), 3)
    assert trained.conformal.offsets[0] is None and trained.conformal.offsets[1] is not None
    shares = ResidualScorer(trained, AUTO).shares(
        np.array([[0, 1e5, 0, 20, np.nan], [1, 1e5, 40, 6e4, np.nan]], np.float32)
    )
    np.testing.assert_array_equal(np.isnan(shares).any(axis=1), [True, False])
    assert set(trained.figures["coverage_by_kind"]) == set(KINDS[1:])


BAD_SALES: dict[str, tuple[pl.Expr, str]] = {
    "kind": (
        pl.lit("boat").alias("vehicle_kind"),
        r"column vehicle_kind: 1 of 12000 rows have no vehicle_kind.*'boat'",
    ),
    "age": (pl.lit(None).alias("vehicle_age_months"), "column vehicle_age_months: 1 of 12000 rows have no vehicle_age"),
    "mileage": (pl.lit(-5).alias("vehicle_mileage_km"), "column vehicle_mileage_km: 1 of 12000 rows are negative.* -5"),
    "list price": (pl.lit(0.0).alias("list_price"), "column list_price: 1 of 12000 rows are no price.*row 17"),
    "price": (pl.lit(None).alias("sale_price"), "column sale_price: 1 of 12000 rows are no price.*row 17: None"),
    "unit": (pl.lit(9e9).alias("sale_price"), "column sale_price: 1 of 12000 rows are more than 3 times list_price"),
    "date": (pl.lit(None).alias("sold_at"), "column sold_at: 1 of 12000 rows have no time"),
}


@pytest.mark.parametrize("name", BAD_SALES)
def test_a_bad_table_names_column_rows_and_an_example(sales: pl.DataFrame, name: str) -> None:
    change, problem = BAD_SALES[name]
    changed = change.meta.output_name()
    here = pl.int_range(pl.len()) == 17
    bad = sales.with_columns(pl.when(here).then(change).otherwise(pl.col(changed)).alias(changed))
    with pytest.raises(SchemaError, match=f"^cars.csv: {problem}"):
        residual.train(AUTO, bad, file=Path("cars.csv"))


def test_a_table_without_a_column_or_with_too_few_sales_refuses(sales: pl.DataFrame, consumer: Schema) -> None:
    with pytest.raises(SchemaError, match="sales: no column battery_health; it has vehicle_kind, list_price"):
        residual.train(AUTO, sales.drop("battery_health"))
    with pytest.raises(SchemaError, match=r"column sold_at: 240, 40, 60, 60 sales by time .* at least 50"):
        residual.train(AUTO, sales[::30])
    with pytest.raises(SchemaError, match="column sold_at: 0, 0, 0, 12000 sales by time"):
        residual.train(AUTO, sales.with_columns(pl.lit("2024-05-01").alias("sold_at")))
    turned = pl.when(pl.int_range(pl.len()) > 9_000).then(pl.lit("new")).otherwise(pl.lit("used"))
    with pytest.raises(SchemaError, match="sales: vehicle_kind: too few sales to calibrate or test are of kinds"):
        residual.train(AUTO, sales.with_columns(turned.alias("vehicle_kind")))
    with pytest.raises(SchemaError, match="consumer: residual_value: is missing"):
        residual.train(consumer, sales)


BAD_SECTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "feature": (lambda s: s["features"].update(horoscope=0), "unknown name 'horoscope'"),
    "cross": (lambda s: s["features"].update(loan_to_value=0), "unknown name 'loan_to_value'"),
    "kind": (lambda s: s.update(kind="vehicle_age_months"), "residual_value.*a category has no direction"),
    "open": (lambda s: s.update(kind="vehicle_list_price"), "residual_value.kind: unknown name 'vehicle_list_price'"),
    "direction": (lambda s: s["features"].update(vehicle_age_months=2), "residual_value.features"),
    "list price": (lambda s: s.update(list_price="amount"), "amount: is none of features"),
    "column": (lambda s: s["sales"]["columns"].update(amount="x"), "amount: is none of features"),
    "unknown": (lambda s: s["sales"].update(colour="x"), "residual_value.sales.colour"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SECTIONS)
def test_a_bad_section_refuses(name: str) -> None:
    change, problem = BAD_SECTIONS[name]
    document = copy.deepcopy(AUTO.document)
    change(document["residual_value"])
    with pytest.raises(SchemaError, match=problem):
        Schema(document, "auto.yaml")


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> tuple[Schema, Path]:
    """The schema of the other lender and its bundle."""
    schema = Schema(yaml.safe_load(LENDER), "lender.yaml")
    labels = {"default": (np.arange(300) % 3 == 0).astype(np.int8)}
    times = 1_750_000_000_000 + np.arange(300) * 60_000
    rows = Rows(schema, random_snapshot(schema, 300, 0), [f"a-{i}" for i in range(300)], times, labels, int(times[-1]))
    out = tmp_path_factory.mktemp("lender") / "lender"
    config = TrainConfig(split="stratified", search_seconds=0)
    return schema, train(rows, out, config, residual=residual.train(schema, lender_sales(3000)))


def test_another_lender_writes_yaml_only(lender: tuple[Schema, Path]) -> None:
    schema, folder = lender
    bundle = Bundle.open(folder)
    assert bundle.residual is not None and bundle.residual == Bundle.load(folder, schema).residual
    snapshot = random_snapshot(schema, 1, 0)
    assert bundle.residual.presence == ((1, 1, 1, 0),) * 2
    snapshot.features[0] = [0, 50_000, 60, np.nan, -1]
    (value,) = Scorer(bundle).residual_value(snapshot)
    np.testing.assert_allclose(value, 50_000 * np.exp(-0.6 + 0.1 * np.array([-1.28, 0, 1.28])), rtol=0.06)
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "## Residual value" in card and f"| coverage | {bundle.residual.figures['coverage']:.4g} |" in card


def test_an_answer_survives_the_bundle(lender: tuple[Schema, Path]) -> None:
    trained = residual.train(lender[0], lender_sales(3000))
    assert json.loads(json.dumps(trained.figures)) == Bundle.open(lender[1]).residual.figures  # type: ignore[union-attr]
    assert replace(Bundle.open(lender[1]).residual, figures=trained.figures) == trained  # type: ignore[type-var]


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no entry": (lambda m: m.pop("residual_value"), "belong together"),
    "no file": (lambda m: m["files"].pop(RESIDUAL_VALUE), "belong together"),
    "columns": (lambda m: m["residual_value"]["columns"].reverse(), "columns are not those"),
    "quantiles": (lambda m: m["residual_value"].update(quantiles=[0.5, 0.6, 0.9]), "or quantiles not"),
    "offset": (lambda m: m["residual_value"]["offsets"][0].pop(), "3 finite offsets for each of 2 kinds"),
    "infinite": (lambda m: m["residual_value"]["offsets"][1].append(float("inf")), "3 finite offsets"),
    "text": (lambda m: m["residual_value"]["offsets"].__setitem__(0, ["0", "0", "0"]), "3 finite offsets"),
    "kind": (lambda m: m["residual_value"]["offsets"].pop(), "for each of 2 kinds"),
    "presence": (lambda m: m["residual_value"]["presence"][0].pop(), "presence is not by kind"),
    "presence of 7": (lambda m: m["residual_value"]["presence"][0].__setitem__(0, 7), "presence is not by kind"),
    "no probe": (lambda m: m["residual_value"].pop("probe"), "is no manifest"),
    "no offsets": (lambda m: m["residual_value"].pop("offsets"), "is no manifest"),
    "short probe": (lambda m: m["residual_value"]["probe"].pop(), "residual_value: the probe needs 16 rows"),
    "narrow probe": (lambda m: m["residual_value"]["probe"][3].pop(), "residual_value: the probe needs 16 rows"),
    "probe": (lambda m: m["residual_value"]["probe"][3].__setitem__(0, None), "the probe needs finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_bundle_refuses(lender: tuple[Schema, Path], tmp_path: Path, name: str) -> None:
    bundle = Bundle.open(lender[1])
    folder = export.write(
        tmp_path / "lender", lender[0], bundle.models, bundle.manifest["training"], bundle.manifest["labels"],
        bundle.residual,
    )  # fmt: skip
    assert Bundle.open(folder).version == bundle.version
    change, problem = FORGERIES[name]
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=f"{MANIFEST}: .*{problem}"):
        Bundle.load(folder, lender[0])


def test_a_runtime_that_cannot_run_it_or_says_otherwise_refuses(lender: tuple[Schema, Path]) -> None:
    bundle = Bundle.open(lender[1])
    assert bundle.residual is not None
    for onnx in (b"", b"no model", bundle.residual.onnx[:1000], bundle.models["default"].trees_onnx):
        with pytest.raises(BundleError, match=f"{bundle.version}: residual_value: cannot be scored here"):
            Scorer(replace(bundle, residual=replace(bundle.residual, onnx=onnx)))
    for change, refused in ((5e-6, False), (2e-5, True)):
        manifest = copy.deepcopy(dict(bundle.manifest))
        manifest["residual_value"]["probe"][3][1] += change
        if refused:
            with pytest.raises(BundleError, match=f"{bundle.version}: residual_value: the probe differs by 2e-05"):
                Scorer(replace(bundle, manifest=manifest))
        else:
            Scorer(replace(bundle, manifest=manifest))


def test_a_changed_or_missing_file_refuses(lender: tuple[Schema, Path], tmp_path: Path) -> None:
    bundle = Bundle.open(lender[1])
    training, labels = bundle.manifest["training"], bundle.manifest["labels"]
    folder = export.write(tmp_path / "lender", lender[0], bundle.models, training, labels, bundle.residual)
    content = (folder / RESIDUAL_VALUE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == bundle.manifest["files"][RESIDUAL_VALUE]
    (folder / RESIDUAL_VALUE).write_bytes(content[:-1])
    with pytest.raises(BundleError, match=f"{RESIDUAL_VALUE}: differs"):
        Bundle.load(folder, lender[0])
    (folder / RESIDUAL_VALUE).unlink()
    with pytest.raises(BundleError, match=f"{RESIDUAL_VALUE}: cannot be read"):
        Bundle.load(folder, lender[0])


def test_the_bundle_of_a_schema_without_the_section_takes_none(
    lender: tuple[Schema, Path], model: ResidualModel, tmp_path: Path
) -> None:
    bundle, document = Bundle.open(lender[1]), yaml.safe_load(LENDER)
    document.pop("residual_value")
    plain, said = Schema(document, "plain.yaml"), (bundle.manifest["training"], bundle.manifest["labels"])
    with pytest.raises(BundleError, match="schema lender has no residual_value"):
        export.write(tmp_path / "lender", plain, bundle.models, *said, model)
    assert Bundle.open(export.write(tmp_path / "lender", plain, bundle.models, *said)).residual is None


def test_command_line(sales: pl.DataFrame, model: ResidualModel, tmp_path: Path) -> None:
    sales.write_parquet(tmp_path / "sales.parquet")
    asked = ["residual", "--schema", str(AUTO_FILE), "--sales", str(tmp_path / "sales.parquet"), "--seed", "3"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1]) == json.loads(json.dumps(model.figures))
    assert "coverage_by_kind" in done.output
