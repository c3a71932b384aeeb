"""`bench gpu` says that there is no GPU, and what it would do with one runs, on the CPU, by its own code."""

import json
import subprocess
import sys
import time

import pytest
from rich.console import Console

from bench import gpu
from gpu_kernels.device import Cuda, NoDeviceError
from tests.gpu_devices import device_of, opened


class HostClock:
    def mark(self) -> float:
        return time.perf_counter()

    def ms(self, start: float, end: float) -> float:
        return (end - start) * 1e3


def test_without_a_gpu_it_says_so() -> None:
    try:
        Cuda()
    except NoDeviceError:
        pass
    else:
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", "bench", "gpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No GPU, nothing was checked or timed" in done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["bench"], report["gpu"]) == ("gpu", False) and report["reason"]


def test_what_it_does_with_one() -> None:
    report = gpu.measured(
        opened("shim"),
        device_of(opened("shim")),
        HostClock(),
        sizes=(1, 8),
        policy_sizes=(8, 64),
        rounds=2,
        history=100,
        copy_bytes=1 << 16,
        small_logs=3,
        long_logs=1,
        replayed=1000,
        torch_on="cpu",
        deep_sizes=(2,),
    )
    assert report["differing"] == [] and report["copy_gb_per_s"] > 0
    assert [row["batch"] for row in report["graph"]] == [row["batch"] for row in report["trees"]] == [1, 8]
    for row in report["graph"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"] and row["bytes"] > 0
        assert {"resolve", "neighbors", "use", "outcomes", "commit"} <= set(row["kernels_ms"])
    assert report["decisions"]["furthest"] <= 1e-5 and report["decisions"]["decided"] == 14
    assert report["decisions"]["sizes"][1]["decisions_per_s"] > 0
    assert report["deep"]["furthest"] <= 1e-5 and report["deep"]["sizes"][0]["cpu_p50_ms"] > 0
    assert [row["batch"] for row in report["policy"]] == [8, 64]
    assert all(row["cpu_decisions_per_s"] > 0 and row["differing"] == 0 for row in report["policy"])
    replay = report["replay"]
    assert replay["furthest"] <= 1e-5 and all(
        replay[f"{s}_{on}_per_s"] > 0 for s in ("replay", "score") for on in ("device", "cpu")
    )
    assert all(row["same_neighbors"] for row in report["torch_geometric"].get("sizes", ()))
    json.dumps(report)
    gpu.show(Console(stderr=True), report)


def test_torch_geometric_sees_the_same_neighbours() -> None:
    """At hubs as well, whose rings are full, and where a batch names one again; a neighbour left out is found."""
    peer = pytest.importorskip("bench.gpu_peer")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(peer, "OF_EACH_SLOT", 40)
        patched.setattr(peer, "LOADED", 8)
        asked = opened("shim"), HostClock(), (1, 16), 3
        found = peer.peer_times(*asked, 400, "cpu")
        if "absent" in found:
            pytest.skip(f"NOT run beside torch-geometric: {found['absent']}")
        assert [row["same_neighbors"] for row in found["sizes"]] == [True, True]
        assert found["sizes"][0]["not_seen"] == 0  # a row alone sees all that came before it
        assert all(row["over_torch_geometric"] > 0 and row["p50_ms"] > 0 for row in found["sizes"])
        assert 0.05 < found["sizes"][1]["not_seen"] < 0.5
        patched.setattr(peer.Peer, "insert", lambda *given: None)
        assert not any(row["same_neighbors"] for row in peer.peer_times(*asked, 400, "cpu")["sizes"])
    report = peer.peer_times(*asked, 100, "cuda")
    assert report.keys() == ({"absent"} if not peer.torch.cuda.is_available() else {"version", "on", "sizes"})


def test_a_wrong_kernel_is_found() -> None:
    class Wrong(type(opened("shim"))):  # type: ignore[misc]
        """Leaves out the kernel that counts links."""

        def kernels(self, source: object) -> object:
            launch = super().kernels(source)
            return lambda kernel, *rest: None if kernel == "count_links" else launch(kernel, *rest)

    found = gpu.checked(Wrong(), 3, 0)
    assert found and all("graph_state" in name for name in found)
