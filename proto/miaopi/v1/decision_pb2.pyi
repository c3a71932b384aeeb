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
    OUTCOME_KIND_DISBURSED: _ClassVar[OutcomeKind]
    OUTCOME_KIND_NOT_TAKEN_UP: _ClassVar[OutcomeKind]
    OUTCOME_KIND_EXPIRED: _ClassVar[OutcomeKind]
    OUTCOME_KIND_PRINCIPAL_REPAID: _ClassVar[OutcomeKind]

class ListKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIST_KIND_UNSPECIFIED: _ClassVar[ListKind]
    LIST_KIND_BLACK: _ClassVar[ListKind]
    LIST_KIND_GREY: _ClassVar[ListKind]
    LIST_KIND_WHITE: _ClassVar[ListKind]

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
OUTCOME_KIND_DISBURSED: OutcomeKind
OUTCOME_KIND_NOT_TAKEN_UP: OutcomeKind
OUTCOME_KIND_EXPIRED: OutcomeKind
OUTCOME_KIND_PRINCIPAL_REPAID: OutcomeKind
LIST_KIND_UNSPECIFIED: ListKind
LIST_KIND_BLACK: ListKind
LIST_KIND_GREY: ListKind
LIST_KIND_WHITE: ListKind
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
    __slots__ = ("application_id", "outcome", "approved_amount_minor", "annual_rate", "all_in_rate", "grade", "reasons", "fraud_probability", "default_probability", "versions", "log_position", "degraded", "funding")
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
    FUNDING_FIELD_NUMBER: _ClassVar[int]
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
    funding: _containers.RepeatedCompositeFieldContainer[FundingShare]
    def __init__(self, application_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., approved_amount_minor: _Optional[int] = ..., annual_rate: _Optional[float] = ..., all_in_rate: _Optional[float] = ..., grade: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., fraud_probability: _Optional[float] = ..., default_probability: _Optional[float] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., log_position: _Optional[_Union[LogPosition, _Mapping]] = ..., degraded: _Optional[_Iterable[str]] = ..., funding: _Optional[_Iterable[_Union[FundingShare, _Mapping]]] = ...) -> None: ...

