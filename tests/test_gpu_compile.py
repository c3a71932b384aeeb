"""Every .cu compiles to PTX and machine code by NVRTC as the launchers compile it: no driver, no device needed."""

import re
from pathlib import Path

import numpy as np
import pytest

from gpu_kernels.compiler import CompilerError, compiled
from gpu_kernels.layout import FOLDER, Struct

SOURCES = sorted(FOLDER.glob("*.cu"))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_compiles(source: Path, architecture: str) -> None:
    """All kernels are there, for that architecture, and no multiplication and addition of doubles became one."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed: NO kernel was compiled")
    done = compiled(source, architecture)
    assert done.cubin.startswith(b"\x7fELF") and not done.log
    found = done.ptx
    kernels = re.findall(r"^KERNEL (\w+)\(", source.read_text(), re.MULTILINE)
    assert kernels and re.findall(r"\.entry (\w+)\(", found) == kernels
    assert f".target {architecture}" in found
    assert "fma.rn." not in found and ".ftz" not in found


def test_what_does_not_compile_says_why(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed: NO kernel was compiled")
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void broken() { missing(); }')
    with pytest.raises(CompilerError, match=r"broken.cu\(1\): error: identifier \"missing\" is undefined"):
        compiled(source, "sm_90")


def test_every_kernel_has_a_launcher() -> None:
    for source in SOURCES:
        launcher = source.with_suffix(".py").read_text()
        for kernel in re.findall(r"^KERNEL (\w+)\(", source.read_text(), re.MULTILINE):
            assert f'launch("{kernel}"' in launcher, (source.name, kernel)


def test_a_struct_refuses_what_it_does_not_hold() -> None:
    struct = Struct.read(FOLDER / "graph.cuh", "State")
    with pytest.raises(TypeError, match="uses: int32 expected, int64 given"):
        struct.words({"uses": np.zeros(3, dtype=np.int64)}, id)
    with pytest.raises(TypeError, match="uses: is not contiguous"):
        struct.words({"uses": np.zeros(6, dtype=np.int32)[::2]}, id)
    with pytest.raises(KeyError, match="colour"):
        struct.words({"colour": 1}, id)
    with pytest.raises(ValueError, match="no struct Missing"):
        Struct.read(FOLDER / "graph.cuh", "Missing")
