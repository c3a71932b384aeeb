"""An older version of a schema, whose rows are read by the names of features: whether they still mean the same."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from features.schema import Feature, Schema, SchemaError


def older(place: str, name: str, registered: Sequence[Any], schema: Schema) -> Schema:
    """The schema of hash `name`, as it was registered: its document, then the statistics it counted.

    Raises SchemaError, naming the place, where it is not that of its hash, has other entities or another record than
    `schema`, or something of the same name meant something else.
    """
    text = json.dumps(registered, ensure_ascii=False).encode()
    if hashlib.blake2b(text, digest_size=8).hexdigest() != name:
        raise SchemaError(f"{place}: is not that of its hash")
    was = Schema(registered[0], place)
    if _slots(was) != _slots(schema):
        raise SchemaError(f"{place}: has other entities or another record than {schema.name} {schema.hash}")
    for feature in was.features:
        if feature.name in schema.column and not _same_meaning(feature, schema.features[schema.column[feature.name]]):
            raise SchemaError(f"{place}: feature {feature.name} means something else in {schema.hash}")
    return was


def _slots(schema: Schema) -> list[tuple[object, ...]]:
    """What the packed events mean by their places."""
    return [(e.name, e.first_slot, e.slots, e.link, e.of) for e in schema.entities.values()] + [tuple(schema.record)]


def _same_meaning(was: Feature, now: Feature) -> bool:
    """Whether a number of one is a number of the other; new categories may only come last."""
    same = ("origin", "unit", "source", "category", "missing", "cross", "entity", "stat")
    return all(getattr(was, n) == getattr(now, n) for n in same) and now.values[: len(was.values)] == was.values
