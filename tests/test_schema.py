"""Schemas: what they refuse, what they extend, and the arithmetic of cross features."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import schema as schemas
from features.application import feature_entry
from features.expression import Expression, ExpressionError
from features.schema import Schema, SchemaError
from features.specs import TableSpec
from features.table import feature_columns
from models.gnn import own_columns
from tests.conftest import ROOT

X: dict[str, Any] = {"name": "x", "from": "request", "zh": "x", "en": "x"}
TIMED: dict[str, Any] = {"labels": {}, "time": "t"}


@pytest.mark.parametrize("name", ["consumer", "auto", "small_business", "sffsd"])
def test_shipped_schemas_load(name: str) -> None:
    schema = schemas.load(ROOT / f"features/schemas/{name}.yaml")
    assert schema.name == name
    assert all(f.zh and f.en for f in schema.features)


def test_auto_extends_consumer(consumer: Schema) -> None:
    auto = schemas.load(ROOT / "features/schemas/auto.yaml")
    assert set(consumer.feature_names) < set(auto.feature_names)
    assert [e for e in auto.entities if e not in consumer.entities] == ["vehicle"]
    assert auto.products == ("auto",) and auto.hash != consumer.hash
    for name in consumer.entities:
        assert auto.entities[name] == consumer.entities[name]  # one graph: the same slots


def test_small_business_extends_consumer_by_the_company(consumer: Schema) -> None:
    business = schemas.load(ROOT / "features/schemas/small_business.yaml")
    assert set(consumer.feature_names) < set(business.feature_names) and business.slots <= 16
    assert [e for e in business.entities if e not in consumer.entities] == ["company", "company_address"]
    assert all(business.entities[name] == consumer.entities[name] for name in consumer.entities)
    of_company = {s.name for s in business.sources.values() if s.slot == business.entities["company"].first_slot}
    assert (
        of_company
        == {"company_registry", "company_tax", "company_courts"}
        == set(business.sources) - set(consumer.sources)
    )
    assert business.record[: len(consumer.record)] == consumer.record  # what neighbours of other products carry


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"nonsense": 1}, "nonsense", "not permitted"),
        ({"amount_minor": [5, 1]}, "amount_minor", "low, high"),
        ({"version": "1"}, "version", "valid integer"),
        ({"table": {"labels": {"fraud": {"column": "y"}}}}, "table.labels.fraud.bad", "required"),
        ({"table": {"labels": {}, "split": "luck"}}, "table.split", "'time' or 'stratified'"),
        ({"table": TIMED | {"features": {"tax_income": "x"}}}, "table", "unknown name 'tax_income'"),
        ({"table": TIMED | {"split": "time", "time": []}}, "table", "needs a time"),
        ({"table": {"labels": {}}}, "", "need an order of rows"),
        ({"entities": {"a": {"zh": "甲", "en": "a", "slots": 17}}}, "entities.a.slots", "less than or equal to 16"),
        ({"entities": {n: {"zh": "甲", "en": n, "slots": 9} for n in "ab"}}, "entities", "at most 16"),
        ({"velocity": {"nobody": ["count_1h"]}}, "velocity", "unknown name 'nobody'"),
        ({"velocity": {"device": ["count_5y"]}}, "velocity.device", "unknown name 'count_5y'"),
        ({"graph": ["beauty"]}, "graph", "unknown name 'beauty'"),
        ({"record": ["tax_income"]}, "record", "unknown name 'tax_income'"),
        ({"labels": {"luck": {"bad": [], "good": [], "uses": []}}}, "labels.luck", "'fraud' or 'default'"),
        ({"labels": {"fraud": {"bad": ["stolen"], "good": [], "uses": ["request"]}}}, "labels.fraud.bad", "'repaid'"),
        ({"labels": {"fraud": {"bad": ["repaid"], "good": [], "uses": ["reqest"]}}}, "labels.fraud.uses", "'request'"),
        ({"sources": {"tax": {"zh": "税", "en": "tax"}}}, "sources.tax.fresh_days", "required"),
        ({"sources": {"tax": {"zh": "税", "en": "tax", "fresh_days": "30"}}}, "sources.tax.fresh_days", "number"),
        ({"features": [{"name": "x", "from": "moon", "zh": "x", "en": "x"}]}, "features.x", "unknown name 'moon'"),
        ({"features": [X | {"cross": "1"}]}, "features.0", "both 'from' and 'cross'"),
        ({"features": [X | {"missing": "-9"}]}, "features.0.missing", "valid tuple"),
        ({"features": [X | {"type": "category", "missing": [-9]}]}, "features.0", "neither missing nor range"),
        ({"features": [X | {"monotone": {"defualt": 1}}]}, "features.x.monotone", "unknown name 'defualt'"),
        ({"features": [X | {"range": [5, 1]}]}, "features.0", "low, high"),
        ({"fairness": {"nobody": []}}, "fairness", "unknown name 'nobody'"),
        ({"fairness": {"age_years": []}}, "fairness.age_years", "ascending"),
        ({"fairness": {"age_years": [45, 25]}}, "fairness.age_years", "ascending"),
        ({"fairness": {"age_years": [25, 25]}}, "fairness.age_years", "ascending"),
        ({"fairness": {"age_years": 25}}, "fairness.age_years", "valid tuple"),
        ({"fairness": {"housing": [1]}}, "fairness.housing", "no edges"),
        ({"features": [X | {"type": "category"}], "fairness": {"x": []}}, "fairness.x", "no names"),
        ({"features": [X | {"audit": True, "monotone": {"default": 1}}]}, "features.0", "only audited"),
        ({"features": [X | {"audit": True, "from": "application"}]}, "features.0", "only audited"),
        ({"features": [X | {"audit": True}], "record": ["x"]}, "record", "unknown name 'x'"),
        (
            {"features": [X | {"audit": True}, {"name": "y", "cross": "x + 1", "zh": "y", "en": "y"}]},
            "features.y",
            "unknown name 'x'",
        ),
        ({"features": [X, X]}, "features", "declared twice: x"),
        ({"features": [{"name": "x", "cross": "y **", "zh": "x", "en": "x"}]}, "features.x", "cannot read"),
        ({"features": [{"name": "x", "cross": "y + 1", "zh": "x", "en": "x"}]}, "features.x", "unknown name 'y'"),
    ],
)
def test_refusals_name_file_and_key(consumer: Schema, change: dict[str, Any], key: str, reason: str) -> None:
    document = consumer.document | change
    if "features" in change:
        document = document | {"sources": {}, "velocity": {}, "record": [], "fairness": {}} | change
    if "velocity" not in change and "entities" in change:
        document = document | {"velocity": {}}
    with pytest.raises(SchemaError, match=r"^w\.yaml: ") as refusal:
        Schema(document, "w.yaml")
    assert key in str(refusal.value) and reason in str(refusal.value)


def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(SchemaError, match="cannot be read"):
        schemas.load(tmp_path / "bad.yaml")
    with pytest.raises(SchemaError, match="cannot be read"):
        schemas.load(tmp_path / "none.yaml")


def test_expression() -> None:
    columns = {
        "a": np.array([1.0, np.nan, 6.0, 0.0]),
        "b": np.array([2.0, 4.0, 0.0, 0.0]),
        "c": np.array([9.0, np.nan, np.nan, 1.0]),
    }
    for text, expected in (
        ("a / b", [0.5, np.nan, np.nan, np.nan]),
        ("(a + 2 * b) - 1", [4.0, np.nan, 5.0, -1.0]),
        ("median(a, b, c)", [2.0, 4.0, 0.0, 0.0]),
        ("min(a, b)", [1.0, np.nan, 0.0, 0.0]),
        ("max(a, 1)", [1.0, np.nan, 6.0, 1.0]),
    ):
        np.testing.assert_array_equal(Expression(text)(columns.__getitem__), expected, err_msg=text)


@pytest.mark.parametrize(
    "text",
    ["a ** 2", "open('x')", "a.b", "a if b else c", "max(a)", "a +", "'x'", "1 + 2", "a + (" * 40 + "a" + ")" * 40],
)
def test_expression_refuses(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression(text)


def test_hash_follows_the_order_of_slots_and_columns(consumer: Schema) -> None:
    for key in ("entities", "sources", "velocity"):
        turned = consumer.document | {key: dict(reversed(consumer.document[key].items()))}
        if key == "entities":  # the applicant stays first
            first = {"applicant": turned[key].pop("applicant")}
            turned[key] = first | turned[key]
        assert Schema(turned, "w.yaml").hash != consumer.hash


def test_what_is_only_audited_is_read_and_reaches_no_model_and_no_policy(consumer: Schema) -> None:
    sex = {"name": "sex", "type": "category", "values": ["F", "M"], "audit": True}
    codes = {"name": "disability", "missing": [-1], "audit": True}
    document = consumer.document | {"features": [*consumer.document["features"], sex, codes]}
    schema = Schema(document | {"fairness": {"sex": [], "age_years": [40]}}, "w.yaml")
    hidden = {"channel", "sex", "disability", "disability_missing_code"}
    assert {f.name for f in schema.features if f.audit} == hidden and schema.fairness == {"sex": (), "age_years": (40,)}
    for label in schema.labels:
        read = {schema.feature_names[i] for i in schema.columns(label)}
        assert read == {consumer.feature_names[i] for i in consumer.columns(label)}
        assert hidden.isdisjoint(schema.feature_names[i] for i in own_columns(schema, label))
    assert schema.policy_inputs() == consumer.policy_inputs()
    assert feature_entry(schema, "sex", "M", "features.sex") == ("sex", 1.0)
    assert {"sex", "disability"} <= set(feature_columns(schema, TableSpec(labels={})))


def test_what_counts_others_is_known_through_crosses(consumer: Schema) -> None:
    document = copy.deepcopy(consumer.document)
    document["features"] += [
        {"name": "twice", "cross": "device_fraud_rate * 2"}, {"name": "again", "cross": "twice + amount"},
    ]  # fmt: skip
    schema = Schema(document, "s.yaml")
    counts = {name for name, counted in zip(schema.feature_names, schema.counting(), strict=True) if counted}
    assert {"twice", "again", "device_fraud_rate", "linked_24h"} <= counts and "income_to_tax" not in counts


def test_an_open_category_has_no_direction(consumer: Schema) -> None:
    document = copy.deepcopy(consumer.document)
    document["features"].append({"name": "shop", "type": "category", "monotone": {"fraud": 1}})
    with pytest.raises(SchemaError, match="only a category with values has an order"):
        Schema(document, "s.yaml")
