"""A worse economy: what moves, moves as if it had been reported so, and everything made of it follows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.history import schemas_by_product
from features import schema as schemas
from features.application import Application
from features.replay import History, Rows, replay
from features.schema import Schema
from policy import stress
from policy.stress import INCOME, Scenario, StressError, moved, unemployed
from tests.conftest import ROOT
from tests.test_engine import past

__all__ = ["past"]
EVENTS = 600


@pytest.fixture(scope="module")
def rows(past: History) -> dict[str, Rows]:
    return replay(replace(past, events=past.events[:EVENTS]))


def poorer(past: History, names: set[str]) -> History:
    """The same history with half of every feature in `names`: halves are exact in float32."""
    events = [
        e._replace(numbers={n: x / 2 if n in names else x for n, x in e.numbers.items()})
        if isinstance(e, Application) else e for e in past.events[:EVENTS]
    ]  # fmt: skip
    sources = {name: s for schema in schemas_by_product().values() for name, s in schema.sources.items()}
    profiles = {}
    for token, some in past.profiles.items():
        half = {source: np.where([n in names for n in sources[source].features], 0.5, 1.0) for source in some}
        profiles[token] = {
            source: replace(p, numbers=(p.numbers * half[source]).astype(np.float32)) for source, p in some.items()
        }
    return History(events, profiles)


@pytest.mark.parametrize("name", ["consumer", "auto"])
@pytest.mark.parametrize("group", ["income", "collateral"])
def test_a_fall_is_what_assemble_makes_of_lower_reports(
    name: str, group: str, past: History, rows: dict[str, Rows]
) -> None:
    """Features, crosses and neighbours' records alike."""
    stresses, schema = stress.load(stress.STRESS_PATH), rows[name].schema
    columns = stresses.columns(schema)
    names = {schema.feature_names[i] for i in columns[group]}
    expected = replay(poorer(past, names))[name].snapshot
    nobody = np.zeros(len(rows[name].snapshot), dtype=np.bool_)
    found = moved(schema, columns, Scenario("halved", **{group: 0.5}), rows[name].snapshot, nobody)
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.neighbor_state, expected.neighbor_state)
    assert bool(names) == (group == "income" or name == "auto")
    assert names == set() or not np.array_equal(found.features, rows[name].snapshot.features, equal_nan=True)


def test_who_loses_work_has_no_income_and_what_was_missing_stays_so(rows: dict[str, Rows]) -> None:
    schema, before = rows["consumer"].schema, rows["consumer"].snapshot
    columns = stress.load(stress.STRESS_PATH).columns(schema)
    lost = unemployed(np.arange(len(before), dtype=np.uint64), 0.3, 7)
    after = moved(schema, columns, Scenario("jobs", unemployment=0.3), before, lost)
    incomes = columns[INCOME]
    for i in (*incomes, schema.column["employment_months"]):
        known = ~np.isnan(before.features[:, i])
        assert (after.features[lost & known, i] == 0).all() and np.isnan(after.features[lost & ~known, i]).all()
    verified = schema.column["verified_income"]
    some = ~np.isnan(before.features[:, incomes[1:]]).all(axis=1)
    assert (after.features[lost & some, verified] == 0).all() and (lost & some).sum() > 10
    assert np.isnan(after.features[lost & some, schema.column["debt_to_income"]]).all()  # nothing to pay from
    np.testing.assert_array_equal(after.features[~lost], before.features[~lost])
    others = [i for i, f in enumerate(schema.features) if f.origin in ("velocity", "graph")]
    np.testing.assert_array_equal(after.features[:, others], before.features[:, others])


def test_whoever_loses_work_loses_it_in_every_application_and_in_every_worse_year() -> None:
    applicant = np.random.default_rng(0).integers(0, 2**63, 5000).astype(np.uint64).repeat(2)
    few, many, other = (unemployed(applicant, share, seed) for share, seed in ((0.05, 1), (0.2, 1), (0.05, 2)))
    assert (few[::2] == few[1::2]).all() and (many | ~few).all() and (few != other).any()
    assert abs(few.mean() - 0.05) < 0.01 and abs(many.mean() - 0.2) < 0.02
    np.testing.assert_array_equal(few, unemployed(applicant, 0.05, 1))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("scenarios: {worse: {income: 1.5}}", "scenarios.worse.income: Input should be less than or equal to 1"),
        ("scenarios: {worse: {incomes: 0.1}}", "scenarios.worse.incomes: Extra inputs are not permitted"),
        ("features: {consumer: {tax_income: wages}}\nscenarios: {}", "features.consumer.tax_income: Input should be"),
        ("scenario: {}", "scenarios: Field required"),
        ("[", "cannot be read"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_its_place(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "stress.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StressError, match=reason):
        stress.load(tmp_path / "stress.yaml")


@pytest.mark.parametrize("name", ["nonsense", "verified_income", "education", "device_count_24h"])
def test_only_a_number_that_was_given_moves(name: str, consumer: Schema, tmp_path: Path) -> None:
    (tmp_path / "stress.yaml").write_text(f"features: {{consumer: {{{name}: income}}}}\nscenarios: {{}}")
    with pytest.raises(StressError, match=f"features.consumer.{name}: is no number that consumer takes"):
        stress.load(tmp_path / "stress.yaml").columns(consumer)
    with pytest.raises(StressError, match=r"features\.sffsd: is missing"):
        stress.load(stress.STRESS_PATH).columns(schemas.load(ROOT / "features/schemas/sffsd.yaml"))


def test_a_file_of_scenarios_alone_moves_the_shipped_features(consumer: Schema, tmp_path: Path) -> None:
    (tmp_path / "stress.yaml").write_text("scenarios: {bad year: {income: 0.2}}", encoding="utf-8")
    found, shipped = stress.load(tmp_path / "stress.yaml"), stress.load(stress.STRESS_PATH)
    assert found.scenarios == (Scenario("bad year", income=0.2),) and found.features == shipped.features
    assert {s.name for s in shipped.scenarios} >= {"recession"}
    for name in shipped.features:
        shipped.columns(schemas.load(ROOT / f"features/schemas/{name}.yaml"))
