"""What answers a unary call, whatever carries it: grpc.aio or the native front end."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from server.batcher import Waiting


class Call(Protocol):
    """What a unary handler may ask and say of its call, whatever carries it: a part of grpc.aio.ServicerContext."""

    def time_remaining(self) -> float | None:
        """Seconds left until the caller's deadline; None without one."""

    def set_trailing_metadata(self, trailing_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Sent after the reply."""


Handler = Callable[[bytes, Call], Awaitable[bytes]]
Answer = tuple[bytes, tuple[tuple[str, str], ...]]  # reply and trailing metadata
# Takes a request, the seconds left and what is called once with the answer; may raise instead. What it returns can be
# cancelled.
Queued = Callable[[bytes, float | None, Callable[[Answer | Exception], None]], Waiting]
