"""A timer for an open loop: asyncio and uvloop round theirs to whole milliseconds, more than a decision takes."""

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable


class Alarm:
    """Calls back at a moment of time.perf_counter, by a timerfd of Linux."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def start(self, call: Callable[[], None]) -> None:
        """From now on `call` when the moment has come."""
        self._call = call
        asyncio.get_running_loop().add_reader(self._fd, self._ring)

    def at(self, when: float) -> None:
        """The next moment, in seconds; one that has passed rings at once."""
        seconds, rest = divmod(max(when, 1e-9), 1)
        self._libc.timerfd_settime(self._fd, 1, struct.pack("4q", 0, 0, int(seconds), max(int(rest * 1e9), 1)), None)

    def close(self) -> None:
        """No more."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew in the meantime
            return
        self._call()
