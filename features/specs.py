"""What a schema file may say: every key, its type and its default. Anything else is refused by its place."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What the application's own fields give a `from: application` feature.
APPLICATION_FIELDS = (
    "amount", "term_months", "vehicle_kind", "vehicle_price", "down_payment", "vehicle_age_months",
    "vehicle_mileage_km", "battery_health",
)  # fmt: skip

OUTCOME_KINDS = (
    "fraud_confirmed", "fraud_cleared", "first_payment_default", "past_due_30", "past_due_90", "repaid", "retracted",
)  # fmt: skip

Text = Annotated[str, Field(min_length=1)]
Label = Literal["fraud", "default"]
Origin = Literal["application", "request", "source", "cross", "velocity", "graph"]
OutcomeKind = Literal[
    "fraud_confirmed", "fraud_cleared", "first_payment_default", "past_due_30", "past_due_90", "repaid"
]


class Spec(BaseModel):
    """Strict: no unknown key, no silent conversion; a YAML list is taken as a tuple."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class EntitySpec(Spec):
    """A type of entity."""

    zh: Text
    en: Text
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
    zh: Text
    en: Text
    came_from: str = Field("", alias="from")
    cross: str = ""
    unit: str = ""
    range: tuple[float, float] | None = None
    type: Literal["number", "category"] = "number"
    values: tuple[Text, ...] = ()
    monotone: dict[str, Literal[-1, 0, 1]] = {}
    personal: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.came_from) == bool(self.cross):
            raise ValueError(f"{self.name}: needs either 'from' or 'cross'")
        if (self.type == "category") != bool(self.values):
            raise ValueError(f"{self.name}: a category, and only a category, has values")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"{self.name}: range must be [low, high]")
        if self.came_from == "application" and self.name not in APPLICATION_FIELDS:
            raise ValueError(f"{self.name}: an application has {', '.join(APPLICATION_FIELDS)}")
        return self


class LabelSpec(Spec):
    """Outcomes that set a label, and the origins of the features its model may use."""

    bad: Annotated[tuple[OutcomeKind, ...], Field(min_length=1)]
    good: tuple[OutcomeKind, ...]
    presumed_good: tuple[OutcomeKind, ...] = ()
    uses: Annotated[tuple[Origin, ...], Field(min_length=1)]


class TableLabelSpec(Spec):
    """The column of a label and its values."""

    column: Text
    bad: tuple[int | str | bool, ...]
    good: tuple[int | str | bool, ...]


class TableSpec(Spec):
    """How a flat table is read; `time` counts steps of `time_unit_ms`, `amount` is in major units."""

    time: Text
    time_unit_ms: Annotated[int, Field(gt=0, strict=True)]
    amount: Text
    entities: dict[str, Text]
    labels: dict[str, TableLabelSpec]
    features: dict[str, Text] = {}


Pair = Annotated[tuple[Annotated[int, Field(strict=True)], Annotated[int, Field(strict=True)]], Field()]


class SchemaSpec(Spec):
    """A whole file."""

    name: Text
    version: Annotated[int, Field(ge=1, strict=True)]
    products: Annotated[tuple[Text, ...], Field(min_length=1)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    minor_units: Annotated[int, Field(ge=0, le=4, strict=True)] = 2
    amount_minor: Pair
    term_months: Pair
    entities: Annotated[dict[str, EntitySpec], Field(min_length=1)]
    record: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    sources: dict[str, SourceSpec]
    features: tuple[FeatureSpec, ...]
    velocity: dict[str, tuple[str, ...]] = {}
    graph: tuple[str, ...] = ()
    labels: Annotated[dict[Label, LabelSpec], Field(min_length=1)]
    table: TableSpec | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("amount_minor", "term_months"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: must be [low, high]")
        return self
