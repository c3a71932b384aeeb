"""The load client against the native front end: each call answered and counted, none sent before it was due."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")
pytest.importorskip("bench.client", reason="the client is not built: make native")

from bench.client import Client
from bench.load import closed_loop, open_loop
from features.application import InvalidFieldError
from server.calls import Call
from server.native.front import Front

ECHO = "/s/Echo"


async def echo(body: bytes, call: Call) -> bytes:
    if body == b"3":
        raise InvalidFieldError("body", "is 3")
    return body


def messages() -> Iterator[bytes]:
    return (str(n % 10).encode() for n in itertools.count())


async def test_an_open_loop_sends_no_call_before_it_is_due(tmp_path: Path) -> None:
    """uvloop's timers count whole milliseconds and round: a call sent early would be answered before it was asked."""
    front = Front({ECHO: echo})
    await front.listen(f"unix:{tmp_path}/s")
    result = await open_loop(f"unix:{tmp_path}/s", ECHO, messages(), per_second=500, seconds=1, warm_up_seconds=0.1)
    await front.stop(5)
    assert result.latency_ms.min() > 0
    assert 350 < result.statuses[0] < 550 and 0.05 < result.statuses[3] / result.statuses[0] < 0.2
    assert result.statuses[-1] == 0


async def test_a_closed_loop_counts_what_is_answered(tmp_path: Path) -> None:
    front = Front({ECHO: echo})
    await front.listen(f"unix:{tmp_path}/s")
    result = await closed_loop(f"unix:{tmp_path}/s", ECHO, messages(), in_flight=8, seconds=0.3, warm_up_seconds=0.1)
    await front.stop(5)
    assert result.statuses[0] > 100 and result.statuses[3] > 10 and result.statuses[-1] == 0
    assert len(result.latency_ms) == result.statuses.total()


def test_a_client_wrongly_made_is_an_error() -> None:
    for _ in range(1000):  # a reference too few each time would take the path's memory away
        with pytest.raises(TypeError):
            Client(b"/s/" + b"Echo" * 3, cast(Any, "text"))
    client = Client(b"/s/Echo", b"x")
    with pytest.raises(RuntimeError):
        cast(Any, client).__init__(b"/s/Echo", b"x")
    unmade: Any = Client.__new__(Client)
    for use in (lambda: unmade.ask(b"x"), lambda: unmade.feed(b"x"), unmade.out):
        with pytest.raises(RuntimeError):
            use()
