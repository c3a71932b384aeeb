"""mosec: `BATCH_MAX=32 python -m bench.peers.mosec --address HOST --port PORT`. Its own batching, as large as there are
calls in flight, which was its best; it waits for a fuller batch no longer than the least it allows, 1 ms.
https://mosecorg.github.io/mosec/
"""

import asyncio
import os

import mosec
import uvloop

from bench.peers.steps import Steps

WAIT_MS = 1


class Decide(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._steps = Steps()
        self._loop.run_until_complete(self._steps.open())

    def deserialize(self, data: bytes) -> bytes:
        return bytes(data)  # a view of its buffer

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[bytes]:
        return self._loop.run_until_complete(self._all(data))

    async def _all(self, bodies: list[bytes]) -> list[bytes]:
        return await asyncio.gather(*(self._steps.decide(body) for body in bodies))


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(
        Decide, num=1, max_batch_size=int(os.environ["BATCH_MAX"]), max_wait_time=WAIT_MS, route="/decide"
    )
    server.run()
