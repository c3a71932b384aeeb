"""The gRPC face (grpc.aio) of the engines: one handler a method, raw bytes in and out.

Requests are parsed here, so that bytes that are no message are INVALID_ARGUMENT; stored decisions go out as the bytes
they are. Errors become statuses in server.errors only.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import grpc
import structlog

from features.application import Application, InvalidFieldError, check_text, subject_token
from features.list_entries import ListEntries, listable
from features.tokens import Tokenizer
from proto.miaopi.v1 import decision_pb2 as pb
from server import lists, privacy, wire
from server.batcher import Batcher, Reply, Waiting
from server.calls import Answer, Call, Handler, Queued
from server.engine import Engine
from server.errors import status_of
from server.products import Product
from server.requests import Request, Requests, parse
from server.reviews import Reviews

SERVICE = "miaopi.v1.DecisionService"
BATCH_RPC_MAX = 256  # applications of one BatchDecide, and of one stream under way

_RESULTS = pb.BatchDecideResponse.RESULTS_FIELD_NUMBER
_RESULT = pb.StreamDecideResponse.RESULT_FIELD_NUMBER
_DECISION = pb.DecideResult.DECISION_FIELD_NUMBER

log = structlog.get_logger()
Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True)
class Tenant:
    """One lender: its engine, its queue, the tokenizer under its secret and what waits for a person."""

    engine: Engine
    batcher: Batcher
    tokenizer: Tokenizer
    entries: ListEntries
    reviews: Reviews


class Service:
    """Handlers of DecisionService over the tenants and products of this process."""

    def __init__(
        self, tenants: Mapping[str, Tenant], products: Mapping[str, Product], replaying: bool,
        consortium: Tokenizer | None = None,
    ) -> None:  # fmt: skip
        self._tenants = tenants
        self._products = products
        self._replaying = replaying
        self._consortium = consortium
        schemas = {name: product.schema for name, product in products.items()}
        self.requests = Requests({n: t.tokenizer for n, t in tenants.items()}, schemas, replaying, consortium)
        self.stopping = asyncio.Event()  # set: streams take no more

    def unary(self) -> dict[str, Handler]:
        """The calls with one request and one reply, by name."""
        return {
            "Decide": self._decide, "BatchDecide": self._batch_decide, "GetDecision": self._get_decision,
            "ReportOutcome": self._report_outcome, "PutProfile": self._put_profile,
            "ProposeListEntry": self._propose_list_entry, "ApproveListEntry": self._approve_list_entry,
            "ListEntries": self._list_entries,
            "ListReviews": self._list_reviews, "ResolveReview": self._resolve_review,
            "WithdrawConsent": self._withdraw_consent, "DeleteApplicant": self._delete_applicant,
        }  # fmt: skip

    def queued(self) -> dict[str, Queued]:
        """Those of them that need no task of their own: they wait in a queue and are answered with others."""
        return {"Decide": self._queue_decide}

    def handler(self) -> grpc.GenericRpcHandler:
        """For `grpc.aio.Server.add_generic_rpc_handlers`."""
        calls = self.unary()
        calls["Decide"] = partial(self._decide, one_by_one=True)
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(_answer(call)) for name, call in calls.items()
        }
        handlers["StreamDecide"] = grpc.stream_stream_rpc_method_handler(self._stream_decide)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _decide(self, body: bytes, context: Call, one_by_one: bool = False) -> bytes:
        tenant, application = self._application(self.requests.one(body))
        reply = await tenant.batcher.submit(application, context.time_remaining(), one_by_one)
        context.set_trailing_metadata((("stage-us", reply.stage_us),))
        return reply.body

    def _queue_decide(self, body: bytes, left: float | None, done: Callable[[Answer | Exception], None]) -> Waiting:
        def answered(reply: Reply | Exception) -> None:
            done(reply if isinstance(reply, Exception) else (reply.body, (("stage-us", reply.stage_us),)))

        return self._put(self.requests.one(body), left, answered)

    async def _batch_decide(self, body: bytes, context: Call) -> bytes:
        requests = self.requests.batch(body, BATCH_RPC_MAX)
        if not 1 <= len(requests) <= BATCH_RPC_MAX:
            raise InvalidFieldError("requests", f"must be from 1 to {BATCH_RPC_MAX}, are {len(requests)}")
        left, results = context.time_remaining(), [b""] * len(requests)
        waiting, finished = dict[int, Waiting](), asyncio.get_running_loop().create_future()

        def done(i: int, reply: Reply | Exception) -> None:
            results[i] = _field(_RESULTS, _result(requests[i].application_id, reply))
            if waiting.pop(i, None) and not waiting and not finished.done():
                finished.set_result(None)

        for i, request in enumerate(requests):
            try:
                waiting[i] = self._put(request, left, partial(done, i))
            except Exception as error:  # every item has its own status
                done(i, error)
        try:
            if waiting:
                await finished
        finally:
            for item in waiting.values():
                item.cancel()
        return b"".join(results)

    async def _stream_decide(self, bodies: AsyncIterator[bytes], context: Context) -> None:
        """Up to BATCH_RPC_MAX applications under way; reading waits for a place: the stream's back-pressure.

        When the server stops, what was read is answered and the stream ends UNAVAILABLE.
        """
        places, writing = asyncio.Semaphore(BATCH_RPC_MAX), asyncio.Lock()

        async def answer(body: bytes) -> None:
            result = await self._stream_result(body, context.time_remaining())
            async with writing:
                await context.write(_field(_RESULT, result))
            places.release()

        async with asyncio.TaskGroup() as under_way:
            while (body := await self._unless_stopping(bodies)) is not None:
                await places.acquire()
                under_way.create_task(answer(body))
        if self.stopping.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping; send the rest again")

    async def _unless_stopping(self, bodies: AsyncIterator[bytes]) -> bytes | None:
        """The next message of a stream; None at its end, or when the server stops."""
        reading = asyncio.ensure_future(anext(bodies, None))
        stopping = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()
            stopping.cancel()

    async def _stream_result(self, body: bytes, left: float | None) -> bytes:
        try:
            request = self.requests.streamed(body)
        except InvalidFieldError as error:
            return _result("", error)
        return await self._result(request, left)

    async def _result(self, request: Request, left: float | None) -> bytes:
        """One item of a stream, with its own error, serialised."""
        try:
            tenant, application = self._application(request)
            return _result(request.application_id, await tenant.batcher.submit(application, left, True))
        except Exception as error:  # every item has its own status; status_of maps it
            return _result(request.application_id, error)

    def _application(self, request: Request) -> tuple[Tenant, Application]:
        if isinstance(request, Application):
            return self._tenants[request.tenant], request
        tenant = self._tenant(request.tenant)
        product = self._product(request.product)
        checked = wire.application(request, product.schema, tenant.tokenizer, self._replaying, self._consortium)
        return tenant, checked

    def _put(self, request: Request, left: float | None, done: Callable[[Reply | Exception], None]) -> Waiting:
        tenant, application = self._application(request)
        return tenant.batcher.put(application, left, done)

    async def _get_decision(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.GetDecisionRequest, body)
        tenant = self._tenant(request.tenant)
        check_text("application_id", request.application_id, wire.ID_MAX)
        stored = await tenant.engine.decision(request.application_id)
        return pb.GetDecisionResponse(
            decision=pb.DecideResponse.FromString(stored),
            resolution=await tenant.reviews.resolution(request.application_id),
        ).SerializeToString()

    async def _list_reviews(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.ListReviewsRequest, body)
        return (await self._tenant(request.tenant).reviews.page(request)).SerializeToString()

    async def _resolve_review(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.ResolveReviewRequest, body)
        resolution = await self._tenant(request.tenant).reviews.resolve(request)
        return pb.ResolveReviewResponse(resolution=resolution).SerializeToString()

    async def _report_outcome(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.ReportOutcomeRequest, body)
        tenant = self._tenant(request.tenant)
        report = wire.report(request, self._replaying)
        sequence = await tenant.engine.report(report)
        return pb.ReportOutcomeResponse(sequence=sequence).SerializeToString()

    async def _put_profile(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.PutProfileRequest, body)
        tenant = self._tenant(request.tenant)
        schema = self._product(request.product).schema
        subject = subject_token(schema, tenant.tokenizer, request.source, request.subject_id)
        profile = wire.profile(request, schema, self._replaying)
        stored = await tenant.engine.put_profile(subject, schema, profile)
        return pb.PutProfileResponse(stored=stored).SerializeToString()

    async def _propose_list_entry(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.ProposeListEntryRequest, body)
        types = listable(product.schema for product in self._products.values())
        return await lists.propose(self._tenant(request.tenant).entries, types, request)

    async def _approve_list_entry(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.ApproveListEntryRequest, body)
        return await lists.approve(self._tenant(request.tenant).entries, request, self._replaying)

    async def _list_entries(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.ListEntriesRequest, body)
        return await lists.page(self._tenant(request.tenant).entries, request)

    async def _withdraw_consent(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.WithdrawConsentRequest, body)
        tenant = self._tenant(request.tenant)
        return await privacy.withdraw_consent(tenant.engine, tenant.tokenizer, request, self._replaying)

    async def _delete_applicant(self, body: bytes, context: Call) -> bytes:
        request = parse(pb.DeleteApplicantRequest, body)
        tenant = self._tenant(request.tenant)
        return await privacy.delete_applicant(tenant.engine, tenant.tokenizer, request, self._replaying)

    def _tenant(self, name: str) -> Tenant:
        if name not in self._tenants:
            raise InvalidFieldError("tenant", "is not served here" if name else "is missing")
        return self._tenants[name]

    def _product(self, name: str) -> Product:
        if name not in self._products:
            raise InvalidFieldError("product", f"must be one of {', '.join(self._products)}")
        return self._products[name]


def _answer(call: Handler) -> Callable[[bytes, Context], Awaitable[bytes]]:
    """`call`, with its errors as statuses."""

    async def answer(body: bytes, context: Context) -> bytes:
        try:
            return await call(body, context)
        except Exception as error:  # the one place where a unary call's errors become statuses
            status = status_of(error)
            log_failure(error, status.code)
            await context.abort(status.code, status.message, status.metadata())

    return answer


def _result(application_id: str, reply: Reply | Exception) -> bytes:
    """A serialised DecideResult. A decision goes into it as the bytes it is."""
    if not isinstance(reply, Exception):
        return pb.DecideResult(application_id=application_id).SerializeToString() + _field(_DECISION, reply.body)
    status = status_of(reply)
    log_failure(reply, status.code)
    error = pb.ItemError(code=status.number, field=status.field, message=status.message)
    return pb.DecideResult(application_id=application_id, error=error).SerializeToString()


def _field(number: int, message: bytes) -> bytes:
    """A message as a field of another, in protobuf's encoding."""
    head, size = bytearray([number << 3 | 2]), len(message)
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + message


def log_failure(error: Exception, code: grpc.StatusCode) -> None:
    """Errors in one line, without what the caller sent: a message may quote it (R21)."""
    if code is grpc.StatusCode.INTERNAL:
        log.error("internal", exc_info=error)
    elif code is grpc.StatusCode.UNAVAILABLE:
        log.warning("unavailable", problem=type(error).__name__)
