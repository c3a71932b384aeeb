"""The schema: one YAML file declares a lender's world, compiled once into column and slot plans.

Source: design.md "The schema is the centre"; R3, R5, R20. Invariants: the order of entities fixes the slots of an
event, the order of features fixes the columns of a row; `fingerprint` changes when either does. An unknown key, name
or type refuses to load with the file and the key.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from features.expression import Expression, ExpressionError

SLOTS_MAX = 16  # entity slots of one event
RECORD_MAX = 8  # numbers of one event

# Statistics of one entity, strictly before the application; columns of `Snapshot.entity_state`, written by
# features.graph. Unit and the words that follow the entity's name, in Chinese and English.
ENTITY_STATS: dict[str, tuple[str, str, str]] = {
    "count_1h": ("applications", "近1小时申请数", "applications in 1 hour"),
    "count_24h": ("applications", "近24小时申请数", "applications in 24 hours"),
    "count_7d": ("applications", "近7天申请数", "applications in 7 days"),
    "count_30d": ("applications", "近30天申请数", "applications in 30 days"),
    "count_all": ("applications", "累计申请数", "applications ever"),
    "gap_hours": ("hours", "距上次申请小时数", "hours since the last application"),
    "age_days": ("days", "首次出现至今天数", "days since first seen"),
    "amount_mean": ("currency", "历史平均金额", "mean amount so far"),
    "amount_ratio": ("ratio", "本次金额与历史均值之比", "this amount against the mean so far"),
    "amount_last_ratio": ("ratio", "本次金额与上次之比", "this amount against the last"),
    "fraud_count": ("applications", "已确认欺诈数", "confirmed frauds"),
    "fraud_rate": ("rate", "已知欺诈率(平滑)", "known fraud rate, smoothed"),
    "recent_fraud_rate": ("rate", "近16笔已知欺诈率(平滑)", "known fraud rate of the last 16, smoothed"),
    "default_count": ("applications", "已知违约数", "known defaults"),
    "default_rate": ("rate", "已知违约率(平滑)", "known default rate, smoothed"),
    "labelled_count": ("applications", "已有结果数", "applications with a known result"),
    "distinct_applicants": ("applicants", "近16笔中不同申请人数", "different applicants among the last 16"),
}

# Statistics over all linked entities of a request; columns of `Snapshot.graph_state`.
GRAPH_STATS: dict[str, tuple[str, str, str]] = {
    "linked_applications": ("applications", "关联的他人申请数", "applications of others linked to this one"),
    "linked_applicants": ("applicants", "关联的他人人数", "other applicants linked to this one"),
    "linked_24h": ("applications", "近24小时关联的他人申请数", "linked applications of others in 24 hours"),
    "linked_fraud": ("applications", "关联申请中已确认欺诈数", "confirmed frauds among linked applications"),
    "linked_fraud_rate": ("rate", "关联申请已知欺诈率(平滑)", "known fraud rate of linked applications, smoothed"),
    "shared_entities": (
        "entities",
        "与同一他人申请共用的最多要素数",
        "most identifiers shared with one other application",
    ),
}

# What the application's own fields give a `from: application` feature.
APPLICATION_FIELDS = (
    "amount", "term_months", "vehicle_kind", "vehicle_price", "down_payment", "vehicle_age_months",
    "vehicle_mileage_km", "battery_health",
)  # fmt: skip

OUTCOME_KINDS = (
    "fraud_confirmed", "fraud_cleared", "first_payment_default", "past_due_30", "past_due_90", "repaid", "retracted",
)  # fmt: skip

ORIGINS = ("application", "request", "source", "cross", "velocity", "graph")
SPLITS = ("time", "stratified")
DAY_MS = 86_400_000
MISSING_CODE = "_missing_code"  # ends the name of the column that says in which way a feature is missing
AMOUNT_MINOR_MAX = 10**15  # far below where a float64 loses whole numbers

# What a label means unless the schema says so, and the applicant of a table without entities: each row its own.
_LABEL_KINDS = {
    "fraud": {"bad": ("fraud_confirmed",), "good": ("fraud_cleared",)},
    "default": {"bad": ("past_due_90",), "good": ("repaid",)},
}
_NO_ENTITIES = {"applicant": {"zh": "申请人", "en": "applicant"}}
_FEATURE_KEYS = {
    "name", "from", "cross", "unit", "range", "type", "values", "missing", "monotone", "personal", "zh", "en",
}  # fmt: skip

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
    """An external source of features, which stand in `columns` of a row; older than `fresh_days` it is stale."""

    name: str
    zh: str
    en: str
    fresh_days: float
    features: tuple[str, ...]
    columns: tuple[int, ...]

    @property
    def layout(self) -> bytes:
        """uint64 fingerprint, 8 bytes, of the names and order of a stored profile's numbers."""
        return hashlib.blake2b(json.dumps([self.name, *self.features]).encode(), digest_size=8).digest()


