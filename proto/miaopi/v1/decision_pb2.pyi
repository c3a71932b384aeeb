from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RepaymentMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPAYMENT_METHOD_UNSPECIFIED: _ClassVar[RepaymentMethod]
    REPAYMENT_METHOD_EQUAL_INSTALMENT: _ClassVar[RepaymentMethod]
    REPAYMENT_METHOD_EQUAL_PRINCIPAL: _ClassVar[RepaymentMethod]
    REPAYMENT_METHOD_INTEREST_ONLY: _ClassVar[RepaymentMethod]
    REPAYMENT_METHOD_BULLET: _ClassVar[RepaymentMethod]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_APPROVE: _ClassVar[Outcome]
    OUTCOME_LIMIT: _ClassVar[Outcome]
    OUTCOME_REVIEW: _ClassVar[Outcome]
    OUTCOME_DECLINE: _ClassVar[Outcome]

class OutcomeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_KIND_UNSPECIFIED: _ClassVar[OutcomeKind]
    OUTCOME_KIND_FRAUD_CONFIRMED: _ClassVar[OutcomeKind]
    OUTCOME_KIND_FRAUD_CLEARED: _ClassVar[OutcomeKind]
    OUTCOME_KIND_FIRST_PAYMENT_DEFAULT: _ClassVar[OutcomeKind]
    OUTCOME_KIND_PAST_DUE_30: _ClassVar[OutcomeKind]
    OUTCOME_KIND_PAST_DUE_90: _ClassVar[OutcomeKind]
    OUTCOME_KIND_REPAID: _ClassVar[OutcomeKind]
    OUTCOME_KIND_RETRACTED: _ClassVar[OutcomeKind]

class VehicleKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VEHICLE_KIND_UNSPECIFIED: _ClassVar[VehicleKind]
    VEHICLE_KIND_NEW: _ClassVar[VehicleKind]
    VEHICLE_KIND_USED: _ClassVar[VehicleKind]
    VEHICLE_KIND_NEW_ENERGY: _ClassVar[VehicleKind]
    VEHICLE_KIND_COMMERCIAL: _ClassVar[VehicleKind]
REPAYMENT_METHOD_UNSPECIFIED: RepaymentMethod
REPAYMENT_METHOD_EQUAL_INSTALMENT: RepaymentMethod
REPAYMENT_METHOD_EQUAL_PRINCIPAL: RepaymentMethod
REPAYMENT_METHOD_INTEREST_ONLY: RepaymentMethod
REPAYMENT_METHOD_BULLET: RepaymentMethod
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_APPROVE: Outcome
OUTCOME_LIMIT: Outcome
OUTCOME_REVIEW: Outcome
OUTCOME_DECLINE: Outcome
OUTCOME_KIND_UNSPECIFIED: OutcomeKind
OUTCOME_KIND_FRAUD_CONFIRMED: OutcomeKind
OUTCOME_KIND_FRAUD_CLEARED: OutcomeKind
OUTCOME_KIND_FIRST_PAYMENT_DEFAULT: OutcomeKind
OUTCOME_KIND_PAST_DUE_30: OutcomeKind
OUTCOME_KIND_PAST_DUE_90: OutcomeKind
OUTCOME_KIND_REPAID: OutcomeKind
OUTCOME_KIND_RETRACTED: OutcomeKind
VEHICLE_KIND_UNSPECIFIED: VehicleKind
VEHICLE_KIND_NEW: VehicleKind
VEHICLE_KIND_USED: VehicleKind
VEHICLE_KIND_NEW_ENERGY: VehicleKind
VEHICLE_KIND_COMMERCIAL: VehicleKind

