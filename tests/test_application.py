"""Identifiers become tokens once, contacts only with consent; numbers stay in their range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import schema as schemas
from features.application import InvalidFieldError, entity_tokens, feature_number
from features.schema import Schema
from features.tokens import Tokenizer, plain
from tests.conftest import ROOT, TOKENIZER


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("phone", "+86 138 0013 8000", "13800138000"),
        ("phone", "0086-13800138000", "１３８００１３８０００"),
        ("applicant", "11010119900307123x", "11010119900307123X"),
        ("card", "6222 0212-3456 7890", "6222021234567890"),
        ("vehicle", "lsv aa49 j1320 47882", "LSVAA49J132047882"),
        ("company", "91440300 71526726xg", "9144030071526726XG"),
        ("applicant", "110101\u200b19900307123X", "11010119900307123X"),  # what shows nothing tells nobody apart
        ("phone", "138\u20600013\ufeff8000", "13800138000"),
        ("device", "de\u00advice-1\ufe0f", "device-1"),
    ],
)
def test_one_identifier_one_token(kind: str, one: str, other: str) -> None:
    assert TOKENIZER.token(kind, one) == TOKENIZER.token(kind, other)


@given(st.text(min_size=1), st.text(min_size=1))
def test_tokens_differ_by_identifier_type_and_secret(one: str, other: str) -> None:
    if plain(one).strip() and plain(other).strip():
        token = TOKENIZER.token("device", one)
        assert 0 < token < 2**64
        assert token != TOKENIZER.token("address", one)
        assert token != Tokenizer(b"another secret, long").token("device", one)


def test_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Tokenizer(b"short")


def test_contacts_only_with_consent(consumer: Schema) -> None:
    entities = [("contact", "13800138000"), ("contact", "13800138001"), ("device", "d")]
    slot = consumer.entities["contact"].first_slot
    without = entity_tokens(consumer, TOKENIZER, "applicant", entities, {"marketing"})
    assert not without[slot : slot + 3].any() and np.count_nonzero(without) == 2
    given_it = entity_tokens(consumer, TOKENIZER, "applicant", entities, {"contacts"})
    assert np.count_nonzero(given_it[slot : slot + 3]) == 2


def test_the_same_contact_twice_counts_once(consumer: Schema) -> None:
    tokens = entity_tokens(
        consumer, TOKENIZER, "a", [("contact", "13800138000"), ("contact", "+8613800138000")], {"contacts"}
    )
    assert np.count_nonzero(tokens) == 2


def test_compound_entities() -> None:
    schema = schemas.load(ROOT / "features/schemas/sffsd.yaml")
    slot = schema.entities["source_target"].first_slot
    one = entity_tokens(schema, TOKENIZER, "S1", [("target", "T1")], ())
    same = entity_tokens(schema, TOKENIZER, "S1", [("target", "T1"), ("location", "L")], ())
    other = entity_tokens(schema, TOKENIZER, "S1", [("target", "T2")], ())
    assert one[slot] == same[slot] != other[slot]
    assert one[schema.entities["source_type"].first_slot] == 0  # no type, no pair


@pytest.mark.parametrize(
    ("entities", "field"),
    [
        ([("device", "d"), ("spaceship", "x")], "entities[1].type"),
        ([("applicant", "someone else")], "entities[0].type"),
        ([("device", "")], "entities[0].id"),
        ([("device", "d" * 257)], "entities[0].id"),
        ([("device", "a\nb")], "entities[0].id"),
        ([("phone", "no digits")], "entities[0].id"),
        ([("device", "one"), ("device", "two")], "entities[1]"),
    ],
)
def test_bad_entities_are_named(consumer: Schema, entities: list[tuple[str, str]], field: str) -> None:
    with pytest.raises(InvalidFieldError) as refusal:
        entity_tokens(consumer, TOKENIZER, "applicant", entities, ())
    assert refusal.value.field == field


def test_feature_numbers(consumer: Schema) -> None:
    assert feature_number(consumer, "education", "college", "k") == 2.0
    assert feature_number(consumer, "age_years", 30, "k") == 30.0
    for name, value in (
        ("education", "doctor"), ("education", 1.0), ("age_years", "30"), ("age_years", float("nan")),
        ("age_years", float("inf")), ("age_years", -1.0), ("telecom_night_share", 1.1),
    ):  # fmt: skip
        with pytest.raises(InvalidFieldError, match=r"^features\[x\]: "):
            feature_number(consumer, name, value, "features[x]")
