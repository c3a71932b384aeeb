"""What a schema file may say: every key, its type and its default. Anything else is refused by its place."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

DAY_MS = 86_400_000
AMOUNT_MINOR_MAX = 10**15  # far below where a float64 loses whole numbers
SPLITS = ("time", "stratified")
MISSING_CODE = "_missing_code"  # ends the name of the column that says in which way a feature is missing

# What the application's own fields give a `from: application` feature.
APPLICATION_FIELDS = (
    "amount", "term_months", "vehicle_kind", "vehicle_price", "down_payment", "vehicle_age_months",
    "vehicle_mileage_km", "battery_health", "vehicle_list_price",
)  # fmt: skip

OUTCOME_KINDS = (
    "fraud_confirmed", "fraud_cleared", "first_payment_default", "past_due_30", "past_due_90", "repaid", "retracted",
    "disbursed", "not_taken_up", "expired", "principal_repaid",
)  # fmt: skip
LISTS = ("black", "grey", "white")  # 黑名单, 灰名单, 白名单

Text = Annotated[str, Field(min_length=1)]
Label = Literal["fraud", "default"]
Origin = Literal["application", "request", "source", "cross", "velocity", "graph"]
OutcomeKind = Literal[
    "fraud_confirmed", "fraud_cleared", "first_payment_default", "past_due_30", "past_due_90", "repaid"
]


def _spelled(value: object) -> object:
    """A value of a table as features.columns.texts writes it: 1.0 as 1, a boolean in small letters."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value


CellText = Annotated[str, BeforeValidator(_spelled)]


