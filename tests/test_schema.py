"""Schemas: what they refuse, what they extend, and the arithmetic of cross features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import schema as schemas
from features.expression import Expression, ExpressionError
from features.schema import Schema, SchemaError
from tests.conftest import ROOT


@pytest.mark.parametrize("name", ["consumer", "auto", "sffsd"])
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


@pytest.mark.parametrize(
    ("change", "key", "reason"),
    [
        ({"nonsense": 1}, "top level", "unknown key 'nonsense'"),
        ({"amount_minor": [5, 1]}, "amount_minor", "low, high"),
        ({"version": "1"}, "version", "must be a int"),
        ({"table": {"labels": {"fraud": {"column": "y"}}}}, "table.labels.fraud", "a list of bad values"),
        ({"table": {"labels": {}, "split": "luck"}}, "table.split", "time or stratified"),
        ({"table": {"labels": {}, "features": {"tax_income": "x"}}}, "table.features.tax_income", "no such feature"),
        ({"table": {"labels": {}}}, "table.time", "need an order of rows"),
        ({"entities": {"a": {"zh": "甲", "en": "a", "slots": 17}}}, "entities", "at most 16"),
        ({"velocity": {"nobody": ["count_1h"]}}, "velocity.nobody", "no such entity"),
        ({"velocity": {"device": ["count_5y"]}}, "velocity.device", "unknown statistic"),
        ({"graph": ["beauty"]}, "graph", "unknown statistic"),
        ({"record": ["tax_income"]}, "record", "is not a feature of the request"),
        ({"labels": {"luck": {"bad": [], "good": [], "uses": []}}}, "labels.luck", "fraud or default"),
        ({"labels": {"fraud": {"bad": ["stolen"], "good": [], "uses": []}}}, "labels.fraud", "unknown outcome"),
        ({"features": [{"name": "x", "from": "moon", "zh": "x", "en": "x"}]}, "features.x", "unknown source"),
        ({"features": [{"name": "x", "from": "request", "cross": "1"}]}, "features.x", "both 'from' and 'cross'"),
        ({"features": [{"name": "x", "missing": "-9"}]}, "features.x", "list of numbers"),
        ({"features": [{"name": "x", "type": "category", "missing": [-9]}]}, "features.x", "neither missing nor range"),
        ({"features": [{"name": "x", "cross": "y **", "zh": "x", "en": "x"}]}, "features.x", "cannot read"),
        ({"features": [{"name": "x", "cross": "y + 1", "zh": "x", "en": "x"}]}, "features.x", "unknown name 'y'"),
    ],
)
def test_refusals_name_file_and_key(consumer: Schema, change: dict[str, Any], key: str, reason: str) -> None:
    document = consumer.document | change
    if "features" in change:
        document = document | {"sources": {}, "velocity": {}, "record": []}
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
        ("median(a, b, c)", [2.0, 4.0, 3.0, 0.0]),
        ("min(a, b)", [1.0, 4.0, 0.0, 0.0]),
        ("max(a, 1)", [1.0, 1.0, 6.0, 1.0]),
    ):
        np.testing.assert_array_equal(Expression(text)(columns.__getitem__), expected, err_msg=text)


@pytest.mark.parametrize("text", ["a ** 2", "open('x')", "a.b", "a if b else c", "max(a)", "a +", "'x'"])
def test_expression_refuses(text: str) -> None:
    with pytest.raises(ExpressionError):
        Expression(text)
