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
import hpack
import typer

HERE = Path(__file__).parent
HEADERS = [
    (":method", "POST"), (":scheme", "http"), (":path", "/s/Echo"), (":authority", "x"), ("te", "trailers"),
    ("content-type", "application/grpc"), ("grpc-timeout", "1S"), ("x-bin", "AA"),
]  # fmt: skip
HOW = (0, 1, 2, 4, 7, 16, 31, 32, 58, 64, 127)  # first byte: see fuzz.c
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def main(seconds: int = typer.Option(60, min=1)) -> None:
    """Build, seed and run; the exit status is libFuzzer's."""
    run(
        "fuzz.c", [bytes([how]) + talk for talk in _conversations() + _frames() for how in HOW], seconds, ("-lnghttp2",)
    )


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


def _frames() -> list[bytes]:
    """What h2 would not send: headers in pieces and with padding, of every kind that is refused, and frames that break
    the protocol on their own stream or the whole connection.
    """
    encoder = hpack.Encoder()
    block, body = encoder.encode(HEADERS), bytes(4) + b"\x05hello"
    changed = [
        [(":method", "GET")], [("content-type", "text/html")], [("grpc-encoding", "gzip")], [("grpc-timeout", "9x")],
        [("grpc-timeout", "99999999H")], [(":path", "/s/None")], [("x", "y" * 2000)], [("te", "gzip")],
        [(f"x{n}", "") for n in range(70)],
    ]  # fmt: skip
    blocks = [hpack.Encoder().encode([*{**dict(HEADERS), **dict(more)}.items()]) for more in changed]
    whole = _frame(1, 4, 1, block) + _frame(0, 1, 1, body)
    talks = [_frame(1, 4, 1, other) + _frame(0, 1, 1, body) for other in blocks]
    talks += [
        _frame(1, 0, 1, block[:5]) + _frame(9, 0, 1, block[5:9]) + _frame(9, 4, 1, block[9:]) + _frame(0, 1, 1, body),
        _frame(1, 0, 1, block) + _frame(9, 0, 1) * 30,
        _frame(1, 0x2C, 1, b"\x03" + bytes(5) + block + bytes(3)) + _frame(0, 9, 1, b"\x02" + body + bytes(2)),
        _frame(1, 4, 1, block) + _frame(0, 0, 1, body) + _frame(1, 5, 1, hpack.Encoder().encode([("a", "b")])),
        _frame(1, 4, 1, block) + _frame(0, 0, 1, body[:3]) * 2 + _frame(0, 1, 1, body[3:]),
        _frame(1, 4, 1, block) + _frame(0, 0, 1) * 20 + _frame(0, 1, 1, b"\xff" * 5),
        whole + _frame(8, 0, 1, b"\x7f\xff\xff\xff") + _frame(8, 0, 0, b"\x7f\xff\xff\xff"),
        whole + _frame(0, 1, 1, body) + _frame(2, 0, 3, bytes(5)) + _frame(77, 255, 9, b"unknown"),
        whole + _frame(4, 0, 0, b"\x00\x04\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\x00\x05\x00\xff\xff\xff"),
        whole + _frame(6, 0, 0, bytes(8)) * 20 + _frame(4, 0, 0) * 20 + _frame(7, 0, 0, bytes(8)),
        b"".join(_frame(1, 5, n, encoder.encode(HEADERS)) + _frame(3, 0, n, b"\0\0\0\x08") for n in range(3, 90, 2)),
        b"".join(_frame(1, 4, n, encoder.encode(HEADERS)) for n in range(91, 151, 2)),
        _frame(1, 5, 1, b"\x3f\xff\xff\xff\x7f") + _frame(5, 4, 1, bytes(8)) + _frame(0, 1, 2, b"x"),
    ]
    return [GREETING + _frame(4, 0, 0) + talk for talk in talks]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


if __name__ == "__main__":
    typer.run(main)
