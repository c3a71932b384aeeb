"""Requests as a lender's origination system would send them."""

import zlib

from proto.miaopi.v1 import decision_pb2 as pb


def loan_request(
    application_id: str, *, tenant: str = "demo", device: str = "device-1", event_time_ms: int = 0
) -> pb.DecideRequest:
    """A valid consumer loan application of a person of its own; `device` is what it may share."""
    person = zlib.crc32(application_id.encode())
    request = pb.DecideRequest(
        application_id=application_id,
        tenant=tenant,
        product="consumer",
        currency="CNY",
        amount_minor=2_000_000,
        term_months=12,
        repayment_method=pb.REPAYMENT_METHOD_EQUAL_INSTALMENT,
        applicant_id=f"id card of {application_id}",
        entities=[
            pb.Entity(type="device", id=device),
            pb.Entity(type="phone", id=f"+86 138 {person % 10**8:08d}"),
            pb.Entity(type="contact", id=f"139{person % 10**8:08d}"),
        ],
        consents=[pb.Consent(purpose="contacts", given_at_ms=1_700_000_000_000)],
        event_time_ms=event_time_ms,
    )
    for name, number in (("declared_income", 9_000), ("age_years", 30), ("employment_months", 48), ("dependents", 1)):
        request.features[name].number = number
    request.features["education"].text = "bachelor"
    request.features["housing"].text = "rent"
    return request


def car_request(application_id: str, *, tenant: str = "demo") -> pb.DecideRequest:
    """A valid application for a used car."""
    request = loan_request(application_id, tenant=tenant)
    request.product = "auto"
    request.amount_minor = 7_000_000
    request.term_months = 36
    request.vehicle.CopyFrom(
        pb.Vehicle(
            vin="LSVAA49J132047882", kind=pb.VEHICLE_KIND_USED, price_minor=10_000_000, down_payment_minor=3_000_000,
            age_months=40, mileage_km=60_000,
        )
    )  # fmt: skip
    return request


def business_request(application_id: str, *, tenant: str = "demo") -> pb.DecideRequest:
    """A valid application of a company's owner for the company."""
    request = loan_request(application_id, tenant=tenant)
    request.product = "small_business"
    request.amount_minor = 30_000_000
    request.entities.add(type="company", id="9144030071526726XG")
    request.entities.add(type="company_address", id="南山区人民路1号")
    request.features["declared_revenue"].number = 2_000_000
    request.features["employees"].number = 8
    request.features["industry"].text = "retail"
    return request


# What the sources know of a borrower whom a lender wants, by source and feature.
GOOD_BORROWER: dict[str, dict[str, float]] = {
    "bureau": {
        "bureau_overdue_24m": 0, "bureau_inquiries_3m": 1, "bureau_open_loans": 1, "bureau_utilisation": 0.2,
        "bureau_history_months": 96, "bureau_monthly_payment": 800,
    },
    "tax": {"tax_income": 9_000},
    "registry": {"registry_companies": 0, "registry_abnormal": 0},
    "courts": {"courts_cases": 0, "courts_enforced": 0},
    "telecom": {"telecom_months": 90, "telecom_night_share": 0.05},
    "social_security": {"social_base": 9_000, "social_months": 60},
    "housing_fund": {"fund_base": 9_000, "fund_months": 60},
    "multi_loan": {"multi_platforms_7d": 0, "multi_platforms_90d": 0},
    "blacklist": {"blacklist_hits": 0},
    "device_risk": {"device_risk_level": 5, "device_emulator": 0},
    "consumption": {"consumption_monthly": 3_000, "consumption_night_share": 0.1},
}  # fmt: skip
