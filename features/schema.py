"""The schema: one YAML file declares a lender's world, compiled once into column and slot plans.

Source: design.md "The schema is the centre"; R3, R5, R20. Invariants: the order of entities fixes the slots of an
event, the order of features fixes the columns of a row; `fingerprint` changes when either does. An unknown key, name
or type refuses to load with the file and the key.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from features.expression import Crosses, Expression, ExpressionError
from features.specs import MISSING_CODE, EntitySpec, FeatureSpec, LabelSpec, SchemaSpec
from features.statistics import ENTITY_STATS, GRAPH_STATS, STATISTICS

SLOTS_MAX = 16  # entity slots of one event
RECORD_MAX = 8  # numbers of one event
SOURCE_FRESH, SOURCE_STALE, SOURCE_MISSING = 0, 1, 2
SOURCE_STATES = ("fresh", "stale", "missing")


class SchemaError(ValueError):
    """A schema file that cannot be used; the message names the file, the key and the reason."""


@dataclass(frozen=True)
class Entity:
    """One type of entity. `first_slot` .. `first_slot + slots` are its places in an event."""

    name: str
    zh: str
    en: str
    first_slot: int
    slots: int = 1
    link: bool = False
    personal: bool = False
    consent: str = ""
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """An external source of features, which stand in `columns` of a row; older than `fresh_days` it is stale.

    It knows the entity in `slot` of an application: the applicant's unless the schema says `of`. `first` is the place
    of its first feature among those of all sources.
    """

    name: str
    zh: str
    en: str
    fresh_days: float
    features: tuple[str, ...]
    columns: tuple[int, ...]
    slot: int
    first: int

    @cached_property
    def layout(self) -> bytes:
        """uint64 fingerprint, 8 bytes, of the names and order of a stored profile's numbers."""
        return hashlib.blake2b(json.dumps([self.name, *self.features]).encode(), digest_size=8).digest()


@dataclass(frozen=True)
class Feature:
    """One column. `origin` is application, request, source, cross, velocity or graph; `source` the external source.

    A category without `values` is open: its number is a code of its text (features.application). `missing`: numbers
    that stand for a kind of missing; they fill the column `<name>_missing_code` and leave this one empty. `audit`:
    fairness is measured by it; no model, policy or reason reads it.
    """

    name: str
    origin: str
    zh: str
    en: str
    unit: str = ""
    source: str = ""
    range: tuple[float, float] | None = None
    values: tuple[str, ...] = ()
    monotone: Mapping[str, int] = field(default_factory=dict)
    personal: bool = False
    cross: str = ""
    entity: str = ""
    stat: str = ""
    category: bool = False
    missing: tuple[float, ...] = ()
    audit: bool = False


@dataclass(frozen=True)
class Label:
    """A label: the outcome kinds that set it, the origins of the features its model may use, and how old an
    application must be to be learned from."""

    name: str
    bad: tuple[str, ...]
    good: tuple[str, ...]
    presumed_good: tuple[str, ...]
    uses: tuple[str, ...]
    mature_days: float


# What sets a label unless the schema says so, and the applicant of a table without entities: each row its own.
_USUAL_OUTCOMES = {
    "fraud": LabelSpec(bad=("fraud_confirmed",), good=("fraud_cleared",), presumed_good=("repaid",)),
    "default": LabelSpec(bad=("past_due_90",), presumed_good=("repaid",)),
}
_NO_ENTITIES = {"applicant": EntitySpec(zh="申请人", en="applicant")}


def _missing_code(of: Feature) -> Feature:
    """The column that says in which way a feature is missing."""
    return Feature(
        f"{of.name}{MISSING_CODE}", of.origin, f"{of.zh}缺失代码", f"{of.en}: missing code", "", of.source,
        (min(of.missing), max(of.missing)), personal=of.personal, audit=of.audit,
    )  # fmt: skip


