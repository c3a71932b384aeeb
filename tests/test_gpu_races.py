"""Threads of one kernel, run at the same time, touch the same word by atomics alone, and the answers stay the same.

Run as a script, under ThreadSanitizer, it is that check itself: a sanitizer must be there before Python is.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu_policy import shipped_differences
from bench.gpu_streams import graph_differences
from bench.gpu_trees import demo_models, random_rows, tree_differences
from tests.cuda_shim import COMPILER, Shim

WORKERS = 4


def run() -> list[str]:
    """What differs with all kernels on several workers."""
    found = []
    for seed in range(4):
        device = Shim(seed, WORKERS, "thread")
        found += graph_differences(device, seed, 400, 300, deep=True, room=(2, 1, 1))[0]
    found += shipped_differences(Shim(0, WORKERS, "thread"), 200)
    schema, label, model = demo_models()[0]
    return found + tree_differences(Shim(0, WORKERS, "thread"), model, random_rows(schema, label, model, 20, 0), False)


def sanitizer() -> Path:
    if COMPILER is None:
        pytest.skip("g++ is not installed (apt-get install g++): races were NOT looked for")
    said = subprocess.run([COMPILER, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    found = Path(said.stdout.strip())
    if not found.is_absolute():
        pytest.skip("g++ has no ThreadSanitizer: races were NOT looked for")
    return found.resolve()


def test_no_two_threads_race() -> None:
    env = {
        **os.environ, "LD_PRELOAD": str(sanitizer()), "PYTHONPATH": ".",
        "TSAN_OPTIONS": "report_thread_leaks=0 ignore_noninstrumented_modules=1 exitcode=66",
    }  # fmt: skip
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[:4000]
    assert done.stdout.splitlines()[-1] == "nothing differs"


if __name__ == "__main__":
    differing = run()
    print(differing or "nothing differs")
    sys.exit(bool(differing))