class FundingShare(_message.Message):
    __slots__ = ("funder", "amount_minor", "funder_rate", "mode")
    FUNDER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MINOR_FIELD_NUMBER: _ClassVar[int]
    FUNDER_RATE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    funder: str
    amount_minor: int
    funder_rate: float
    mode: str
    def __init__(self, funder: _Optional[str] = ..., amount_minor: _Optional[int] = ..., funder_rate: _Optional[float] = ..., mode: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("decision", "resolution")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    decision: DecideResponse
    resolution: ReviewResolution
    def __init__(self, decision: _Optional[_Union[DecideResponse, _Mapping]] = ..., resolution: _Optional[_Union[ReviewResolution, _Mapping]] = ...) -> None: ...

class ReviewResolution(_message.Message):
    __slots__ = ("outcome", "approved_amount_minor", "annual_rate", "reviewer", "authority", "note", "resolved_at_ms", "funding", "policy")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    APPROVED_AMOUNT_MINOR_FIELD_NUMBER: _ClassVar[int]
    ANNUAL_RATE_FIELD_NUMBER: _ClassVar[int]
    REVIEWER_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    approved_amount_minor: int
    annual_rate: float
    reviewer: str
    authority: str
    note: str
    resolved_at_ms: int
    funding: _containers.RepeatedCompositeFieldContainer[FundingShare]
    policy: str
    def __init__(self, outcome: _Optional[_Union[Outcome, str]] = ..., approved_amount_minor: _Optional[int] = ..., annual_rate: _Optional[float] = ..., reviewer: _Optional[str] = ..., authority: _Optional[str] = ..., note: _Optional[str] = ..., resolved_at_ms: _Optional[int] = ..., funding: _Optional[_Iterable[_Union[FundingShare, _Mapping]]] = ..., policy: _Optional[str] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("tenant", "application_id", "outcome_id", "kind", "event_time_ms", "amount_minor")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MINOR_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    application_id: str
    outcome_id: str
    kind: OutcomeKind
    event_time_ms: int
    amount_minor: int
    def __init__(self, tenant: _Optional[str] = ..., application_id: _Optional[str] = ..., outcome_id: _Optional[str] = ..., kind: _Optional[_Union[OutcomeKind, str]] = ..., event_time_ms: _Optional[int] = ..., amount_minor: _Optional[int] = ...) -> None: ...

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

class ListReviewsRequest(_message.Message):
    __slots__ = ("tenant", "page_size", "page_token")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    page_size: int
    page_token: str
    def __init__(self, tenant: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListReviewsResponse(_message.Message):
    __slots__ = ("reviews", "next_page_token")
    REVIEWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reviews: _containers.RepeatedCompositeFieldContainer[PendingReview]
    next_page_token: str
    def __init__(self, reviews: _Optional[_Iterable[_Union[PendingReview, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PendingReview(_message.Message):
    __slots__ = ("decision", "product", "amount_minor", "term_months", "waiting_since_ms", "facts", "review_id")
    class FactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FeatureValue, _Mapping]] = ...) -> None: ...
    DECISION_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_MINOR_FIELD_NUMBER: _ClassVar[int]
    TERM_MONTHS_FIELD_NUMBER: _ClassVar[int]
    WAITING_SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    REVIEW_ID_FIELD_NUMBER: _ClassVar[int]
    decision: DecideResponse
    product: str
    amount_minor: int
    term_months: int
    waiting_since_ms: int
    facts: _containers.MessageMap[str, FeatureValue]
    review_id: str
    def __init__(self, decision: _Optional[_Union[DecideResponse, _Mapping]] = ..., product: _Optional[str] = ..., amount_minor: _Optional[int] = ..., term_months: _Optional[int] = ..., waiting_since_ms: _Optional[int] = ..., facts: _Optional[_Mapping[str, FeatureValue]] = ..., review_id: _Optional[str] = ...) -> None: ...

class ResolveReviewRequest(_message.Message):
    __slots__ = ("tenant", "application_id", "review_id", "outcome", "approved_amount_minor", "annual_rate", "reviewer", "authority", "note")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    REVIEW_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    APPROVED_AMOUNT_MINOR_FIELD_NUMBER: _ClassVar[int]
    ANNUAL_RATE_FIELD_NUMBER: _ClassVar[int]
    REVIEWER_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    application_id: str
    review_id: str
    outcome: Outcome
    approved_amount_minor: int
    annual_rate: float
    reviewer: str
    authority: str
    note: str
    def __init__(self, tenant: _Optional[str] = ..., application_id: _Optional[str] = ..., review_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., approved_amount_minor: _Optional[int] = ..., annual_rate: _Optional[float] = ..., reviewer: _Optional[str] = ..., authority: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class ResolveReviewResponse(_message.Message):
    __slots__ = ("resolution",)
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    resolution: ReviewResolution
    def __init__(self, resolution: _Optional[_Union[ReviewResolution, _Mapping]] = ...) -> None: ...

class ProposeListEntryRequest(_message.Message):
    __slots__ = ("tenant", "list", "entity", "remove", "shared", "reason", "source", "expires_at_ms", "proposed_by")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_BY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    list: ListKind
    entity: Entity
    remove: bool
    shared: bool
    reason: str
    source: str
    expires_at_ms: int
    proposed_by: str
    def __init__(self, tenant: _Optional[str] = ..., list: _Optional[_Union[ListKind, str]] = ..., entity: _Optional[_Union[Entity, _Mapping]] = ..., remove: _Optional[bool] = ..., shared: _Optional[bool] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., expires_at_ms: _Optional[int] = ..., proposed_by: _Optional[str] = ...) -> None: ...

class ProposeListEntryResponse(_message.Message):
    __slots__ = ("entry_id",)
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    def __init__(self, entry_id: _Optional[str] = ...) -> None: ...

class ApproveListEntryRequest(_message.Message):
    __slots__ = ("tenant", "entry_id", "approved_by")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    entry_id: str
    approved_by: str
    def __init__(self, tenant: _Optional[str] = ..., entry_id: _Optional[str] = ..., approved_by: _Optional[str] = ...) -> None: ...

class ApproveListEntryResponse(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class ListEntriesRequest(_message.Message):
    __slots__ = ("tenant", "list", "waiting", "page_size", "page_token")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    list: ListKind
    waiting: bool
    page_size: int
    page_token: str
    def __init__(self, tenant: _Optional[str] = ..., list: _Optional[_Union[ListKind, str]] = ..., waiting: _Optional[bool] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[ListEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[ListEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListEntry(_message.Message):
    __slots__ = ("entry_id", "list", "entity_type", "remove", "shared", "reason", "source", "expires_at_ms", "proposed_by", "proposed_at_ms", "approved_by", "approved_at_ms")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    ENTITY_TYPE_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_BY_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    APPROVED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    list: ListKind
    entity_type: str
    remove: bool
    shared: bool
    reason: str
    source: str
    expires_at_ms: int
    proposed_by: str
    proposed_at_ms: int
    approved_by: str
    approved_at_ms: int
    def __init__(self, entry_id: _Optional[str] = ..., list: _Optional[_Union[ListKind, str]] = ..., entity_type: _Optional[str] = ..., remove: _Optional[bool] = ..., shared: _Optional[bool] = ..., reason: _Optional[str] = ..., source: _Optional[str] = ..., expires_at_ms: _Optional[int] = ..., proposed_by: _Optional[str] = ..., proposed_at_ms: _Optional[int] = ..., approved_by: _Optional[str] = ..., approved_at_ms: _Optional[int] = ...) -> None: ...

class WithdrawConsentRequest(_message.Message):
    __slots__ = ("tenant", "applicant_id", "purpose", "requested_by")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    APPLICANT_ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    applicant_id: str
    purpose: str
    requested_by: str
    def __init__(self, tenant: _Optional[str] = ..., applicant_id: _Optional[str] = ..., purpose: _Optional[str] = ..., requested_by: _Optional[str] = ...) -> None: ...

class WithdrawConsentResponse(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class DeleteApplicantRequest(_message.Message):
    __slots__ = ("tenant", "applicant_id", "requested_by")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    APPLICANT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_BY_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    applicant_id: str
    requested_by: str
    def __init__(self, tenant: _Optional[str] = ..., applicant_id: _Optional[str] = ..., requested_by: _Optional[str] = ...) -> None: ...

class DeleteApplicantResponse(_message.Message):
    __slots__ = ("sequence", "profiles")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    profiles: int
    def __init__(self, sequence: _Optional[int] = ..., profiles: _Optional[int] = ...) -> None: ...
