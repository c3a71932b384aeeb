"""load, latency, soak, stages and compare, each for a second or two: that they work, not what they measure."""

import asyncio
from collections.abc import Iterator, Sequence
from math import isfinite

import pytest
import uvloop
from redis.asyncio import Redis

pytest.importorskip("bench.client", reason="the load client is not built: make native")
pytest.importorskip("server.native.http2", reason="the native front end is not built: make native")

from bench import compare, contestants, growth, latency, load, payloads, soak, stages
from bench.load import Asked, Server
from bench.payloads import First, Payloads
from proto.miaopi.v1 import decision_pb2 as pb

pytestmark = pytest.mark.alone
APPLICATIONS = 1000


@pytest.fixture(scope="module")
def people() -> list[First]:
    return payloads.firsts(APPLICATIONS)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with load.own_server("native") as started:
        yield started


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "REHEARSED", 256)
    monkeypatch.setattr(load, "CEILING_SECONDS", 0.3)
    monkeypatch.setattr(latency, "CLOSED_ROUNDS", 1)
    monkeypatch.setattr(compare, "REHEARSED", 128)
    monkeypatch.setattr(compare, "CLIENT_CALLS", 1000)


async def test_applications_never_repeat_and_are_known(people: Sequence[First], redis_url: str) -> None:
    known: list[tuple[str, str]] = []

    async def put(profiles: payloads.Known) -> None:
        known.extend((profile.source, subject) for profile, subject in profiles)

    stream = Payloads(people, "a-lender", put)
    number = 2 * len(people) + 7
    requests = [pb.DecideRequest.FromString(r) for r in await stream.take(5) + await stream.take(number - 5)]
    assert (
        len(requests) == len({r.application_id for r in requests}) == len({r.applicant_id for r in requests}) == number
    )
    assert {r.tenant for r in requests} == {"a-lender"} and {r.event_time_ms for r in requests} == {0}
    asked = [subject for source, subject in known if source == "bureau"]
    assert {r.applicant_id for r in requests} >= set(asked) and number * 0.8 < len(asked) == len(set(asked))
    again = payloads.firsts(APPLICATIONS)
    assert [f.request.application_id for f in again] == [f.request.application_id for f in people]
    batched = [
        pb.BatchDecideRequest.FromString(b) for b in payloads.batches([r.SerializeToString() for r in requests], 64)
    ]
    assert {len(b.requests) for b in batched} == {64} and len(batched) == number // 64


@pytest.mark.parametrize(("per_call", "per_second"), [(1, 0.0), (64, 0.0), (1, 200.0)])
def test_load(server: Server, people: Sequence[First], per_call: int, per_second: float) -> None:
    asked = Asked(8 if per_call == 1 else 2, per_second, 0.6, 0.2, per_call)
    # as a server that somebody else started: profiles go through PutProfile
    remote = Server(server.address) if per_call == 1 and not per_second else server
    figures = uvloop.run(load.measure(remote, "demo", _others(people, f"load{per_call}{per_second}"), asked))
    assert figures["decisions_per_second"] > 0 and set(figures["by_grpc_status"]) == {"0"}
    assert figures["outcomes"].get("approve", 0) > 0 and 0.1 < figures["not_approved"] < 0.7
    assert figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert "client_ceiling_per_second" in figures  # how much that is says a machine that does nothing else
    assert figures["commit"] and figures["versions"]["grpcio"] and "cores" in figures["hardware"]


def test_latency(server: Server, people: Sequence[First]) -> None:
    figures = uvloop.run(latency.measure(server, _others(people, "latency"), 0.6))
    assert figures["at_45_percent_per_second"] == pytest.approx(0.45 * figures["saturation_per_second"], abs=1)
    assert figures["ordinary_failed"] == figures["at_45_percent_failed"] == 0 and figures["ordinary_p99_ms"] > 0


@pytest.mark.timeout(300)  # two servers, one after the other
def test_growth(people: Sequence[First], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "firsts", lambda product: people)
    monkeypatch.setattr(growth, "OPEN_SECONDS", 0.4)
    monkeypatch.setattr(growth, "FEWEST", 100)
    figures = growth.run(1000, "native", "")["by_stored"]
    assert list(figures) == ["100", "1000"]
    before, after = figures.values()
    assert before["per_second"] == after["per_second"] > 0 and before["failed"] == after["failed"] == 0
    assert 0 < before["p50_ms"] <= before["p99_ms"] and min(after["rss_mb"], after["store_mb"]) > 0


def test_soak(server: Server, people: Sequence[First], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "KEPT", 100)
    saturation, seen = uvloop.run(soak.measure(server, _others(people, "soak")[:100], 0.05))
    figures = soak.figures(seen, 0.05)
    assert len(seen) == 3 and saturation > 0 and figures["errors"] == 0 and figures["decisions"] > 0
    assert isfinite(figures["rss_slope_mb_per_hour"]) and figures["rss_last_mb"] > 50

    async def left() -> int:
        async with Redis.from_url(server.redis_url) as redis:
            return int(await redis.xlen("{demo}:decisions"))

    assert asyncio.run(left()) == 100


def test_a_leak_shows() -> None:
    seen = [soak.Minute(100 + 2 * n, 10, 5, 1, 2, 0) for n in range(60)]
    assert soak.figures(seen, 60)["rss_slope_mb_per_hour"] == pytest.approx(120)


def test_stages_sum_to_the_whole(people: Sequence[First], redis_url: str) -> None:
    found, store_us, mix = uvloop.run(stages.measure(redis_url, people, 64))
    assert set(found) == {1, 8, 32, 64} and min(store_us.values()) > 0 and mix["approve"] > 0
    for by_stage in found.values():
        whole = by_stage.pop(stages.WHOLE)
        assert sum(by_stage.values()) == pytest.approx(whole)
        assert {"begin", "graph", "assemble", "score", "policy", "commit", stages.CHECK, stages.QUEUE} <= set(by_stage)
        assert all(us > 0 for name, us in by_stage.items() if name != stages.REST)


def test_compare_without_peers(people: Sequence[First], redis_url: str) -> None:
    figures = uvloop.run(compare.measure(redis_url, people, (), True, 1, 0.3))
    assert {"native_over_echo", "default_over_echo", "batch_over_echo"} <= set(figures)
    assert not figures["failed"] and {"ceiling of gRPC", "native", "echo"} <= set(figures["per_second"])


@pytest.mark.skipif(not contestants.PEERS_PYTHON.exists(), reason="no .venv-peers here: make peers")
def test_compare_with_a_peer(people: Sequence[First], redis_url: str) -> None:
    figures = uvloop.run(compare.measure(redis_url, people, ("mosec",), True, 1, 0.3))
    assert figures["native_over_mosec"] > 0 and not figures["failed"]


def _others(people: Sequence[First], name: str) -> list[First]:
    """The same in another town: what one test asks is no velocity in the next."""
    out = []
    for first in people:
        request = pb.DecideRequest()
        request.CopyFrom(first.request)
        request.application_id += name
        request.applicant_id += name
        if request.HasField("vehicle"):
            request.vehicle.vin += name
        for entity in request.entities:
            entity.id += name
        profiles = []
        for known in first.profiles:
            profiles.append(pb.PutProfileRequest())
            profiles[-1].CopyFrom(known)
            profiles[-1].subject_id += name
        out.append(First(request, profiles))
    return out
