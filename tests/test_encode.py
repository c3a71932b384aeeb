"""Categories as numbers: no row learns from its own label, the unseen and the missing have an answer."""

import numpy as np
import pytest

from features.application import category_code
from features.schema import Schema
from models.encode import KINDS, SMOOTHING, Categories, Encoding

NAMES = {int(category_code(t)): t for t in ("10", "9", "a", "b")}
SCHEMA = Schema(
    {
        "name": "t", "version": 1, "labels": {"default": {}},
        "features": [
            {"name": "x"}, {"name": "open", "type": "category"},
            {"name": "closed", "type": "category", "values": ["low", "high"]},
        ],
    },
    "t.yaml",
)  # fmt: skip


def rows(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    columns = random.normal(size=count), random.choice(list(NAMES), count), random.integers(0, 2, count)
    matrix = np.column_stack(columns).astype(np.float32)
    matrix[random.random(count) < 0.1, 1] = np.nan
    return matrix, (random.random(count) < 0.3).astype(np.int8)


@pytest.mark.parametrize("kind", KINDS)
def test_packing_keeps_the_encoding(kind: str) -> None:
    matrix, labels = rows()
    encoding, encoded = Categories(SCHEMA, "default", {"open": NAMES}).fit(kind, matrix, labels, 0)
    again = Encoding.unpack(encoding.pack())
    np.testing.assert_array_equal(again(matrix), encoding(matrix))
    assert encoded.shape == (400, {"order": 3, "target": 3, "both": 5}[kind])
    np.testing.assert_array_equal(again.owner, [0, 1, 2, 1, 2][: encoded.shape[1]])
    np.testing.assert_array_equal(encoded[:, 0], matrix[:, 0])


def test_order_is_of_numbers_then_texts_and_the_unseen_is_missing() -> None:
    matrix, labels = rows()
    encoding, _ = Categories(SCHEMA, "default", {"open": NAMES}).fit("order", matrix, labels, 0)
    asked = np.zeros((5, 3), np.float32)
    asked[:, 1] = [category_code(t) for t in ("9", "10", "a", "b", "never seen")]
    np.testing.assert_array_equal(encoding(asked)[:, 1], [0, 1, 2, 3, np.nan])


def test_target_is_smoothed_and_the_unseen_is_the_mean() -> None:
    matrix, labels = rows()
    encoding, _ = Categories(SCHEMA, "default", {}).fit("target", matrix, labels, 0)
    code, prior = category_code("a"), (labels.sum() + 0.5) / 401
    of = matrix[:, 1] == code
    rate = (labels[of].sum() + SMOOTHING * prior) / (of.sum() + SMOOTHING)
    asked = np.array([[0, code, 0], [0, 5, 0], [0, np.nan, 0]], np.float32)
    found = encoding(asked)[:, 1]
    np.testing.assert_allclose(found[:2], np.log([rate / (1 - rate), prior / (1 - prior)]), rtol=1e-6)
    assert np.isfinite(found[2]) and found[2] != found[1]


def test_no_row_learns_from_its_own_label() -> None:
    matrix, labels = rows()
    fit = Categories(SCHEMA, "default", {"open": NAMES}).fit
    _, before = fit("both", matrix, labels, 0)
    for row in (0, 7, 399):
        other = labels.copy()
        other[row] = 1 - other[row]
        _, after = fit("both", matrix, other, 0)
        np.testing.assert_array_equal(after[row], before[row])
        assert not np.array_equal(after, before, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_category_keeps_its_order(kind: str) -> None:
    """Under every encoding: how often a value goes bad has another order, and a copy of it would be free."""
    document = {**SCHEMA.document, "features": [dict(feature) for feature in SCHEMA.document["features"]]}
    document["features"][2]["monotone"] = {"default": 1}
    matrix, labels = rows()
    encoding, encoded = Categories(Schema(document, "t.yaml"), "default", {"open": NAMES}).fit(kind, matrix, labels, 0)
    np.testing.assert_array_equal(encoded[:, 2], matrix[:, 2])
    assert 2 not in encoding.owner[3:]
