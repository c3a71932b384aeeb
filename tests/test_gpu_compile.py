"""Every .cu compiles to PTX and machine code by NVRTC as the launchers compile it: no driver, no device needed."""

import re
from pathlib import Path

import numpy as np
import pytest

from gpu_kernels.device import OPTIONS
from gpu_kernels.layout import FOLDER, Struct

SOURCES = sorted(FOLDER.glob("*.cu"))


def ptx(source: Path, architecture: str) -> str:
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed: NO kernel was compiled")
    _, program = nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], [])
    options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}", "-Werror=all-warnings")]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    said = bytes(size)
    nvrtc.nvrtcGetProgramLog(program, said)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, said.decode()
    _, size = nvrtc.nvrtcGetPTXSize(program)
    found = bytes(size)
    nvrtc.nvrtcGetPTX(program, found)
    nvrtc.nvrtcDestroyProgram(program)
    return found.decode()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_compiles(source: Path, architecture: str) -> None:
    """All kernels are there, for that architecture, and no multiplication and addition of doubles became one."""
    found = ptx(source, architecture)
    kernels = re.findall(r"^KERNEL (\w+)\(", source.read_text(), re.MULTILINE)
    assert kernels and re.findall(r"\.entry (\w+)\(", found) == kernels
    assert f".target {architecture}" in found
    assert "fma.rn.f" not in found


def test_every_kernel_has_a_launcher() -> None:
    for source in SOURCES:
        launcher = source.with_suffix(".py").read_text()
        for kernel in re.findall(r"^KERNEL (\w+)\(", source.read_text(), re.MULTILINE):
            assert f'launch("{kernel}"' in launcher, (source.name, kernel)


def test_a_struct_refuses_what_it_does_not_hold() -> None:
    struct = Struct.read(FOLDER / "graph.cuh", "State")
    with pytest.raises(TypeError, match="uses: contiguous int32 expected, int64 given"):
        struct.words({"uses": np.zeros(3, dtype=np.int64)}, id)
    with pytest.raises(KeyError, match="colour"):
        struct.words({"colour": 1}, id)
    with pytest.raises(ValueError, match="no struct Missing"):
        Struct.read(FOLDER / "graph.cuh", "Missing")
