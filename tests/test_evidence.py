"""Evidence comes out as it was put in, and what was stored before it said the outcome is read still."""

import json
import struct

import numpy as np

from features import evidence
from features.evidence import Facts

ROW = np.array([1.5, np.nan, -0.0], dtype=np.float32)


def test_comes_out_as_it_was_put_in() -> None:
    facts = Facts("b", "p", "s", "e", 7, 6, 1_750_000_000_000, {"tax": 3}, "LIMIT", 0.1 + 0.2, evidence.known(np.nan))
    found, row = evidence.unpack(evidence.pack(facts, ROW))
    assert found == facts and found.fraud_probability == 0.1 + 0.2 and found.default_probability is None
    assert row.tobytes() == ROW.tobytes()
    assert "NaN" not in evidence.pack(facts, ROW).decode("latin-1")  # JSON has none


def test_evidence_without_what_was_decided_is_read() -> None:
    facts = Facts("b", "p", "s", "e", 7, 6, 5, {})._asdict()
    for name in ("outcome", "fraud_probability", "default_probability"):
        del facts[name]
    text = json.dumps(facts).encode()
    found, _ = evidence.unpack(struct.pack("<I", len(text)) + text + ROW.tobytes())
    assert (found.sequence, found.outcome, found.fraud_probability) == (7, None, None)
