"""Applications for load that never repeat: the first one of each applicant of a world, and after the last the same
again as of other people, whose profiles are stored first. An id sent twice would be answered by the stored decision,
and who applies again and again is declined: both would measure something else.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from redis.asyncio import Redis

from bench import world
from bench.connections import Target
from bench.history import schemas_by_product
from bench.loops import closed_loop
from bench.population import HOUR_MS
from bench.serving import SECRET
from features.application import Profile, subject_token
from features.load import load_profiles
from features.store import Store
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire

WORLD_SEED = 11
APPLICATIONS = 20_000
TOWN_HOURS = 6  # then about 38 % are not approved, as in the demo; fewer hours, fewer
FETCHED_AGO_MS, CONSENT_AGO_MS = 3_600_000, 60_000
PUTS_IN_FLIGHT = 32
SERVICE = "/miaopi.v1.DecisionService"

Known = Iterable[tuple[pb.PutProfileRequest, str]]  # what is known, and of whom: subject_id
Put = Callable[[Known], Awaitable[None]]


@dataclass(frozen=True)
class First:
    """An applicant's first application, and what sources know of the person, the car and the company."""

    request: pb.DecideRequest
    profiles: list[pb.PutProfileRequest]


def firsts(applications: int = APPLICATIONS, product: str = "") -> list[First]:
    """Of a world with so many applications, in order of time, as if sources were asked an hour ago; of one product or
    of all. Each day of the world is of another town: what came in months would else come within seconds, all of it
    through the same dealers and shops, and be declined for that.
    """
    made, now_ms = world.build(WORLD_SEED, applications), round(time.time() * 1000)
    known: dict[str, list[pb.PutProfileRequest]] = {}
    for profile in made.profiles:
        profile.fetched_at_ms = now_ms - FETCHED_AGO_MS
        known.setdefault(profile.subject_id, []).append(profile)
    first: dict[str, pb.DecideRequest] = {}
    for event in made.events:
        if isinstance(event, pb.DecideRequest):
            first.setdefault(event.applicant_id, event)
    found = []
    for request in first.values():
        if product not in ("", request.product):
            continue
        town, request.event_time_ms = request.event_time_ms // (TOWN_HOURS * HOUR_MS), 0
        for entity in request.entities:
            if entity.id not in known:
                entity.id += f"@{town}"
        for consent in request.consents:
            consent.given_at_ms = now_ms - CONSENT_AGO_MS
        subjects = {request.applicant_id, request.vehicle.vin, *(e.id for e in request.entities if e.type == "company")}
        found.append(First(request, [profile for subject in sorted(subjects) for profile in known.get(subject, ())]))
    return found


@dataclass
class Payloads:
    """An endless stream of applications to one tenant; `put` stores profiles for it."""

    people: Sequence[First]
    tenant: str
    put: Put
    _stream: Iterator[tuple[First, str]] = field(init=False)

    def __post_init__(self) -> None:
        self._stream = self._others()

    async def take(self, number: int) -> list[bytes]:
        """The next DecideRequests, serialised, their profiles stored."""
        some = list(islice(self._stream, number))
        await self.put((p, p.subject_id + suffix) for first, suffix in some for p in first.profiles)
        return [_request(first.request, self.tenant, suffix) for first, suffix in some]

    def _others(self) -> Iterator[tuple[First, str]]:
        for generation in count():
            suffix = f".{generation}" if generation else ""
            for first in self.people:
                yield first, suffix


def batches(requests: Sequence[bytes], size: int) -> list[bytes]:
    """BatchDecideRequests of so many applications each; what is left over is not sent."""
    whole = range(0, len(requests) - size + 1, size)
    parse = pb.DecideRequest.FromString
    return [
        pb.BatchDecideRequest(requests=[parse(r) for r in requests[i : i + size]]).SerializeToString() for i in whole
    ]


def direct(redis: Redis, tenant: str) -> Put:
    """Into a store that belongs to the benchmark, past the server: the same checks, tokens and verb."""
    of_product, tokenizer = schemas_by_product(), Tokenizer(SECRET.encode())
    store = Store(redis, tenant, tokenizer, list(of_product.values()))
    checked: dict[int, Profile] = {}
    prepared = False

    def profile(request: pb.PutProfileRequest) -> Profile:
        if id(request) not in checked:  # those of the world live as long as the benchmark
            checked[id(request)] = wire.profile(request, of_product[request.product], replaying=False)
        return checked[id(request)]

    async def put(known: Known) -> None:
        nonlocal prepared
        if not prepared:
            await store.prepare()
            prepared = True
        schemas = ((of_product[request.product], request, subject) for request, subject in known)
        await load_profiles(
            store, ((subject_token(s, tokenizer, r.source, subject), s, profile(r)) for s, r, subject in schemas)
        )

    return put


def by_rpc(address: str, tenant: str) -> Put:
    """PutProfile of a server."""

    def message(known: pb.PutProfileRequest, subject: str) -> bytes:
        request = pb.PutProfileRequest()
        request.CopyFrom(known)
        request.tenant, request.subject_id = tenant, subject
        return request.SerializeToString()

    async def put(known: Known) -> None:
        target = Target(address, f"{SERVICE}/PutProfile")
        done = await closed_loop(target, (message(*one) for one in known), PUTS_IN_FLIGHT)
        if done.failed:
            raise RuntimeError(f"PutProfile failed, by gRPC status: {dict(done.statuses)}")

    return put


def _request(first: pb.DecideRequest, tenant: str, suffix: str) -> bytes:
    request = pb.DecideRequest()
    request.CopyFrom(first)
    request.tenant = tenant
    request.application_id += suffix
    request.applicant_id += suffix
    for entity in request.entities:
        entity.id += suffix
    if request.HasField("vehicle"):
        request.vehicle.vin += suffix
    return request.SerializeToString()
