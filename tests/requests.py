"""Requests as a lender's origination system would send them."""

from proto.miaopi.v1 import decision_pb2 as pb


def loan_request(application_id: str, *, tenant: str = "demo", device: str = "device-1", event_time_ms: int = 0) -> pb.DecideRequest:
    """A valid consumer loan application."""
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
            pb.Entity(type="phone", id="+86 138 0013 8000"),
            pb.Entity(type="contact", id="13900139000"),
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
