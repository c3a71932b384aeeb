"""One connection of the native front end: http2.Connection under an asyncio.Protocol.

One write a connection and turn of the event loop, however many replies there are; no thread. A peer that does not read
is not read either: what it may make this process hold is bounded (http2's budgets, a transport's buffer), and so are
the seconds that it may take for anything.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import grpc

from server.batcher import Waiting
from server.calls import Answer, Handler, Queued
from server.errors import status_of
from server.native.deadlines import Deadlines
from server.native.http2 import Connection
from server.service import log_failure

ARRIVAL_SECONDS = 20.0  # from a request's first header to its last byte; from a connection to its first words
READING_SECONDS = 60.0  # for a peer to read a reply, or anything at all
SILENT_SECONDS = 600.0  # a connection without an open request that says nothing
NOTICE_SECONDS = 0.1  # for a peer to hear that the connection drains, and for what it sent until then to arrive
CLOSE_SECONDS = 1.0  # for a peer to read the last of what it is told
LATE = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]

Reply = tuple[int, bytes | None, int, str, tuple[tuple[bytes, bytes], ...] | None]


@dataclass(frozen=True)
class Limits:
    """What one connection may hold, and all of them together."""

    message_max_bytes: int = 4 << 20
    budget_bytes: int = 32 << 20
    all_bytes: int = 256 << 20
    requests_max: int = 256


class Served(Protocol):
    """What a connection needs of the front end that it belongs to."""

    handlers: list[Handler]
    queued: list[Queued | None]
    paths: dict[bytes, int]
    limits: Limits
    deadlines: Deadlines

    def opened(self, peer: "Peer") -> bool:
        """Take a connection; False where there are too many."""

    def closed(self, peer: "Peer") -> None:
        """It is gone."""


class _Call:
    __slots__ = ("deadline", "trailers")

    def __init__(self, timeout_us: int, now: float) -> None:
        self.deadline = now + timeout_us / 1e6 if timeout_us >= 0 else None
        self.trailers: tuple[tuple[bytes, bytes], ...] | None = None

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self.trailers = wire_pairs(trailing_metadata)


def wire_pairs(metadata: Sequence[tuple[str, str | bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Metadata as HTTP/2 carries it: values of names in -bin are base64 without padding."""
    return tuple(
        (name.encode(), base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode())
        for name, value in metadata
    )


