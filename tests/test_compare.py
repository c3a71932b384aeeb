"""The better of two bundles is found, equal ones differ in no digit, and what was recorded is what is compared."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from features import archive
from features.archive import ArchiveError
from features.schema import Schema
from models import compare
from models.__main__ import app
from models.bundle import Bundle, BundleError
from models.compare import Contest, Side, comparison
from models.tables import train_table
from tests.conftest import demo_bundle
from tests.test_archive import folder, write_again
from tests.test_engine import past, served
from tests.test_tables import DOCUMENT, QUICK, frame

__all__ = ["folder", "past", "served"]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles `good`, and `poor` which learned from shuffled outcomes; `later.parquet`, rows of neither."""
    made, schema = tmp_path_factory.mktemp("compare"), Schema(DOCUMENT, "cards.yaml")
    learned = frame(3000, 1)
    learned.write_parquet(made / "good.parquet")
    shuffled = learned.with_columns(outcome=learned["outcome"].shuffle(seed=1))
    shuffled.write_parquet(made / "poor.parquet")
    for name in ("good", "poor"):
        train_table(schema, made / f"{name}.parquet", made / name, QUICK)
    frame(1500, 3).write_parquet(made / "later.parquet")
    return made


def asked(champion: Path, challenger: Path, *more: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["compare", "--champion", str(champion), "--challenger", str(challenger), *more])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.output.splitlines()[-1])["comparisons"]
    return {**found, "printed": done.output}


def test_the_better_bundle_is_found(bundles: Path) -> None:
    found = asked(bundles / "poor", bundles / "good", "--data", str(bundles / "later.parquet"))
    label = found["labels"]["default"]
    assert found["rows"] == label["rows"] == 1500 and label["known"] < 1500
    difference = label["auc_difference"]
    assert difference["challenger_less_champion"] == pytest.approx(
        label["challenger"]["auc"] - label["champion"]["auc"], abs=2e-6
    )
    assert 0 < difference["low"] < difference["challenger_less_champion"] < difference["high"]
    assert label["champion"]["approved"]["rows"] == label["challenger"]["approved"]["rows"] == 1350
    assert label["challenger"]["approved"]["bad_rate"] < label["champion"]["approved"]["bad_rate"]
    assert label["swap_in"]["rows"] == label["swap_out"]["rows"] > 0
    assert label["swap_in"]["bad_rate"] < label["swap_out"]["bad_rate"]
    for role, name in (("champion", "poor"), ("challenger", "good")):
        assert found[role] == {"version": Bundle.open(bundles / name).version, "rows_learned_from": None}
    assert "later.parquet: has no time: whether a bundle learned from its rows cannot be told" in found["printed"]


def test_equal_bundles_differ_in_nothing(bundles: Path) -> None:
    found = asked(
        bundles / "good", bundles / "good", "--data", str(bundles / "later.parquet"), "--stopped-share", "0.25",
        "--history", str(bundles / "good.parquet"),
    )  # fmt: skip
    label = found["labels"]["default"]
    assert label["auc_difference"] == {"challenger_less_champion": 0, "low": 0, "high": 0}
    assert label["psi"] == 0 and label["champion"] == label["challenger"]
    nobody = {"rows": 0, "known": 0, "bad_rate": None}
    assert label["swap_in"] == label["swap_out"] == nobody and label["champion"]["approved"]["rows"] == 1125


def test_swaps_by_hand() -> None:
    """Ten rows, each stops two: 8 and 9, 0 and 9."""
    champion, challenger = np.linspace(0.1, 1, 10), np.array([0.95, *np.linspace(0.1, 0.8, 8), 1.0])
    labels = np.array([1, 0, 0, 0, 0, 0, 0, 1, -1, 1], dtype=np.int8)
    one, two = Side("one", {"fraud": champion}, (0, 3)), Side("two", {"fraud": challenger}, (-9, -1))
    found = comparison(Contest(one, two, {"fraud": labels}, np.arange(10)), 0.2)
    label = found["labels"]["fraud"]
    assert label["swap_in"] == {"rows": 1, "known": 0, "bad_rate": None}
    assert label["swap_out"] == {"rows": 1, "known": 1, "bad_rate": 1.0}
    assert label["champion"]["approved"] == {"rows": 8, "known": 8, "bad_rate": 0.25}
    assert label["challenger"]["approved"] == {"rows": 8, "known": 7, "bad_rate": 0.142857}
    assert (found["champion"]["rows_learned_from"], found["challenger"]["rows_learned_from"]) == (4, 0)


