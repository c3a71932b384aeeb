"""A .cu becomes machine code by NVRTC, which needs neither a device nor a driver: tests and GPUs run the same options.

CuPy's own compilation flushes denormals (-ftz=true) and does not notice that a header changed, so it is not used.
Sums of doubles must come out as on the CPU, so nothing is contracted into fused multiply-adds.
"""

from pathlib import Path

from gpu_kernels.layout import FOLDER

OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", f"-I{FOLDER}")


class CompilerError(RuntimeError):
    """NVRTC refuses a source; the message is its log."""


def compiled(source: Path, architecture: str) -> tuple[bytes, str]:
    """Machine code (cubin) and PTX for an architecture such as "sm_90". Raises ImportError where there is no NVRTC."""
    from cuda.bindings import nvrtc  # of the extras gpu and dev

    status, program = nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], [])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise CompilerError(f"{source.name}: {status}")
    options = [o.encode() for o in (*OPTIONS, f"--gpu-architecture={architecture}", "-Werror=all-warnings")]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        said = bytes(nvrtc.nvrtcGetProgramLogSize(program)[1])
        nvrtc.nvrtcGetProgramLog(program, said)
        raise CompilerError(said.decode().strip("\0\n "))
    cubin, ptx = bytes(nvrtc.nvrtcGetCUBINSize(program)[1]), bytes(nvrtc.nvrtcGetPTXSize(program)[1])
    nvrtc.nvrtcGetCUBIN(program, cubin)
    nvrtc.nvrtcGetPTX(program, ptx)
    nvrtc.nvrtcDestroyProgram(program)
    return cubin, ptx.decode().strip("\0")
