"""What a call asks for is read the same with the native decoder and without."""

import pytest

from features import schema as schemas
from features.application import Application, InvalidFieldError
from proto.miaopi.v1 import decision_pb2 as pb
from server.native import plain
from server.requests import Requests
from tests.conftest import ROOT, TOKENIZER
from tests.requests import loan_request

PRODUCTS = {"consumer": schemas.load(ROOT / "features/schemas/consumer.yaml")}
TENANTS = {"demo": TOKENIZER}


@pytest.fixture(params=["native", "python"])
def requests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Requests:
    if request.param == "native":
        pytest.importorskip("server.native.decode", reason="the decoder is not built: make native")
    else:
        monkeypatch.setattr(plain, "decode", None)
    made = Requests(TENANTS, PRODUCTS, False)
    assert made.native == (request.param == "native")
    return made


def batch(*members: pb.DecideRequest) -> bytes:
    body: bytes = pb.BatchDecideRequest(requests=members).SerializeToString()
    return body


def test_plain_and_other_ones_stay_in_order(requests: Requests) -> None:
    odd = loan_request("o")
    odd.applicant_id = "ｆｕｌｌ"
    body = batch(loan_request("a"), odd, loan_request("b"), pb.DecideRequest())
    read = requests.batch(body, 256)
    assert [r.application_id for r in read] == ["a", "o", "b", ""]
    assert [isinstance(r, Application) for r in read] == [requests.native, False, requests.native, False]
    assert len(requests.batch(body, 3)) == 4 and len(requests.batch(b"", 256)) == 0
    for one in (loan_request("a"), odd):
        assert requests.one(one.SerializeToString()).application_id == one.application_id
        streamed = pb.StreamDecideRequest(request=one).SerializeToString()
        assert requests.streamed(streamed).application_id == one.application_id


def test_a_field_given_twice_is_one_message(requests: Requests) -> None:
    """As protobuf reads it: the later one's fields are merged into the earlier one's."""
    twice = batch(loan_request("a"), pb.DecideRequest(application_id="b"))
    read = requests.streamed(twice)
    assert isinstance(read, pb.DecideRequest) and (read.application_id, read.currency) == ("b", "CNY")


def test_bytes_that_are_no_message_are_refused(requests: Requests) -> None:
    for call, name in ((requests.one, ""), (requests.streamed, "Stream"), (lambda b: requests.batch(b, 256), "Batch")):
        for body in (b"\x0a\x02\xff\xff", b"\x0a", batch(loan_request("a")) + b"\x0a\x02\xff\xff"):
            with pytest.raises(InvalidFieldError, match=f"^request: is no {name}DecideRequest"):
                call(body)
