"""`python -m server.native.fuzz`: builds fuzz.c with clang, gives it requests to start from, and runs it.

Needs Debian's clang and libnghttp2-dev. What breaks is left in the folder that is named, with the input to repeat it.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import h2.config
import h2.connection
import typer

HERE = Path(__file__).parent
HEADERS = [
    (":method", "POST"), (":scheme", "http"), (":path", "/s/Echo"), (":authority", "x"), ("te", "trailers"),
    ("content-type", "application/grpc"), ("grpc-timeout", "1S"), ("x-bin", "AA"),
]  # fmt: skip
HOW = (0, 1, 2, 4, 7, 31, 64)  # first byte: see fuzz.c


def main(seconds: int = typer.Option(60, min=1)) -> None:
    """Build, seed and run; the exit status is libFuzzer's."""
    run("fuzz.c", [bytes([how]) + talk for talk in _conversations() for how in HOW], seconds, ("-lnghttp2",))


def run(target: str, seeds: Sequence[bytes], seconds: int, libraries: Sequence[str], plans: str = "") -> NoReturn:
    """Build a target of this folder and run it from `seeds`. plans: what the file in MIAOPI_FUZZ_PLANS holds."""
    folder = Path(tempfile.mkdtemp(prefix="miaopi-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    (folder / "plans").write_text(plans)
    for n, seed in enumerate(seeds):
        (corpus / str(n)).write_bytes(seed)
    python = sysconfig.get_config_var("LIBDIR")
    subprocess.run(
        [
            "clang", "-g", "-O1", "-fsanitize=address,undefined,fuzzer", "-fno-sanitize-recover=undefined",
            "-Wno-missing-field-initializers",
            f"-I{sysconfig.get_path('include')}", str(HERE / target), "-o", str(folder / "fuzz"), f"-L{python}",
            f"-lpython{sysconfig.get_python_version()}", f"-Wl,-rpath,{python}", *libraries,
        ],
        check=True,
    )  # fmt: skip
    print(folder)
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    environment = os.environ | {
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONHOME": sys.base_prefix,
        "MIAOPI_FUZZ_PLANS": str(folder / "plans"),
    }
    sys.exit(subprocess.run([folder / "fuzz", *options, corpus], env=environment).returncode)


def _conversations() -> list[bytes]:
    """What a client says: requests whole and half, several, given up, with pings, settings, windows, a goodbye."""
    talks = []
    for n in range(6):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        client.send_headers(1, HEADERS, end_stream=n == 5)
        if n < 5:
            client.send_data(1, bytes(4) + b"\x05hello", end_stream=n != 1)
        if n == 2:
            client.send_headers(3, HEADERS)
            client.send_data(3, (500).to_bytes(5, "big") + bytes(500), end_stream=True)
            client.reset_stream(1)
        if n == 3:
            client.ping(b"12345678")
            client.update_settings({4: 100})
            client.increment_flow_control_window(1000)
        if n == 4:
            client.close_connection()
        talks.append(client.data_to_send())
    return talks


if __name__ == "__main__":
    typer.run(main)