def test_other_labels_or_rows_are_refused(bundles: Path, tmp_path: Path) -> None:
    good, demo = Bundle.open(bundles / "good"), Bundle.open(demo_bundle("consumer"))
    with pytest.raises(BundleError, match=r"is of default, \w+ of default, fraud"):
        compare.on_table(good, demo, bundles / "later.parquet", label_delay_rows=500)
    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
    document["table"]["labels"]["default"]["good"] = ["paid", "still open"]
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    train_table(Schema(document, "cards.yaml"), bundles / "good.parquet", tmp_path / "other", QUICK)
    with pytest.raises(BundleError, match="read other rows or labels"):
        compare.on_table(good, Bundle.open(tmp_path / "other"), bundles / "later.parquet", label_delay_rows=500)
    for wrong in (
        ["--data", str(bundles / "later.parquet"), "--recorded"],
        ["--data", str(bundles / "later.parquet"), "--champion", str(bundles / "good")],
        ["--archive", str(bundles), "--history", str(bundles / "later.parquet")],
        [],
    ):
        assert CliRunner().invoke(app, ["compare", *wrong]).exit_code == 2


async def test_bundles_on_an_archive(folder: Path) -> None:
    demo = demo_bundle("consumer")
    found = asked(demo, demo, "--archive", str(folder))
    version = Bundle.open(demo).version
    decided = archive.recorded(folder).filter(pl.col("bundle") == version)
    for role in ("champion", "challenger"):  # the worlds of demo and test are of the same months
        assert found[role] == {"version": version, "rows_learned_from": len(decided)}
        assert f"rows lie in the training window of the {role} {version}: figures" in found["printed"]
    assert found["rows"] == len(decided) > 50
    label = found["labels"]["default"]
    assert label["auc_difference"] == {"challenger_less_champion": 0, "low": 0, "high": 0}
    assert label["known"] == (decided["default_label"] >= 0).sum()
    with pytest.raises(BundleError, match=r"is of schema consumer, \w+ of auto"):
        compare.on_archive(Bundle.open(demo), Bundle.open(demo_bundle("auto")), folder)


async def test_what_challengers_scored_in_service(folder: Path) -> None:
    """A challenger that knew the fraud label, on some of the applications of one product; it has no default model."""
    with pytest.raises(ArchiveError, match="holds no scores of a challenger"):
        compare.recorded(folder)
    known = archive.recorded(folder)
    demo = Bundle.open(demo_bundle("consumer")).version
    scored = [
        [{"version": "knows", "fraud": 0.5 + label / 4, "default": None}] if bundle == demo and i % 3 else []
        for i, (bundle, label) in enumerate(known.select("bundle", "fraud_label").iter_rows())
    ]
    frame = pl.read_parquet(folder / archive.DECISIONS).sort("sequence")
    write_again(
        folder, archive.DECISIONS, frame.with_columns(challengers=pl.Series(scored, dtype=frame["challengers"].dtype))
    )
    done = CliRunner().invoke(app, ["compare", "--archive", str(folder), "--recorded"])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.output.splitlines()[-1])["comparisons"]
    assert (found["champion"]["version"], found["challenger"]["version"]) == (demo, "knows")
    assert found["rows"] == sum(map(len, scored)) and found["champion"]["rows_learned_from"] is None
    assert list(found["labels"]) == ["fraud"]
    label = found["labels"]["fraud"]
    assert (
        label["bad"] > 0
        and label["challenger"]["auc"] == 1
        and label["auc_difference"]["challenger_less_champion"] >= 0
    )