class Schema:
    """A compiled schema.

    `feature_names` are the columns of a feature row (float32, NaN where missing), `slots` the entity slots of an
    event, `record` the request features that travel with it, `fairness` the features whose groups training compares
    with the edges of their bands, `fingerprint` 8 bytes over all of it.
    """

    def __init__(self, document: Mapping[str, Any], path: str) -> None:
        self.document = dict(document)
        self._path = path
        try:
            spec = SchemaSpec.model_validate(self.document)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise self._error(key, f"{first['msg']}, is {first['input']!r}") from None
        self.name, self.version, self.currency = spec.name, spec.version, spec.currency
        self.products = spec.products or (spec.name,)
        self.minor_per_major = 10**spec.minor_units
        self.amount_minor, self.term_months = spec.amount_minor, spec.term_months
        self.record, self.table = spec.record, spec.table
        self.fairness, self.residual_value = spec.fairness, spec.residual_value
        self.entities = self._entities(spec)
        self.compounds = [e for e in self.entities.values() if e.of]
        self.slots = sum(e.slots for e in self.entities.values())
        if self.slots > SLOTS_MAX:
            raise self._error("entities", f"{self.slots} slots, at most {SLOTS_MAX}")
        self.features = self._features(spec)
        self.feature_names = tuple(f.name for f in self.features)
        self.column = {name: i for i, name in enumerate(self.feature_names)}
        self.application_features = frozenset(f.name for f in self.features if f.origin == "application")
        if len(self.column) != len(self.features):
            twice = sorted({n for n in self.feature_names if self.feature_names.count(n) > 1})
            raise self._error("features", f"declared twice: {', '.join(twice)}")
        self.sources = self._sources(spec)
        # int64 [N]: columns of the features of all sources, one after another
        self.source_columns = np.array([c for s in self.sources.values() for c in s.columns], dtype=np.int64)
        self.labels: dict[str, Label] = {name: self._label(name, label) for name, label in spec.labels.items()}
        self.crosses = self._crosses()
        self.fill_crosses = Crosses(self.column, self.crosses).fill
        self._check_names(spec)
        # the order of keys counts: it fixes slots and columns; so do the statistics that the graph computes
        canonical = json.dumps([self.document, *STATISTICS], ensure_ascii=False)
        self.fingerprint = hashlib.blake2b(canonical.encode(), digest_size=8).digest()

    @cached_property
    def hash(self) -> str:
        """Hex form of `fingerprint`; what a bundle's manifest and a decision carry."""
        return self.fingerprint.hex()

    @cached_property
    def link_slots(self) -> NDArray[np.bool_]:
        """bool [16]: whether sharing this slot's entity ties two people together."""
        links = np.zeros(SLOTS_MAX, dtype=np.bool_)
        links[: self.slots] = [e.link for e in self.entities.values() for _ in range(e.slots)]
        return links

    def columns(self, label: str) -> NDArray[np.int64]:
        """int64 [n]: columns of the features that the model of `label` may use, in row order."""
        uses = self.labels[label].uses
        return np.array([i for i, f in enumerate(self.features) if f.origin in uses and not f.audit], dtype=np.int64)

    def counting(self) -> NDArray[np.bool_]:
        """bool [F]: features that count other applications, alone or within a cross."""
        counts = np.array([f.origin in ("velocity", "graph") for f in self.features], dtype=np.bool_)
        for column, expression in self.crosses:
            counts[column] = any(counts[self.column[name]] for name in expression.names)
        return counts

    def policy_inputs(self) -> dict[str, str]:
        """Names that a policy may use from this schema, with their type: number, string or boolean.

        An open category is none: nobody could check a table against values that are not known.
        """
        names = {
            f.name: "string" if f.values else "number"
            for f in self.features if not f.audit and (f.values or not f.category)
        }  # fmt: skip
        names.update({f"{s}_state": "string" for s in self.sources})
        return names

    def _error(self, key: str, reason: str) -> SchemaError:
        return SchemaError(f"{self._path}: {key}: {reason}")

    def _label(self, name: str, spec: LabelSpec) -> Label:
        usual = _USUAL_OUTCOMES[name]
        if not spec.bad and not spec.good and not spec.presumed_good:
            return Label(name, usual.bad, usual.good, usual.presumed_good, spec.uses, spec.mature_days)
        if not spec.bad or not (spec.good or spec.presumed_good):
            raise self._error(f"labels.{name}", "needs outcomes that are bad and outcomes that are good")
        return Label(name, spec.bad, spec.good, spec.presumed_good, spec.uses, spec.mature_days)

    def _known(self, key: str, name: str, known: Collection[str]) -> None:
        if name not in known:
            raise self._error(key, f"unknown name {name!r}; known are {', '.join(known)}")

    def _check_names(self, spec: SchemaSpec) -> None:
        """Names that one section uses of another."""
        for name in self.record:
            told = [f.name for f in self.features if f.origin in ("request", "application") and not f.audit]
            self._known("record", name, told)
        for feature in spec.features:
            for label in feature.monotone:
                self._known(f"features.{feature.name}.monotone", label, self.labels)
        for name, edges in spec.fairness.items():
            self._known("fairness", name, self.feature_names)
            self._check_bands(self.features[self.column[name]], edges)
        if self.residual_value is not None:
            kinds = [f.name for f in self.features if f.values]
            self._known("residual_value.kind", self.residual_value.kind, kinds)
            given = [
                f.name for f in self.features
                if f.origin in ("application", "request", "source") and (f.values or not f.category) and not f.audit
            ]  # fmt: skip
            for name in self.residual_value.features:
                self._known("residual_value.features", name, given)
        if self.table is not None:
            for entity in self.table.entities:
                self._known("table.entities", entity, [n for n, e in self.entities.items() if not e.of])
            asked = [f.name for f in self.features if f.origin == "request"]
            for name in (*self.table.features, *self.table.days_since):
                self._known("table", name, asked)
            for label in self.table.labels:
                self._known("table.labels", label, self.labels)

    def _check_bands(self, feature: Feature, edges: tuple[float, ...]) -> None:
        key = f"fairness.{feature.name}"
        if feature.category and not feature.values:
            raise self._error(key, "its groups have no names; list the category's values")
        if feature.category and edges:
            raise self._error(key, "a category has no edges of bands")
        if not feature.category and (not edges or list(edges) != sorted(set(edges))):
            raise self._error(key, "a number needs edges of bands, ascending")

    def _entities(self, spec: SchemaSpec) -> dict[str, Entity]:
        entities: dict[str, Entity] = {}
        slot = 0
        for name, e in (spec.entities or _NO_ENTITIES).items():
            for part in e.of:
                self._known(f"entities.{name}.of", part, [n for n, known in entities.items() if known.slots == 1])
            entities[name] = Entity(
                name, e.zh or name, e.en or name, slot, e.slots, e.link, e.personal, e.consent, e.of
            )
            slot += e.slots
        return entities

    def _features(self, spec: SchemaSpec) -> tuple[Feature, ...]:
        features = [self._feature(feature, spec.sources) for feature in spec.features]
        features += [_missing_code(feature) for feature in features if feature.missing]
        for name, source in spec.sources.items():
            zh, en = source.zh, source.en
            features.append(Feature(f"{name}_age_days", "source", f"{zh}数据天数", f"age of {en} data", "days", name))
            features.append(
                Feature(f"{name}_completeness", "source", f"{zh}数据完整度", f"completeness of {en} data", "rate", name)
            )
        for entity, stats in spec.velocity.items():
            self._known("velocity", entity, self.entities)
            for stat in stats:
                self._known(f"velocity.{entity}", stat, ENTITY_STATS)
                unit, zh, en = ENTITY_STATS[stat]
                owner, unit = self.entities[entity], self.currency if unit == "currency" else unit
                name, zh, en = f"{entity}_{stat}", f"同一{owner.zh}{zh}", f"{owner.en}: {en}"
                features.append(Feature(name, "velocity", zh, en, unit, entity=entity, stat=stat))
        for stat in spec.graph:
            self._known("graph", stat, GRAPH_STATS)
            unit, zh, en = GRAPH_STATS[stat]
            features.append(Feature(stat, "graph", zh, en, unit, stat=stat))
        return tuple(features)

    def _feature(self, spec: FeatureSpec, sources: Collection[str]) -> Feature:
        origin = spec.came_from or ("cross" if spec.cross else "request")
        if origin not in ("application", "request", "cross"):
            self._known(f"features.{spec.name}.from", origin, ["application", "request", *sources])
        return Feature(
            spec.name, "source" if origin in sources else origin, spec.zh or spec.name, spec.en or spec.name, spec.unit,
            origin if origin in sources else "", spec.range, spec.values, spec.monotone,
            spec.personal, spec.cross, category=spec.type == "category", missing=spec.missing, audit=spec.audit,
        )  # fmt: skip

    def _sources(self, spec: SchemaSpec) -> dict[str, Source]:
        sources, first = dict[str, Source](), 0
        for name, source in spec.sources.items():
            made = (f"{name}_age_days", f"{name}_completeness")
            names = tuple(f.name for f in self.features if f.source == name and f.name not in made)
            if not names:
                raise self._error(f"sources.{name}", "no feature comes from it")
            about = source.of or next(iter(self.entities))
            self._known(f"sources.{name}.of", about, [n for n, e in self.entities.items() if e.slots == 1])
            sources[name] = Source(
                name, source.zh, source.en, source.fresh_days, names, tuple(self.column[n] for n in names),
                self.entities[about].first_slot, first,
            )  # fmt: skip
            first += len(names)
        return sources

    def _crosses(self) -> tuple[tuple[int, Expression], ...]:
        """Column and compiled expression of every cross feature; one may use those before it."""
        crosses = []
        for i, feature in enumerate(self.features):
            if feature.origin == "cross":
                try:
                    expression = Expression(feature.cross)
                except ExpressionError as error:
                    raise self._error(f"features.{feature.name}", str(error)) from None
                for name in expression.names:
                    later = self.column.get(name, i) >= i and self._origin(name) == "cross"
                    if name not in self.column or later or self.features[self.column[name]].audit:
                        raise self._error(f"features.{feature.name}", f"unknown name {name!r} in {feature.cross!r}")
                crosses.append((i, expression))
        return tuple(crosses)

    def _origin(self, name: str) -> str:
        return self.features[self.column[name]].origin if name in self.column else ""


def load(path: str | Path) -> Schema:
    """The schema in a YAML file, with what it `extends` (a file of that name beside it) merged underneath.

    Mappings merge, lists append, other keys replace. Raises SchemaError naming file and key.
    """
    return Schema(_document(Path(path)), str(path))


class _Loader(yaml.CSafeLoader):
    """YAML 1.2's booleans: a category or label called Yes, No, on or off is that text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in some if tag != "tag:yaml.org,2002:bool"]
    for first, some in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise SchemaError(f"{path}: must be a mapping")
    if "extends" not in document:
        return document
    base = _document(path.parent / f"{document.pop('extends')}.yaml")
    for key, value in document.items():
        if key in ("entities", "sources", "velocity", "labels", "fairness"):
            base[key] = {**base.get(key, {}), **value}
        elif key in ("features", "graph", "record"):
            base[key] = [*base.get(key, ()), *value]
        else:
            base[key] = value
    return base
