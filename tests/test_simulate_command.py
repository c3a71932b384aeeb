"""`python -m policy simulate` as a risk officer calls it: an archive with stress, and a public table."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from features import schema as schemas
from features.place import Place
from models.recipe import TrainConfig
from models.tables import train_table
from policy import device
from policy.__main__ import app
from policy.device import differences
from policy.program import Judged
from tests.conftest import ROOT, SHARED_DATA, demo_bundle
from tests.gpu_devices import opened
from tests.policy_files import chained, table, write
from tests.test_engine import past
from tests.test_report import Page
from tests.test_simulate import world

__all__ = ["past", "world"]
SCENARIOS = "scenarios: {bad year: {income: 0.3, unemployment: 0.1}, cheap cars: {collateral: 0.1}}"


def simulated(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["simulate", "--processes", "1", *map(str, arguments)])
    return done.exit_code, done.output


def findings(out: Path) -> Any:
    return json.loads((out / "simulation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def out(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command wrote of the world's archive under the other policy, with two scenarios."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "stress.yaml").write_text(SCENARIOS, encoding="utf-8")
    command: list[str | Path] = [
        sys.executable, "-m", "policy", "simulate", "--archive", world / "decided", "--policy", world / "other",
        "--bundle", demo_bundle("consumer"), "--bundle", demo_bundle("auto"),
        "--bundle", demo_bundle("small_business"), "--stress", folder / "stress.yaml",
        "--out", folder / "out", "--processes", "2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (folder / "last.json").write_text(done.stdout.splitlines()[-1], encoding="utf-8")
    (folder / "said").write_text(done.stderr, encoding="utf-8")
    return folder / "out"


def test_the_last_line_and_the_file_say_the_same(out: Path) -> None:
    found, last = findings(out), json.loads((out.parent / "last.json").read_text(encoding="utf-8"))
    assert list(found["columns"]) == ["recorded", "simulated", "bad year", "cheap cars"]
    assert last["columns"] == {name: column["total"] for name, column in found["columns"].items()}
    assert (last["swap_in"], last["swap_out"]) == (found["swap_in"]["rows"], found["swap_out"]["rows"])
    assert last["decisions"] == found["decisions"] > 300 and last["left_out"] == 0
    assert found["one_process_a_run"] and "decided by one process" in (out.parent / "said").read_text(encoding="utf-8")
    assert found["scored_anew"] == 0  # the same bundle scored what was recorded
    assert sum(sum(row.values()) for row in found["moves"].values()) == found["decisions"]


def test_a_worse_economy_approves_less_and_cars_alone_leave_consumers(out: Path) -> None:
    columns = findings(out)["columns"]
    approved = {name: column["total"]["approval_rate"] for name, column in columns.items()}
    assert approved["bad year"] < approved["simulated"]
    consumer = {name: column["by"]["product"]["consumer"] for name, column in columns.items()}
    assert consumer["cheap cars"] == consumer["simulated"] != consumer["bad year"]
    cars = {name: column["by"]["product"]["auto"] for name, column in columns.items()}
    assert cars["cheap cars"]["exposure_minor"] < cars["simulated"]["exposure_minor"]
    assert cars["cheap cars"]["approval_rate"] <= cars["simulated"]["approval_rate"]


def test_tables_on_a_device_find_the_same(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(opened("shim"), "cuda:0")
    monkeypatch.setattr(place, "walked", Place().walked)  # how it walks is tested elsewhere, and takes longer
    monkeypatch.setattr(Place, "of", lambda choice, warn: place if choice == "cuda:0" else Place())
    monkeypatch.setattr(device, "_place", {"cuda:0": place}.__getitem__)
    monkeypatch.setattr(device, "LEAST", 1)
    entered: list[list[str]] = []

    def compared(*both: Judged) -> list[str]:
        entered.append(differences(*both))
        return entered[-1]

    monkeypatch.setattr(device, "differences", compared)
    for choice in ("cpu", "cuda:0"):
        done, said = simulated(
            "--archive", world / "decided", "--policy", world / "other", "--out", tmp_path / choice, "--device", choice
        )
        assert done == 0, said
        assert bool(entered) == (choice == "cuda:0") and not any(entered)
    assert findings(tmp_path / "cuda:0") == findings(tmp_path / "cpu") and place.device is not None


def test_the_page_needs_nothing_and_names_nobody(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    found = findings(out)
    examples = [one["id"] for name in ("swap_in", "swap_out") for one in found[name]["examples"]]
    cells = {row[0].strip() for row in page.rows if row}
    assert examples and set(examples) <= cells and "bad year" in cells
    assert text.count("<svg") == 4 and "GRADE_TOO_LOW" in text
    said = text + json.dumps(found)
    schema = schemas.load(ROOT / "features/schemas/auto.yaml")
    personal = [feature.name for feature in schema.features if feature.personal]
    assert len(personal) > 5 and not [name for name in personal if name in said]
    assert {dealer for dealer in found["columns"]["simulated"]["by"]["dealer"] if len(dealer) != 16} == set()


def test_another_policy_to_compare_with(world: Path, tmp_path: Path) -> None:
    """Against its own policy nobody swaps, and the base column says what was recorded."""
    code, said = simulated("--archive", world / "decided", "--policy", world / "first", "--base", world / "first",
                           "--out", tmp_path / "out", "--lgd", "0.9")  # fmt: skip
    assert code == 0, said
    found = findings(tmp_path / "out")
    assert found["columns"]["base"] == found["columns"]["simulated"] and found["base"] == "base"
    assert found["swap_in"]["rows"] == found["swap_out"]["rows"] == 0 and found["terms"]["loss_given_default"] == 0.9


def test_another_bundle_scores_anew(world: Path, tmp_path: Path) -> None:
    """One whose log-odds are higher: fewer are approved, of its product alone."""
    from bench.promote import variant

    riskier = variant(demo_bundle("consumer"), tmp_path / "riskier", 1.0)
    code, said = simulated("--archive", world / "decided", "--policy", world / "first", "--bundle", riskier,
                           "--out", tmp_path / "out")  # fmt: skip
    assert code == 0, said
    found = findings(tmp_path / "out")
    by = {name: column["by"]["product"] for name, column in found["columns"].items()}
    assert found["scored_anew"] == by["simulated"]["consumer"]["decisions"]
    assert by["simulated"]["auto"] == by["recorded"]["auto"]
    assert by["simulated"]["consumer"]["approval_rate"] < by["recorded"]["consumer"]["approval_rate"]


GRADE = table("grade", "first", ("default_probability",), ("grade", "outcome", "reason"), (
    "< 0.2 | 'A' | 'approve' | 'GRADE_ACCEPTED'", "[0.2..CUT) | 'B' | 'approve' | 'GRADE_ACCEPTED'",
    ">= CUT | 'D' | 'decline' | 'GRADE_TOO_LOW'",
))  # fmt: skip
LIMIT = table("limit", "first", (), ("cap_minor", "rounding_minor", "minimum_minor"), ("500000 | 100 | 10000",))
PRICE = table("price", "first", ("grade.grade",), ("annual_rate", "cap_rate"), ("'A' | 0.08 | 0.24", "| 0.12 | 0.24"))


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here: real tables are not tested")
def test_a_public_table_is_decided_as_if_each_row_had_applied(tmp_path: Path) -> None:
    document = {
        "extends": "german", "name": "credit", "version": 1, "term_months": [1, 72], "amount_minor": [1, 10**7],
        "features": [{"name": "term_months"}],
        "table": {"id": "row_id", "amount": "amount", "features": {"term_months": "duration"},
                  "labels": {"default": {"column": "bad", "bad": [1]}}},
    }  # fmt: skip
    (tmp_path / "german.yaml").write_bytes((ROOT / "features/schemas/german.yaml").read_bytes())
    (tmp_path / "credit.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    schema, data = schemas.load(tmp_path / "credit.yaml"), SHARED_DATA / "german.parquet"
    bundle = train_table(schema, data, tmp_path / "bundle", TrainConfig(split="stratified", search_seconds=0))
    for name, cut in (("mild", "0.6"), ("strict", "0.4")):
        grade = json.loads(json.dumps(GRADE).replace("CUT", cut))
        write(tmp_path / name, "credit", chained([grade, LIMIT, PRICE]))
    given: list[str | Path] = [
        "--data",
        data,
        "--schema",
        tmp_path / "credit.yaml",
        "--bundle",
        bundle,
        "--out",
        tmp_path / "out",
    ]
    code, said = simulated(*given, "--policy", tmp_path / "strict")
    assert code == 0, said
    alone = findings(tmp_path / "out")
    assert list(alone["columns"]) == ["simulated"] and "swap_in" not in alone and alone["scored_anew"] == 1000
    code, said = simulated(*given, "--policy", tmp_path / "strict", "--base", tmp_path / "mild")
    assert code == 0, said
    found = findings(tmp_path / "out")
    assert found["columns"]["simulated"] == alone["columns"]["simulated"]
    strict, mild = (found["columns"][name]["total"] for name in ("simulated", "base"))
    assert strict["known"] == strict["approve"] + strict["limit"] and "vintage" not in found["columns"]["base"]["by"]
    assert strict["bad_rate"] < mild["bad_rate"] and strict["approval_rate"] < mild["approval_rate"]
    assert found["swap_in"]["rows"] == 0 < found["swap_out"]["rows"] and strict["limit"] > 0
    asked = pl.read_parquet(data)["amount"].cast(pl.Int64)
    assert {one["asked_amount_minor"] for one in found["swap_out"]["examples"]} <= set((asked * 100).to_list())
    code, said = simulated(*given, "--policy", tmp_path / "strict", "--income", "0.1")
    assert code == 2 and "features.credit: is missing: nobody says what its incomes are" in said
    code, said = simulated(*given, "--policy", ROOT / "policy/products")
    assert code == 2 and "credit/policy.json: does not exist, and nothing was recorded to keep" in said.replace(
        "\n", ""
    )


def test_what_cannot_be_simulated_is_refused_by_name(world: Path, tmp_path: Path) -> None:
    archived: list[str | Path] = [
        "--archive",
        world / "decided",
        "--policy",
        world / "first",
        "--out",
        tmp_path / "out",
    ]
    sffsd = ROOT / "features/schemas/sffsd.yaml"
    consumer = ROOT / "features/schemas/consumer.yaml"
    for arguments, reason in (
        (
            [*archived, "--income", "0.1"],
            "--bundle: none is of schema auto, consumer, small_business, whose rows have to be scored",
        ),
        ([*archived, "--bundle", demo_bundle("auto"), "--bundle", demo_bundle("auto")], "is a second bundle of schema"),
        ([*archived[:2], "--policy", tmp_path, "--out", tmp_path / "out"], "has no policy of auto, consumer"),
        ([*archived[2:], "--data", sffsd, "--schema", consumer], "table: is missing, so"),
        (["--archive", ROOT / "docs", "--out", tmp_path / "out"], "archive.json: cannot be read"),
    ):
        code, said = simulated(*arguments)
        assert code == 2 and reason in said.replace("\n", ""), said
    for wrong in ([*archived, "--data", sffsd, "--schema", sffsd], archived[2:], [*archived, "--schema", sffsd]):
        code, said = simulated(*wrong)
        assert code == 2 and "either --archive, or --data and --schema" in said
    assert not (tmp_path / "out").exists()


def test_the_server_loads_nothing_of_a_simulation() -> None:
    asked = (
        "import server.__main__, sys; print(*sorted(n for n in sys.modules if n.partition('.')[0] in "
        "('jinja2', 'matplotlib') or n in ('policy.bundles', 'policy.report', 'policy.plots', 'policy.study')))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout.split(), done.returncode) == ([], 0)
