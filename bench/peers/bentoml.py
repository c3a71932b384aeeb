"""BentoML: `python -m bentoml serve bench.peers.bentoml:Decisions`. An async service of one worker, without its log of
every access; the engine's own queue makes batches. Its adaptive batching takes lists in JSON alone from outside; with
base64 in them it was no faster and refused some calls. https://docs.bentoml.com/en/latest/build-with-bentoml/services.html
"""

from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from bench.peers.steps import Steps

Body = Annotated[bytes, ContentType("application/octet-stream")]


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Decisions:
    @bentoml.on_startup
    async def open(self) -> None:
        self._steps = Steps()
        await self._steps.open()

    @bentoml.api(route="/decide")
    async def decide(self, body: Body, /) -> Body:
        return await self._steps.decide(body)

    @bentoml.on_shutdown
    async def close(self) -> None:
        await self._steps.close()
