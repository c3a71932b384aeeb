"""Several servers share a port and one log, and the end of one of them ends no service."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from bench.serving import server_process
from proto.miaopi.v1 import decision_pb2 as pb
from proto.miaopi.v1.decision_pb2_grpc import DecisionServiceStub
from server.settings import Settings
from tests.conftest import ROOT
from tests.requests import loan_request

CALLS = 24
RESTART_SECONDS = 60.0


@pytest.fixture
def address() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    yield f"127.0.0.1:{port}"


def children(process: subprocess.Popen[bytes]) -> list[int]:
    tasks = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(tasks, encoding="ascii") as listed:
        return [int(child) for child in listed.read().split()]


def decide(address: str, application_id: str) -> pb.DecideResponse:
    """On a connection of its own, which any of the servers may get, until one answers."""
    for _ in range(100):
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                reply: pb.DecideResponse = DecisionServiceStub(channel).Decide(
                    loan_request(application_id, tenant="several"), timeout=10
                )
                return reply
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        time.sleep(0.1)
    raise AssertionError("nobody answers")


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RESTART_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_servers_share_a_port_and_one_may_end(redis_url: str, address: str) -> None:
    with server_process(redis_url, tenant="several", listen=address, processes="2") as (_, process):
        first = children(process)
        assert len(first) == 2
        replies = [decide(address, f"a{i}") for i in range(CALLS)]
        sequences = [reply.log_position.sequence for reply in replies]
        assert sequences == list(range(1, CALLS + 1))  # one log, and each sees what the other took
        assert [reply.log_position.as_of for reply in replies] == list(range(CALLS))
        os.kill(first[0], signal.SIGKILL)
        assert decide(address, "a0") == replies[0]  # what one decided, the other tells
        decide(address, "after")
        wait_for(lambda: len(now := children(process)) == 2 and first[0] not in now)
        assert first[1] in children(process)
    assert process.returncode == 0


def test_a_server_that_cannot_start_again_ends_no_other(redis_url: str, address: str, tmp_path: Path) -> None:
    """An unfit policy is refused by who runs; who ends beside it is started again until it is fit."""
    shutil.copytree(ROOT / "policy/products", tmp_path / "policies")
    policy, told = tmp_path / "policies/consumer/policy.json", tmp_path / "log"
    fit = policy.read_text(encoding="utf-8")
    with (
        told.open("wb") as log,
        server_process(
            redis_url, tenant="several", listen=address, processes="2", policies=tmp_path / "policies", log=log
        ) as (_, process),
    ):
        reply = decide(address, "before")
        first = children(process)
        policy.write_text("{}", encoding="utf-8")
        os.kill(first[0], signal.SIGKILL)
        wait_for(lambda: b'"status": 2' in told.read_bytes() or process.poll() is not None)
        assert process.poll() is None and first[1] in children(process)
        assert decide(address, "before") == reply
        policy.write_text(fit, encoding="utf-8")
        served = told.read_bytes().count(b'"serving"')
        wait_for(lambda: told.read_bytes().count(b'"serving"') > served)
        assert first[1] in children(process)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"listen": "unix:/tmp/x"}, "only a TCP port"), ({"listen": "127.0.0.1:0"}, "only a TCP port"),
        ({"replay": True}, "history is fed to one process"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(processes=2, **settings)  # type: ignore[arg-type]
