"""h2load, a client that is not ours, beside ours on the same call: do they find the same?

It sends the same bytes again and again, so that of a decision only the first is made and the stored one answers from
then on: what is compared here are the clients. It does not look at grpc-status, but counts the bytes of bodies, and a
call that fails has none: bytes over those of one reply are the calls answered OK.
"""

import asyncio
import re
import shutil
from itertools import islice, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.connections import Target
from bench.loops import closed_loop

IN_FLIGHT, CONNECTIONS = 64, 4
PREFIX_BYTES = 5  # of a gRPC message
TIMEOUT_SECONDS = 120

_RATE = re.compile(r"finished in .*, ([\d.]+) req/s")
_DONE = re.compile(r"requests: (\d+) total, .* (\d+) succeeded")
_DATA = re.compile(r"\((\d+)\) data")


def installed() -> bool:
    """Debian's nghttp2-client."""
    return shutil.which("h2load") is not None


async def both(target: Target, message: bytes, calls: int) -> dict[str, int]:
    """Calls a second that ours and h2load find, and of the latter how many were HTTP 200 and how many OK in gRPC."""
    ours = await closed_loop(target, islice(repeat(message), calls), IN_FLIGHT, connections=CONNECTIONS)
    with TemporaryDirectory(prefix="miaopi-") as folder:
        body = Path(folder) / "message"
        body.write_bytes(len(message).to_bytes(PREFIX_BYTES, "big") + message)
        process = await asyncio.create_subprocess_exec(
            "h2load", "-n", str(calls), "-c", str(CONNECTIONS), "-m", str(IN_FLIGHT // CONNECTIONS), "-t", "1",
            "-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://{target.address}{target.path}", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    told = out.decode()
    rate, done, data = _RATE.search(told), _DONE.search(told), _DATA.search(told)
    if rate is None or done is None or data is None:
        raise RuntimeError(f"h2load said: {told}")
    return {
        "ours_per_second": round(ours.per_second), "h2load_per_second": round(float(rate[1])), "calls": int(done[1]),
        "http_200": int(done[2]), "grpc_ok": int(data[1]) // (PREFIX_BYTES + max(map(len, ours.replies))),
        "ours_failed": ours.failed,
    }  # fmt: skip
