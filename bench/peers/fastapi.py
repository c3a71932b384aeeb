"""FastAPI on uvicorn with uvloop and httptools: `python -m uvicorn bench.peers.fastapi:app`. An async endpoint; the
engine's own queue makes batches. https://fastapi.tiangolo.com/async/, https://www.uvicorn.org/settings/
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from bench.peers.steps import Steps

steps = Steps()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await steps.open()
    yield
    await steps.close()


app = FastAPI(lifespan=lifespan)


@app.post("/decide")
async def decide(request: Request) -> Response:
    return Response(await steps.decide(await request.body()), media_type="application/octet-stream")