class Peer(asyncio.Protocol):
    """Reads requests, queues them or runs their handlers as tasks, writes what comes of it."""

    def __init__(self, front: Served) -> None:
        self._front = front
        limits = front.limits
        self._connection = Connection(
            front.paths, streams_max=limits.requests_max, message_max=limits.message_max_bytes,
            budget=limits.budget_bytes, budget_all=limits.all_bytes,
        )  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Task[None] | Waiting] = {}
        self._replies: list[Reply] = []
        self._flushing = self._failed = self._draining = False
        self._leaving: asyncio.TimerHandle | None = None
        self._opened = self._heard = time.monotonic()
        self._paused_at = self._closed_at = float("inf")

    @property
    def busy(self) -> bool:
        """Whether a request is open or a reply not yet handed over."""
        return bool(self._calls or self._replies or self._connection.open)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        if self._front.opened(self):
            self._flush_soon()
        else:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed = True
        self._front.closed(self)
        if self._leaving is not None:
            self._leaving.cancel()
        for stream in list(self._calls):
            self._give_up(stream)
        del self._connection  # what it holds is free now, not when the collector comes by

    def data_received(self, data: bytes) -> None:
        self._heard = now = time.monotonic()
        try:
            self._connection.feed(data, now)
        except ConnectionError:
            self._fail()
            return
        for stream, method, message, timeout_us, _ in self._connection.take():
            call = _Call(timeout_us, now)
            if (queued := self._front.queued[method]) is None:
                self._calls[stream] = self._loop.create_task(self._answer(stream, method, message, call))
            else:
                try:
                    self._calls[stream] = queued(message, call.time_remaining(), partial(self._answered, stream))
                except Exception as error:  # as in _answer
                    self._refuse(stream, error)
                    continue
            if call.deadline is not None:
                self._front.deadlines.add((self, stream), call.deadline)
        self._drop_gone()
        self._flush_soon()

    def pause_writing(self) -> None:
        self._paused_at = time.monotonic()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused_at = float("inf")
        self._transport.resume_reading()
        self._flush_soon()

    def drain(self) -> None:
        """GOAWAY, twice: what was on its way when the peer heard of it is still taken (RFC 9113 6.8). What is open is
        answered, then the connection closes.
        """
        if not self._failed and not self._draining:
            self._draining = True
            self._connection.notice()
            self._flush_soon()
            self._loop.call_later(NOTICE_SECONDS, self._drain)

    def _drain(self) -> None:
        if not self._failed:
            self._connection.drain()
            self._flush_soon()

    def close(self) -> None:
        """After what is written has been sent."""
        self._flush()
        self._shut()

    def abort(self) -> None:
        """At once, whatever is left to send."""
        self._transport.abort()

    def late(self, stream: int) -> None:
        """A call's deadline has passed: as grpc.aio does, drop it and say so."""
        if stream in self._calls:
            self._give_up(stream)
            self._replies.append((stream, None, LATE, "the deadline has passed", None))
            self._flush_soon()

    def sweep(self, now: float) -> None:
        """Refuse what takes too long to arrive; close what says nothing; drop what reads nothing."""
        if now - self._paused_at > READING_SECONDS or now - self._closed_at > READING_SECONDS:
            self.abort()
        elif not self._connection.greeted and now - self._opened > ARRIVAL_SECONDS:
            self.close()
        elif not self._failed:
            try:
                if self._connection.expire(now, ARRIVAL_SECONDS, READING_SECONDS):
                    self._flush_soon()
                if not self.busy and now - self._heard > SILENT_SECONDS:
                    self.drain()
            except ConnectionError:
                self._fail()

    async def _answer(self, stream: int, method: int, message: bytes, call: _Call) -> None:
        try:
            reply = await self._front.handlers[method](message, call)
            self._replies.append((stream, reply, 0, "", call.trailers))
        except Exception as error:
            self._refuse(stream, error)
        finally:
            self._calls.pop(stream, None)
            if call.deadline is not None:
                self._front.deadlines.discard((self, stream))
        self._flush_soon()

    def _answered(self, stream: int, answer: Answer | Exception) -> None:
        """What a queued call came to, unless it was given up."""
        if self._calls.pop(stream, None) is None:
            return
        self._front.deadlines.discard((self, stream))
        if isinstance(answer, Exception):
            self._refuse(stream, answer)
        else:
            reply, trailers = answer
            self._replies.append((stream, reply, 0, "", wire_pairs(trailers)))
        self._flush_soon()

    def _refuse(self, stream: int, error: Exception) -> None:
        """The one place where this transport's errors become statuses."""
        status = status_of(error)
        log_failure(error, status.code)
        self._replies.append((stream, None, status.number, status.message, wire_pairs(status.metadata())))

    def _drop_gone(self) -> None:
        for stream in self._connection.gone():
            if stream in self._calls:
                self._give_up(stream)

    def _give_up(self, stream: int) -> None:
        """Cancel a call, which may not have begun: then nothing of it ever runs."""
        self._calls.pop(stream).cancel()
        self._front.deadlines.discard((self, stream))

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._failed or self._transport.is_closing():
            return
        try:
            if self._replies:
                replies, self._replies = self._replies, []
                self._connection.reply(replies)
            while self._paused_at == float("inf") and (data := self._connection.out()):
                self._transport.write(data)
        except ConnectionError:
            self._fail()
            return
        except Exception:  # a reply that is none: who waits for it must not wait for ever
            self._fail()
            raise
        self._drop_gone()
        if self._connection.finished:
            self._finish()

    def _finish(self) -> None:
        """Nothing is left to say. After a goodbye of ours the peer closes: what it sent meanwhile would meet a closed
        socket, and the reset that follows could overtake the goodbye, which says that it may be sent elsewhere.
        """
        if self._draining and self._leaving is None:
            self._leaving = self._loop.call_later(CLOSE_SECONDS, self._shut)
        elif not self._draining:
            self._shut()

    def _fail(self) -> None:
        """The peer broke the protocol beyond what nghttp2 has words for: close."""
        self._failed = True
        self._shut()

    def _shut(self) -> None:
        if not self._transport.is_closing():
            self._closed_at = time.monotonic()
            self._transport.close()
