"""A .cu becomes machine code by NVRTC, which needs neither a device nor a driver: tests and GPUs run the same options.

CuPy's own compilation flushes denormals (-ftz=true) and does not notice that a header changed, so it is not used.
Sums of doubles must come out as on the CPU, so nothing is contracted into fused multiply-adds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_kernels.layout import FOLDER

OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", f"-I{FOLDER}")


class CompilerError(RuntimeError):
    """NVRTC refuses a source; the message is its log."""


@dataclass(frozen=True)
class Compiled:
    """cubin: machine code; ptx: what it was made of; log: warnings."""

    cubin: bytes
    ptx: str
    log: str


def compiled(source: Path, architecture: str) -> Compiled:
    """A source for an architecture such as "sm_90". Raises CompilerError, ImportError where there is no NVRTC."""
    from cuda.bindings import nvrtc  # of the extras gpu and dev

    def text(size: Any, get: Any) -> bytes:
        found = bytes(size(program)[1])
        get(program, found)
        return found

    status, program = nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], [])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompilerError(f"{source.name}: {status}")
    options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode().strip("\0\n ")
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompilerError(log)
    cubin, ptx = text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX)
    nvrtc.nvrtcDestroyProgram(program)
    return Compiled(cubin, ptx.decode().strip("\0"), log)