class Spec(BaseModel):
    """Strict: no unknown key, no silent conversion; a YAML list is taken as a tuple."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class EntitySpec(Spec):
    """A type of entity; its words are its name unless said."""

    zh: str = ""
    en: str = ""
    slots: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    link: bool = False
    personal: bool = False
    consent: str = ""
    of: tuple[str, ...] = ()


class SourceSpec(Spec):
    """An external source; `of` is the entity it knows, the applicant unless said."""

    zh: Text
    en: Text
    fresh_days: Annotated[float, Field(gt=0, strict=True)]
    of: str = ""


class FeatureSpec(Spec):
    """A column: from the application, the request or a source, or a cross of others."""

    name: Text
    zh: str = ""
    en: str = ""
    came_from: str = Field("", alias="from")
    cross: str = ""
    unit: str = ""
    range: tuple[float, float] | None = None
    type: Literal["number", "category"] = "number"
    values: tuple[CellText, ...] = ()
    missing: tuple[float, ...] = ()
    monotone: dict[str, Literal[-1, 0, 1]] = {}
    personal: bool = False
    audit: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.audit and (self.cross or self.came_from not in ("", "request") or self.monotone):
            raise ValueError(f"{self.name}: what is only audited is of the request and binds no model")
        if self.came_from and self.cross:
            raise ValueError(f"{self.name}: has both 'from' and 'cross'")
        if self.values and self.type != "category":
            raise ValueError(f"{self.name}: only a category has values")
        if self.type == "category" and (self.cross or self.missing or self.range):
            raise ValueError(f"{self.name}: a category is given, not computed, and has neither missing nor range")
        if self.type == "category" and not self.values and any(self.monotone.values()):
            raise ValueError(f"{self.name}: only a category with values has an order to be monotone in")
        if self.type == "category" and self.came_from == "application" and not self.values:
            raise ValueError(f"{self.name}: a category of the application needs its values")
        if self.missing and (self.cross or self.came_from == "application"):
            raise ValueError(f"{self.name}: missing codes belong to a feature of the request or a source")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"{self.name}: range must be [low, high]")
        if self.came_from == "application" and self.name not in APPLICATION_FIELDS:
            raise ValueError(f"{self.name}: an application has {', '.join(APPLICATION_FIELDS)}")
        return self


class LabelSpec(Spec):
    """Outcomes that set a label, and the origins of the features its model may use.

    mature_days: an application younger than that at the end of a history is not learned from: what is bad comes to
    light at another pace than what is good.
    """

    bad: tuple[OutcomeKind, ...] = ()
    good: tuple[OutcomeKind, ...] = ()
    presumed_good: tuple[OutcomeKind, ...] = ()
    uses: Annotated[tuple[Origin, ...], Field(min_length=1)] = get_args(Origin)
    mature_days: Annotated[float, Field(ge=0)] = 0.0


class TableLabelSpec(Spec):
    """The column of a label and its values; without `good` every value that is there and not bad is good."""

    column: Text
    bad: Annotated[tuple[CellText, ...], Field(min_length=1)]
    good: tuple[CellText, ...] | None = None


class TableSpec(Spec):
    """How a flat table of this schema is read (docs/schema.md "Table"); only labels must be there.

    time: columns, joined by a space if several; whole numbers count steps of `time_unit_ms`. id: what `score` prints.
    amount: in major units. entities, features, days_since: column by name. split: how training sets rows aside.
    """

    time: tuple[Text, ...] = ()
    time_unit_ms: Annotated[int, Field(gt=0, strict=True)] = DAY_MS
    time_format: str = ""
    id: str = ""
    amount: str = ""
    entities: dict[str, Text] = {}
    labels: dict[Label, TableLabelSpec]
    features: dict[str, Text] = {}
    days_since: dict[str, Text] = {}
    split: Literal["time", "stratified"] = "stratified"

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: object) -> object:
        """One column of time may stand without brackets; where there is a time, rows are set aside by it."""
        if not isinstance(given, dict):
            return given
        time = given.get("time", ())
        return {"split": "time" if time else "stratified"} | given | {"time": [time] if isinstance(time, str) else time}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.split == "time" and not self.time:
            raise ValueError("split by time needs a time")
        return self


class SalesSpec(Spec):
    """Columns of a table of sales: when, for how much in major units, and of features that have other names there."""

    sold_at: Text
    time_format: str = ""
    price: Text
    columns: dict[str, Text] = {}


class ResidualValueSpec(Spec):
    """What tells how much a car fetches (R8, docs/schema.md "Residual value").

    features: each with the direction in which the share of the list price moves with it. Three of them are named: what
    holds the list price, in major units, the kind, whose cars are calibrated apart, and the age in months.
    """

    list_price: Text
    kind: Text
    age_months: Text
    features: dict[str, Literal[-1, 0, 1]]
    sales: SalesSpec

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in (self.list_price, self.kind, self.age_months, *self.sales.columns):
            if name not in self.features:
                raise ValueError(f"{name}: is none of features")
        if self.features[self.kind]:
            raise ValueError(f"{self.kind}: a category has no direction")
        return self


Pair = Annotated[tuple[Annotated[int, Field(strict=True)], Annotated[int, Field(strict=True)]], Field()]


class SchemaSpec(Spec):
    """A whole file."""

    name: Text
    version: Annotated[int, Field(ge=1, strict=True)]
    products: tuple[Text, ...] = ()
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "CNY"
    minor_units: Annotated[int, Field(ge=0, le=4, strict=True)] = 2
    amount_minor: Pair = (0, AMOUNT_MINOR_MAX)
    term_months: Pair = (0, 1200)
    entities: dict[str, EntitySpec] = {}
    record: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    sources: dict[str, SourceSpec] = {}
    features: tuple[FeatureSpec, ...]
    velocity: dict[str, tuple[str, ...]] = {}
    graph: tuple[str, ...] = ()
    labels: Annotated[dict[Label, LabelSpec], Field(min_length=1)]
    fairness: dict[str, tuple[float, ...]] = {}
    table: TableSpec | None = None
    residual_value: ResidualValueSpec | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("amount_minor", "term_months"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: must be [low, high]")
        if self.table is not None and not self.table.time and (self.velocity or self.graph):
            raise ValueError("table.time: velocity and graph features need an order of rows")
        return self
