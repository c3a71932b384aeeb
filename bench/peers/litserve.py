"""LitServe: `python -m bench.peers.litserve HOST PORT`. Its batching in one worker, which waits no longer than 1 ms for
a fuller batch; its async API without batches was slower. https://lightning.ai/docs/litserve/features/batching
"""

import asyncio
import sys
from typing import Annotated

import litserve
import uvloop
from fastapi import Body, Response

from bench.peers.steps import Steps

BATCH_MAX, WAIT_SECONDS = 32, 0.001


class Decide(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._steps = Steps()
        self._loop.run_until_complete(self._steps.open())

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, bodies: list[bytes]) -> list[bytes]:
        return self._loop.run_until_complete(self._all(bodies))

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/octet-stream")

    async def _all(self, bodies: list[bytes]) -> list[bytes]:
        return await asyncio.gather(*(self._steps.decide(body) for body in bodies))


if __name__ == "__main__":
    api = Decide(max_batch_size=BATCH_MAX, batch_timeout=WAIT_SECONDS, api_path="/decide")
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host=sys.argv[1], port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning"
    )