@dataclass(frozen=True)
class Feature:
    """One column. `origin` is application, request, source, cross, velocity or graph; `source` the external source.

    A category without `values` is open: its number is a code of its text (features.application). `missing`: numbers
    that stand for a kind of missing; they fill the column `<name>_missing_code` and leave this one empty.
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


@dataclass(frozen=True)
class Label:
    """A label: the outcome kinds that set it, and the origins of the features its model may use."""

    name: str
    bad: tuple[str, ...]
    good: tuple[str, ...]
    uses: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """How a flat table of this schema is read (docs/schema.md "Table"); everything but a label's column may be absent.

    time: columns, joined by a space if several; whole numbers count steps of `time_unit_ms`. id: what `score` prints.
    amount: in major units. entities, features, days_since: column by name. labels: column, bad and good by label.
    split: how training sets rows aside, time or stratified.
    """

    time: tuple[str, ...]
    time_unit_ms: int
    time_format: str
    id: str
    amount: str
    entities: Mapping[str, str]
    labels: Mapping[str, Mapping[str, Any]]
    features: Mapping[str, str]
    days_since: Mapping[str, str]
    split: str


class Schema:
    """A compiled schema.

    `feature_names` are the columns of a feature row (float32, NaN where missing), `slots` the entity slots of an
    event, `record` the request features that travel with it, `fingerprint` 8 bytes over all of it.
    """

    def __init__(self, document: Mapping[str, Any], path: str) -> None:
        self.document = dict(document)
        self._path = path
        known = {"name", "version", "products", "currency", "amount_minor", "term_months", "entities", "record",
                 "minor_units", "sources", "features", "velocity", "graph", "labels", "table"}  # fmt: skip
        self._refuse_unknown(document, known, "top level")
        self.name: str = self._need(document, "name", str)
        self.version: int = self._need(document, "version", int)
        self.products: tuple[str, ...] = tuple(self._need(document, "products", list, [self.name]))
        self.currency: str = self._need(document, "currency", str, "CNY")
        self.minor_per_major = 10 ** int(document.get("minor_units", 2))
        self.amount_minor: tuple[int, int] = self._pair(document, "amount_minor", [0, AMOUNT_MINOR_MAX])
        self.term_months: tuple[int, int] = self._pair(document, "term_months", [0, 1200])
        self.entities = self._entities(self._need(document, "entities", dict, {}) or _NO_ENTITIES)
        self.slots = sum(e.slots for e in self.entities.values())
        if self.slots > SLOTS_MAX:
            raise self._error("entities", f"{self.slots} slots, at most {SLOTS_MAX}")
        self.features = self._features(document)
        self.feature_names = tuple(f.name for f in self.features)
        self.column = {name: i for i, name in enumerate(self.feature_names)}
        if len(self.column) != len(self.features):
            twice = sorted({n for n in self.feature_names if self.feature_names.count(n) > 1})
            raise self._error("features", f"declared twice: {', '.join(twice)}")
        self.sources = self._sources(self._need(document, "sources", dict, {}))
        self.labels = self._labels(self._need(document, "labels", dict))
        self.record: tuple[str, ...] = tuple(document.get("record", ()))
        for name in self.record:
            if name not in self.column or self.features[self.column[name]].origin not in ("request", "application"):
                raise self._error("record", f"{name!r} is not a feature of the request")
        if len(self.record) > RECORD_MAX:
            raise self._error("record", f"{len(self.record)} numbers, at most {RECORD_MAX}")
        self.crosses = self._crosses()
        self.table = self._table(document.get("table"))
        canonical = json.dumps(self.document, sort_keys=True, ensure_ascii=False)
        self.fingerprint = hashlib.blake2b(canonical.encode(), digest_size=8).digest()

    @property
    def hash(self) -> str:
        """Hex form of `fingerprint`; what a bundle's manifest and a decision carry."""
        return self.fingerprint.hex()

    @property
    def link_slots(self) -> NDArray[np.bool_]:
        """bool [slots]: whether sharing this slot's entity ties two people together."""
        return np.array([e.link for e in self.entities.values() for _ in range(e.slots)], dtype=np.bool_)

    def columns(self, label: str) -> NDArray[np.int64]:
        """int64 [n]: columns of the features that the model of `label` may use, in row order."""
        uses = self.labels[label].uses
        return np.array([i for i, f in enumerate(self.features) if f.origin in uses], dtype=np.int64)

    def policy_inputs(self) -> dict[str, str]:
        """Names that a policy may use from this schema, with their type: number, string or boolean.

        An open category is none: nobody could check a table against values that are not known.
        """
        names = {f.name: "string" if f.values else "number" for f in self.features if f.values or not f.category}
        names.update({f"{s}_state": "string" for s in self.sources})
        return names

    def _error(self, key: str, reason: str) -> SchemaError:
        return SchemaError(f"{self._path}: {key}: {reason}")

    def _refuse_unknown(self, mapping: Mapping[str, Any], known: set[str], key: str) -> None:
        unknown = sorted(set(mapping) - known)
        if unknown:
            raise self._error(key, f"unknown key {', '.join(map(repr, unknown))}")

    def _need(self, mapping: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
        """The value of a key, of one type; `default` where the key is absent, an error if there is none."""
        if key not in mapping:
            if default is None:
                raise self._error(key, "is missing")
            return default
        if not isinstance(mapping[key], kind) or isinstance(mapping[key], bool):
            raise self._error(key, f"must be a {kind.__name__}, is {mapping[key]!r}")
        return mapping[key]

    def _pair(self, mapping: Mapping[str, Any], key: str, default: list[int]) -> tuple[int, int]:
        pair = self._need(mapping, key, list, default)
        if len(pair) != 2 or not all(isinstance(v, int) for v in pair) or pair[0] > pair[1]:
            raise self._error(key, f"must be [low, high] in whole numbers, is {pair!r}")
        return pair[0], pair[1]

    def _entities(self, raw: Mapping[str, Any]) -> dict[str, Entity]:
        entities: dict[str, Entity] = {}
        slot = 0
        for name, spec in raw.items():
            self._refuse_unknown(spec, {"zh", "en", "slots", "link", "personal", "consent", "of"}, f"entities.{name}")
            of = tuple(spec.get("of", ()))
            for part in of:
                if part not in entities or entities[part].slots != 1:
                    raise self._error(f"entities.{name}.of", f"{part!r} is no single-slot entity declared before")
            entity = Entity(
                name, spec.get("zh", name), spec.get("en", name), slot, spec.get("slots", 1),
                spec.get("link", False), spec.get("personal", False), spec.get("consent", ""), of,
            )  # fmt: skip
            entities[name] = entity
            slot += entity.slots
        return entities

    def _features(self, document: Mapping[str, Any]) -> tuple[Feature, ...]:
        sources = self._need(document, "sources", dict, {})
        features = [self._feature(spec, sources) for spec in self._need(document, "features", list)]
        features += [self._missing_code(f) for f in features if f.missing]
        for name in sources:
            features.append(
                Feature(
                    f"{name}_age_days",
                    "source",
                    f"{sources[name]['zh']}数据天数",
                    f"age of {sources[name]['en']} data",
                    "days",
                    name,
                )
            )
        for entity, stats in document.get("velocity", {}).items():
            if entity not in self.entities:
                raise self._error(f"velocity.{entity}", "no such entity")
            for stat in stats:
                if stat not in ENTITY_STATS:
                    raise self._error(f"velocity.{entity}", f"unknown statistic {stat!r}")
                unit, zh, en = ENTITY_STATS[stat]
                owner = self.entities[entity]
                features.append(
                    Feature(
                        f"{entity}_{stat}",
                        "velocity",
                        f"同一{owner.zh}{zh}",
                        f"{owner.en}: {en}",
                        self.currency if unit == "currency" else unit,
                        entity=entity,
                        stat=stat,
                    )
                )
        for stat in document.get("graph", ()):
            if stat not in GRAPH_STATS:
                raise self._error("graph", f"unknown statistic {stat!r}")
            unit, zh, en = GRAPH_STATS[stat]
            features.append(Feature(stat, "graph", zh, en, unit, stat=stat))
        return tuple(features)

    def _feature(self, spec: Mapping[str, Any], sources: Mapping[str, Any]) -> Feature:
        name = self._need(spec, "name", str)
        key = f"features.{name}"
        self._refuse_unknown(spec, _FEATURE_KEYS, key)
        if "cross" in spec and "from" in spec:
            raise self._error(key, "has both 'from' and 'cross'")
        came_from = "cross" if "cross" in spec else spec.get("from", "request")
        if came_from == "application" and name not in APPLICATION_FIELDS:
            raise self._error(key, f"an application has no field {name!r}; it has {', '.join(APPLICATION_FIELDS)}")
        if came_from not in ("application", "request", "cross") and came_from not in sources:
            raise self._error(key, f"unknown source {came_from!r}")
        kind = spec.get("type", "number")
        if kind not in ("number", "category") or (kind == "number" and "values" in spec):
            raise self._error(key, "type must be number, or category, which alone may have values")
        if kind == "category" and (came_from == "cross" or {"missing", "range"} & set(spec)):
            raise self._error(key, "a category is given, not computed, and has neither missing nor range")
        if kind == "category" and came_from == "application" and "values" not in spec:
            raise self._error(key, "a category of the application needs its values")
        if any(v not in (-1, 0, 1) for v in spec.get("monotone", {}).values()):
            raise self._error(key, "monotone must be -1, 0 or 1")
        missing = spec.get("missing", [])
        if not isinstance(missing, list) or not all(type(v) in (int, float) for v in missing):
            raise self._error(key, "missing must be a list of numbers")
        if missing and came_from in ("application", "cross"):
            raise self._error(key, "missing codes belong to a feature of the request or a source")
        return Feature(
            name,
            came_from if came_from in ("application", "request", "cross") else "source",
            spec.get("zh", name),
            spec.get("en", name),
            spec.get("unit", ""),
            came_from if came_from in sources else "",
            tuple(map(float, spec["range"])) if "range" in spec else None,  # type: ignore[arg-type]
            tuple(map(str, spec.get("values", ()))),
            spec.get("monotone", {}),
            spec.get("personal", False),
            spec.get("cross", ""),
            category=kind == "category",
            missing=tuple(map(float, missing)),
        )

    def _missing_code(self, of: Feature) -> Feature:
        """The column that says in which way a feature is missing."""
        return Feature(
            f"{of.name}{MISSING_CODE}", of.origin, f"{of.zh}缺失代码", f"{of.en}: missing code", "", of.source,
            (min(of.missing), max(of.missing)), personal=of.personal,
        )  # fmt: skip

    def _sources(self, raw: Mapping[str, Any]) -> dict[str, Source]:
        sources = {}
        for name, spec in raw.items():
            self._refuse_unknown(spec, {"fresh_days", "zh", "en"}, f"sources.{name}")
            names = tuple(f.name for f in self.features if f.source == name and f.name != f"{name}_age_days")
            if not names:
                raise self._error(f"sources.{name}", "no feature comes from it")
            sources[name] = Source(
                name, self._need(spec, "zh", str), self._need(spec, "en", str), spec["fresh_days"], names,
                tuple(self.column[n] for n in names),
            )  # fmt: skip
        return sources

    def _labels(self, raw: Mapping[str, Any]) -> dict[str, Label]:
        labels = {}
        for name, spec in raw.items():
            self._refuse_unknown(spec, {"bad", "good", "uses"}, f"labels.{name}")
            if name not in _LABEL_KINDS:
                raise self._error(f"labels.{name}", "a label is fraud or default")
            bad, good = (tuple(spec.get(key, _LABEL_KINDS[name][key])) for key in ("bad", "good"))
            for kind in (*bad, *good):
                if kind not in OUTCOME_KINDS:
                    raise self._error(f"labels.{name}", f"unknown outcome {kind!r}")
            uses = tuple(spec.get("uses", ORIGINS))
            if not uses or not set(uses) <= set(ORIGINS):
                raise self._error(f"labels.{name}.uses", f"must be some of {', '.join(ORIGINS)}")
            labels[name] = Label(name, bad, good, uses)
        return labels

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
                    if name not in self.column or later:
                        raise self._error(f"features.{feature.name}", f"unknown name {name!r} in {feature.cross!r}")
                crosses.append((i, expression))
        return tuple(crosses)

    def _origin(self, name: str) -> str:
        return self.features[self.column[name]].origin if name in self.column else ""

    def _table(self, raw: Mapping[str, Any] | None) -> Table | None:
        if raw is None:
            return None
        self._refuse_unknown(raw, set(Table.__dataclass_fields__), "table")
        labels = self._need(raw, "labels", dict)
        for name, spec in labels.items():
            self._refuse_unknown(spec, {"column", "bad", "good"}, f"table.labels.{name}")
            if name not in self.labels or not isinstance(spec.get("bad"), list) or "column" not in spec:
                raise self._error(
                    f"table.labels.{name}", "needs a label of the schema, a column and a list of bad values"
                )
        entities, features, days = (self._need(raw, key, dict, {}) for key in ("entities", "features", "days_since"))
        for name in entities:
            if name not in self.entities or self.entities[name].of:
                raise self._error(f"table.entities.{name}", "no such entity, or one made of others")
        for key, name in [*(("features", n) for n in features), *(("days_since", n) for n in days)]:
            if name not in self.column or self._origin(name) != "request":
                raise self._error(f"table.{key}.{name}", "no such feature of the request")
        time = raw.get("time", [])
        split = raw.get("split", "time" if time else "stratified")
        if split not in SPLITS or (split == "time" and not time):
            raise self._error("table.split", f"must be {' or '.join(SPLITS)}, and needs a time to split by time")
        if not time and any(f.origin in ("velocity", "graph") for f in self.features):
            raise self._error("table.time", "is missing: velocity and graph features need an order of rows")
        return Table(
            (time,) if isinstance(time, str) else tuple(time), self._need(raw, "time_unit_ms", int, DAY_MS),
            raw.get("time_format", ""), raw.get("id", ""), raw.get("amount", ""), entities, labels, features, days,
            split,
        )  # fmt: skip


def load(path: str | Path) -> Schema:
    """The schema in a YAML file, with what it `extends` (a file of that name beside it) merged underneath.

    Mappings merge, lists append, other keys replace. Raises SchemaError naming file and key.
    """
    return Schema(_document(Path(path)), str(path))


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SchemaError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise SchemaError(f"{path}: must be a mapping")
    if "extends" not in document:
        return document
    base = _document(path.parent / f"{document.pop('extends')}.yaml")
    for key, value in document.items():
        if key in ("entities", "sources", "velocity", "labels"):
            base[key] = {**base.get(key, {}), **value}
        elif key in ("features", "graph", "record"):
            base[key] = [*base.get(key, ()), *value]
        else:
            base[key] = value
    return base
