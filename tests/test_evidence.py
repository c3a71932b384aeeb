"""Evidence comes out as it was put in, and what was stored before it was packed by columns is read still."""

import json
import struct

import numpy as np

from features import evidence
from features.evidence import Columns, Facts, Shared

ROWS = np.array([[1.5, np.nan, -0.0], [0.1, 2, 3]], dtype=np.float32)


def test_comes_out_as_it_was_put_in() -> None:
    asked = {name: np.array([5, 6]) for name in evidence.ASKED} | {
        "repayment": np.array(["bullet", "interest_only"], "S")
    }
    columns = Columns(
        np.array([7, 2**62]), np.array([6, 2]), np.array([1_750_000_000_000, 1]), np.array([[0, 3], [4, 5]]),
        np.array(["LIMIT", "REVIEW"], "S"), np.array([0.1 + 0.2, np.nan]), np.array([np.nan, 0]), [9, 0],
        [0.24, 0], ["AAA", ""], asked, [11, 12], [[8], [2**53]],
        np.array([np.nan, 0.5]), np.array([[1, 0, 2], [0, 0, 0]]), ["A\0B", ""],
    )  # fmt: skip
    packed = evidence.pack(Shared("b", "p", "s", "e", ("bureau", "tax"), ("bank",)), columns, ROWS)
    asked_first = dict.fromkeys(evidence.ASKED, 5) | {"repayment": "bullet"}
    first, row = evidence.unpack(packed[0])
    assert first == Facts(
        "b", "p", "s", "e", 7, 6, 1_750_000_000_000, {"tax": 3}, "LIMIT", 0.1 + 0.2, None, 9, 0.24, "AAA", asked_first,
        11, {"bank": 8}, None, [1, 0, 2], ["A", "B"],
    )  # fmt: skip
    assert row.tobytes() == ROWS[0].tobytes()
    second, row = evidence.unpack(packed[1])
    assert second == Facts(
        "b", "p", "s", "e", 2**62, 2, 1, {"bureau": 4, "tax": 5}, "REVIEW", None, 0.0, 0, 0.0, "",
        dict.fromkeys(evidence.ASKED, 6) | {"repayment": "interest_only"}, 12, {"bank": 2**53}, 0.5, [0, 0, 0], [],
    )  # fmt: skip
    assert row.tobytes() == ROWS[1].tobytes()


def test_evidence_that_was_all_json_is_read() -> None:
    facts = Facts("b", "p", "s", "e", 7, 6, 5, {})._asdict()
    for name in ("outcome", "fraud_probability", "default_probability"):
        del facts[name]
    text = json.dumps(facts).encode()
    found, row = evidence.unpack(struct.pack("<I", len(text)) + text + ROWS[0].tobytes())
    assert (found.sequence, found.outcome, found.fraud_probability) == (7, None, None)
    assert row.tobytes() == ROWS[0].tobytes()