class Entity(_message.Message):
    __slots__ = ("type", "id")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    type: str
    id: str
    def __init__(self, type: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class FeatureValue(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: float
    text: str
    def __init__(self, number: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Consent(_message.Message):
    __slots__ = ("purpose", "given_at_ms")
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    GIVEN_AT_MS_FIELD_NUMBER: _ClassVar[int]
    purpose: str
    given_at_ms: int
    def __init__(self, purpose: _Optional[str] = ..., given_at_ms: _Optional[int] = ...) -> None: ...

class Vehicle(_message.Message):
    __slots__ = ("vin", "kind", "price_minor", "down_payment_minor", "age_months", "mileage_km", "battery_health", "list_price_minor")
    VIN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRICE_MINOR_FIELD_NUMBER: _ClassVar[int]
    DOWN_PAYMENT_MINOR_FIELD_NUMBER: _ClassVar[int]
    AGE_MONTHS_FIELD_NUMBER: _ClassVar[int]
    MILEAGE_KM_FIELD_NUMBER: _ClassVar[int]
    BATTERY_HEALTH_FIELD_NUMBER: _ClassVar[int]
    LIST_PRICE_MINOR_FIELD_NUMBER: _ClassVar[int]
    vin: str
    kind: VehicleKind
    price_minor: int
    down_payment_minor: int
    age_months: int
    mileage_km: int
    battery_health: float
    list_price_minor: int
    def __init__(self, vin: _Optional[str] = ..., kind: _Optional[_Union[VehicleKind, str]] = ..., price_minor: _Optional[int] = ..., down_payment_minor: _Optional[int] = ..., age_months: _Optional[int] = ..., mileage_km: _Optional[int] = ..., battery_health: _Optional[float] = ..., list_price_minor: _Optional[int] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("application_id", "tenant", "product", "currency", "amount_minor", "term_months", "repayment_method", "upfront_fee_minor", "monthly_fee_minor", "applicant_id", "entities", "consents", "features", "vehicle", "human_review_requested", "event_time_ms")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FeatureValue, _Mapping]] = ...) -> None: ...
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MINOR_FIELD_NUMBER: _ClassVar[int]
    TERM_MONTHS_FIELD_NUMBER: _ClassVar[int]
    REPAYMENT_METHOD_FIELD_NUMBER: _ClassVar[int]
    UPFRONT_FEE_MINOR_FIELD_NUMBER: _ClassVar[int]
    MONTHLY_FEE_MINOR_FIELD_NUMBER: _ClassVar[int]
    APPLICANT_ID_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    CONSENTS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    VEHICLE_FIELD_NUMBER: _ClassVar[int]
    HUMAN_REVIEW_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    application_id: str
    tenant: str
    product: str
    currency: str
    amount_minor: int
    term_months: int
    repayment_method: RepaymentMethod
    upfront_fee_minor: int
    monthly_fee_minor: int
    applicant_id: str
    entities: _containers.RepeatedCompositeFieldContainer[Entity]
    consents: _containers.RepeatedCompositeFieldContainer[Consent]
    features: _containers.MessageMap[str, FeatureValue]
    vehicle: Vehicle
    human_review_requested: bool
    event_time_ms: int
    def __init__(self, application_id: _Optional[str] = ..., tenant: _Optional[str] = ..., product: _Optional[str] = ..., currency: _Optional[str] = ..., amount_minor: _Optional[int] = ..., term_months: _Optional[int] = ..., repayment_method: _Optional[_Union[RepaymentMethod, str]] = ..., upfront_fee_minor: _Optional[int] = ..., monthly_fee_minor: _Optional[int] = ..., applicant_id: _Optional[str] = ..., entities: _Optional[_Iterable[_Union[Entity, _Mapping]]] = ..., consents: _Optional[_Iterable[_Union[Consent, _Mapping]]] = ..., features: _Optional[_Mapping[str, FeatureValue]] = ..., vehicle: _Optional[_Union[Vehicle, _Mapping]] = ..., human_review_requested: _Optional[bool] = ..., event_time_ms: _Optional[int] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("code", "text_zh", "text_en", "contribution", "evidence", "legal_source")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_ZH_FIELD_NUMBER: _ClassVar[int]
    TEXT_EN_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LEGAL_SOURCE_FIELD_NUMBER: _ClassVar[int]
    code: str
    text_zh: str
    text_en: str
    contribution: float
    evidence: str
    legal_source: str
    def __init__(self, code: _Optional[str] = ..., text_zh: _Optional[str] = ..., text_en: _Optional[str] = ..., contribution: _Optional[float] = ..., evidence: _Optional[str] = ..., legal_source: _Optional[str] = ...) -> None: ...

class Versions(_message.Message):
    __slots__ = ("bundle", "policy", "schema")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    policy: str
    schema: str
    def __init__(self, bundle: _Optional[str] = ..., policy: _Optional[str] = ..., schema: _Optional[str] = ...) -> None: ...

class LogPosition(_message.Message):
    __slots__ = ("epoch", "sequence", "as_of", "event_time_ms")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    sequence: int
    as_of: int
    event_time_ms: int
    def __init__(self, epoch: _Optional[str] = ..., sequence: _Optional[int] = ..., as_of: _Optional[int] = ..., event_time_ms: _Optional[int] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("application_id", "outcome", "approved_amount_minor", "annual_rate", "all_in_rate", "grade", "reasons", "fraud_probability", "default_probability", "versions", "log_position", "degraded")
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    APPROVED_AMOUNT_MINOR_FIELD_NUMBER: _ClassVar[int]
    ANNUAL_RATE_FIELD_NUMBER: _ClassVar[int]
    ALL_IN_RATE_FIELD_NUMBER: _ClassVar[int]
    GRADE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    FRAUD_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    LOG_POSITION_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    application_id: str
    outcome: Outcome
    approved_amount_minor: int
    annual_rate: float
    all_in_rate: float
    grade: str
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    fraud_probability: float
    default_probability: float
    versions: Versions
    log_position: LogPosition
    degraded: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, application_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., approved_amount_minor: _Optional[int] = ..., annual_rate: _Optional[float] = ..., all_in_rate: _Optional[float] = ..., grade: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., fraud_probability: _Optional[float] = ..., default_probability: _Optional[float] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., log_position: _Optional[_Union[LogPosition, _Mapping]] = ..., degraded: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchDecideRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[DecideRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[DecideRequest, _Mapping]]] = ...) -> None: ...

class BatchDecideResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[DecideResult]
    def __init__(self, results: _Optional[_Iterable[_Union[DecideResult, _Mapping]]] = ...) -> None: ...

class DecideResult(_message.Message):
    __slots__ = ("application_id", "decision", "error")
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    application_id: str
    decision: DecideResponse
    error: ItemError
    def __init__(self, application_id: _Optional[str] = ..., decision: _Optional[_Union[DecideResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "field", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    field: str
    message: str
    def __init__(self, code: _Optional[int] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class StreamDecideRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: DecideRequest
    def __init__(self, request: _Optional[_Union[DecideRequest, _Mapping]] = ...) -> None: ...

class StreamDecideResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: DecideResult
    def __init__(self, result: _Optional[_Union[DecideResult, _Mapping]] = ...) -> None: ...

class GetDecisionRequest(_message.Message):
    __slots__ = ("tenant", "application_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    application_id: str
    def __init__(self, tenant: _Optional[str] = ..., application_id: _Optional[str] = ...) -> None: ...

class GetDecisionResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: DecideResponse
    def __init__(self, decision: _Optional[_Union[DecideResponse, _Mapping]] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("tenant", "application_id", "outcome_id", "kind", "event_time_ms")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    application_id: str
    outcome_id: str
    kind: OutcomeKind
    event_time_ms: int
    def __init__(self, tenant: _Optional[str] = ..., application_id: _Optional[str] = ..., outcome_id: _Optional[str] = ..., kind: _Optional[_Union[OutcomeKind, str]] = ..., event_time_ms: _Optional[int] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class PutProfileRequest(_message.Message):
    __slots__ = ("tenant", "product", "subject_id", "source", "fetched_at_ms", "features")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FeatureValue, _Mapping]] = ...) -> None: ...
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FETCHED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    product: str
    subject_id: str
    source: str
    fetched_at_ms: int
    features: _containers.MessageMap[str, FeatureValue]
    def __init__(self, tenant: _Optional[str] = ..., product: _Optional[str] = ..., subject_id: _Optional[str] = ..., source: _Optional[str] = ..., fetched_at_ms: _Optional[int] = ..., features: _Optional[_Mapping[str, FeatureValue]] = ...) -> None: ...

class PutProfileResponse(_message.Message):
    __slots__ = ("stored",)
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: bool
    def __init__(self, stored: _Optional[bool] = ...) -> None: ...
